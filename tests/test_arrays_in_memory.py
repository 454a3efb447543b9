"""Arrays in memory: what is trained, added and searched without a feature set equals what goes through the disk."""

from __future__ import annotations

import doctest
import gc
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from asmk_engine import (
    Codebook,
    Features,
    GlobalIndex,
    GlobalSearcher,
    Index,
    Searcher,
    SelectiveMatch,
    Signature,
    scores,
    similarity,
)
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import ArrayFeatures
from asmk_engine.flat import Codec, CodecOptions, Expansion
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.inverted.signatures import sign
from asmk_engine.recipes import ARRAYS, GLOBAL_ARRAYS, Recipe
from samples import ENVIRONMENT, make_features, random_codebook, random_images, write_features

DIM, WORDS = 16, 8
PLAIN = Recipe(ARRAYS)


def arrays(count: int = 20, seed: int = 0, features: int = 60) -> dict[str, np.ndarray]:
    """Named descriptors [n, 16] float32, in byte order of the names, the first image without any."""
    images = random_images(count, DIM, seed, features)
    found = {name: image.descriptors for name, image in sorted(images.items())}
    found[next(iter(found))] = np.zeros((0, DIM), np.float32)
    return found


def contents(index: Index | GlobalIndex) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in index.path.glob("*.safetensors")}


# ----------------------------------------------------------------------------------------- programs of six lines


def test_a_codebook_and_an_index_of_arrays() -> None:
    images = np.random.default_rng(0).normal(size=(10, 50, 16))
    codebook = Codebook.train(images, words=4)
    index = Index.in_memory(codebook)
    index.add((f"image {number}", image) for number, image in enumerate(images))
    hits = Searcher(index, multiple_assignment=1).search(Features.from_descriptors(images[7]), top=3)
    assert hits[0].name == "image 7" and len(hits) == 3


def test_two_images_compared() -> None:
    images = np.random.default_rng(0).normal(size=(10, 50, 16))
    searcher = Searcher(Index.in_memory(Codebook.train(images, words=4)))
    one, other = (searcher.sign(Features.from_descriptors(image)) for image in images[:2])
    assert 0 < similarity(one, other) < similarity(one, one) == pytest.approx(1)


def test_a_matrix_of_scores() -> None:
    images = np.random.default_rng(0).normal(size=(10, 50, 16))
    codebook = Codebook.train(images, words=4)
    features = [Features.from_descriptors(image) for image in images]
    matrix = scores(features[:3], features, codebook, multiple_assignment=1)
    assert matrix.shape == (3, 10) and matrix.argmax(axis=1).tolist() == [0, 1, 2]


def test_global_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(100, 32))
    index = GlobalIndex.in_memory(32)
    index.add_matrix([f"image {number}" for number in range(100)], vectors)
    names, similarities = GlobalSearcher(index).search_matrix(vectors[:5], top=3)
    assert names[:, 0].tolist() == [f"image {number}" for number in range(5)] and similarities.shape == (5, 3)


# ----------------------------------------------------------------------------------------- equality with the disk


def test_training_and_indexing_equal_those_of_a_feature_set_bit_by_bit(tmp_path: Path) -> None:
    images = arrays()
    stored = write_features(
        tmp_path / "f", {name: Features.from_descriptors(one) for name, one in images.items()}, recipe=PLAIN
    )
    options: dict[str, Any] = {"words": WORDS, "seed": 5, "rounds": 3, "training_per_word": 20}
    book = Codebook.train(stored, **options)
    for given_arrays in (list(images.values()), (one for one in images.values()), iter(images.values())):
        found = Codebook.train(given_arrays, **options)
        assert found.fingerprint == book.fingerprint and found.training == book.training
    indexes = Index.create(tmp_path / "a", book), Index.create(tmp_path / "b", book), Index.in_memory(book)
    indexes[0].add(stored)
    assert indexes[1].add(images.items()).added == len(images)
    indexes[2].add((name, Features.from_descriptors(one.astype(np.float64))) for name, one in images.items())
    assert contents(indexes[0]) == contents(indexes[1]) == contents(indexes[2])
    hits = [Searcher(index).search(stored.read(stored.names[5])) for index in indexes]
    assert hits[0] == hits[1] == hits[2] and hits[0]
    assert [index.identity(stored.names[3]) for index in indexes] == [indexes[0].identity(stored.names[3])] * 3


def test_one_array_is_one_image(tmp_path: Path) -> None:
    descriptors = np.random.default_rng(1).normal(size=(900, DIM)).astype(np.float32)
    stored = write_features(tmp_path / "f", {"a": Features.from_descriptors(descriptors)}, recipe=PLAIN)
    books = [Codebook.train(one, WORDS, seed=2, rounds=2) for one in (stored, descriptors, [descriptors])]
    assert len({book.fingerprint for book in books}) == 1 and books[1].training["images"] == 1
    assert Codebook.train(descriptors.astype(np.float64), WORDS, seed=2, rounds=2).fingerprint == books[0].fingerprint


def test_global_vectors_equal_those_of_a_feature_set_bit_by_bit(tmp_path: Path) -> None:
    matrix = np.random.default_rng(3).normal(size=(300, DIM)).astype(np.float32)
    names = [f"image {number:03d}" for number in range(300)]
    images = {name: Features.from_descriptors(row[None]) for name, row in zip(names, matrix, strict=True)}
    stored = write_features(tmp_path / "f", images, recipe=Recipe(GLOBAL_ARRAYS))
    codecs = [train_codec(one, CodecOptions(pca=8, seed=1)) for one in (stored, matrix)]
    assert codecs[0].fingerprint == codecs[1].fingerprint
    indexes = GlobalIndex.create(tmp_path / "a", codecs[0]), GlobalIndex.in_memory(codecs[1])
    indexes[0].add(stored)
    indexes[1].add_matrix(names, matrix)
    third = GlobalIndex.in_memory(codecs[1])
    third.add((name, row[None]) for name, row in zip(names, matrix, strict=True))
    assert contents(indexes[0]) == contents(indexes[1]) == contents(third)


@pytest.mark.parametrize("top", [1, 7, 1000, None])
@pytest.mark.parametrize("expansion", [None, Expansion(3)])
def test_a_matrix_of_queries_equals_searches_one_by_one(top: int | None, expansion: Expansion | None) -> None:
    rng = np.random.default_rng(3)
    matrix, queries = rng.normal(size=(90, DIM)), rng.normal(size=(70, DIM))
    index = GlobalIndex.in_memory(DIM)
    index.add_matrix([f"bild {number}" for number in range(90)], matrix)
    index.delete(["bild 4"])
    for target in (index, JointIndex([index])):
        searcher = GlobalSearcher(target, expansion)
        found = searcher.search_matrix(queries, top)
        assert found.names.shape == found.scores.shape == (70, 89 if top is None else min(top, 89))
        assert found.names.dtype == object and found.scores.dtype == np.float64
        for row in (0, 33, 69):
            hits = searcher.search(Features.from_descriptors(queries[row : row + 1]), top)
            assert [hit.name for hit in hits] == found.names[row].tolist()
            assert [hit.score for hit in hits] == found.scores[row].tolist()


def test_no_queries_and_no_images() -> None:
    index = GlobalIndex.in_memory(DIM)
    assert [part.shape for part in GlobalSearcher(index).search_matrix(np.ones((3, DIM)), 5)] == [(3, 0)] * 2
    assert index.add_matrix([], np.empty((0, DIM))).added == 0
    index.add_matrix(["a"], np.ones((1, DIM)))
    assert [part.shape for part in GlobalSearcher(index).search_matrix(np.empty((0, DIM)), 5)] == [(0, 1)] * 2
    local = Index.in_memory(random_codebook(4, DIM, recipe=PLAIN))
    assert local.add([]).added == 0 and Searcher(local).search(Features.from_descriptors(np.ones((2, DIM)))) == []


# ----------------------------------------------------------------------------------------- recipes never mix


def test_arrays_do_not_mix_with_other_features(tmp_path: Path) -> None:
    pairs = [("a", np.ones((2, DIM)))]
    sift = Index.in_memory(random_codebook(4, DIM, recipe=Recipe("rootsift", {"max_side": 1024})))
    for recipe in (None, "rootsift", Recipe("rootsift")):
        with pytest.raises(
            MismatchError, match=r"the arrays: features of .* give the recipe of the codebook|trained on"
        ):
            sift.add(pairs, recipe=recipe)
    assert sift.images == 0 and sift.add(pairs, recipe=sift.recipe).added == 1
    named = Index.in_memory(Codebook.train(np.random.default_rng(0).normal(size=(90, DIM)), 2, recipe="superpoint"))
    assert named.recipe == Recipe(ARRAYS, {"name": "superpoint"})
    for recipe in (None, "disk"):
        with pytest.raises(MismatchError):
            named.add(pairs, recipe=recipe)
    assert named.add(pairs, recipe="superpoint").added == 1
    stored = write_features(tmp_path / "f", {"b": make_features(np.ones((1, DIM)))}, recipe=PLAIN)
    for call in (lambda: named.add(stored, recipe="superpoint"), lambda: Codebook.train(stored, recipe="superpoint")):
        with pytest.raises(InputError, match="has its own recipe"):
            call()


def test_global_and_local_arrays_do_not_mix() -> None:
    assert Recipe(GLOBAL_ARRAYS).is_global and not Recipe(ARRAYS).is_global
    with pytest.raises(MismatchError):
        Index.in_memory(random_codebook(4, DIM, recipe=Recipe(GLOBAL_ARRAYS))).add([("a", np.ones((1, DIM)))])
    index = GlobalIndex.in_memory(Codec(Recipe("gem", {}, "ab" * 32), DIM))
    with pytest.raises(MismatchError, match="give the recipe of the index"):
        index.add_matrix(["a"], np.ones((1, DIM)))
    assert index.add_matrix(["a"], np.ones((1, DIM)), recipe=index.recipe).added == 1
    with pytest.raises(InputError, match="exactly one per image"):
        index.add([("b", np.ones((2, DIM)))], recipe=index.recipe)


# ----------------------------------------------------------------------------------------- what arrays are taken


@given(st.integers(0, 5), st.integers(1, 9), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(0, 99))
def test_features_of_any_array(count: int, dim: int, dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, dim)).astype(dtype)
    features = Features.from_descriptors(descriptors)
    assert features.descriptors.dtype == (np.float16 if dtype == np.float16 else np.float32)
    assert np.array_equal(features.descriptors, descriptors.astype(features.descriptors.dtype))
    assert features.keypoints.shape == (count, 3) and features.scores.tolist() == [1] * count
    strengths = rng.integers(0, 3, count).astype(np.float64)
    places = rng.normal(size=(count, 2))
    ordered = Features.from_descriptors(descriptors, places, strengths, (4, 3))
    rows = sorted(range(count), key=lambda row: (-strengths[row], row))
    assert np.array_equal(ordered.descriptors, features.descriptors[rows])
    assert (
        np.array_equal(ordered.keypoints[:, :2], places[rows].astype(np.float32)) and not ordered.keypoints[:, 2].any()
    )
    assert ordered.scores.tolist() == strengths[rows].tolist() and ordered.image_size == (4, 3)


BAD = [
    np.array([[1.0, np.nan]]),
    np.array([[1.0, np.inf]]),
    np.array([[1.0, 1e300]]),
    np.ones(3),
    np.ones((2, 2, 2, 2)),
    np.ones((2, 0)),
    np.ones((2, 2), np.uint8),
    np.ones((2, 2), complex),
    [[1.0], [1.0, 2.0]],
    "text",
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: str(bad)[:20])
def test_other_arrays_are_refused_in_one_line(bad: Any) -> None:
    index = GlobalIndex.in_memory(2)
    index.add_matrix(["a"], np.ones((1, 2)))
    local = Index.in_memory(random_codebook(2, 2, recipe=PLAIN))
    calls: list[Callable[[], Any]] = [
        lambda: Features.from_descriptors(bad),
        lambda: Codebook.train([np.ones((9, 2)), bad]),
        lambda: local.add([("a", np.ones((1, 2))), ("b", bad)]),
        lambda: index.add_matrix(["b"], bad),
        lambda: GlobalSearcher(index).search_matrix(bad),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert local.images == 0 and index.images == 1


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("a", np.ones((1, 2))), ("a", np.ones((1, 2)))], "given twice"),
        ([("", np.ones((1, 2)))], "must not be empty"),
        ([(3, np.ones((1, 2)))], "the name of an image is a int"),
        ([np.ones((1, 2))], "pairs"),
        (np.ones((3, 2)), "pairs"),
        ({"a": np.ones((1, 2))}, "pairs"),
        ("photographs/", "pairs"),
        (7, "pairs"),
    ],
)
def test_other_pairs_are_refused_in_one_line(pairs: Any, words: str) -> None:
    index = Index.in_memory(random_codebook(2, 2, recipe=PLAIN))
    with pytest.raises(InputError, match=words):
        index.add(pairs)
    assert index.images == 0


def test_dimensions_and_numbers_that_differ_are_refused() -> None:
    with pytest.raises(MismatchError, match="3 dimensions"):
        Codebook.train([np.ones((9, 2)), np.ones((9, 3))])
    with pytest.raises(InputError, match="no array"):
        Codebook.train([])
    with pytest.raises(InputError, match="no image has a feature"):
        Codebook.train(np.ones((0, 4)))
    with pytest.raises(MismatchError, match="dimensions"):
        Index.in_memory(random_codebook(2, 2, recipe=PLAIN)).add([("a", np.ones((1, 3)))])
    index = GlobalIndex.in_memory(2)
    for names, words in ((["a"], "1 names"), (["a", "a"], "given twice"), (["a", 5], "a int"), (["a", ""], "empty")):
        with pytest.raises(InputError, match=words):
            index.add_matrix(names, np.ones((2, 2)))
    with pytest.raises(MismatchError, match="dimensions"):
        index.add_matrix(["a"], np.ones((1, 3)))
    with pytest.raises(MismatchError):
        GlobalSearcher(index).search_matrix(np.ones((1, 3)))
    for top in (0, -1):
        with pytest.raises(InputError, match="top"):
            GlobalSearcher(index).search_matrix(np.ones((1, 2)), top)
    for dim in (0, 1 << 17):
        with pytest.raises(MismatchError):
            GlobalIndex.in_memory(dim)
    with pytest.raises(InputError, match="keypoints"):
        Features.from_descriptors(np.ones((2, 2)), np.ones((2, 5)))
    with pytest.raises(InputError, match="scores"):
        Features.from_descriptors(np.ones((2, 2)), scores=np.ones(3))


def test_a_tensor_is_an_array() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.randn(400, DIM, generator=torch.Generator().manual_seed(0))
    assert Codebook.train(tensor, 2, rounds=1).fingerprint == Codebook.train(tensor.numpy(), 2, rounds=1).fingerprint
    with pytest.raises(InputError, match="no array can be made of it"):
        Features.from_descriptors(tensor.requires_grad_())


def test_the_modes_of_adding_hold_for_arrays(tmp_path: Path) -> None:
    images = arrays(6)
    index = Index.create(tmp_path / "i", random_codebook(WORDS, DIM, recipe=PLAIN))
    index.add(images.items())
    name = list(images)[2]
    with pytest.raises(InputError, match="already in the index"):
        index.add(images.items())
    changed = {name: np.ones((4, DIM))}
    assert index.add(changed.items(), existing="skip").changed == (name,)
    assert index.add(images.items(), existing="skip").unchanged == 6
    assert index.add(changed.items(), existing="update").replaced == 1
    assert index.add([("twin", changed[name])]).duplicates == {"twin": name}
    again = Index.open(tmp_path / "i")
    assert sorted(again.names) == sorted([*images, "twin"])
    hits = Searcher(again, multiple_assignment=1).search(Features.from_descriptors(changed[name]), 2)
    assert {hit.name for hit in hits} == {name, "twin"} and hits[0].score == pytest.approx(1)


# ----------------------------------------------------------------------------------------- similarity and scores


def as_bits(signature: Signature, dim: int) -> dict[int, list[int]]:
    pairs = zip(signature.words.tolist(), signature.codes.tolist(), strict=True)
    return {word: [code[bit // 64] >> (bit % 64) & 1 for bit in range(dim)] for word, code in pairs}


@given(st.integers(0, 2**32), st.sampled_from([1, 5, 64, 70]), st.integers(1, 6), st.sampled_from([0.0, 0.3]))
def test_similarity_equals_its_twin_and_a_search(seed: int, dim: int, words: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    codebook = random_codebook(words, dim, recipe=PLAIN)
    one, other = (rng.normal(size=(int(rng.integers(0, 9)), dim)) for _ in range(2))
    match = SelectiveMatch(alpha=float(rng.choice([1, 3, 2.5])), threshold=threshold)
    query = sign(Features.from_descriptors(one), codebook, min(5, words))
    image = sign(Features.from_descriptors(other), codebook)
    found = similarity(query, image, match)
    twin = naive.asmk_score(as_bits(query, dim), as_bits(image, dim), match.alpha, match.threshold)
    assert found == pytest.approx(twin, abs=1e-12) == similarity(image, query, match)


@pytest.mark.parametrize("idf", [False, True])
def test_the_score_matrix_equals_its_twin_and_the_searches_of_an_index(idf: bool) -> None:
    images = [Features.from_descriptors(one) for one in arrays(25, features=9).values()]
    queries = [Features.from_descriptors(one) for one in arrays(7, seed=4).values()]
    codebook = random_codebook(40, DIM, recipe=PLAIN)
    match = SelectiveMatch(2.0, 0.1, idf)
    index = Index.in_memory(codebook)
    index.add((f"{number:02d}", image) for number, image in enumerate(images))
    searcher = Searcher(index, match)
    found = scores(queries, images, codebook, match)
    signed = [as_bits(sign(image, codebook), DIM) for image in images]
    weights = naive.idf_weights(signed, 40) if idf else None
    assert found.shape == (7, 25) and found.dtype == np.float64 and found.any()
    for row, query in enumerate(queries):
        assert found[row] == pytest.approx(list(dict(sorted(searcher.scores(query).items())).values()), abs=1e-12)
        bits = as_bits(sign(query, codebook, 5), DIM)
        assert found[row] == pytest.approx(
            [naive.asmk_score(bits, one, 2.0, 0.1, weights) for one in signed], abs=1e-12
        )
    mixed = [searcher.sign(query) if row % 2 else query for row, query in enumerate(queries)]
    assert np.array_equal(scores(mixed, [sign(image, codebook) for image in images], codebook, match), found)


def test_a_one_image_index_gives_the_similarity() -> None:
    codebook = random_codebook(WORDS, DIM, recipe=PLAIN)
    one, other = (Features.from_descriptors(array) for array in list(arrays(9).values())[2:4])
    index = Index.in_memory(codebook)
    index.add([("other", other)])
    searcher = Searcher(index)
    found = similarity(searcher.sign(one), sign(other, codebook))
    assert found == pytest.approx(searcher.search(one)[0].score, abs=1e-12) and found > 0


def test_empty_lists_and_empty_images() -> None:
    codebook = random_codebook(WORDS, DIM, recipe=PLAIN)
    nothing, some = Features.from_descriptors(np.ones((0, DIM))), Features.from_descriptors(np.ones((1, DIM)))
    assert scores([], [some], codebook).shape == (0, 1) and scores([some], [], codebook).shape == (1, 0)
    assert scores([nothing, some], [nothing, some], codebook).tolist() == pytest.approx(
        np.array([[0, 0], [0, scores([some], [some], codebook)[0, 0]]])
    )
    empty = sign(nothing, codebook)
    assert similarity(empty, empty) == 0.0 == similarity(empty, sign(some, codebook))


def test_signatures_that_cannot_be_compared_are_refused() -> None:
    one, other = (sign(make_features(np.ones((2, dim))), random_codebook(3, dim)) for dim in (8, 16))
    with pytest.raises(MismatchError, match=r"\[8, 16\] bits"):
        similarity(one, other)
    unknown = Signature(one.words, one.codes)
    with pytest.raises(MismatchError, match="number of bits"):
        similarity(unknown, one)
    assert scores([unknown], [one], random_codebook(3, 8)).tolist() == scores([one], [one]).tolist()
    with pytest.raises(MismatchError, match="words below 3"):
        scores([Signature(np.array([5], np.uint32), np.ones((1, 1), np.uint64))], [one], random_codebook(3, 8))
    with pytest.raises(InputError, match="idf"):
        similarity(one, one, SelectiveMatch(idf=True))
    with pytest.raises(InputError, match="give the codebook"):
        scores([make_features(np.ones((1, 8)))], [one])
    with pytest.raises(InputError, match="found a str"):
        scores(["a.jpg"], [one], random_codebook(3, 8))  # type: ignore[list-item]
    with pytest.raises(InputError, match="multiple_assignment"):
        scores([one], [one], multiple_assignment=0)


# ----------------------------------------------------------------------------------------- temporary folders


def test_a_temporary_index_is_removed_with_its_object() -> None:
    index = Index.in_memory(random_codebook(2, 4, recipe=PLAIN))
    folder = index.path.parent
    assert folder.parent == Path(tempfile.gettempdir()) and index.path.is_dir()
    del index
    gc.collect()
    assert not folder.exists()


def test_a_failed_creation_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(MismatchError):
        GlobalIndex.in_memory(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_neither_exit_nor_a_forked_child_leaves_or_removes_too_much(tmp_path: Path) -> None:
    code = """
import gc, os, sys
from asmk_engine import GlobalIndex, GlobalSearcher
import numpy as np
index = GlobalIndex.in_memory(4)
index.add_matrix(["a", "b"], np.eye(4)[:2])
child = os.fork()
if child == 0:
    print(GlobalSearcher(index).search_matrix(np.eye(4)[:1], 1).names[0, 0], flush=True)
    del index
    gc.collect()
    sys.exit(0)  # runs what is registered for the end of a process
assert os.waitpid(child, 0)[1] == 0
assert index.path.is_dir() and index.add_matrix(["c"], np.eye(4)[2:3]).added == 1
print(GlobalSearcher(index).search_matrix(np.eye(4)[2:3], 1).names[0, 0], flush=True)
"""
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, ["a", "c"]), done.stderr
    assert not list(tmp_path.glob("asmk-engine-*"))


@pytest.mark.parametrize(
    "module",
    ["features.model", "features.source", "codebooks.codebook", "inverted.index", "inverted.pairwise", "flat.index"],
)
def test_the_examples_of_the_docstrings_run(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"asmk_engine.{module}"))
    assert failed == 0 and tried > 0


def test_the_program_of_the_readme_runs() -> None:
    readme = Path(__file__).resolve().parents[1] / "README.md"
    if not readme.is_file():
        pytest.skip("only a checkout has it")
    blocks = readme.read_text(encoding="utf-8").split("```python\n")[1:]
    program = next(text for block in blocks if "in_memory" in (text := block.split("```")[0]))
    found: dict[str, Any] = {}
    exec(program, found)
    assert (
        found["matrix"].shape == (10, 10) and found["hits"] and found["names"][:, 0].tolist() == ["image 0", "image 1"]
    )


def test_arrays_are_listed_in_byte_order_and_read_in_the_given_one() -> None:
    features = ArrayFeatures.of_images([("b", np.ones((1, 2))), ("a", np.ones((2, 2)))], PLAIN)
    assert features.names == ["a", "b"] and [name for name, _ in features.images()] == ["b", "a"]
    assert [name for name, _ in features.images(["a"])] == ["a"] and features.count("a") == 2
