"""Maps of descriptors: classes against a twin, descriptors of every kind of source, the map, pictures, the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.evaluation.classes import classes_of_folders, classes_of_ground_truth
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.flat import Codec, GlobalIndex
from asmk_engine.pictures import embedding
from asmk_engine.pictures.embedding import draw_embedding, embed
from asmk_engine.search.vectors import image_vectors
from fused_histories import create, images_of, write_sets
from global_samples import DIM, RECIPE, global_images, write_global
from samples import make_features, write_features

# ---- classes


def query(name: str, easy: Any = (), hard: Any = (), inside: bool = True) -> GroundTruthQuery:
    return GroundTruthQuery(name, None, frozenset(easy), frozenset(hard), frozenset(), inside)


def naive_classes(queries: list[GroundTruthQuery], row: str) -> list[frozenset[str]]:
    """The sets of images of one class: whatever two queries have in common joins them, until nothing is left."""
    groups = [({one.name} | one.easy | one.hard, [one]) for one in queries]
    joined = True
    while joined:
        joined = False
        for first in range(len(groups)):
            for second in range(first + 1, len(groups)):
                if not joined and groups[first][0] & groups[second][0]:
                    groups[first] = groups[first][0] | groups[second][0], groups[first][1] + groups[second][1]
                    del groups[second]
                    joined = True
                    break
    found = []
    for _, members in groups:
        images = set()
        for one in members:
            images |= one.easy if row in ("easy", "medium") else set()
            images |= one.hard if row in ("hard", "medium") else set()
            images |= {one.name} if one.in_database else set()
        found.append(frozenset(images))
    return sorted((one for one in found if one), key=sorted)


NAMES = [f"p{number}" for number in range(9)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)),
                          st.booleans()), max_size=5, unique_by=lambda one: one[0]),
       st.sampled_from(["easy", "medium", "hard"]))  # fmt: skip
def test_classes_are_what_queries_have_in_common(given: list[Any], row: str) -> None:
    queries = [query(name, easy, hard - easy, inside) for name, easy, hard, inside in given]
    images = tuple(sorted({one.name for one in queries}.union(*(one.easy | one.hard for one in queries), NAMES)))
    found = classes_of_ground_truth(GroundTruth(images, tuple(queries)), row)
    by_class: dict[str, set[str]] = {}
    for name, label in found.items():
        by_class.setdefault(label, set()).add(name)
    expected = naive_classes(queries, row)
    assert set(found) == set().union(*expected, set())
    for one in expected:
        assert len({found[name] for name in one}) == 1
    assert len(by_class) == len(expected)


def test_classes_are_called_what_their_names_begin_with() -> None:
    queries = (
        query("all_souls_1", ["all_souls_000013.jpg"], ["all_souls_000026.jpg"], False),
        query("all_souls_2", ["all_souls_000013.jpg"], (), False),
        query("tower/a.jpg", ["tower/b.jpg"]),
        query("red", ["blue"], (), False),
    )
    images = ("all_souls_000013.jpg", "all_souls_000026.jpg", "blue", "red other", "tower/a.jpg", "tower/b.jpg")
    found = classes_of_ground_truth(GroundTruth(images, queries))
    assert found == {
        "all_souls_000013.jpg": "all_souls", "all_souls_000026.jpg": "all_souls",
        "tower/a.jpg": "tower", "tower/b.jpg": "tower", "blue": "red",
    }  # fmt: skip
    assert classes_of_folders(["a/b/c.jpg", "a/d.jpg", "e.jpg"]) == {"a/b/c.jpg": "a/b", "a/d.jpg": "a"}


# ---- descriptors


def test_descriptors_of_a_feature_set_and_of_its_index_agree(tmp_path: Path) -> None:
    features = write_global(tmp_path / "g.features", global_images(12))
    index = GlobalIndex.create(tmp_path / "g.index", Codec(RECIPE, DIM))
    index.add(features)
    index.delete(["image 003.jpg"])
    one, other = image_vectors(tmp_path / "g.features"), image_vectors(tmp_path / "g.index")
    assert one.names == sorted(features.names) and one.extractor == other.extractor == "gem"
    assert other.names == [name for name in one.names if name != "image 003.jpg"]
    kept = [row for row, name in enumerate(one.names) if name != "image 003.jpg"]
    np.testing.assert_allclose(one.vectors[kept], other.vectors, atol=1e-6)
    assert not one.vectors[2].any(), "a zero descriptor stays zero"
    np.testing.assert_allclose(np.linalg.norm(np.delete(one.vectors, 2, 0), axis=1), 1, atol=1e-6)


def test_descriptors_of_an_index_of_several_kinds_are_those_of_its_global_one(tmp_path: Path) -> None:
    index, made = create(tmp_path / "f.index"), images_of(16, seed=3)
    index.add(write_sets(tmp_path / "sets", made))
    found = image_vectors(tmp_path / "f.index")
    assert found.names == sorted(name for name, (_, whole) in made.items() if whole is not None)
    rows = {name: row for row, name in enumerate(found.names)}
    for name, (_, whole) in made.items():
        if whole is not None:
            np.testing.assert_allclose(found.vectors[rows[name]], whole.descriptors[0], atol=2e-3)


def test_local_features_have_no_map(tmp_path: Path) -> None:
    write_features(tmp_path / "l.features", {"a.jpg": make_features(np.eye(4))})
    with pytest.raises(InputError, match=r"local features of .*expected one descriptor for each"):
        image_vectors(tmp_path / "l.features")


# ---- the map


def clusters(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around three far directions, and the number of each one's direction."""
    rng = np.random.default_rng(0)
    which = np.arange(3 * count) % 3
    vectors = np.eye(3, 8)[which] + 0.05 * rng.normal(size=(3 * count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), which


def test_what_is_near_stays_near_and_equal_seeds_give_equal_maps() -> None:
    pytest.importorskip("sklearn")
    vectors, which = clusters()
    found = embed(vectors, seed=3)
    assert found.points.shape == (36, 2) and found.perplexity == pytest.approx(35 / 3) and found.seed == 3
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (which[distances.argmin(1)] == which).all()
    np.testing.assert_array_equal(embed(vectors, seed=3).points, found.points)
    assert embed(np.tile(np.linspace(0, 1, 8)[:, None], (1, 1)), 2.0).points.shape == (8, 2), "one dimension"


def test_what_cannot_be_mapped_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clusters()
    for perplexity in (36.0, 0.0):
        with pytest.raises(InputError, match="for 36 images; give one above 0 and below"):
            embed(vectors, perplexity)
    with pytest.raises(InputError, match="4 images with a descriptor; a map needs 5"):
        embed(vectors[:4])
    with pytest.raises(InputError, match="all 7 descriptors are equal"):
        embed(np.ones((7, 3), np.float32))
    for module, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        monkeypatch.setattr(embedding, "find_spec", lambda name, gone=module: None if name == gone else name)
        with pytest.raises(DependencyError, match=rf"{package}, which .*asmk-engine\[plots\]"):
            embedding.check_packages()


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_map_has_the_same_bytes_again(form: str) -> None:
    pytest.importorskip("matplotlib")
    points = np.random.default_rng(0).normal(size=(9, 2))
    names = [f"{number}.jpg" for number in range(9)]
    strange = ["$x_y$", "_hidden", "long " * 40, "<b>&"]
    classes = {names[number]: strange[number % 4] for number in range(8)}
    first = draw_embedding(points, names, classes, "a title", form, 3)
    assert first == draw_embedding(points, names, classes, "a title", form, 3)
    assert draw_embedding(points, names, {}, "no classes", form) != first
    assert draw_embedding(np.zeros((5, 2)), names[:5], classes, "one place", form)


# ---- the command


def call(*words: object) -> Result:
    return CliRunner().invoke(commands, ["tsne", *map(str, words)])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature set of three folders of ten images and two images beside them."""
    folder = tmp_path_factory.mktemp("tsne")
    vectors, which = clusters()
    images = {f"place {which[row]}/{row:02d}.jpg": make_features(vectors[row : row + 1]) for row in range(30)}
    images |= {f"{row}.jpg": make_features(vectors[row : row + 1]) for row in (31, 32)}
    write_global(folder / "g.features", images)
    return folder / "g.features"


def test_the_command_draws_and_tells_the_same_map(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    done = call(source, "-o", tmp_path / "map.png", "--csv", tmp_path / "map.csv", "--json", "--seed", 1)
    assert done.exit_code == 0, (done.output, done.exception)
    report = json.loads(done.stdout)
    assert report["images"] == 32 and report["seed"] == 1 and report["perplexity"] == pytest.approx(31 / 3)
    table = list(csv.DictReader((tmp_path / "map.csv").read_text().splitlines()))
    assert [row["image"] for row in table] == [point["image"] for point in report["points"]]
    for row, point in zip(table, report["points"], strict=True):
        assert float(row["x"]) == pytest.approx(point["x"], rel=1e-4) and (row["class"] or None) == point["class"]
        folder = point["image"].rpartition("/")[0]
        assert point["class"] == (folder or None)
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size == (1500, 1110)


def test_classes_come_from_a_table_or_a_ground_truth(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    names = sorted(f"place {row % 3}/{row:02d}.jpg" for row in range(30))
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(f"{name},red\n" for name in names[:9]))
    done = call(source, "--json", "--labels", tmp_path / "labels.csv", "--labelled-only", "-q")
    assert done.exit_code == 0, (done.output, done.exception)
    assert [point["image"] for point in json.loads(done.stdout)["points"]] == names[:9]
    truth = {"imlist": names, "queries": [{"query": names[0], "bbox": None, "easy": names[1:5], "hard": names[5:8],
                                           "junk": []}]}  # fmt: skip
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    for row, count in (("easy", 5), ("medium", 8), ("hard", 4)):
        words = ("--ground-truth", tmp_path / "gnd.json", "--protocol", row)
        done = call(source, "-o", tmp_path / "map.svg", "--json", *words, "-q")
        classes = [point["class"] for point in json.loads(done.stdout)["points"]]
        assert classes.count("place 0") == count and len(classes) - classes.count(None) == count
        assert "place 0" in (tmp_path / "map.svg").read_text() or (tmp_path / "map.svg").stat().st_size > 5000


def test_errors_of_the_command_are_one_line(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for words, reason in (
        ((source, "-o", tmp_path / "map.gif"), "a map is a PNG, SVG or PDF file"),
        ((source, "-o", tmp_path / "map.png", "--perplexity", 32), "perplexity 32 for 32 images"),
        ((tmp_path / "gone", "--json"), "gone"),
        ((source, "--json", "--labels", tmp_path / "gone.csv"), "gone.csv"),
    ):
        done = call(*words)
        assert done.exit_code == 1 and reason in str(done.exception) and "\n" not in str(done.exception)
    for usage in ((source,), (source, "--json", "--protocol", "easy"),
                  (source, "--json", "--labels", "a", "--ground-truth", "b")):  # fmt: skip
        assert call(*usage).exit_code == 2
    assert not list(tmp_path.iterdir())
