"""Two processes search while a third adds, deletes and merges: every answer is that of some commit."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from asmk_engine.indexes.manifest import Manifest
from asmk_engine.inverted.index import Index
from histories import NAMES, Answer, nursery, observe, queries, signed, small_codebook
from reading import read

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be removed there")


def _write(path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> dict[int, Answer]:
    """Change the index at random; what is to be seen at each commit, those inside a change included."""
    states = {1: observe(path)}
    publish = Index._publish

    def observed(self: Index, manifest: Manifest) -> None:
        publish(self, manifest)
        states[manifest.commit] = observe(path)

    monkeypatch.setattr(Index, "_publish", observed)
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 3)
    index, rng, end = Index.open(path), random.Random(0), time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or len(states) < 30:
        deed = rng.choice(("add", "add", "delete", "merge"))
        if deed == "add":
            number += 1
            index.add_signatures([(f"{number}.jpg", signed(rng.choice(NAMES)))])
        elif deed == "delete" and index.images > 4:
            index.delete(rng.sample(index.names, 2))
        elif deed == "merge":
            index.merge()
    return states


def _read_while_writing(path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Searches made and commits seen."""
    context = nursery(monkeypatch)
    Index.create(path, small_codebook())
    queries()
    pipes, processes = [], []
    for seed in range(2):
        here, there = context.Pipe()
        process = context.Process(target=read, args=(path, seed, there))
        process.start()
        assert here.poll(60) and here.recv() == "ready"
        pipes.append(here)
        processes.append(process)
    states = _write(path, seconds, monkeypatch)
    searches, commits = 0, set()
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send("stop")
        assert pipe.poll(60)
        seen, count = pipe.recv()
        process.join()
        assert process.exitcode == 0
        assert all(states[commit][:2] == (names, hits) for commit, names, hits in seen)
        searches += count
        commits |= {commit for commit, *_ in seen}
    return searches, len(commits)


def test_every_answer_belongs_to_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches, commits = _read_while_writing(tmp_path / "index", 3, monkeypatch)
    assert searches > 20 and commits > 5


@pytest.mark.slow
def test_every_answer_belongs_to_a_commit_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches, commits = _read_while_writing(tmp_path / "index", 60, monkeypatch)
    print(f"{searches} searches, {commits} commits seen")
