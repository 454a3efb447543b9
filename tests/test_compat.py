"""The drop-in for asmk: its scores, the ways its users call and subclass it, and the files that it reads and writes."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import asmk_engine.compat as asmk
import naive
from asmk_engine.cli.interchange import import_
from asmk_engine.codebooks import Codebook as EngineCodebook
from asmk_engine.compat import asmk_method, io_helpers
from asmk_engine.compat import index as index_package
from asmk_engine.compat.asmk_method import ASMKMethod, IvfBuilder
from asmk_engine.compat.codebook import Codebook
from asmk_engine.compat.conversion import engine_codes, import_asmk
from asmk_engine.compat.inverted_file import IVF
from asmk_engine.compat.kernel import ASMKKernel, pack_signs
from asmk_engine.compat.parameters import parse_size
from asmk_engine.errors import AsmkError, DamagedError, DependencyError, FormatError, InputError, MismatchError
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.signatures import code_width
from asmk_engine.kernels.aggregate import residual_codes
from samples import make_features, random_codebook

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
GOLDEN_NAMES = ["d256", "d64", "default", "float", "idf", "threshold"]
WORDS, DIM = 16, 40  # 40 bits: not a multiple of 32


def parameters(
    size: object = WORDS,
    *,
    gpu_id: object = None,
    binary: bool = True,
    use_idf: bool = False,
    multiple_assignment: int = 5,
    topk: int | None = None,
    threshold: float = 0.0,
    alpha: float = 3.0,
) -> dict[str, Any]:
    """The parameter tree as every user writes it."""
    return {
        "index": {"gpu_id": gpu_id},
        "train_codebook": {"codebook": {"size": size}},
        "build_ivf": {
            "kernel": {"binary": binary},
            "ivf": {"use_idf": use_idf},
            "quantize": {"multiple_assignment": 1},
            "aggregate": {},
        },
        "query_ivf": {
            "quantize": {"multiple_assignment": multiple_assignment},
            "aggregate": {},
            "search": {"topk": topk},
            "similarity": {"similarity_threshold": threshold, "alpha": alpha},
        },
    }


def random_descriptors(images: int, dim: int = DIM, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors and image ids; image 2 has none, and the last image has one."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, images)
    counts[2], counts[-1] = 0, 1
    descriptors = rng.normal(size=(counts.sum(), dim)).astype(np.float32)
    return descriptors, np.repeat(np.arange(images), counts)


def random_centroids(words: int = WORDS, dim: int = DIM) -> np.ndarray:
    return random_codebook(words, dim).centroids


def write_pickle(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def codebook_pickle(folder: Path, centroids: np.ndarray, protocol: int = 4) -> Path:
    """A codebook as the original stores it."""
    state = {"type": "Codebook", "params": {"size": len(centroids)}, "state": {"centroids": centroids}}
    return write_pickle(folder / "X_codebook.pkl", state, protocol)


def trained(folder: Path, params: dict[str, Any] | None = None, centroids: np.ndarray | None = None) -> ASMKMethod:
    """The method after its first step, with a codebook that the original wrote."""
    path = codebook_pickle(folder, random_centroids() if centroids is None else centroids)
    return ASMKMethod.initialize_untrained(params or parameters()).train_codebook(None, cache_path=path)


def score_matrix(answer: tuple[Any, ...]) -> np.ndarray:
    """Scores [queries, images], put back from the order of the ranks as users do."""
    _, _, ranks, ranked = answer
    scores = np.empty_like(ranked)
    scores[np.arange(len(ranked))[:, None], ranks] = ranked
    return scores


# --- Scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not beside the project")
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_scores_of_the_original(name: str, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    said = dict(item.split("=") for item in str(golden["params"][0]).split())
    params = parameters(
        int(said["words"]),
        binary=said["binary"] == "True",
        use_idf=said["use_idf"] == "True",
        multiple_assignment=int(said["query_assignment"]),
        threshold=float(said["threshold"]),
        alpha=float(said["alpha"]),
    )
    method = trained(tmp_path, params, golden["centroids"])
    dataset = method.build_ivf(golden["db_descriptors"], golden["db_image_ids"])
    answer = dataset.query_ivf(golden["q_descriptors"], golden["q_image_ids"])
    np.testing.assert_allclose(score_matrix(answer), golden["scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(dataset.inverted_file.norm_factor, golden["norm_factor"], rtol=1e-6)
    assert (np.diff(np.take_along_axis(golden["scores"], answer[2], axis=1)) <= 1e-6).all()


def naive_images(descriptors: np.ndarray, ids: np.ndarray, centroids: np.ndarray, k: int) -> list[dict[int, Any]]:
    """word → summed residual for each image number."""
    groups = [descriptors[ids == image] for image in range(int(ids.max()) + 1)]
    return [
        naive.aggregate(group, [naive.nearest_words(d, centroids, k) for d in group], centroids) for group in groups
    ]


def binary_images(images: list[dict[int, Any]]) -> list[dict[int, list[int]]]:
    return [{word: naive.binarise(vector) for word, vector in image.items()} for image in images]


@pytest.mark.parametrize("use_idf", [False, True])
@pytest.mark.parametrize(("alpha", "threshold"), [(3.0, 0.0), (2.0, 0.1)])
def test_binary_scores_and_ranks_are_those_of_the_paper(
    use_idf: bool, alpha: float, threshold: float, tmp_path: Path
) -> None:
    database, queries, centroids = random_descriptors(12), random_descriptors(4, seed=1), random_centroids()
    params = parameters(use_idf=use_idf, alpha=alpha, threshold=threshold)
    answer = trained(tmp_path, params).build_ivf(*database).query_ivf(*queries)
    images = binary_images(naive_images(*database, centroids, 1))
    asked = [image for image in binary_images(naive_images(*queries, centroids, 5)) if image]
    weights = naive.idf_weights(images, WORDS) if use_idf else None
    expected = np.array([[naive.asmk_score(q, image, alpha, threshold, weights) for image in images] for q in asked])
    np.testing.assert_allclose(score_matrix(answer), expected, atol=1e-12)
    np.testing.assert_array_equal(answer[1], [0, 1, 3])
    for ranks, scores in zip(answer[2], score_matrix(answer), strict=True):
        assert ranks.tolist() == sorted(range(12), key=lambda image: (-scores[image], image))


def test_real_valued_scores_are_those_of_the_paper(tmp_path: Path) -> None:
    database, queries, centroids = random_descriptors(12), random_descriptors(4, seed=1), random_centroids()
    answer = trained(tmp_path, parameters(binary=False)).build_ivf(*database).query_ivf(*queries)
    images, asked = naive_images(*database, centroids, 1), naive_images(*queries, centroids, 5)
    expected = [[naive.real_asmk_score(q, image) for image in images] for q in asked if q]
    np.testing.assert_allclose(score_matrix(answer), expected, atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("use_idf", [True, False])
def test_images_added_one_by_one_score_as_those_added_at_once(binary: bool, use_idf: bool, tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(40)
    method = trained(tmp_path, parameters(binary=binary, use_idf=use_idf))
    builder = method.create_ivf_builder()
    for _, rows in io_helpers.slice_unique(ids):
        builder.add(descriptors[rows], ids[rows])
    by_one, at_once = method.add_ivf_builder(builder), method.build_ivf(descriptors, ids)
    expected, found = at_once.query_ivf(descriptors, ids), by_one.query_ivf(descriptors, ids)
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_array_equal(found[3], expected[3])
    np.testing.assert_array_equal(by_one.inverted_file.norm_factor, at_once.inverted_file.norm_factor)
    assert by_one.inverted_file.stats == at_once.inverted_file.stats


def test_images_of_several_ranges() -> None:
    """One posting an image, so that the score of an image follows from its own code alone."""
    rng = np.random.default_rng(0)
    count = 70_000
    words, codes = rng.integers(0, WORDS, count), rng.integers(0, 1 << 32, (count, 2), dtype=np.uint32)
    codes[:, 1] &= np.uint32(0xFF000000)
    inverted_file = IVF(WORDS, DIM)
    for begin, end in ((0, 66_000), (66_000, count)):
        inverted_file.add(codes[begin:end], words[begin:end], np.arange(begin, end))
    query = codes[:1]
    similarities: Callable[[np.ndarray], np.ndarray] = lambda s: np.maximum(s, 0.0)  # noqa: E731
    ranks, scores = inverted_file.search(query, words[:1], similarity_func=similarities, topk=500)
    distances = np.bitwise_count(codes ^ query).sum(axis=1)
    expected = np.where(words == words[0], np.maximum(1 - 2 * distances / DIM, 0.0), 0.0)
    order = np.argsort(-expected, kind="stable")[:500]
    np.testing.assert_array_equal(ranks, order)
    np.testing.assert_allclose(scores, expected[order], atol=1e-12)


def test_topk_cuts_the_ranking_and_keeps_the_order_of_ties(tmp_path: Path) -> None:
    database, queries = random_descriptors(12), random_descriptors(4, seed=1)
    dataset = trained(tmp_path, parameters(threshold=0.3)).build_ivf(*database)
    whole = dataset.query_ivf(*queries)
    for topk in (1, 5, 11, 12, 99):
        cut = dataset.query_ivf(*queries, step_params={"search": {"topk": topk}})
        np.testing.assert_array_equal(cut[2], whole[2][:, :topk])
        np.testing.assert_array_equal(cut[3], whole[3][:, :topk])
    dataset.params["query_ivf"]["search"]["topk"] = 3  # the way some users set it
    assert dataset.query_ivf(*queries)[2].shape == (3, 3)


def test_scores_accumulate_from_the_parts_of_a_method(tmp_path: Path) -> None:
    """As programs call it that keep codebook, kernel and inverted file apart, by place or by name."""
    database, queries = random_descriptors(12), random_descriptors(4, seed=1)
    dataset = trained(tmp_path, parameters(threshold=0.3)).build_ivf(*database)
    parts = dataset.codebook, dataset.kernel, dataset.inverted_file
    found = ASMKMethod.accumulate_scores(*parts, *queries, params=dataset.params["query_ivf"], progress=None)
    for mine, expected in zip(found, dataset.query_ivf(*queries)[1:], strict=True):
        np.testing.assert_array_equal(mine, expected)
    again = dataset.accumulate_scores(*parts, *queries, dataset.params["query_ivf"])
    np.testing.assert_array_equal(again[2], found[2])


@pytest.mark.parametrize("dim", [1, 32, 33, 40, 64, 100, 1024])
def test_codes_are_packed_as_the_original_packs_them(dim: int) -> None:
    sums = np.random.default_rng(dim).normal(size=(5, dim)).astype(np.float32)
    packed = pack_signs(sums)
    for row, code in zip(sums, packed, strict=True):
        text = "".join(f"{word:032b}" for word in code)
        assert text == "".join("1" if value > 0 else "0" for value in row).ljust(len(text), "0")
    codes = np.empty((5, code_width(dim)), np.uint64)
    rows = np.arange(5, dtype=np.int32)
    residual_codes(sums, np.zeros((1, dim), np.float32), rows, np.zeros(5, np.int32), codes)
    np.testing.assert_array_equal(engine_codes(packed, dim), codes)


# --- The ways it is called -------------------------------------------------------------------------------------------


def frozen(*arrays: np.ndarray) -> list[np.ndarray]:
    copies = [array.copy() for array in arrays]
    for copy in copies:
        copy.flags.writeable = False
    return copies


def test_metadata_shapes_and_arrays_of_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    descriptors, ids = frozen(*random_descriptors(12))
    method = ASMKMethod.initialize_untrained(parameters(8)).train_codebook(descriptors)
    builder = method.create_ivf_builder()
    builder.add(descriptors, ids, progress=1)
    dataset = method.add_ivf_builder(builder)
    metadata, queries, ranks, scores = dataset.query_ivf(descriptors, ids, progress=1)
    assert "Query: 100%" in capsys.readouterr().err
    assert {"index_class", "train_time", "cluster_time", "index_time"} <= method.metadata["train_codebook"].keys()
    assert {"index_time", "ivf_stats"} <= dataset.metadata["build_ivf"].keys()
    assert all(f"{value:.2f}" for value in dataset.metadata["build_ivf"]["ivf_stats"].values())
    assert dataset.inverted_file.stats["images"] == dataset.inverted_file.n_images == 12
    assert metadata["query_avg_time"] > 0
    assert (ranks.dtype, scores.dtype, ranks.shape) == (np.int64, np.float64, (len(queries), 12))
    assert method.inverted_file is None  # a step leaves the object it was called on as it was


def test_names_of_the_package() -> None:
    assert asmk.ASMKMethod is asmk_method.ASMKMethod
    assert asmk.index is index_package
    assert {"codebook", "kernel", "inverted_file", "hamming", "functional"} <= {*dir(asmk)}
    assert asmk.hamming.binarize_and_pack(np.ones(3, np.float32)).tolist() == [0xE0000000]
    with pytest.raises(AttributeError, match="distances"):
        _ = asmk.distances  # type: ignore[attr-defined]


def test_a_gpu_that_is_asked_for_gives_a_warning(tmp_path: Path) -> None:
    path = codebook_pickle(tmp_path, random_centroids())
    method = ASMKMethod.initialize_untrained(parameters(gpu_id=0))
    with pytest.warns(UserWarning, match="gpu_id 0 .* CPU"):
        method = method.train_codebook(None, cache_path=path)
    assert method.metadata["train_codebook"]["index_class"] == "FaissGpuL2Index"


def test_a_program_that_puts_its_own_index_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MASt3R does on machines without a GPU, here with 1024 dimensions."""
    faiss = index_package

    class CpuIndex(asmk.index.FaissL2Index):  # type: ignore[name-defined,misc]
        def __init__(self, gpu_id: int) -> None:
            super().__init__()
            self.gpu_id = gpu_id

        def _faiss_index_flat(self, dim: int) -> Any:
            return faiss.IndexFlatL2(dim)

    monkeypatch.setattr(asmk.index, "FaissGpuL2Index", CpuIndex)
    centroids, (descriptors, ids) = random_centroids(dim=1024), random_descriptors(6, dim=1024)
    method = trained(tmp_path, parameters(gpu_id=0), centroids)
    assert method.metadata["train_codebook"]["index_class"] == "CpuIndex"
    scores = score_matrix(method.build_ivf(descriptors, ids).query_ivf(descriptors, ids))
    images = binary_images(naive_images(descriptors, ids, centroids, 1))
    asked = [image for image in binary_images(naive_images(descriptors, ids, centroids, 5)) if image]
    np.testing.assert_allclose(scores, [[naive.asmk_score(q, image) for image in images] for q in asked], atol=1e-12)


def test_a_program_that_searches_the_centroids_itself() -> None:
    """A state instead of a file, an index of its own, and one builder that grows between the queries."""

    class Searched:
        def __init__(self, points: np.ndarray) -> None:
            self.points = points

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            distances = ((queries[:, None] - self.points) ** 2).sum(axis=2)
            numbers = np.argsort(distances, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(distances, numbers, axis=1), numbers

    class Factory(index_package.FaissL2Index):
        def create_index(self, points: np.ndarray, **options: Any) -> Searched:
            return Searched(points)

    state = {"type": "Codebook", "params": {"size": "16"}, "state": {"centroids": random_centroids()}}
    params, (descriptors, ids) = parameters(), random_descriptors(9)
    codebook = Codebook.initialize_from_state(state, index_factory=Factory())
    codebook.index()
    method = ASMKMethod(params, {}, codebook=codebook)
    plain = ASMKMethod(params, {}, codebook=Codebook.initialize_from_state(state))
    builder, grown = method.create_ivf_builder(), []
    for image, rows in io_helpers.slice_unique(ids):
        answer = method.add_ivf_builder(builder).query_ivf(descriptors[rows], np.zeros_like(ids[rows]))
        before = ids < image
        expected = plain.build_ivf(descriptors[before], ids[before]).query_ivf(descriptors[rows], 0 * ids[rows])
        np.testing.assert_array_equal(answer[3], expected[3])
        builder.add(descriptors[rows], ids[rows])
        grown.append(answer[2].shape[1])
    assert grown == [0, 1, 2, 4, 5, 6, 7, 8]
    assert index_package.initialize_index({"gpu_id": None}).__class__ is index_package.FaissL2Index


def test_a_program_that_goes_step_by_step(tmp_path: Path) -> None:
    """As a SLAM system does: words from elsewhere, images one at a time, a similarity wrapped in a function."""
    method = trained(tmp_path)
    descriptors, ids = random_descriptors(8)
    builder = method.create_ivf_builder()
    assert builder.ivf.n_images == 0
    step = method.params["query_ivf"]
    for image, rows in io_helpers.slice_unique(ids):
        words = method.codebook.quantize(descriptors[rows], multiple_assignment=5)[1].astype(np.int64)
        aggregated = builder.kernel.aggregate_image(descriptors[rows], words, **step["aggregate"])
        ranks, scores = builder.ivf.search(
            *aggregated,
            **step["search"],
            similarity_func=lambda *args: builder.kernel.similarity(*args, **step["similarity"]),
        )
        assert ranks.shape == scores.shape == (builder.ivf.n_images,)
        added = builder.kernel.aggregate(descriptors[rows], words[:, :1], ids[rows], **builder.step_params["aggregate"])
        builder.ivf.add(*added)
        assert builder.ivf.n_images == image + 1
    expected = method.build_ivf(descriptors, ids).query_ivf(descriptors, ids)
    np.testing.assert_array_equal(method.add_ivf_builder(builder).query_ivf(descriptors, ids)[3], expected[3])


def test_parts_made_by_hand() -> None:
    codebook = Codebook(None, size=1)
    codebook.centroids = np.zeros((1, 2), np.float32)
    kernel = ASMKKernel(codebook, binary=False)
    builder = IvfBuilder({"ivf": {"use_idf": False}}, codebook, kernel, cache_path=None)
    builder.ivf.add(np.eye(2, dtype=np.float32), np.array([0, 0]), np.array([0, 1]))
    vectors, words = kernel.aggregate_image(np.array([[3.0, 0.0]], np.float32), np.array([[0]]))
    ranks, scores = builder.ivf.search(vectors, words, topk=2, similarity_func=kernel.similarity)
    np.testing.assert_array_equal(ranks, [0, 1])
    np.testing.assert_allclose(scores, [1.0, 0.0], atol=1e-5)


def test_distractors_have_negative_ids(tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(10)
    far, near = ids < 4, ids >= 4
    method = trained(tmp_path, parameters(use_idf=True))
    method.build_ivf(descriptors[far], ids[far], cache_path=tmp_path / "far.ivf.pkl")
    names = frozen(ids[near] - 4)
    dataset = method.build_ivf(descriptors[near], names[0], distractors_path=tmp_path / "far.ivf.pkl")
    expected = method.build_ivf(descriptors, ids).query_ivf(descriptors, ids)
    found = dataset.query_ivf(descriptors, ids)
    np.testing.assert_array_equal(found[2], expected[2] - 4)
    np.testing.assert_array_equal(found[3], expected[3])
    assert found[2].min() == -4


def test_aggregates_are_kept_in_files_of_their_own(tmp_path: Path) -> None:
    """Steps in different processes: aggregated parts are stored, added in turn, and cached."""
    method = trained(tmp_path)
    descriptors, ids = random_descriptors(10)
    path = tmp_path / "all.ivf.pkl"
    builder = method.create_ivf_builder(cache_path=path)
    kernel = ASMKKernel(method.codebook, **method.params["build_ivf"]["kernel"])
    for part in (ids < 5, ids >= 5):
        quantized = method.codebook.quantize(descriptors[part], ids[part], multiple_assignment=1)
        stored = dict(zip(["des", "word_ids", "image_ids"], kernel.aggregate(*quantized), strict=True))
        io_helpers.save_pickle(tmp_path / "part.agg.pkl", stored)
        loaded = io_helpers.load_pickle(tmp_path / "part.agg.pkl")
        builder.ivf.add(loaded["des"], loaded["word_ids"], loaded["image_ids"])
    assert not path.exists()
    method.add_ivf_builder(builder)
    again = method.create_ivf_builder(cache_path=path)
    assert again.loaded_from_cache
    found = method.add_ivf_builder(again).query_ivf(descriptors, ids)
    np.testing.assert_array_equal(found[3], method.build_ivf(descriptors, ids).query_ivf(descriptors, ids)[3])


# --- Files -----------------------------------------------------------------------------------------------------------


def legacy_ivf(method: ASMKMethod, dtype: type = np.int64) -> dict[str, Any]:
    """The inverted file of a method in the form of the original: lists with room to grow, None for an empty one."""
    postings = method.inverted_file.postings()
    lists: list[Any] = [None] * postings.vocabulary
    ids, counts = list(lists), np.bincount(postings.words, minlength=postings.vocabulary)
    for word in np.flatnonzero(counts):
        rows = np.flatnonzero(postings.words == word)
        lists[word] = np.concatenate([postings.vectors[rows], postings.vectors[rows[:1]]])
        ids[word] = np.append(postings.images[rows], 0).astype(dtype)
    state = {
        "norm_factor": method.inverted_file.norm_factor,
        "n_images": method.inverted_file.n_images,
        "ivf_vecs": lists,
        "ivf_image_ids": ids,
        "counts": counts,
        "idf": method.inverted_file.idf,
        "imid_offset": method.inverted_file.imid_offset,
    }
    return {"type": "IVF", "params": {"use_idf": method.inverted_file.use_idf}, "state": state}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("binary", [True, False])
def test_pickles_of_the_original_are_read(protocol: int, binary: bool, tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(12)
    path = codebook_pickle(tmp_path, random_centroids(), protocol)
    method = ASMKMethod.initialize_untrained(parameters(binary=binary)).train_codebook(None, cache_path=str(path))
    assert "load_time" in method.metadata["train_codebook"]
    dataset = method.build_ivf(descriptors, ids)
    stored = write_pickle(tmp_path / "x.ivf.pkl", legacy_ivf(dataset, np.int32), protocol)
    loaded = method.build_ivf(None, None, cache_path=str(stored))
    assert "load_time" in loaded.metadata["build_ivf"]
    for mine, other in zip(
        loaded.query_ivf(descriptors, ids)[1:], dataset.query_ivf(descriptors, ids)[1:], strict=True
    ):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("binary", [True, False])
def test_caches_are_no_pickles(binary: bool, tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(12)
    untrained = ASMKMethod.initialize_untrained(parameters(8, binary=binary))
    codebook, stored = tmp_path / "new" / "X_codebook.pkl", tmp_path / "new" / "x.ivf.pkl"
    dataset = untrained.train_codebook(descriptors, cache_path=codebook).build_ivf(descriptors, ids, cache_path=stored)
    for path in (codebook, stored):
        with pytest.raises(pickle.UnpicklingError):
            pickle.loads(path.read_bytes())
    nothing = np.zeros((0, DIM), np.float32)
    loaded = untrained.train_codebook(nothing, cache_path=codebook).build_ivf(nothing, ids[:0], cache_path=stored)
    np.testing.assert_array_equal(loaded.codebook.centroids, dataset.codebook.centroids)
    np.testing.assert_array_equal(EngineCodebook.open(codebook).centroids, dataset.codebook.centroids)
    for mine, other in zip(
        loaded.query_ivf(descriptors, ids)[1:], dataset.query_ivf(descriptors, ids)[1:], strict=True
    ):
        np.testing.assert_array_equal(mine, other)


def test_an_inverted_file_without_images_is_stored(tmp_path: Path) -> None:
    method = trained(tmp_path, parameters(binary=False))
    method.add_ivf_builder(method.create_ivf_builder(cache_path=tmp_path / "empty"))
    builder = method.create_ivf_builder(cache_path=tmp_path / "empty")
    builder.add(*random_descriptors(4))
    assert builder.loaded_from_cache
    assert method.add_ivf_builder(builder).inverted_file.n_images == 4
    assert method.create_ivf_builder(cache_path=tmp_path / "empty").ivf.n_images == 4


def test_an_altered_cache_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.ivf.pkl"
    method = trained(tmp_path)
    method.build_ivf(*random_descriptors(12), cache_path=path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(AsmkError):
            method.build_ivf(None, None, cache_path=path)


def test_a_codebook_of_another_size_is_used_with_a_warning(tmp_path: Path) -> None:
    path = codebook_pickle(tmp_path, random_centroids())
    with pytest.warns(UserWarning, match="16 words, the parameters say 65536"):
        method = ASMKMethod.initialize_untrained(parameters("64k")).train_codebook(None, cache_path=path)
    assert method.codebook.size == WORDS


def test_a_codebook_that_whitens_is_refused(tmp_path: Path) -> None:
    plain = random_codebook(WORDS, DIM)
    path = tmp_path / "white.codebook.h5"
    EngineCodebook(plain.mean + 1, plain.projection, plain.centroids, plain.recipe).save(path)
    with pytest.raises(MismatchError, match="whitens"):
        ASMKMethod.initialize_untrained(parameters()).train_codebook(None, cache_path=path)


def test_values_of_all_kinds_are_stored(tmp_path: Path) -> None:
    value = {
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "dict": [None, True, 1, 2.5, "text", {"empty": np.empty((0, 4), np.float32)}],
        "scalar": np.float32(0.5),
    }
    io_helpers.save_pickle(tmp_path / "a", value)
    found = io_helpers.load_pickle(tmp_path / "a")
    np.testing.assert_array_equal(found["array"], value["array"])
    assert found["dict"][:5] == [None, True, 1, 2.5, "text"]
    assert found["dict"][5]["empty"].shape == (0, 4)
    assert found["scalar"] == 0.5
    for wrong in ({1: 2}, np.array([None]), object(), np.zeros(2, complex)):
        with pytest.raises(InputError):
            io_helpers.save_pickle(tmp_path / "b", wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Runs:
    """Unpickled by the standard reader, this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


def test_hostile_codebooks(tmp_path: Path) -> None:
    centroids = random_centroids()
    broken = centroids.copy()
    broken[0, 0] = np.nan
    wrong = [
        (FormatError, Runs()),
        (FormatError, {"type": "Codebook", "state": {"centroids": Runs()}}),
        (FormatError, {"type": "IVF", "state": {"centroids": centroids}}),
        (FormatError, {"type": np.zeros(3), "state": {}}),
        (FormatError, [1, 2]),
        (FormatError, {"type": "Codebook", "state": []}),
        (DamagedError, {"type": "Codebook", "state": {}}),
        (DamagedError, {"type": "Codebook", "state": {"centroids": centroids[0]}}),
        (DamagedError, {"type": "Codebook", "state": {"centroids": centroids[:0]}}),
        (DamagedError, {"type": "Codebook", "state": {"centroids": broken}}),
        (DamagedError, {"type": "Codebook", "state": {"centroids": centroids.astype(np.int32)}}),
    ]
    for kind, value in wrong:
        path = write_pickle(tmp_path / "X_codebook.pkl", value)
        with pytest.raises(kind) as caught:
            ASMKMethod.initialize_untrained(parameters()).train_codebook(None, cache_path=path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value})


def put_list(key: str, change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], None]:
    """Change the first list that is not empty."""

    def action(state: dict[str, Any]) -> None:
        word = int(np.flatnonzero(state["counts"] > 1)[0])
        state[key] = [*state[key]]
        state[key][word] = change(state[key][word])

    return action


HOSTILE = {
    "no lists": put("ivf_vecs", None),
    "an array for lists": put("ivf_image_ids", np.zeros(3)),
    "fewer lists": put("ivf_vecs", [None] * 3),
    "no counts": put("counts", None),
    "counts in two dimensions": put("counts", np.zeros((4, 4), int)),
    "a count too high": lambda state: put("counts", state["counts"] + 9)(state),
    "a count below 0": lambda state: put("counts", -state["counts"])(state),
    "half a count": lambda state: put("counts", state["counts"] * 0.5)(state),
    "counts without end": lambda state: put("counts", np.full(WORDS, np.inf))(state),
    "an image beyond the end": put_list("ivf_image_ids", lambda ids: ids + 1000),
    "an image below 0": put_list("ivf_image_ids", lambda ids: ids - 1000),
    "images not in order": put_list("ivf_image_ids", lambda ids: np.zeros_like(ids)),
    "fractions of images": put_list("ivf_image_ids", lambda ids: ids + 0.5),
    "a missing list": put_list("ivf_vecs", lambda vectors: None),
    "codes in one dimension": put_list("ivf_vecs", lambda vectors: vectors[:, 0]),
    "codes of another width": put_list("ivf_vecs", lambda vectors: vectors[:, :1]),
    "real codes among bits": put_list("ivf_vecs", lambda vectors: vectors.astype(np.float32)),
    "many more images": put("n_images", 1 << 30),
    "images without number": put("n_images", "many"),
    "fewer images": put("n_images", 3),
    "an array of images": put("n_images", np.zeros(3)),
    "an offset beyond the end": put("imid_offset", 99),
    "an array for the offset": put("imid_offset", np.zeros(3)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_inverted_files(name: str, tmp_path: Path) -> None:
    method = trained(tmp_path)
    value = legacy_ivf(method.build_ivf(*random_descriptors(12)))
    HOSTILE[name](value["state"])
    path = write_pickle(tmp_path / "x.ivf.pkl", value)
    with pytest.raises((DamagedError, FormatError)) as caught:
        method.build_ivf(None, None, cache_path=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_altered_pickles_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    method = trained(tmp_path)
    whole = pickle.dumps(legacy_ivf(method.build_ivf(*random_descriptors(12))), 4)
    rng = np.random.default_rng(seed)
    path = tmp_path / "x.ivf.pkl"
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        with contextlib.suppress(AsmkError):
            method.build_ivf(None, None, cache_path=path).query_ivf(*random_descriptors(3))


def test_an_inverted_file_of_another_codebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ivf.pkl"
    trained(tmp_path).build_ivf(*random_descriptors(12), cache_path=path)
    for words, dim in ((WORDS + 1, DIM), (WORDS, 100)):
        other = trained(tmp_path, parameters(words), random_centroids(words, dim))
        with pytest.raises(MismatchError, match="the codebook"):
            other.build_ivf(None, None, cache_path=path)
    with pytest.raises(MismatchError, match="binary=True"):
        trained(tmp_path, parameters(binary=False)).build_ivf(None, None, cache_path=path)


# --- Wrong calls -----------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert [parse_size(size) for size in ("64k", "1M", "512", 20_000)] == [65_536, 1_048_576, 512, 20_000]
    for wrong in ("", "k", "0", "-1", 0, 1.5, True, None, "64 k"):
        with pytest.raises(InputError, match="codebook size"):
            parse_size(wrong)


WRONG_PARAMETERS = [
    ("query_ivf", {"search": {"top": 3}}),
    ("query_ivf", {"search": {"topk": 0}}),
    ("query_ivf", {"search": 3}),
    ("query_ivf", {"similarity": {"alpha": -1.0}}),
    ("query_ivf", {"quantize": {"multiple_assignment": 17}}),
    ("query_ivf", {"quantize": {"multiple_assignment": 1.5}}),
    ("query_ivf", {"aggregate": {"what": 1}}),
    ("query_ivf", [1]),
    ("build_ivf", {"kernel": {"binary": "yes"}}),
    ("build_ivf", {"ivf": {"use_idf": 2}}),
    ("build_ivf", {"aggregate": {"what": 1}}),
    ("train_codebook", {"codebook": {"words": 1}}),
    ("train_codebook", {"codebook": {"size": 5000}}),
]


@pytest.mark.parametrize(("step", "wrong"), WRONG_PARAMETERS)
def test_wrong_parameters(step: str, wrong: Any, tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(12)
    method = trained(tmp_path)
    dataset = method.build_ivf(descriptors, ids)
    calls: dict[str, Callable[[], object]] = {
        "train_codebook": lambda: method.train_codebook(descriptors, step_params=wrong),
        "build_ivf": lambda: method.build_ivf(descriptors, ids, step_params=wrong),
        "query_ivf": lambda: dataset.query_ivf(descriptors, ids, step_params=wrong),
    }
    with pytest.raises(InputError):
        calls[step]()


def test_wrong_input(tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(12)
    broken = descriptors.copy()
    broken[3, 3] = np.inf
    method = trained(tmp_path)
    dataset = method.build_ivf(descriptors, ids)
    wrong: list[tuple[type[AsmkError], Any, Any]] = [
        (InputError, broken, ids),
        (InputError, descriptors[0], ids),
        (InputError, descriptors.astype(int), ids),
        (InputError, descriptors, ids[:-1]),
        (InputError, descriptors, ids - 1),
        (InputError, descriptors, ids.astype(np.float32)),
        (InputError, descriptors, ids % 3),
        (MismatchError, descriptors[:, 1:], ids),
    ]
    for kind, vectors, numbers in wrong:
        with pytest.raises(kind):
            method.build_ivf(vectors, numbers)
        with pytest.raises(kind):
            dataset.query_ivf(vectors, numbers)
    for unfinished in (lambda: method.query_ivf(descriptors, ids), lambda: method.build_ivf(None, None)):
        with pytest.raises(InputError):
            unfinished()
    with pytest.raises(InputError, match="train_codebook first"):
        ASMKMethod.initialize_untrained(parameters()).build_ivf(descriptors, ids)
    with pytest.raises(InputError, match=r"no file .*missing\.pkl"):
        ASMKMethod.initialize_untrained(parameters()).train_codebook(None, cache_path=tmp_path / "missing.pkl")


def test_images_come_in_order_and_at_once(tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(6)
    builder = trained(tmp_path).create_ivf_builder()
    builder.add(descriptors, ids)
    before = builder.ivf.state_dict()
    with pytest.raises(InputError, match="added after image 5"):
        builder.add(descriptors[-1:], ids[-1:])
    vectors, words, images = builder.kernel.aggregate(*builder.codebook.quantize(descriptors, ids + 6))
    for arguments in (
        (vectors[::-1], words[::-1], images[::-1]),
        (vectors, words[::-1], images),
        (vectors, words + WORDS, images),
        (vectors[:, :1], words, images),
        (vectors.astype(np.float32), words, images),
    ):
        with pytest.raises((InputError, MismatchError)):
            builder.ivf.add(*arguments)
    assert builder.ivf.n_images == 6
    np.testing.assert_array_equal(builder.ivf.state_dict()["state"]["words"], before["state"]["words"])
    with pytest.raises(InputError, match="come before"):
        builder.initialize_with_distractors(tmp_path / "any")


def test_parameter_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for PyYAML, which is no dependency: its one function that is used, on JSON."""
    import json

    yaml = types.SimpleNamespace(safe_load=json.loads, YAMLError=json.JSONDecodeError)
    monkeypatch.setitem(sys.modules, "yaml", yaml)  # type: ignore[arg-type]
    (tmp_path / "base.yml").write_text('{"index": {"gpu_id": 0, "other": 1}, "kept": 1}')
    (tmp_path / "mine.yml").write_text('{"__template__": "base.yml", "index": {"gpu_id": null}}')
    assert io_helpers.load_params(tmp_path / "mine.yml") == {"index": {"gpu_id": None, "other": 1}, "kept": 1}
    (tmp_path / "base.yml").write_text('{"__template__": "mine.yml"}')
    with pytest.raises(InputError, match="circular"):
        io_helpers.load_params(tmp_path / "mine.yml")
    for text in ("[]", "{"):
        (tmp_path / "bad.yml").write_text(text)
        with pytest.raises(FormatError):
            io_helpers.load_params(tmp_path / "bad.yml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(DependencyError, match="pip install pyyaml"):
        io_helpers.load_params(tmp_path / "base.yml")


# --- Conversion ------------------------------------------------------------------------------------------------------


def run_import(*arguments: object) -> str:
    """Run `asmk-engine import --format asmk`; returns what it says."""
    result = CliRunner().invoke(import_, ["--format", "asmk", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_conversion_to_a_codebook_and_an_index(tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(12)
    method = trained(tmp_path, parameters(use_idf=True))
    dataset = method.build_ivf(descriptors, ids)
    write_pickle(tmp_path / "x.ivf.pkl", legacy_ivf(dataset))
    codebook = tmp_path / "x.codebook.h5"
    assert "16 words, 40-D" in run_import(tmp_path / "X_codebook.pkl", "-o", codebook, "--name", "mast3r")
    assert EngineCodebook.open(codebook).recipe.options == {"features": "mast3r", "dim": DIM}
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"photo {number}.jpg" for number in range(12)))
    output = tmp_path / "x.index"
    said = run_import(tmp_path / "x.ivf.pkl", "--codebook", codebook, "--names", names, "-o", output)
    assert "12 images" in said
    index = Index.open(output)
    searcher = Searcher(index, SelectiveMatch(idf=True), multiple_assignment=5, threads=1)
    matrix = score_matrix(dataset.query_ivf(descriptors, ids))
    for row, (_, rows) in zip(matrix, io_helpers.slice_unique(ids), strict=True):
        scores = searcher.scores(make_features(descriptors[rows]))
        np.testing.assert_allclose([scores[f"photo {number}.jpg"] for number in range(12)], row, atol=1e-12)


def test_conversion_names_distractors_and_numbers(tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(6)
    method = trained(tmp_path)
    method.build_ivf(descriptors, ids, cache_path=tmp_path / "far")
    dataset = method.build_ivf(descriptors, ids, distractors_path=tmp_path / "far")
    write_pickle(tmp_path / "x.ivf.pkl", legacy_ivf(dataset))
    index = import_asmk(tmp_path / "x.ivf.pkl", tmp_path / "index", codebook=tmp_path / "X_codebook.pkl")
    assert isinstance(index, Index)
    assert index.names == sorted([*map(str, range(6)), *(f"distractor-{number:07d}" for number in range(6))])


def test_conversions_that_are_refused(tmp_path: Path) -> None:
    descriptors, ids = random_descriptors(6)
    method = trained(tmp_path)
    pickled = tmp_path / "X_codebook.pkl"
    (tmp_path / "other").mkdir()
    other = codebook_pickle(tmp_path / "other", random_centroids(WORDS, 100))
    ivf = write_pickle(tmp_path / "x.ivf.pkl", legacy_ivf(method.build_ivf(descriptors, ids)))
    real = trained(tmp_path, parameters(binary=False)).build_ivf(descriptors, ids)
    reals = write_pickle(tmp_path / "real.ivf.pkl", legacy_ivf(real))
    output = tmp_path / "out"
    wrong: list[tuple[type[AsmkError], Path, dict[str, Any]]] = [
        (InputError, ivf, {}),
        (InputError, ivf, {"codebook": pickled, "name": "x"}),
        (InputError, ivf, {"codebook": pickled, "names": ["a.jpg"]}),
        (InputError, ivf, {"codebook": pickled, "names": ["a.jpg"] * 6}),
        (InputError, ivf, {"codebook": pickled, "names": [""] * 6}),
        (FormatError, ivf, {"codebook": ivf}),
        (MismatchError, ivf, {"codebook": other}),
        (MismatchError, reals, {"codebook": pickled}),
        (InputError, pickled, {"codebook": pickled}),
        (InputError, pickled, {"names": ["a.jpg"]}),
        (InputError, pickled, {"name": " "}),
        (FormatError, write_pickle(tmp_path / "plain.pkl", {"vecs": np.zeros(3)}), {}),
        (FormatError, write_pickle(tmp_path / "odd.pkl", {"type": np.zeros(3)}), {}),
    ]
    for kind, path, options in wrong:
        with pytest.raises(kind):
            import_asmk(path, output, **options)
        assert not output.exists()
    with pytest.raises(InputError, match="--format asmk"):
        CliRunner().invoke(import_, [str(ivf), "-o", str(output), "--codebook", str(pickled)], catch_exceptions=False)
