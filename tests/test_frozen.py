"""Indexes that earlier versions wrote still open and give the same answers; the fixtures are never rewritten.

Each folder of tests/frozen holds an index of one format and the answers it gave; a new format gets a new folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asmk_engine.flat import Expansion, GlobalIndex, GlobalSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.maintenance.checking import check_index
from global_samples import global_images
from samples import random_images

FROZEN = Path(__file__).parent / "frozen"


@pytest.mark.parametrize("name", ["format-1"])
def test_a_frozen_index_answers_as_it_did(name: str, tmp_path: Path) -> None:
    shutil.copytree(FROZEN / name, tmp_path / name)
    index = Index.open(tmp_path / name / "photos.index")
    expected = json.loads((FROZEN / name / "answers.json").read_text())
    assert index.names == expected["names"]
    searcher = Searcher(index, multiple_assignment=3)
    for hits, features in zip(expected["hits"], random_images(4, 24, seed=9).values(), strict=True):
        found = searcher.search(features, None)
        assert [hit.name for hit in found] == [name for name, _ in hits]
        assert [hit.score for hit in found] == pytest.approx([score for _, score in hits], abs=1e-12)
    for segment in index.snapshot.segments:
        segment.file.verify()
    index.merge()
    assert index.names == expected["names"]


@pytest.mark.parametrize("kind", ["half", "product"])
def test_a_frozen_global_index_answers_as_it_did(kind: str, tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "global-1", tmp_path / "frozen")
    index = GlobalIndex.open(tmp_path / "frozen" / f"{kind}.index")
    expected = json.loads((FROZEN / "global-1" / "answers.json").read_text())[kind]
    for _ in range(2):
        searcher = GlobalSearcher(index, Expansion(2))
        for hits, features in zip(expected["hits"], global_images(4, seed=9).values(), strict=True):
            found = searcher.search(features, None)
            assert [hit.name for hit in found] == [name for name, _ in hits]
            assert [hit.score for hit in found] == pytest.approx([score for _, score in hits], abs=1e-6)
        assert index.names == expected["names"] and check_index(index.path).clean
        index.merge()
