"""Every request to the system fails once: the index stays at a commit, and nothing leaks."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asmk_engine.errors import AsmkError, FormatError, NotFoundError
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.inverted.index import Index
from asmk_engine.maintenance.checking import check_index
from disks import CountedDisk, fast_disk
from histories import Answer, Step, feature_sets, observe, small_codebook, small_limits, steps, write_on

ERRORS = [OSError(number, os.strerror(number)) for number in
          (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EINTR, errno.EACCES)]  # fmt: skip
FAULTS = [*ERRORS, MemoryError()]
STRIDE = 9


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Step]]:
    small_limits(monkeypatch)
    fast_disk(monkeypatch)
    gc.freeze()  # what other tests left need not be looked through every time
    yield list(steps(feature_sets(tmp_path / "features")))
    gc.unfreeze()


def _states(step: Step, path: Path) -> dict[int, Answer]:
    """What is seen at the commit before a step, and at each that it makes; the step is done."""
    states = {}
    publish = Index._publish

    def observed(self: Index, manifest: Manifest) -> None:
        publish(self, manifest)
        states[manifest.commit] = observe(path)

    if path.exists():
        states[Index.open(path).snapshot.manifest.commit] = observe(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Index, "_publish", observed)
        step[1](path)
    states[Index.open(path).snapshot.manifest.commit] = observe(path)
    return states


def _open_files(folder: Path) -> list[str]:
    """The files below a folder that this process has open, those removed included; others' files do not matter."""
    gc.collect()
    opened = Path("/proc/self/fd")
    targets = [_target(descriptor) for descriptor in opened.iterdir()] if opened.exists() else []
    return [target for target in targets if target.startswith(f"{folder}{os.sep}")]


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:  # closed meanwhile
        return ""


def _settled(folder: Path, seconds: float = 20.0) -> bool:
    """Whether no file of a folder is open any more, once the tasks that were under way have ended."""
    end = time.monotonic() + seconds
    while _open_files(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _fail(step: Step, path: Path, number: int, fault: BaseException) -> bool:
    """Do a step whose request `number` fails; returns whether there was one."""

    def react(count: int) -> None:
        if count == number:
            raise fault

    with pytest.MonkeyPatch.context() as patch:
        disk = CountedDisk(patch, react)
        try:
            step[1](path)
        except AsmkError as error:
            assert "\n" not in str(error)
        except MemoryError:
            assert fault is FAULTS[-1]
        fault.__traceback__ = fault.__context__ = None
    return disk.count >= number


def _is_sound(path: Path, states: dict[int, Answer]) -> None:
    try:
        commit = Index.open(path).snapshot.manifest.commit
    except (NotFoundError, FormatError):
        assert 1 in states  # the creation failed, and can be repeated
        Index.create(path, small_codebook())
    else:
        assert observe(path) == states[commit]
        assert check_index(path).clean
    write_on(path)


def _torture(life: list[Step], folder: Path, stride: int, faults: int) -> int:
    cases = 0
    path, before, broken = folder / "index", folder / "before", folder / "broken"
    for step in life:
        if path.exists():
            shutil.copytree(path, before, dirs_exist_ok=False)
        states = _states(step, path)
        number, there = 1 + cases % stride, True
        while there:
            for turn in range(faults):
                shutil.rmtree(broken, ignore_errors=True)
                if before.exists():
                    shutil.copytree(before, broken)
                there = _fail(step, broken, number, FAULTS[(number + turn) % len(FAULTS)])
                assert _settled(broken)
                _is_sound(broken, states)
                cases += 1
            number += stride
        shutil.rmtree(before, ignore_errors=True)
    return cases


def test_any_request_may_fail(life: list[Step], tmp_path: Path) -> None:
    assert _torture(life, tmp_path, STRIDE, 1) > 60


@pytest.mark.slow
def test_every_request_fails_in_every_way(life: list[Step], tmp_path: Path) -> None:
    print(_torture(life, tmp_path, 1, len(FAULTS)), "failures")
