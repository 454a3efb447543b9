"""Indexes that earlier versions wrote still open and give the same answers; the fixtures are never rewritten.

Each folder of tests/frozen holds an index of one format and the answers it gave; a new format gets a new folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asmk_engine.flat import Expansion, GlobalIndex, GlobalSearcher
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.snapshot import geometry_by_place
from asmk_engine.maintenance.checking import check_index
from fused_histories import QUERIES
from global_samples import global_images
from samples import random_images

FROZEN = Path(__file__).parent / "frozen"


@pytest.mark.parametrize("name", ["format-1", "format-3", "aggregate-4", "separate-4"])
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


def check_frozen_geometry(index: Index | FusedIndex, expected: dict[str, Any]) -> None:
    """Compare the geometry of the local features of all images with what was recorded."""
    local = index.snapshot.views[0] if isinstance(index, FusedIndex) else index.snapshot
    for name in index.names:
        place = index.snapshot.find(name)
        found = place and geometry_by_place(local, *place)  # type: ignore[arg-type]
        assert (found is None) == (expected[name] is None)
        if found is not None:
            assert found.words.tolist() == expected[name]["words"]
            assert [f"{int(code):06x}" for code in found.codes[:, 0]] == expected[name]["codes"]
            places = np.array(expected[name]["places"], np.float32).reshape(-1, 4)
            assert np.allclose(found.places[:, :3], places[:, :3], rtol=1e-5, atol=1e-4)
            assert np.isnan(found.places[:, 3]).all()  # features without angles
            assert list(found.image_size) == expected[name]["size"]


def test_frozen_geometry_is_as_it_was(tmp_path: Path) -> None:
    """Six features of each image; the first two images are from before geometry was kept."""
    shutil.copytree(FROZEN / "format-3", tmp_path / "frozen")
    index = Index.open(tmp_path / "frozen" / "photos.index")
    expected = json.loads((FROZEN / "format-3" / "answers.json").read_text())["geometry"]
    assert index.geometry == 6 and list(expected.values()).count(None) == 2
    for _ in range(2):
        check_frozen_geometry(index, expected)
        assert check_index(index.path).clean
        index.merge()


def test_frozen_angles_are_as_they_were(tmp_path: Path) -> None:
    """Images with angles in one segment, without in another; merged, none is invented."""
    shutil.copytree(FROZEN / "angles-3", tmp_path / "frozen")
    index = Index.open(tmp_path / "frozen" / "photos.index")
    expected = json.loads((FROZEN / "angles-3" / "answers.json").read_text())
    for _ in range(2):
        assert index.names == list(expected)
        for name, places in expected.items():
            place = index.snapshot.find(name)
            found = place and geometry_by_place(index.snapshot, *place)
            assert found is not None
            wanted = np.array(places, np.float64).reshape(-1, 4)
            assert np.allclose(found.places, wanted, rtol=1e-5, atol=1e-4, equal_nan=True)
        assert check_index(index.path).clean
        index.merge()


def test_a_frozen_index_of_two_kinds_with_geometry_answers_as_it_did(tmp_path: Path) -> None:
    """Four features of each image; the first two images are from before, and one has no local features."""
    shutil.copytree(FROZEN / "fused-3", tmp_path / "frozen")
    index = FusedIndex.open(tmp_path / "frozen" / "photos.index")
    expected = json.loads((FROZEN / "fused-3" / "answers.json").read_text())
    assert index.geometry == 4 and list(expected["geometry"].values()).count(None) == 3
    for _ in range(2):
        assert index.names == expected["names"]
        for hits, found in zip(expected["hits"], FusedSearcher(index).search(QUERIES, None), strict=True):
            assert [hit.name for hit in found] == [name for name, _ in hits]
            assert [hit.score for hit in found] == pytest.approx([score for _, score in hits], abs=1e-6)
        check_frozen_geometry(index, expected["geometry"])
        assert check_index(index.path).clean
        index.merge()


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
