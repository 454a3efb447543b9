"""Pairs for structure from motion: hloc's arguments, rules and file, from an index of either kind."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.flat import Codec, GlobalIndex, GlobalSearcher
from asmk_engine.interop.colmap_model import model_images
from asmk_engine.interop.hloc import export_hloc, import_hloc, pairs_from_retrieval
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from global_samples import global_images, write_global
from samples import make_features, random_codebook, write_features

SUBJECTS = ["astronaut", "chelsea", "coffee", "rocket"]
VIEWS = 3


def crops(picture: np.ndarray) -> list[np.ndarray]:
    """Overlapping parts of a photograph, the later ones shrunk."""
    height, width = (3 * side // 4 for side in picture.shape[:2])
    places = [(0, 0), (height // 6, width // 6), (height // 4, width // 8)]
    parts = [picture[top : top + height, left : left + width] for top, left in places]
    return [cv2.resize(part, None, fx=1 - 0.1 * k, fy=1 - 0.1 * k) for k, part in enumerate(parts)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs, `subject/number.jpg`, their features, an hloc file of these, and an index of each."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("world")
    for subject in SUBJECTS:
        (folder / "photos" / subject).mkdir(parents=True)
        for number, part in enumerate(crops(getattr(data, subject)()[:, :, ::-1])):
            cv2.imwrite(str(folder / "photos" / subject / f"{number}.jpg"), part)
    extractor = load_extractor("rootsift", max_side=320, max_features=150)
    made = extractor.extract_folder(folder / "photos", folder / "own.features", workers=0)
    export_hloc(made, folder / "feats-sift.h5")
    imported = import_hloc(folder / "feats-sift.h5", folder / "imported.features")
    for name, features in (("own", made), ("imported", imported)):
        codebook = Codebook.train(features, 32)
        Index.create(folder / f"{name}.index", codebook).add(features)
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A global index, `vectors.index`, and its feature set; some similarities are negative, one image is 0."""
    folder = tmp_path_factory.mktemp("vectors")
    images = {name.replace(" ", "-"): features for name, features in global_images(20).items()}
    features = write_global(folder / "vectors.features", images)
    GlobalIndex.create(folder / "vectors.index", Codec(features.recipe, features.dim, "single")).add(features)
    return folder


def twin(
    scores: dict[str, dict[str, float]], database: Iterable[str], count: int, *, least: float = 0.0, strict: bool
) -> list[str]:
    """By the rules of hloc: of each row of the matrix of similarities, self and what is below the least masked."""
    lines = []
    for query, row in scores.items():
        kept = [
            name for name in set(database) if name != query and (row[name] > least if strict else row[name] >= least)
        ]
        kept.sort(key=lambda name: (-row[name], name.encode()))
        lines += [f"{query} {name}" for name in kept[:count]]
    return lines


def rows(searcher: Any, features: FeatureSet, queries: Sequence[str]) -> dict[str, dict[str, float]]:
    return {query: searcher.scores(features.read(query)) for query in queries}


def written(folder: Path, *arguments: Any, **options: Any) -> list[str]:
    """The lines of the list of pairs, which is what was counted, and no more."""
    output = folder / "new" / "pairs.txt"
    count = pairs_from_retrieval(arguments[0], output, *arguments[1:], **options)
    content = output.read_bytes()
    assert not content.endswith(b"\n")
    lines = content.decode().split("\n") if content else []
    assert len(lines) == count
    assert [path.name for path in output.parent.iterdir()] == ["pairs.txt"]
    return lines


# --- Local features --------------------------------------------------------------------------------------------------


def test_photographs_of_one_thing_are_paired(world: Path, tmp_path: Path) -> None:
    lines = written(tmp_path, world / "photos", VIEWS - 1, index=world / "own.index")
    names = [f"{subject}/{number}.jpg" for subject in SUBJECTS for number in range(VIEWS)]
    assert [line.split()[0] for line in lines[:: VIEWS - 1]] == names
    same = [a.split("/")[0] == b.split("/")[0] for a, b in map(str.split, lines)]
    assert len(lines) == len(names) * (VIEWS - 1) and np.mean(same) > 0.9


@pytest.mark.parametrize("count", [1, 3, 11, 12, 500])
def test_every_source_of_queries_gives_the_pairs_of_the_twin(count: int, world: Path, tmp_path: Path) -> None:
    index = Index.open(world / "own.index")
    features = FeatureSet.open(world / "own.features")
    expected = twin(rows(Searcher(index), features, index.names), index.names, count, strict=True)
    for source in (None, world / "own.features", world / "photos", str(world / "photos")):
        assert written(tmp_path, source, count, index=world / "own.index") == expected
    imported = world / "imported.index"
    same = FeatureSet.open(world / "imported.features")
    expected = twin(rows(Searcher(Index.open(imported)), same, same.names), same.names, count, strict=True)
    for source in (world / "feats-sift.h5", None):
        assert written(tmp_path, source, count, index=imported) == expected


def test_prefixes_lists_and_their_precedence(world: Path, tmp_path: Path) -> None:
    index = world / "own.index"
    features, searcher = FeatureSet.open(world / "own.features"), Searcher(Index.open(index))
    (tmp_path / "queries_a.txt").write_text("# a list\n\nrocket/2.jpg PINHOLE 640 480 1 2 3 4\n")
    (tmp_path / "queries_b.txt").write_text("coffee/1.jpg\ncoffee/0.jpg\n")
    every = features.names
    cases: list[tuple[dict[str, Any], list[str], list[str]]] = [
        ({"query_prefix": "coffee"}, [n for n in every if n.startswith("coffee")], every),
        ({"query_prefix": ["rocket/1", "as"]}, [n for n in every if n.startswith(("rocket/1", "as"))], every),
        ({"query_prefix": {"rocket/1"}, "query_list": ["coffee/1.jpg"]}, ["rocket/1.jpg"], every),
        ({"query_list": ["coffee/1.jpg", "astronaut/0.jpg"]}, ["coffee/1.jpg", "astronaut/0.jpg"], every),
        ({"query_list": tmp_path / "queries_a.txt"}, ["rocket/2.jpg"], every),
        ({"query_list": tmp_path / "queries_*.txt"}, ["rocket/2.jpg", "coffee/1.jpg", "coffee/0.jpg"], every),
        ({"db_prefix": ("coffee", "rocket")}, every, [n for n in every if n.startswith(("coffee", "rocket"))]),
        ({"db_list": iter(["rocket/0.jpg", "chelsea/1.jpg"])}, every, ["chelsea/1.jpg", "rocket/0.jpg"]),
        ({"db_list": str(tmp_path / "queries_b.txt"), "query_prefix": "c"}, every[3:9], every[6:8]),
        ({"db_prefix": "rocket", "db_list": ["coffee/0.jpg"]}, every, every[9:]),
    ]
    for options, queries, database in cases:
        lines = written(tmp_path, None, 2, index=searcher, **options)
        assert lines == twin(rows(searcher, features, queries), database, 2, strict=True), options


def test_a_searcher_says_how(world: Path, tmp_path: Path) -> None:
    features = FeatureSet.open(world / "own.features")
    searcher = Searcher(Index.open(world / "own.index"), SelectiveMatch(1.0, 0.3, idf=True), multiple_assignment=1)
    expected = twin(rows(searcher, features, features.names), features.names, 4, strict=True)
    assert written(tmp_path, None, 4, index=searcher) == expected
    assert written(tmp_path, None, 4, index=searcher, db_list=features.names) == expected
    assert written(tmp_path, None, 4, index=world / "own.index") != expected


def test_queries_that_are_not_indexed(world: Path, tmp_path: Path) -> None:
    """Photographs and features of others, as for localisation: queries below one folder, an index of the rest."""
    features = FeatureSet.open(world / "own.features")
    known = [name for name in features.names if not name.endswith("2.jpg")]
    searcher = Searcher(Index.create(tmp_path / "part.index", Index.open(world / "own.index").snapshot.encoder))
    searcher.index.add(features.selected(known))  # type: ignore[union-attr]
    asked = [name for name in features.names if name.endswith("2.jpg")]
    expected = twin(rows(searcher, features, asked), known, 2, strict=True)
    for source in (world / "photos", features.path):
        assert written(tmp_path, source, 2, index=tmp_path / "part.index", query_list=asked) == expected
    done: list[tuple[int, int]] = []
    pairs_from_retrieval(features.path, tmp_path / "p", 1, index=searcher, on_query=lambda *now: done.append(now))
    assert done == [(number, 12) for number in range(1, 13)]


def test_files_of_hloc_name_the_database(world: Path, tmp_path: Path) -> None:
    names = {"one.h5": ["rocket/0.jpg", "coffee/0.jpg"], "two.h5": ["astronaut/1.jpg"]}
    for file, images in names.items():
        with h5py.File(tmp_path / file, "w") as held:
            for image in images:
                held.create_group(image)["global_descriptor"] = np.ones(4, np.float32)
    searcher = Searcher(Index.open(world / "own.index"))
    features = FeatureSet.open(world / "own.features")
    scores = rows(searcher, features, features.names)
    both = [tmp_path / file for file in names]
    expected = twin(scores, [name for images in names.values() for name in images], 3, strict=True)
    assert written(tmp_path, None, 3, index=searcher, db_descriptors=both) == expected
    expected = twin(scores, names["one.h5"], 3, strict=True)
    assert written(tmp_path, None, 3, index=searcher, db_descriptors=str(both[0])) == expected
    expected = twin(scores, ["rocket/0.jpg"], 3, strict=True)
    assert written(tmp_path, None, 3, index=searcher, db_descriptors=both, db_prefix="ro") == expected


def test_an_empty_list_where_nothing_is_in_common(tmp_path: Path) -> None:
    codebook = random_codebook(4, 8)
    images = {f"{word}.jpg": make_features(codebook.centroids[[word]] * 3) for word in range(3)}
    features = write_features(tmp_path / "f", images)
    index = Index.create(tmp_path / "index", codebook)
    index.add(features)
    searcher = Searcher(index, multiple_assignment=1)
    assert written(tmp_path, None, 5, index=searcher) == []
    assert written(tmp_path, None, 5, index=searcher, db_list=["0.jpg"]) == []


# --- Global descriptors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 19, 400])
def test_pairs_of_a_global_index(count: int, vectors: Path, tmp_path: Path) -> None:
    features = FeatureSet.open(vectors / "vectors.features")
    searcher = GlobalSearcher(GlobalIndex.open(vectors / "vectors.index"))
    scores = rows(searcher, features, features.names)
    assert min(min(row.values()) for row in scores.values()) < 0
    expected = twin(scores, features.names, count, strict=False)
    for source, index in ((None, vectors / "vectors.index"), (features.path, searcher), (None, searcher.index)):
        assert written(tmp_path, source, count, index=index) == expected
    some = features.names[::3]
    expected = twin(scores, some, count, strict=False)
    assert written(tmp_path, None, count, index=searcher, db_list=some) == expected


# --- Models of COLMAP ------------------------------------------------------------------------------------------------


def write_model(folder: Path, names: Sequence[str], form: str, points: int = 3) -> Path:
    """The images of a model as COLMAP writes them."""
    folder.mkdir(exist_ok=True)
    pose = (1.0, 0.0, 0.0, 0.0, 0.5, -0.5, 2.0)
    if form == "bin":
        with (folder / "images.bin").open("wb") as file:
            file.write(struct.pack("<Q", len(names)))
            for number, name in enumerate(names, start=1):
                count = points * (number - 1)  # the first has none
                file.write(struct.pack("<i7di", number, *pose, 1) + name.encode() + b"\0" + struct.pack("<Q", count))
                file.write(b"".join(struct.pack("<ddq", 1.5, 2.5, -1) for _ in range(count)))
    else:
        lines = ["# Image list with two lines of data per image:", ""]
        for number, name in enumerate(names, start=1):
            lines += [f"{number} {' '.join(map(str, pose))} 1 {name}", " ".join(["1.5 2.5 -1"] * (number - 1))]
        (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("form", ["bin", "txt"])
def test_the_images_of_a_model_are_the_database(form: str, world: Path, tmp_path: Path) -> None:
    names = ["rocket/2.jpg", "astronaut/0.jpg", "coffee/1.jpg"]
    model = write_model(tmp_path / "model", names, form)
    assert model_images(model) == names
    searcher, features = Searcher(Index.open(world / "own.index")), FeatureSet.open(world / "own.features")
    expected = twin(rows(searcher, features, features.names), names, 2, strict=True)
    assert written(tmp_path, None, 2, index=searcher, db_model=model, db_prefix="no such prefix") == expected
    assert model_images(write_model(tmp_path / "other", ["é ü.jpg", "b"], form)) == ["é ü.jpg", "b"]
    assert model_images(write_model(tmp_path / "empty", [], form)) == []


def test_broken_models(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no images\.bin and no images\.txt"):
        model_images(tmp_path)
    whole = (write_model(tmp_path / "model", ["a.jpg", "b.jpg"], "bin") / "images.bin").read_bytes()
    path = tmp_path / "model" / "images.bin"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedError) as caught:
            model_images(tmp_path / "model")
        assert "\n" not in str(caught.value)
    for wrong in (b"\xff" * 8 + whole[8:], whole[:72] + b"\xff" * 5 + whole[77:], whole.replace(b"\0", b"\x7f")):
        path.write_bytes(wrong)
        with pytest.raises(DamagedError):
            model_images(tmp_path / "model")
    path.unlink()
    (tmp_path / "model" / "images.txt").write_text("1 2 3\n")
    with pytest.raises(FormatError, match="line 1: 3 columns"):
        model_images(tmp_path / "model")


# --- What is refused -------------------------------------------------------------------------------------------------


def refused(kind: type[AsmkError], message: str, folder: Path, *arguments: Any, **options: Any) -> None:
    """An error of one line, and no file."""
    with pytest.raises(kind, match=message) as caught:
        pairs_from_retrieval(arguments[0], folder / "pairs.txt", *arguments[1:], **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "pairs.txt").exists()


def test_wrong_calls(world: Path, tmp_path: Path) -> None:
    index = world / "own.index"
    for wrong in (0, -1, 1.5, True, "3", None):
        refused(InputError, "num_matched is", tmp_path, None, wrong, index=index)
    none = "no query: none of 12 names begins with 'zebra'"
    refused(InputError, none, tmp_path, None, 1, query_prefix="zebra", index=index)
    none = r"no image to pair .* none of 12 names begins with 'x' or 'y'"
    refused(InputError, none, tmp_path, None, 1, db_prefix=["x", "y"], index=index)
    refused(InputError, "no query: none is listed", tmp_path, None, 1, query_list=[], index=index)
    refused(NotFoundError, "'zebra.jpg': not in the index", tmp_path, None, 1, query_list=["zebra.jpg"], index=index)
    refused(NotFoundError, "not in .*photos", tmp_path, world / "photos", 1, query_list=["zebra.jpg"], index=index)
    refused(NotFoundError, "'a', 'b', 'c' and 1 more: not in", tmp_path, None, 1, db_list=list("abcd"), index=index)
    refused(NotFoundError, r"list.txt: no such list", tmp_path, None, 1, db_list=tmp_path / "list.txt", index=index)
    refused(NotFoundError, "nothing.h5: no such file or folder", tmp_path, tmp_path / "nothing.h5", 1, index=index)
    (tmp_path / "list.txt").write_text("# none\n\n")
    refused(InputError, "lists no image", tmp_path, None, 1, query_list=tmp_path / "list.txt", index=index)
    (tmp_path / "list.txt").write_bytes(b"\xff\n")
    refused(InputError, "not UTF-8", tmp_path, None, 1, query_list=tmp_path / "list.txt", index=index)


def test_features_that_do_not_go_with_the_index(world: Path, vectors: Path, tmp_path: Path) -> None:
    h5, imported = world / "feats-sift.h5", world / "imported.index"
    refused(MismatchError, "local features of hloc, but", tmp_path, h5, 1, index=world / "own.index")
    refused(MismatchError, "local features of hloc, but", tmp_path, h5, 1, index=vectors / "vectors.index")
    refused(MismatchError, "called 'other' of 128 dimensions.*name=", tmp_path, h5, 1, index=imported, name="other")
    refused(MismatchError, "but .*imported.index holds those of", tmp_path, world / "own.features", 1, index=imported)
    (tmp_path / "renamed.h5").write_bytes(h5.read_bytes())
    refused(MismatchError, "called 'renamed'", tmp_path, tmp_path / "renamed.h5", 1, index=imported)
    lines = written(tmp_path, tmp_path / "renamed.h5", 1, index=imported, name="feats-sift")
    assert lines == written(tmp_path, h5, 1, index=imported)
    with h5py.File(tmp_path / "global.h5", "w") as file:
        file.create_group("rocket/0.jpg")["global_descriptor"] = np.ones(4, np.float32)
    refused(FormatError, "contains a global descriptor", tmp_path, tmp_path / "global.h5", 1, index=imported)


def test_another_photograph_of_an_indexed_name(world: Path, tmp_path: Path) -> None:
    (tmp_path / "others" / "rocket").mkdir(parents=True)
    other = (world / "photos" / "coffee" / "0.jpg").read_bytes()
    (tmp_path / "others" / "rocket" / "0.jpg").write_bytes(other)
    refused(MismatchError, "another photograph than", tmp_path, tmp_path / "others", 1, index=world / "own.index")


def test_names_that_a_list_cannot_carry(tmp_path: Path) -> None:
    codebook = random_codebook(4, 8)
    images = {name: make_features(codebook.centroids) for name in ("a b.jpg", "c.jpg", "#d.jpg", "e.jpg")}
    features = write_features(tmp_path / "f", images)
    index = Index.create(tmp_path / "index", codebook)
    index.add(features)
    refused(InputError, "'#d.jpg', 'a b.jpg': a list of pairs cannot represent", tmp_path, None, 1, index=index)
    refused(InputError, "'a b.jpg': a list", tmp_path, None, 1, index=index, query_list=["a b.jpg"], db_list=["c.jpg"])
    refused(InputError, "'#d.jpg': a list", tmp_path, None, 1, index=index, query_list=["c.jpg"], db_prefix="#")
    good = ["c.jpg", "e.jpg"]
    assert written(tmp_path, None, 1, index=index, query_list=good, db_list=good) == ["c.jpg e.jpg", "e.jpg c.jpg"]


def test_a_list_of_before_is_kept_where_a_query_fails(world: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    (tmp_path / "pairs.txt").write_text("before")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        pairs_from_retrieval(tmp_path / "photos", tmp_path / "pairs.txt", 1, index=world / "own.index")
    assert (tmp_path / "pairs.txt").read_text() == "before"
