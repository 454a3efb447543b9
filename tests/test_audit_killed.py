"""An audit whose process is killed in each of its stages: the same command goes on, and ends with the same report."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from asmk_engine.audit import report_again
from asmk_engine.audit.judgements import JudgementJournal
from asmk_engine.audit.pictures import DRAWN_OF
from asmk_engine.audit.state import PICTURES, STATE, WORK, read_state
from audit_samples import Sides, drawn_sides
from auditing import audit_by_command, whole_command

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
LONGEST, ROUNDS, MANY_ROUNDS = 300, 5, 40
STAGES = (
    f"{WORK}/train.features", f"{WORK}/train-queries.features", f"{WORK}/train.index", f"{WORK}/candidates",
    f"{WORK}/pairs", PICTURES, STATE, "report.html",
)  # fmt: skip
"""What appears when a stage begins, in this order."""


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return drawn_sides(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> BaseContext:
    """Starts processes that have imported everything already."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["auditing"])
    return context


class Started:
    """A process that audits; with `killed` it is killed, else it must end well."""

    def __init__(self, context: BaseContext, words: list[str]) -> None:
        self._ended, there = context.Pipe(duplex=False)
        self._process = context.Process(target=audit_by_command, args=(words, there))  # type: ignore[attr-defined]
        self._process.start()
        there.close()

    def seen(self, path: Path) -> bool:
        """Wait until a file is there, or the process ended; returns whether the file is there."""
        until = time.monotonic() + LONGEST
        while not path.exists() and self._process.is_alive() and time.monotonic() < until:
            time.sleep(0.002)
        return path.exists()

    def killed_after(self, seconds: float) -> bool:
        """Kill the process after this time; returns whether it was still running."""
        self._process.join(seconds)
        was_running = self._process.is_alive()
        self._process.kill()
        self._process.join()
        return was_running

    def ended_well(self) -> None:
        """Wait for the end."""
        assert self._ended.poll(LONGEST)
        assert self._ended.recv() is True
        self._process.join()


def files_of(folder: Path) -> dict[str, bytes]:
    """All that an audit leaves for people and programs, but for what only a later run reads."""
    kept = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {str(name): data for name, data in kept.items() if name.parts[0] not in (WORK, "lock")}


def answered(folder: Path) -> None:
    """Answer the questions, each in a way that follows from its key."""
    with JudgementJournal(folder) as journal:
        for key in read_state(folder).questions.keys:
            journal.add(key, "Ann", ("same", "different", "unsure")[int(key, 16) % 3])
    report_again(folder)
    (folder / "judgements.jsonl").unlink()  # it says when


def test_an_audit_that_is_killed_in_each_stage_ends_as_one(nursery: BaseContext, sides: Sides, tmp_path: Path) -> None:
    words = {name: whole_command(sides.train, sides.test, tmp_path / name) for name in ("whole", "killed")}
    Started(nursery, words["whole"]).ended_well()
    rng = random.Random(0)
    kills = 0
    for stage in STAGES:
        process = Started(nursery, words["killed"])
        assert process.seen(tmp_path / "killed" / stage), stage
        kills += process.killed_after(rng.expovariate(30))
    assert kills >= 4  # the last stages are too short to be hit each time
    Started(nursery, words["killed"]).ended_well()
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("*.tmp")) + list((tmp_path / "killed" / PICTURES).glob("*.tmp"))
    for name in words:
        answered(tmp_path / name)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert (tmp_path / "killed" / "removed.txt").read_bytes()
    assert (tmp_path / "killed" / PICTURES / DRAWN_OF).exists()


def _rounds(nursery: BaseContext, sides: Sides, folder: Path, kills: int, seed: int) -> int:
    """Kill the same command at random moments, and compare what it leaves at last; returns how often it was hit.

    The moments are counted from the first file of an audit, since processes start faster once the first one has.
    """
    sift = ("--verify", "sift")
    whole, killed = (whole_command(sides.train, sides.test, folder / name, *sift) for name in ("whole", "killed"))
    process = Started(nursery, whole)
    assert process.seen(folder / "whole" / STAGES[0])
    begun = time.monotonic()
    process.ended_well()
    seconds, rng, hits = time.monotonic() - begun, random.Random(seed), 0
    for share in sorted(rng.random() for _ in range(kills)):  # early ones first: each run is shorter
        process = Started(nursery, killed)
        assert process.seen(folder / "killed" / STAGES[0])
        hits += process.killed_after(share * seconds / 2)
    Started(nursery, killed).ended_well()
    assert files_of(folder / "killed") == files_of(folder / "whole")
    return hits


def test_an_audit_that_is_killed_at_random_moments_ends_as_one(
    nursery: BaseContext, sides: Sides, tmp_path: Path
) -> None:
    assert _rounds(nursery, sides, tmp_path, ROUNDS, 0) > 0


@pytest.mark.slow
def test_many_audits_that_are_killed_end_as_one(nursery: BaseContext, sides: Sides, tmp_path: Path) -> None:
    hits = [_rounds(nursery, sides, tmp_path / str(seed), ROUNDS, seed) for seed in range(MANY_ROUNDS)]
    print(sum(hits), "kills of", MANY_ROUNDS, "audits")
