"""Published pickles of HOW features: every descriptor under its image, and every kind of file that must be refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import naive_how
from asmk_engine.cli.interchange import import_
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSet
from asmk_engine.interop.how_features import import_how, read_how_features
from asmk_engine.inverted.index import Index
from asmk_engine.recipes import Recipe
from asmk_engine.search.query_features import QuerySource
from samples import random_codebook

DIM = 4


def content(images: int = 5, seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """What a published file holds: image 2 has no descriptor, and image numbers come in runs."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice([number for number in range(images) if number != 2], 30))
    asked = np.sort(rng.choice(3, 8))
    return {
        "vecs": rng.normal(size=(30, DIM)).astype(dtype),
        "imids": numbers,
        "qvecs": rng.normal(size=(8, DIM)).astype(dtype),
        "qimids": asked,
    }


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def held(features: FeatureSet, named: dict[str, int]) -> dict[int, list[list[float]]]:
    return {number: features.read(name).descriptors.astype(float).tolist() for name, number in named.items()}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_every_descriptor_is_found_under_its_image(tmp_path: Path, protocol: int, dtype: type) -> None:
    made = content(dtype=dtype)
    path = write(tmp_path / "how_r18_1000.pkl", made, protocol)
    database, queries = import_how(path, tmp_path / "db", queries=tmp_path / "q")
    assert queries is not None
    expected = naive_how.rows_by_image(made["vecs"].astype(np.float32), made["imids"])
    assert held(database, {name: int(name) for name in database.names}) == expected
    asked = naive_how.rows_by_image(made["qvecs"].astype(np.float32), made["qimids"])
    assert held(queries, {name: int(name.removeprefix("query-")) for name in queries.names}) == asked
    assert database.recipe == queries.recipe == Recipe("imported", {"features": "how_r18_1000", "dim": DIM})
    stored = database.read(database.names[0])
    assert stored.descriptors.dtype == (np.float16 if dtype is np.float16 else np.float32)
    assert (stored.scores == 1).all() and (stored.keypoints == [0, 0, 1]).all() and stored.image_size == (0, 0)


@pytest.mark.parametrize("form", [np.asarray, np.float32, np.ndarray.tolist])
def test_numbers_in_no_order_keep_the_order_of_the_file(tmp_path: Path, form: Callable[[np.ndarray], Any]) -> None:
    made = content()
    made["imids"] = np.random.default_rng(1).permutation(made["imids"])
    stored = {**made, "imids": form(made["imids"])}
    database, queries = import_how(write(tmp_path / "f.pkl", stored), tmp_path / "db")
    assert queries is None and not (tmp_path / "q").exists()
    expected = naive_how.rows_by_image(made["vecs"], made["imids"])
    assert held(database, {name: int(name) for name in database.names}) == expected


def test_names_follow_the_ground_truth_and_empty_images_stay(tmp_path: Path) -> None:
    names, asked = [f"photo é {number}" for number in range(7)], ["a", "b", "c", "d"]
    path = write(tmp_path / "f.pkl", content())
    database, queries = import_how(
        path, tmp_path / "db", queries=tmp_path / "q", name="how", names=names, query_names=asked
    )
    assert queries is not None and queries.names == asked and database.names == names
    expected = naive_how.rows_by_image(content()["vecs"], content()["imids"])
    assert held(database, {name: number for number, name in enumerate(names)}) == {
        number: expected.get(number, []) for number in range(7)
    }
    assert database.count(names[2]) == database.count(names[6]) == queries.count("d") == 0
    assert database.recipe.options["features"] == "how"


def test_a_file_for_codebooks_becomes_pieces(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2500, DIM)).astype(np.float32)
    database, queries = import_how(write(tmp_path / "f.pkl", {"vecs": vectors}), tmp_path / "db")
    assert queries is None and [database.count(name) for name in database.names] == [1000, 1000, 500]
    assert np.array_equal(np.concatenate([database.read(name).descriptors for name in database.names]), vectors)


@pytest.mark.parametrize("keys", [("vecs",), ("vecs", "imids")])
def test_a_file_without_descriptors_gives_an_empty_set(tmp_path: Path, keys: tuple[str, ...]) -> None:
    empty = {"vecs": np.empty((0, DIM), np.float32), "imids": np.empty(0, np.int64)}
    database, _ = import_how(write(tmp_path / "f.pkl", {key: empty[key] for key in keys}), tmp_path / "db")
    assert len(database) == 0 and database.dim == DIM


def test_importing_again_adds_only_what_changed(tmp_path: Path) -> None:
    made, told = content(), []
    import_how(write(tmp_path / "f.pkl", made), tmp_path / "db")
    parts = len(os.listdir(tmp_path / "db"))
    import_how(tmp_path / "f.pkl", tmp_path / "db", on_image=lambda done, total: told.append((done, total)))
    assert told == [(done, 4) for done in range(1, 5)] and len(os.listdir(tmp_path / "db")) == parts
    made["vecs"][0] += 1
    database, _ = import_how(write(tmp_path / "f.pkl", made), tmp_path / "db")
    assert database.read("0").descriptors.tolist() == made["vecs"][made["imids"] == 0].tolist()
    with pytest.raises(MismatchError):
        import_how(tmp_path / "f.pkl", tmp_path / "db", name="another")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


def changed(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in {**content(), **values}.items() if value is not None}


BROKEN: list[tuple[Any, type[AsmkError], str]] = [
    (Evil(), FormatError, "system"),
    ([1, 2], FormatError, "expected vecs"),
    ({"imids": [1]}, FormatError, "expected vecs"),
    (changed(vecs=[1.0]), DamagedError, "vecs is list"),
    (changed(vecs=np.zeros(30)), DamagedError, "expected descriptors"),
    (changed(vecs=np.zeros((30, 0))), DamagedError, "expected descriptors"),
    (changed(vecs=np.zeros((30, DIM), int)), DamagedError, "vecs is int64"),
    (changed(vecs=np.full((30, DIM), np.nan)), InputError, "NaN"),
    (changed(vecs=np.full((30, DIM), np.inf, np.float16)), InputError, "infinity"),
    (changed(imids=np.zeros(29, int)), DamagedError, "the image numbers of 30 descriptors"),
    (changed(imids=np.zeros((30, 1), int)), DamagedError, "the image numbers of 30 descriptors"),
    (changed(imids=["a"] * 30), DamagedError, "the image numbers of 30 descriptors"),
    (changed(imids=[[1], [1, 2]]), DamagedError, "the image numbers of 30 descriptors"),
    (changed(imids="text"), DamagedError, "imids is str"),
    (changed(imids=np.full(30, -1)), DamagedError, "counted from 0"),
    (changed(imids=np.full(30, 0.5)), DamagedError, "counted from 0"),
    (changed(imids=np.full(30, np.nan)), DamagedError, "counted from 0"),
    (changed(imids=np.full(30, 1e300)), DamagedError, "counted from 0"),
    (changed(imids=None), DamagedError, "one of qvecs, qimids and imids is missing"),
    (changed(qimids=None), DamagedError, "one of qvecs, qimids and imids is missing"),
    (changed(qvecs=None), DamagedError, "one of qvecs, qimids and imids is missing"),
    (changed(qvecs=np.zeros((8, DIM + 1), np.float32)), DamagedError, "4 dimensions, qvecs 5"),
    (changed(qimids=np.zeros(7, int)), DamagedError, "qimids is int64"),
]


@pytest.mark.parametrize(("value", "kind", "said"), BROKEN, ids=range(len(BROKEN)))
def test_another_or_broken_file_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, kind: type[AsmkError], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "f.pkl", value)
    with pytest.raises(kind) as error:
        import_how(path, tmp_path / "db")
    text = str(error.value)
    assert said in text and str(path) in text and "\n" not in text
    assert not (tmp_path / "db").exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"names": ["a"] * 9}, "same name"),
        ({"names": ["a", "b"]}, "image number 4, but 2 names"),
        ({"names": ["a", "b", "c", "d", ""]}, "must not be empty"),
        ({"name": " "}, "need a name"),
        ({"queries": "q", "query_names": ["x"]}, "but 1 names"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    if "queries" in options:
        options = {**options, "queries": tmp_path / "q"}
    with pytest.raises(InputError, match=said):
        import_how(write(tmp_path / "f.pkl", content()), tmp_path / "db", **options)
    assert not (tmp_path / "db").exists() and not (tmp_path / "q").exists()


def test_options_that_the_file_has_nothing_for(tmp_path: Path) -> None:
    path = write(tmp_path / "f.pkl", {"vecs": content()["vecs"]})
    with pytest.raises(InputError, match="contains no queries"):
        import_how(path, tmp_path / "db", queries=tmp_path / "q")
    with pytest.raises(InputError, match="has no image numbers"):
        import_how(path, tmp_path / "db", names=["a"])
    with pytest.raises(NotFoundError):
        read_how_features(tmp_path / "none.pkl")


# The command, and what comes after it


def ground_truth(path: Path) -> Path:
    """The layout of gnd_roxford5k.pkl: queries that are not among the images, with a box."""
    entries = [{"bbx": [0, 0, 9, 9], "easy": [number], "hard": [], "junk": []} for number in range(3)]
    return write(path, {"imlist": [f"i{n}" for n in range(5)], "qimlist": ["q0", "q1", "q2"], "gnd": entries})


def run(*arguments: object) -> Any:
    return CliRunner().invoke(import_, [str(argument) for argument in arguments], catch_exceptions=True)


def test_the_command_names_images_and_queries_by_the_ground_truth(tmp_path: Path) -> None:
    path = write(tmp_path / "f.pkl", content())
    sets = ("-o", tmp_path / "db", "--queries", tmp_path / "q")
    done = run(
        path, "--format", "how", "--ground-truth", ground_truth(tmp_path / "gnd.pkl"), "--name", "how_r18", *sets
    )
    assert done.exit_code == 0, done.exception
    assert "5 images, 30 descriptors of 4 dimensions" in done.output and "3 images, 8 descriptors" in done.output
    assert FeatureSet.open(tmp_path / "db").names == [f"i{number}" for number in range(5)]
    assert FeatureSet.open(tmp_path / "q").names == ["q0", "q1", "q2"]


def test_queries_of_a_truth_are_taken_from_the_imported_set(tmp_path: Path) -> None:
    made = content()
    names, asked = [f"i{number}" for number in range(5)], ["q0", "q1", "q2"]
    database, queries = import_how(
        write(tmp_path / "f.pkl", made), tmp_path / "db", queries=tmp_path / "q", names=names, query_names=asked
    )
    codebook: Codebook = random_codebook(3, DIM, recipe=database.recipe)
    index = Index.create(tmp_path / "index", codebook)
    index.add(database)
    source = QuerySource(index, features=tmp_path / "q")
    assert queries is not None
    found = source.ground_truth_features("q1", (0, 0, 9, 9))
    assert found.descriptors.tolist() == made["qvecs"][made["qimids"] == 1].tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--format", "how", "--codebook", "c"],
            "--format how does not accept --codebook; add --format asmk, or leave",
        ),
        (["--names", "n"], "--format hloc does not accept --names; add --format asmk or how, or leave that out"),
        (["--ground-truth", "t", "--queries", "q"], "does not accept --ground-truth or --queries; add --format how"),
        (
            ["--codebook", "c", "--ground-truth", "t"],
            "--format hloc does not accept --codebook or --ground-truth; leave that out",
        ),
        (["--format", "asmk", "--ground-truth", "t"], "--format asmk does not accept --ground-truth; add --format how"),
        (["--format", "how", "--ground-truth", "t", "--names", "n"], "both give the names of the images"),
    ],
)
def test_options_of_another_layout_are_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    error = run(tmp_path / "f.pkl", "-o", tmp_path / "out", *arguments).exception
    assert isinstance(error, InputError) and said in str(error), error


def test_names_from_a_list(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"n{number}\n" for number in range(5)))
    done = run(
        *(write(tmp_path / "f.pkl", content()), "-o", tmp_path / "db", "--format", "how"),
        *("--names", tmp_path / "names.txt"),
    )
    assert done.exit_code == 0 and json.dumps(FeatureSet.open(tmp_path / "db").names).count("n") == 5
