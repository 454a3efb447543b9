"""Several indexes searched as one give the answers of one index with all their images, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.flat import CodecOptions, Expansion, GlobalIndex, GlobalSearcher
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.indexes.joint import JointIndex, is_distractor, split_mark
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.signatures import sign
from global_samples import global_images, write_global
from samples import make_features, random_codebook, random_images

WORDS, DIM = 24, 32


def fill(path: Path, images: dict[str, Features], seed: int = 1, per_segment: int = 60) -> Index:
    index = Index.create(path, random_codebook(WORDS, DIM, seed))
    signed = ((name, sign(features, index.codebook, 1)) for name, features in images.items())
    index.add_signatures(signed, segment_postings=per_segment)
    return index


@pytest.fixture(scope="module")
def images() -> list[dict[str, Features]]:
    """A database and two sets of distractors that have the very same names."""
    return [random_images(count, DIM, seed) for seed, count in ((0, 30), (1, 40), (2, 25))]


@pytest.fixture(scope="module")
def queries() -> list[Features]:
    return [*random_images(6, DIM, 7).values(), make_features(np.empty((0, DIM)))]


def marked(images: dict[str, Features], number: int) -> dict[str, Features]:
    return {f"distractor{number}:{name}": features for name, features in images.items()}


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("top", [7, None])
def test_a_joint_index_answers_as_one(
    tmp_path: Path, images: list[dict[str, Features]], queries: list[Features], idf: bool, top: int | None
) -> None:
    database, first, second = (fill(tmp_path / str(number), part) for number, part in enumerate(images))
    whole = fill(tmp_path / "all", {**images[0], **marked(images[1], 1), **marked(images[2], 2)}, per_segment=10**6)
    gone = list(images[1])[3:9]
    first.delete(gone), whole.delete([f"distractor1:{name}" for name in gone])
    match = SelectiveMatch(idf=idf)
    for threads in (1, 3):
        found = Searcher(JointIndex([database], [first, second]), match, threads=threads).search(queries, top)
        assert found == Searcher(whole, match).search(queries, top)
        assert any(is_distractor(hit.name) for hits in found for hit in hits)


def test_several_databases_answer_as_one(
    tmp_path: Path, images: list[dict[str, Features]], queries: list[Features]
) -> None:
    halves = [dict(list(images[0].items())[half::2]) for half in (0, 1)]
    one, other = (fill(tmp_path / str(number), half) for number, half in enumerate(halves))
    joint, whole = JointIndex([one, other]), fill(tmp_path / "all", images[0])
    assert joint.names == whole.names and len(joint) == joint.images == whole.images and joint.distractors == 0
    match = SelectiveMatch(idf=True)
    assert Searcher(joint, match).search(queries, None) == Searcher(whole, match).search(queries, None)
    assert Searcher(joint).scores(queries[1]) == Searcher(whole).scores(queries[1])


def test_names_of_distractors_are_no_names_of_the_database(tmp_path: Path, images: list[dict[str, Features]]) -> None:
    database, distractors = fill(tmp_path / "d", images[0]), fill(tmp_path / "x", images[1])
    joint = JointIndex([database], [distractors])
    only_there = list(images[1])[35]
    assert only_there in distractors and only_there not in joint
    assert joint.names == database.names and joint.distractors == distractors.images == 40
    assert joint.path == database.path and joint.snapshot.encoder.fingerprint == database.codebook.fingerprint
    assert joint.recipe == database.recipe and joint.network is None
    name = f"distractor1:{only_there}"
    assert joint.snapshot.find(name) is not None and name not in joint
    assert set(joint.snapshot.names()) == {*images[0], *(f"distractor1:{name}" for name in images[1])}
    assert distractors.names == sorted(images[1])  # the index itself keeps its names
    joint.preload()


def test_changes_are_seen_at_once(tmp_path: Path, images: list[dict[str, Features]]) -> None:
    database, distractors = fill(tmp_path / "d", images[0]), fill(tmp_path / "x", images[1])
    joint = JointIndex([database], [distractors])
    before = joint.snapshot
    assert joint.snapshot is before
    Index.open(tmp_path / "x").delete(list(images[1])[:5])
    assert joint.distractors == 40
    joint.refresh()
    assert joint.distractors == 35 and joint.snapshot is not before and joint.snapshot.images == 65


def test_what_remembers_features_is_the_database(tmp_path: Path, images: list[dict[str, Features]]) -> None:
    database, distractors = fill(tmp_path / "d", images[0]), fill(tmp_path / "x", images[1])
    assert JointIndex([database], [distractors]).snapshot.manifest.features == database.snapshot.manifest.features
    assert JointIndex([database, fill(tmp_path / "e", {})]).names == database.names


def test_another_codebook_is_refused(tmp_path: Path, images: list[dict[str, Features]]) -> None:
    database, other = fill(tmp_path / "d", images[0]), fill(tmp_path / "x", images[1], seed=2)
    with pytest.raises(MismatchError, match=r"x: its codebook is [0-9a-f]{12}, that of .*d is [0-9a-f]{12};") as caught:
        JointIndex([database], [other])
    assert "\n" not in str(caught.value)


def test_another_codec_is_refused_by_its_own_name(tmp_path: Path) -> None:
    features = write_global(tmp_path / "f", global_images(40))
    codecs = [train_codec(features, CodecOptions(pca=pca)) for pca in (8, 9)]
    one, other = (GlobalIndex.create(tmp_path / str(place), codec) for place, codec in enumerate(codecs))
    with pytest.raises(MismatchError, match=r"1: its codec is [0-9a-f]{12}, that of .*0 is .*same codec: .*--train-on"):
        JointIndex([one], [other])


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path, images: list[dict[str, Features]]) -> None:
    database = fill(tmp_path / "d", images[0])
    with pytest.raises(InputError, match=r"also in .*d: 'folder/image 000\.jpg'.* and 27 more; names must be unique"):
        JointIndex([database, fill(tmp_path / "x", images[0])])
    odd = {"distractor": 0, "distractor0:a": 1, "distractor17:b": 2, "distractory": 3}
    named = dict(zip(odd, images[0].values(), strict=False))
    index = fill(tmp_path / "odd", named)
    with pytest.raises(InputError, match="the name 'distractor17:b' has the prefix of a distractor"):
        JointIndex([index])
    index.delete(["distractor17:b"])
    assert JointIndex([index]).images == 3
    with pytest.raises(InputError, match="no index to search"):
        JointIndex([])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("distractor1:a", True), ("distractor12:", True), ("distractor0:a", False), ("distractor:a", False), ("a", False)],
)
def test_the_mark(name: str, expected: bool) -> None:
    assert is_distractor(name) is expected
    assert split_mark(name) == ((f"{name.split(':')[0]}:", name.split(":")[1]) if expected else ("", name))


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("per_segment", [20, 10**6])
def test_answers_in_numbers_are_in_the_same_order(
    tmp_path: Path, images: list[dict[str, Features]], queries: list[Features], parts: int, per_segment: int
) -> None:
    repeated = {f"again/{name}": features for name, features in images[0].items()}  # every score stands twice
    database = fill(tmp_path / "d", {**images[0], **repeated}, per_segment=per_segment)
    database.delete(list(images[0])[4:7])
    others = [fill(tmp_path / str(number), images[0], per_segment=per_segment) for number in range(1, parts)]
    searcher = Searcher(JointIndex([database], others) if others else database)
    everything = searcher.image_numbers([*searcher.index.snapshot.names(), "unknown"])
    assert len(everything) == len(set(everything.values())) == searcher.index.snapshot.images
    names = {number: name for name, number in everything.items()}
    for query in queries:
        order = searcher.rank(query)
        found = [(names[number], score) for number, score in zip(order.numbers, order.scores, strict=True)]
        assert found == [(hit.name, hit.score) for hit in searcher.search(query, None)]


def test_an_empty_index_answers_in_numbers(tmp_path: Path, queries: list[Features]) -> None:
    searcher = Searcher(fill(tmp_path / "d", {}))
    assert len(searcher.rank(queries[1]).numbers) == 0 and searcher.image_numbers(["a"]) == {}


@pytest.mark.parametrize("options", [CodecOptions(), CodecOptions(pca=8, half=True)], ids=str)
@pytest.mark.parametrize("expansion", [None, Expansion(3)])
def test_global_answers_in_numbers_are_in_the_same_order(
    tmp_path: Path, options: CodecOptions, expansion: Expansion | None
) -> None:
    images = global_images(40)
    features = write_global(tmp_path / "f", images)
    codec = train_codec(features, options)
    indexes = [GlobalIndex.create(tmp_path / str(number), codec) for number in range(2)]
    for index in indexes:
        index.add(features, segment_bytes=500)
    indexes[0].delete(list(images)[5:8])
    joint = JointIndex([indexes[0]], [indexes[1]])
    searcher = GlobalSearcher(joint, expansion, device="cpu")
    names = {number: name for name, number in searcher.image_numbers(joint.snapshot.names()).items()}
    assert len(names) == 77
    for query in list(images.values())[:4]:  # the first two are equal, the third is zero: scores stand twice and more
        order = searcher.rank(query)
        found = [(names[number], score) for number, score in zip(order.numbers, order.scores, strict=True)]
        assert found == [(hit.name, hit.score) for hit in searcher.search(query, None)]
