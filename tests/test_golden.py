"""Agreement with the score matrices of the public reference implementation: 1e-6, and the same rankings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.inverted.comparison import Comparison
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from samples import RECIPE, make_features, write_features

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not beside the project")
SETTINGS = {
    "default": (SelectiveMatch(), 5),
    "idf": (SelectiveMatch(idf=True), 5),
    "threshold": (SelectiveMatch(alpha=2.0, threshold=0.25), 3),
    "d64": (SelectiveMatch(), 1),
    "d256": (SelectiveMatch(), 5),
}


class Golden:
    """One golden file: codebook, named images and queries, and the reference's scores."""

    def __init__(self, name: str) -> None:
        data = np.load(GOLDEN / f"{name}.npz")
        dim = data["centroids"].shape[1]
        self.codebook = Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), data["centroids"], RECIPE)
        self.scores = data["scores"]
        self.images = self._group(data["db_descriptors"], data["db_image_ids"], self.scores.shape[1])
        self.queries = self._group(data["q_descriptors"], data["q_image_ids"], self.scores.shape[0])
        self.words, self.posting_images, self.norms = data["posting_words"], data["posting_images"], data["norm_factor"]

    @staticmethod
    def _group(descriptors: np.ndarray, numbers: np.ndarray, count: int) -> dict[str, Features]:
        return {f"{number:05d}": make_features(descriptors[numbers == number]) for number in range(count)}


def check_rankings(scores: np.ndarray, golden: np.ndarray) -> None:
    for mine, reference in zip(scores, golden, strict=True):
        order = np.argsort(-mine, kind="stable")
        assert (np.diff(reference[order]) <= 1e-6).all()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("parts", [1, 7])
def test_index_gives_the_scores_of_the_reference(name: str, parts: int, tmp_path: Path) -> None:
    golden = Golden(name)
    match, multiple_assignment = SETTINGS[name]
    index = Index.create(tmp_path / "index", golden.codebook)
    names = list(golden.images)
    for part in range(parts):
        images = {key: golden.images[key] for key in names[part::parts]}
        index.add(write_features(tmp_path / f"features-{part}", images))
    searcher = Searcher(index, match, multiple_assignment=multiple_assignment, threads=1)
    found = [searcher.scores(query) for query in golden.queries.values()]
    scores = np.array([[row[key] for key in names] for row in found])
    np.testing.assert_allclose(scores, golden.scores, rtol=0, atol=1e-6)
    check_rankings(scores, golden.scores)


def test_postings_are_those_of_the_reference(tmp_path: Path) -> None:
    golden = Golden("default")
    index = Index.create(tmp_path / "index", golden.codebook)
    index.add(write_features(tmp_path / "features", golden.images))
    (segment,) = index.snapshot.segments
    found = sorted(zip(segment.decode_words().tolist(), segment.decode_images().tolist(), strict=True))
    assert found == sorted(zip(golden.words.tolist(), golden.posting_images.tolist(), strict=True))
    np.testing.assert_array_equal(segment.word_counts, golden.norms)


def test_real_valued_kernel_gives_the_scores_of_the_reference() -> None:
    golden = Golden("float")
    comparison = Comparison(golden.codebook, "asmk-real", SelectiveMatch(), multiple_assignment=5)
    comparison.add(golden.images.items())
    found = [comparison.scores(query) for query in golden.queries.values()]
    scores = np.array([[row[key] for key in golden.images] for row in found])
    np.testing.assert_allclose(scores, golden.scores, rtol=0, atol=1e-6)
    check_rankings(scores, golden.scores)


def test_binary_comparison_equals_the_index() -> None:
    golden = Golden("default")
    comparison = Comparison(golden.codebook, "asmk", SelectiveMatch(), multiple_assignment=5)
    comparison.add(golden.images.items())
    found = [comparison.scores(query) for query in golden.queries.values()]
    scores = np.array([[row[key] for key in golden.images] for row in found])
    np.testing.assert_allclose(scores, golden.scores, rtol=0, atol=1e-6)
