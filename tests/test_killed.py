"""A real process that is killed while it writes: nothing it acknowledged is missing, nothing unknown appears."""

from __future__ import annotations

import contextlib
import os
import random
import time
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from asmk_engine.inverted.index import Index
from histories import nursery, observe, small_codebook, write_on
from ingesting import ingest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
ROUNDS = 10
MANY_ROUNDS = 200


def _killed(context: BaseContext, path: Path, seed: int, certain: set[str]) -> tuple[set[str], set[str]]:
    """Let a process write and kill it; the names that are there for certain, and those that may be there."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=ingest, args=(path, seed, there))
    process.start()
    there.close()
    assert here.poll(60), "the process never began"
    time.sleep(random.Random(seed).expovariate(8))
    process.kill()
    process.join()
    open_deed: tuple[str, list[str]] | None = None
    with contextlib.suppress(EOFError):
        while True:
            word, deed, names = here.recv()
            open_deed = None if word == "done" else (deed, names)
            if word == "done" and deed != "merge":
                certain = certain | {*names} if deed == "add" else certain - {*names}
    here.close()
    possible = set(certain)
    if open_deed and open_deed[0] == "add":
        possible |= {*open_deed[1]}
    elif open_deed and open_deed[0] == "delete":
        certain = certain - {*open_deed[1]}
    return certain, possible


def _rounds(context: BaseContext, path: Path, count: int) -> int:
    Index.create(path, small_codebook())
    certain: set[str] = set()
    kept = 0
    for seed in range(count):
        certain, possible = _killed(context, path, seed, certain)
        names = {*Index.open(path).names}
        assert certain <= names <= possible
        kept += len(names)
        assert {name for hits in observe(path)[1] for name, _ in hits} <= names
        certain = names
    write_on(path)
    return kept


def test_nothing_is_lost_when_the_writer_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _rounds(nursery(monkeypatch), tmp_path / "index", ROUNDS) > ROUNDS


@pytest.mark.slow
def test_nothing_is_lost_in_many_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    print(_rounds(nursery(monkeypatch), tmp_path / "index", MANY_ROUNDS), "images found after", MANY_ROUNDS, "kills")
