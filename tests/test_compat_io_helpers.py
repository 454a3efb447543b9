"""The drop-in's helpers around the method: progress, logs, captured output, downloads, overlaid parameters."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asmk_engine.compat import io_helpers
from asmk_engine.errors import InputError, NotFoundError, StorageError


def test_progress_of_what_has_no_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(io_helpers.progress((n for n in range(3)), size=3, header="Index")) == [0, 1, 2]
    assert "Index: 100%" in capsys.readouterr().err
    for silent in (None, 0):
        assert list(io_helpers.progress(range(3), frequency=silent, header="Index")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


@pytest.fixture
def quiet_logger() -> Iterator[None]:
    yield
    logger = logging.getLogger("ASMK")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.usefixtures("quiet_logger")
def test_a_logger_tells_everything_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first.log", "second.log"):
        logger = io_helpers.init_logger(tmp_path / name)
    logger.info("shown")
    logger.debug("kept")
    assert capsys.readouterr().out == "ASMK INFO: shown\n"
    assert (tmp_path / "first.log").read_text() == ""
    lines = (tmp_path / "second.log").read_text().splitlines()
    assert [line.split(" ASMK ")[1] for line in lines] == ["INFO: shown", "DEBUG: kept"]
    assert len(io_helpers.init_logger(None).handlers) == 1
    with pytest.raises(StorageError, match=r"missing.*cannot write a log"):
        io_helpers.init_logger(tmp_path / "missing" / "a.log")


@pytest.mark.usefixtures("quiet_logger")
def test_what_is_printed_is_told_also_where_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    logger = io_helpers.init_logger(None)
    io_helpers.capture_stdout(lambda: print("one\ntwo"), logger)
    assert capsys.readouterr().out == "ASMK INFO: one\nASMK INFO: two\n"

    def fail() -> None:
        print("before")
        raise ValueError

    with pytest.raises(ValueError):
        io_helpers.capture_stdout(fail, logger)
    print("after")
    assert capsys.readouterr().out == "ASMK INFO: before\nafter\n"


def test_parameters_are_laid_over_others() -> None:
    below, above = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}, "f": None}
    assert io_helpers.dict_deep_overlay(below, above) == {"a": {"b": 4, "c": 2}, "d": {"e": 5}, "f": None}
    assert below == {"a": {"b": 1, "c": 2}, "d": 3} and above["a"] == {"b": 4}
    assert io_helpers.dict_deep_overlay(below, 7) == 7 and io_helpers.dict_deep_overlay(None, below) == below


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served" / "sub").mkdir(parents=True)
    (tmp_path / "served" / "sub" / "a.pkl").write_bytes(b"content")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_files_are_fetched_that_are_not_there(address: str, tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        io_helpers.download_files(["sub/a.pkl"], tmp_path / "here", address, logfunc=told.append)
    assert (tmp_path / "here" / "sub" / "a.pkl").read_bytes() == b"content"
    assert told == ["Downloading file 'sub/a.pkl'"]
    with pytest.raises(NotFoundError):
        io_helpers.download_files(["b.pkl"], tmp_path / "here", address)
    with pytest.raises(InputError, match="http"):
        io_helpers.download_files(["b.pkl"], tmp_path / "here", "file:///etc/")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["sub"]
