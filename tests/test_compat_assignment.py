"""The drop-in with assignment through a graph of words, chosen for the process, for an index or in the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from asmk_engine.compat.asmk_method import ASMKMethod
from asmk_engine.compat.assignment import GraphIndex, choose_assignment, chosen_assignment
from asmk_engine.compat.codebook import Codebook
from asmk_engine.compat.index import FaissL2Index, IndexFlatL2, initialize_index
from asmk_engine.errors import InputError, MismatchError

WORDS, DIM = 1500, 24


@pytest.fixture(autouse=True)
def exact_afterwards() -> Iterator[None]:
    yield
    choose_assignment("exact")


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, DIM))
    drawn = centres[rng.integers(0, 60, WORDS)] + 0.5 * rng.normal(size=(WORDS, DIM))
    return drawn.astype(np.float32)


@pytest.fixture(scope="module")
def descriptors(points: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    drawn = points[rng.integers(0, WORDS, 600)] + 0.3 * rng.normal(size=(600, DIM))
    return drawn.astype(np.float32)


def method_of(points: np.ndarray, index: dict[str, Any]) -> ASMKMethod:
    params = {
        "index": index,
        "train_codebook": {"codebook": {"size": WORDS}},
        "build_ivf": {"quantize": {"multiple_assignment": 1}},
        "query_ivf": {"quantize": {"multiple_assignment": 5}},
    }
    return ASMKMethod.initialize_untrained(params).train_codebook(points)


def test_a_graph_finds_nearly_all_and_tells_their_distances(points: np.ndarray, descriptors: np.ndarray) -> None:
    flat, graph = IndexFlatL2(DIM), GraphIndex(points)
    flat.add(points)
    assert graph.ntotal == WORDS
    for k in (1, 5):
        expected, numbers = flat.search(descriptors, k)
        distances, found = graph.search(descriptors, k)
        assert (found == numbers).mean() > 0.95
        assert (distances.dtype, found.dtype) == (expected.dtype, numbers.dtype) == (np.float32, np.int64)
        wide = descriptors.astype(np.float64)[:, None] - points.astype(np.float64)[found]
        np.testing.assert_allclose(distances, (wide**2).sum(axis=2), rtol=1e-5)
        assert (distances >= expected * (1 - 1e-5)).all() and (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_array_equal(graph.search(descriptors[:9], WORDS)[1], flat.search(descriptors[:9], WORDS)[1])
    assert graph.search(descriptors[:0], 5)[1].shape == (0, 5)


def test_the_process_chooses_and_an_index_may_differ(points: np.ndarray) -> None:
    class OfAnotherProgram(FaissL2Index):
        def __init__(self) -> None:
            """As a program may write it that knows the original: its base class has nothing to initialise."""

    assert chosen_assignment() == "exact"
    assert isinstance(FaissL2Index().create_index(points), IndexFlatL2)
    assert isinstance(OfAnotherProgram().create_index(points), IndexFlatL2)
    assert isinstance(FaissL2Index(assignment="graph").create_index(points), GraphIndex)
    assert isinstance(initialize_index(assignment="graph").create_index(points), GraphIndex)
    choose_assignment("graph")
    assert isinstance(initialize_index(None).create_index(points), GraphIndex)
    assert isinstance(OfAnotherProgram().create_index(points), GraphIndex)
    assert isinstance(FaissL2Index(assignment="exact").create_index(points), IndexFlatL2)


@pytest.mark.parametrize("index", [{"gpu_id": None, "assignment": "graph"}, {"gpu_id": 0, "assignment": "graph"}])
@pytest.mark.filterwarnings("ignore:gpu_id")
def test_the_method_through_a_graph(index: dict[str, Any], points: np.ndarray, descriptors: np.ndarray) -> None:
    ids = np.repeat(np.arange(20), 30)
    method = method_of(points, index)
    assert isinstance(method.codebook.search_index, GraphIndex)
    exact = method_of(points, {"gpu_id": None})
    assert isinstance(exact.codebook.search_index, IndexFlatL2)
    np.testing.assert_array_equal(method.codebook.centroids, exact.codebook.centroids)
    found = method.build_ivf(descriptors, ids).query_ivf(descriptors, ids)
    expected = exact.build_ivf(descriptors, ids).query_ivf(descriptors, ids)
    np.testing.assert_array_equal(found[2][:, 0], np.arange(20))
    np.testing.assert_allclose(found[3][:, 0], expected[3][:, 0], atol=0.1)


def test_wrong_choices(points: np.ndarray) -> None:
    for wrong in (lambda: choose_assignment("fast"), lambda: FaissL2Index(assignment="")):
        with pytest.raises(InputError, match="choose exact or graph"):
            wrong()
    with pytest.raises(InputError, match="choose exact or graph"):
        method_of(points, {"gpu_id": None, "assignment": "auto"})
    graph = GraphIndex(points[:50])
    for k in (0, 51):
        with pytest.raises(InputError, match="the index holds 50"):
            graph.search(points[:2], k)
    with pytest.raises(MismatchError):
        graph.search(points[:2, 1:], 1)
    codebook = Codebook(FaissL2Index(assignment="graph"), size=2)
    with pytest.raises(InputError, match="not trained"):
        codebook.index()
