"""Data of trainings by classes: layouts of landmarks, lists of classes, sampling and crops."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asmk_engine.errors import DamagedError, InputError, NotFoundError
from asmk_engine.training.class_sampling import by_class, every_image, with_positives
from asmk_engine.training.class_selection import read_class_list, with_images, without_classes
from asmk_engine.training.crops import CropOptions, random_box, random_crop
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.instances import Instances
from trainings import photograph, write_photographs

IDENTIFIERS = {"abc0": "7", "abd1": "7", "fff2": "11", "0123": "11", "9ab4": "30"}


def write_landmarks(folder: Path, below: str = "train") -> None:
    for name in IDENTIFIERS:
        path = folder / below / name[0] / name[1] / name[2] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(0)).save(path)


def by_name(data: Instances) -> dict[str, str]:
    return {image.name: data.names[label] for image, label in zip(data.images, data.instances, strict=True)}


@pytest.mark.parametrize("below", ["train", ""])
def test_google_landmarks(tmp_path: Path, below: str) -> None:
    write_landmarks(tmp_path, below)
    rows = [f"{name},http://somewhere/,{label}" for name, label in IDENTIFIERS.items()]
    (tmp_path / "train.csv").write_text("\n".join(["id,url,landmark_id", *rows]) + "\n")
    data = read_instances(tmp_path / "train.csv")
    assert by_name(data) == IDENTIFIERS
    assert data.images[0].path == tmp_path / below / "a" / "b" / "c" / "abc0.jpg"
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n7,abc0 abd1\n30,9ab4\n")
    clean = read_instances(tmp_path / "train_clean.csv")
    assert by_name(clean) == {"abc0": "7", "abd1": "7", "9ab4": "30"}
    assert clean.count == 2


def test_google_landmarks_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n7,ab\n")
    with pytest.raises(DamagedError, match="'ab' is no identifier of Google Landmarks"):
        read_instances(tmp_path / "train_clean.csv")
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n7,abc0\n8,abc0\n")
    with pytest.raises(DamagedError, match="has the label '8' here and '7' above"):
        read_instances(tmp_path / "train_clean.csv")
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n7,abc0\n")
    with pytest.raises(NotFoundError, match="1 of 1 photographs are not in"):
        read_instances(tmp_path / "train_clean.csv")


def test_a_list_as_that_of_nc_clean(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"a": 2, "b c": 1})
    (tmp_path / "train.txt").write_text("a/0.png 5\na/1.png 5\n\nb c/0.png 6\n")
    assert by_name(read_instances(tmp_path / "train.txt")) == {"a/0.png": "5", "a/1.png": "5", "b c/0.png": "6"}
    (tmp_path / "train.txt").write_text("a/0.png\n")
    with pytest.raises(DamagedError, match=r"line 1 is 'a/0.png'; expected an image and its instance"):
        read_instances(tmp_path / "train.txt")
    (tmp_path / "train.txt").write_text("a/0.png 1\na/0.png 2\n")
    with pytest.raises(DamagedError, match="has another instance above"):
        read_instances(tmp_path / "train.txt")


def test_classes_are_excluded_and_small_ones_left_out(tmp_path: Path) -> None:
    data = read_instances(write_photographs(tmp_path / "data", {"a": 3, "b": 2, "c": 1, "d": 2}))
    (tmp_path / "list.txt").write_text("b\nnowhere\n")
    names = read_class_list(tmp_path / "list.txt")
    left = without_classes(data, names, tmp_path / "list.txt")
    assert sorted(set(by_name(left).values())) == ["a", "c", "d"]
    assert len(left) == 6
    large = with_images(left, 2)
    assert sorted(set(by_name(large).values())) == ["a", "d"]
    assert large.fingerprint != left.fingerprint
    with pytest.raises(InputError, match="1 of 3 classes have 3 images or more"):
        with_images(left, 3)
    with pytest.raises(InputError, match="none of its 1 classes, such as 'z', is among the 4 of the data"):
        without_classes(data, ["z"], "list")
    (tmp_path / "clean.csv").write_text("landmark_id,images\n12,abc abd\n13,abe\n")
    assert read_class_list(tmp_path / "clean.csv") == ["12", "13"]
    (tmp_path / "clean.csv").write_text("landmark_id,images\n")
    with pytest.raises(InputError, match="names no class"):
        read_class_list(tmp_path / "clean.csv")


MEMBERS = {0: np.arange(5), 1: np.array([5]), 2: np.array([6, 7, 8])}


def test_every_image_once() -> None:
    one, two = (every_image(MEMBERS, np.random.default_rng(seed)) for seed in (0, 1))
    assert sorted(one.tolist()) == list(range(9))
    assert one.tolist() != two.tolist()


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 6))
def test_classes_come_equally_often(seed: int, count: int, together: int) -> None:
    items = by_class(MEMBERS, count, together, np.random.default_rng(seed))
    assert len(items) == count // together * together
    labels = np.searchsorted([5, 6], items, side="right").reshape(-1, together)
    assert (labels == labels[:, :1]).all()
    counts = np.bincount(labels[:, 0], minlength=3)
    assert counts.max(initial=0) - counts.min() <= 1
    for run, label in zip(items.reshape(-1, together), labels[:, 0], strict=True):
        assert len(set(run.tolist())) == min(together, len(MEMBERS[int(label)]))


def test_positives_are_of_the_class() -> None:
    labels = np.searchsorted([5, 6], np.arange(9), side="right")
    pairs = with_positives(np.arange(9), MEMBERS, labels, [0, 1])
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert [place for place, (one, other) in enumerate(pairs.tolist()) if one == other] == [5]
    assert pairs.tolist() == with_positives(np.arange(9), MEMBERS, labels, [0, 1]).tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0), st.floats(1.0, 2.0))
def test_crops_lie_inside_and_have_area_and_aspect(seed: int, area: float, aspect: float) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(20, 300, 2))
    left, top, columns, rows = random_box(width, height, rng, CropOptions(least_area=area, aspect=aspect))
    assert 0 <= left <= left + columns <= width
    assert 0 <= top <= top + rows <= height
    slack = 1 + 2 / min(columns, rows)  # of rounding to whole pixels
    assert max(columns / rows, rows / columns) <= aspect * slack
    if max(width / height, height / width) <= aspect:  # else the central crop may be smaller
        assert columns * rows * slack**2 >= area * width * height


def test_a_crop_follows_from_its_generator() -> None:
    pixels = photograph(1, 80)
    options = CropOptions(side=32, colour=0.2)
    one, same, other = (random_crop(pixels, np.random.default_rng(seed), options) for seed in (0, 0, 1))
    assert one.shape == (32, 32, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    square = photograph(2, 40)[:, :32][:32]
    still = CropOptions(side=32, least_area=1.0, aspect=1.0, flip=0.0)
    assert np.array_equal(random_crop(square, np.random.default_rng(0), still), square)
    mirrored = CropOptions(side=32, least_area=1.0, aspect=1.0, flip=1.0)
    assert np.array_equal(random_crop(square, np.random.default_rng(0), mirrored), square[:, ::-1])


@pytest.mark.parametrize("changes", [{"side": 8}, {"least_area": 0.0}, {"aspect": 0.9}, {"flip": 1.1}, {"colour": 1.0}])
def test_crop_options_out_of_range(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        CropOptions(**changes)  # type: ignore[arg-type]
