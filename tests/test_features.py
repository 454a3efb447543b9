"""Feature sets on disk: features are read back unchanged, the last entry of a name counts, and damage is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.features import Features, FeatureSet, FeatureWriter, Source
from asmk_engine.recipes import Recipe
from samples import RECIPE, make_features, random_images, write_features

DIM = 8


def same(one: Features, other: Features) -> bool:
    arrays = ("descriptors", "keypoints", "scores")
    return one.image_size == other.image_size and all(
        np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    images = random_images(20, DIM)
    found = write_features(tmp_path / "f", images, source=Source(5, 2**62, 2**64 - 1))
    assert found.names == sorted(images) and len(found) == 20 and found.dim == DIM and found.recipe == RECIPE
    assert all(same(found.read(name), images[name]) for name in images)
    assert {name for name, features in found.images() if same(features, images[name])} == set(images)
    assert found.source(found.names[0]) == Source(5, 2**62, 2**64 - 1)
    assert found.descriptor_count == sum(map(len, images.values()))
    assert [name for name, _ in found.images(found.names[3:5])] == found.names[3:5]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["add", "fail", "remove"])), max_size=12))
@settings(deadline=None, max_examples=40)
def test_the_last_word_on_a_name_counts(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("f")
    present: dict[str, Features] = {}
    failed: set[str] = set()
    write_features(path, {}, dim=DIM)
    for number, (name, action) in enumerate(steps):
        features = make_features(np.full((number, DIM), number))
        with FeatureWriter(path, RECIPE, DIM) as writer:
            present.pop(name, None)
            failed.discard(name)
            if action == "add":
                writer.add(name, features)
                present[name] = features
            elif action == "fail":
                writer.fail(name, "broken")
                failed.add(name)
            else:
                writer.remove(name)
    found = FeatureSet.open(path)
    assert found.names == sorted(present) and set(found.failures) == failed
    assert all(same(features, present[name]) for name, features in found.images())


def test_parts_are_closed_by_size_and_by_age(tmp_path: Path) -> None:
    images = random_images(12, DIM, features=3)
    for limits in ({"part_bytes": 1}, {"part_seconds": 0.0}):
        path = tmp_path / str(limits)
        with FeatureWriter(path, RECIPE, DIM, **limits) as writer:
            for name, features in images.items():
                writer.add(name, features)
        assert len(list(path.glob("part-*.h5"))) > 5
        assert FeatureSet.open(path).names == sorted(images)


def test_features_with_and_without_angles_are_in_parts_of_their_own(tmp_path: Path) -> None:
    images = {name: image for name, image in random_images(12, DIM, features=3).items() if len(image)}
    rng = np.random.default_rng(0)
    for name in list(images)[2:4]:
        turned = np.column_stack([images[name].keypoints, rng.normal(size=len(images[name]))]).astype(np.float32)
        images[name] = replace(images[name], keypoints=turned)
    empty = next(iter(images.values())).strongest(0)
    found = write_features(tmp_path / "f", {**images, "z empty": empty})
    assert len(list((tmp_path / "f").glob("part-*.h5"))) == 3
    assert all(same(found.read(name), image) for name, image in images.items()) and not len(found.read("z empty"))


def test_an_interrupted_run_keeps_what_it_had(tmp_path: Path) -> None:
    images = random_images(5, DIM)
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path / "f", RECIPE, DIM) as writer:
        for name, features in images.items():
            writer.add(name, features)
        raise KeyboardInterrupt
    assert FeatureSet.open(tmp_path / "f").names == sorted(images)


def test_unfinished_parts_are_ignored_and_removed(tmp_path: Path) -> None:
    write_features(tmp_path / "f", random_images(2, DIM))
    (tmp_path / "f" / "part-000007.h5.tmp").write_bytes(b"half")
    assert len(FeatureSet.open(tmp_path / "f")) == 2
    write_features(tmp_path / "f", {"new.jpg": make_features(np.ones((1, DIM)))})
    assert not list((tmp_path / "f").glob("*.tmp"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", ["descriptors", "keypoints", "scores"])
def test_what_is_not_finite_is_refused(tmp_path: Path, value: float, array: str) -> None:
    features = make_features(np.ones((3, DIM)))
    getattr(features, array)[1] = value
    with FeatureWriter(tmp_path / "f", RECIPE, DIM) as writer, pytest.raises(InputError, match=r"a\.jpg.*NaN or inf"):
        writer.add("a.jpg", features)
    assert len(FeatureSet.open(tmp_path / "f")) == 0


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    good = make_features(np.ones((3, DIM)))
    cases = [
        (MismatchError, make_features(np.ones((3, DIM + 1)))),
        (InputError, Features(np.ones((3, DIM)), good.keypoints, good.scores, (1, 1))),
        (InputError, Features(good.descriptors, good.keypoints[:2], good.scores, (1, 1))),
        (InputError, Features(good.descriptors[0], good.keypoints, good.scores, (1, 1))),
    ]
    with FeatureWriter(tmp_path / "f", RECIPE, DIM) as writer:
        for error, features in cases:
            with pytest.raises(error, match=r"a\.jpg"):
                writer.add("a.jpg", features)
        writer.add("a.jpg", good)
        with pytest.raises(InputError, match="twice"):
            writer.add("a.jpg", good)
        for name in ("", "nul\0", "\udcff"):
            with pytest.raises(InputError):
                writer.add(name, good)
    assert FeatureSet.open(tmp_path / "f").names == ["a.jpg"]


def test_another_recipe_or_a_second_writer_is_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "f", random_images(2, DIM))
    with (
        pytest.raises(MismatchError, match=r"synthetic seed=0.*other"),
        FeatureWriter(tmp_path / "f", Recipe("other"), 8),
    ):
        pass
    with (
        FeatureWriter(tmp_path / "f", RECIPE, DIM),
        pytest.raises(StorageError, match="another process"),
        FeatureWriter(tmp_path / "f", RECIPE, DIM),
    ):
        pass


def test_a_part_cut_anywhere_is_named(tmp_path: Path) -> None:
    write_features(tmp_path / "f", random_images(6, DIM))
    path = tmp_path / "f" / "part-000000.h5"
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match=r"part-000000\.h5.*run extract again"):
            FeatureSet.open(tmp_path / "f")


def test_arrays_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    for key, value in {"offsets": [0, 99], "names": ["a", "b"], "keypoints": np.zeros((1, 2))}.items():
        path = tmp_path / key
        write_features(path, {"a": make_features(np.ones((3, DIM)))})
        with h5py.File(path / "part-000000.h5", "a") as file:
            del file[key]
            file[key] = value
        with pytest.raises(DamagedError, match="not a complete feature part"):
            FeatureSet.open(path)


def test_what_is_no_feature_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such feature set"):
        FeatureSet.open(tmp_path / "none")
    with pytest.raises(FormatError, match="not a feature set"):
        FeatureSet.open(tmp_path)
    with h5py.File(tmp_path / "part-000000.h5", "w") as file:
        file.attrs["kind"] = "something else"
    with pytest.raises(FormatError, match="not a part of a feature set"):
        FeatureSet.open(tmp_path)


def test_unknown_names_say_why(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "f", RECIPE, DIM) as writer:
        writer.fail("b.jpg", "truncated")
    with pytest.raises(NotFoundError, match=r"b\.jpg.*truncated"):
        FeatureSet.open(tmp_path / "f").read("b.jpg")


def test_recipes_compare_by_content() -> None:
    assert Recipe("a", {"x": 1, "y": 2}) == Recipe("a", {"y": 2, "x": 1})
    assert Recipe("a", {"x": 1}) != Recipe("a", {"x": 2}) and Recipe("a") != Recipe("a", {}, "00")
    assert Recipe.from_json(Recipe("a", {"x": [1, 2]}, "ff").to_json()) == Recipe("a", {"x": [1, 2]}, "ff")
    for text in ("", "[]", "{}", '{"extractor": "a"}'):
        with pytest.raises(DamagedError):
            Recipe.from_json(text)
