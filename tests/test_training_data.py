"""Training data: instances in every layout, tuples, hard negatives, augmented views, and their errors."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import naive_training
from asmk_engine.errors import DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.images.listing import ImageFile
from asmk_engine.training.augmented_pairs import ViewOptions, random_corners, random_view, recolour
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.instances import Instances, make_instances
from asmk_engine.training.mining import mine
from asmk_engine.training.photographs import check_photographs
from asmk_engine.training.sfm120k import image_place
from asmk_engine.training.tuples import check_tuples, draw_pairs, draw_pool
from trainings import SIDE, photograph, write_photographs


def instances(labels: list[str], groups: list[str] | None = None, pairs: np.ndarray | None = None) -> Instances:
    files = [ImageFile(f"{place}.jpg", Path(f"{place}.jpg")) for place in range(len(labels))]
    return make_instances(files, labels, groups or [""] * len(labels), pairs)


def names(data: Instances) -> dict[str, int]:
    return {image.name: int(label) for image, label in zip(data.images, data.instances, strict=True)}


# Layouts


def test_a_folder_for_each_instance(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"a": 2, "b/deeper": 1})
    Image.fromarray(photograph(0)).save(tmp_path / "lone.png")
    data = read_instances(tmp_path)
    assert names(data) == {"a/0.png": 0, "a/1.png": 0, "b/deeper/0.png": 1, "lone.png": -1}
    assert data.count == 2
    assert data.groups.tolist() == [0, 0, 1, 2]
    assert {label: part.tolist() for label, part in data.members().items()} == {0: [0, 1], 1: [2]}


def test_a_background_inside_the_folder_is_no_instance(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"_others": 3, "a": 2, "b": 2})
    data = read_instances(tmp_path, background=[tmp_path / "_others"])
    assert data.instances.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert data.groups.tolist() == [0, 0, 1, 1, 2, 3, 4]
    assert [image.name for image in data.images[4:]] == ["0.png", "1.png", "2.png"]


def test_photographs_without_labels(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"a": 2, "b": 1})
    data = read_instances(tmp_path, "photos")
    assert data.instances.tolist() == data.groups.tolist() == [0, 1, 2]


def test_a_table(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"a": 2, "b": 2})
    rows = ["image,instance,group", "b/0.png,tower,city", "a/0.png,gate,city", "a/1.png,gate,city", "b/1.png,,"]
    (tmp_path / "data.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    data = read_instances(tmp_path / "data.csv")
    assert names(data) == {"b/0.png": 0, "a/0.png": 1, "a/1.png": 1, "b/1.png": -1}
    assert data.groups.tolist() == [0, 0, 0, 1]
    assert [image.path for image in data.images[:1]] == [tmp_path / "b" / "0.png"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", FormatError, "the first line is ''"),
        ("image,label\n", FormatError, "expected image,instance or image,instance,group"),
        ("image,instance\na/0.png\n", DamagedError, "line 2 has 1 fields"),
        ("image,instance\n,x\n", DamagedError, "line 2"),
        ("image,instance\na/0.png,x\na/0.png,x\n", DamagedError, "lists 'a/0.png' twice"),
        ("image,instance\na/9.png,x\n", NotFoundError, "1 of 1 photographs are not in"),
        ("image,instance,group\na/0.png,x,one\na/1.png,x,two\n", DamagedError, "in the groups 'one' and 'two'"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    write_photographs(tmp_path, {"a": 2})
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(error, match=message):
        read_instances(tmp_path / "data.csv")


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"image,instance\n\xff\xfe\n")
    with pytest.raises(DamagedError, match="not a UTF-8 CSV table"):
        read_instances(tmp_path / "data.csv")


def test_data_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder or file"):
        read_instances(tmp_path / "nothing")
    (tmp_path / "file.zip").touch()
    with pytest.raises(FormatError, match="neither a folder nor"):
        read_instances(tmp_path / "file.zip")
    with pytest.raises(InputError, match="is a file, layout folders needs a folder"):
        read_instances(tmp_path / "file.zip", "folders")
    with pytest.raises(InputError, match="is a folder, layout csv needs a file"):
        read_instances(tmp_path, "csv")
    with pytest.raises(InputError, match="choose one of auto"):
        read_instances(tmp_path, "zip")
    Image.fromarray(photograph(0)).save(tmp_path / "lone.png")
    with pytest.raises(InputError, match=r"contains no folder of photographs; .* --layout photos"):
        read_instances(tmp_path)
    with pytest.raises(NotFoundError, match="no such folder of photographs"):
        read_instances(tmp_path, "photos", background=[tmp_path / "nothing"])


CIDS = ["abcdef123456", "abcdef123457", "zyxwvu987654", "zyxwvu987655"]
SFM = {"cids": CIDS, "cluster": [7, 7, 3, 3], "qidxs": [0, 3], "pidxs": [1, 2]}


def write_sfm(folder: Path, **changes: Any) -> Path:
    for name in CIDS:
        place = folder / "ims" / image_place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(0)).save(place, format="PNG")
    path = folder / "retrieval-SfM-120k.pkl"
    path.write_bytes(pickle.dumps({"train": {**SFM, **changes}, "val": SFM}))
    return path


def test_sfm120k(tmp_path: Path) -> None:
    path = write_sfm(tmp_path)
    assert image_place("abcdef123456") == "56/34/12/abcdef123456"
    for images in (tmp_path, tmp_path / "ims"):
        data = read_instances(path, images=images)
        assert names(data) == dict(zip(CIDS, [1, 1, 0, 0], strict=True))
        assert data.pairs is not None
        assert data.pairs.tolist() == [[0, 1], [3, 2]]
        assert data.images[0].path == tmp_path / "ims" / "56" / "34" / "12" / CIDS[0]
    check_photographs(data.images, SIDE, 8)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cids": "names"}, DamagedError, "cids is not a list of names"),
        ({"cids": [*CIDS[:3], "../../etc/passwd"]}, DamagedError, "cids is not a list of names"),
        ({"cluster": [7, 7, 3]}, DamagedError, "cluster is int64 .*expected 4 whole numbers"),
        ({"cluster": [7.0, 7.5, 3, 3]}, DamagedError, "cluster is float64"),
        ({"qidxs": [0, 4]}, DamagedError, "qidxs .*expected some whole numbers below 4"),
        ({"pidxs": [1]}, DamagedError, "pidxs .*expected 2 whole numbers below 4"),
        ({"pidxs": [2, 2]}, DamagedError, "a pair of train is not two different images of one model"),
        ({"pidxs": [0, 2]}, DamagedError, "a pair of train is not two different images of one model"),
        ({"cids": [*CIDS[:3], "zyxwvu000000"]}, NotFoundError, "1 of 4 photographs are not in"),
    ],
)
def test_sfm120k_that_cannot_be_used(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_instances(write_sfm(tmp_path, **changes), images=tmp_path)


def test_sfm120k_without_photographs_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give it, `ims`, with --images"):
        read_instances(write_sfm(tmp_path))
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"train": [1]}))
    with pytest.raises(FormatError, match="no train with cids"):
        read_instances(tmp_path / "other.pkl", images=tmp_path)


def test_the_fingerprint_knows_names_labels_and_pairs() -> None:
    pairs = np.array([[0, 1]])
    different = [
        instances(["a", "a", "b"]),
        instances(["a", "b", "b"]),
        instances(["a", "a", "b"], ["g", "g", "g"]),
        instances(["a", "a", "b"], pairs=pairs),
        instances(["a", "a", "b", ""]),
    ]
    assert len({data.fingerprint for data in different}) == len(different)
    assert instances(["x", "x", "y"]).fingerprint == different[0].fingerprint


# Tuples


def test_every_anchor_comes_as_often_as_any_other() -> None:
    data = instances(["a", "a", "a", "b", "b", "c", ""])
    pairs = draw_pairs(data, 12, 0.0, np.random.default_rng(0))
    anchors, counts = np.unique(pairs[:, 0], return_counts=True)
    assert anchors.tolist() == [0, 1, 2, 3, 4]
    assert counts.min() == 2
    assert counts.max() == 3
    assert (data.instances[pairs[:, 0]] == data.instances[pairs[:, 1]]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(draw_pairs(data, 3, 0.0, np.random.default_rng(0))) == 3


def test_augmented_pairs_take_every_photograph() -> None:
    data = instances(["a", "a", "", "b"])
    pairs = draw_pairs(data, 8, 1.0, np.random.default_rng(0))
    assert np.bincount(pairs[:, 0]).tolist() == [2, 2, 2, 2]
    assert (pairs[:, 0] == pairs[:, 1]).all()
    mixed = draw_pairs(data, 8, 0.25, np.random.default_rng(0))
    assert int((mixed[:, 0] == mixed[:, 1]).sum()) == 2


def test_given_pairs_are_drawn_without_repetition() -> None:
    given_pairs = np.array([[0, 1], [1, 0], [2, 3]])
    data = instances(["a", "a", "b", "b"], pairs=given_pairs)
    drawn = draw_pairs(data, 9, 0.0, np.random.default_rng(0))
    assert sorted(drawn.tolist()) == given_pairs.tolist()
    assert len(draw_pairs(data, 2, 0.0, np.random.default_rng(0))) == 2


def test_draws_follow_from_the_generator() -> None:
    data = instances(["a", "a", "a", "b", "b"])
    draws = [draw_pairs(data, 7, 0.3, np.random.default_rng([0, epoch])).tolist() for epoch in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    pool = draw_pool(data, 3, np.random.default_rng(0))
    assert len(set(pool.tolist())) == 3
    assert sorted(draw_pool(data, 99, np.random.default_rng(0)).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (instances(["a", "b", "c"]), (1, 0.0, 9), "no positives: none of 3 instances has two photographs"),
        (instances(["a", "a"], pairs=np.empty((0, 2), np.int64)), (1, 0.0, 9), "no positives"),
        (instances(["a", "a"]), (1, 0.0, 9), "all photographs show one instance"),
        (instances(["a", "a"]), (1, 1.0, 9), "all photographs show one instance"),
        (instances(["a", "a", "b", ""]), (3, 0.0, 9), "3 instances and photographs without one, but 3 negatives"),
        (instances(["a", "a", "b", ""]), (2, 0.0, 9, 1), "but 2 negatives, 1 to skip"),
        (instances(["a", "a", "b"], ["g", "g", "g"]), (1, 0.0, 9), "1 instances and photographs without one"),
        (instances(["a", "a", "b", ""]), (2, 0.0, 2), "a pool of 2 photographs cannot give 2 negatives"),
        (instances(["", ""]), (1, 0.0, 9), "no positives: none of 0 instances"),
    ],
)
def test_data_that_give_no_tuples(data: Instances, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_tuples(data, *arguments)


def test_data_that_just_suffice() -> None:
    check_tuples(instances(["a", "a", "b", ""]), 2, 0.0, 9)
    check_tuples(instances(["a", "b", "c"]), 2, 1.0, 3)


# Hard negatives


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_mining_against_brute_force(seed: int, count: int, skip: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    pool = rng.integers(-2, 3, (size, 3)).astype(np.float32) if ties else rng.normal(size=(size, 3)).astype(np.float32)
    anchors = pool[rng.integers(0, size, 5)]
    pool_groups, anchor_groups = rng.integers(0, 9, size), rng.integers(0, 12, 5)
    expected = naive_training.mine(anchors, anchor_groups.tolist(), pool, pool_groups.tolist(), count, skip)
    if min(map(len, expected)) < count:
        with pytest.raises(InputError, match="other instances in the pool"):
            mine(anchors, anchor_groups, pool, pool_groups, count, skip)
        return
    assert mine(anchors, anchor_groups, pool, pool_groups, count, skip).tolist() == expected


def test_mining_more_anchors_than_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    anchors, pool = (rng.normal(size=(size, 4)).astype(np.float32) for size in (11, 30))
    arguments = (anchors, np.arange(11), pool, np.arange(30), 3)
    whole = mine(*arguments)
    monkeypatch.setattr("asmk_engine.training.mining.BATCH_SIZE", 4)
    assert mine(*arguments).tolist() == whole.tolist()
    assert mine(anchors[:0], np.arange(0), pool, np.arange(30), 3).shape == (0, 3)


# augmented views


def test_a_view_that_changes_nothing_is_the_photograph() -> None:
    pixels = photograph(3)
    still = ViewOptions(least_area=1.0, tilt=0.0, shrink=1.0, colour=0.0)
    assert np.array_equal(random_view(pixels, np.random.default_rng(0), still), pixels)


@given(st.integers(0, 2**32 - 1))
def test_views_lie_inside_the_photograph(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(2, 300, 2))
    options = ViewOptions()
    corners, size = random_corners(width, height, rng, options)
    assert (corners >= -1e-9).all()
    assert (corners <= np.array([width - 1, height - 1]) + 1e-9).all()
    assert all(
        min(options.least_side, whole) <= side <= whole for side, whole in zip(size, (width, height), strict=True)
    )
    upper_left, upper_right, lower_right, lower_left = corners
    assert upper_left[0] <= upper_right[0]
    assert lower_left[0] <= lower_right[0]
    assert upper_left[1] <= lower_left[1]
    assert upper_right[1] <= lower_right[1]
    span = corners.max(0) - corners.min(0)
    assert (span <= np.array([width - 1, height - 1]) + 1e-9).all()


def test_the_corners_become_those_of_the_view() -> None:
    """Where a photograph is a slope in x and y, a view of it shows at its corners where they were."""
    width, height = 200, 160
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x, y, x // 2 + y // 2], -1).astype(np.uint8)
    still = ViewOptions(colour=0.0, tilt=0.2)
    view = random_view(pixels, np.random.default_rng(5), still)
    corners, size = random_corners(width, height, np.random.default_rng(5), still)
    assert view.shape == (size[1], size[0], 3)
    shown = [view[0, 0], view[0, -1], view[-1, -1], view[-1, 0]]
    for corner, pixel in zip(corners, shown, strict=True):
        assert np.abs(pixel[:2] - corner).max() < 1.5


def test_views_follow_from_the_generator() -> None:
    pixels = cv2.resize(photograph(1), (120, 100))
    views = [random_view(pixels, np.random.default_rng([1, which])) for which in (0, 0, 1)]
    assert np.array_equal(views[0], views[1])
    assert views[0].shape != views[2].shape or not np.array_equal(views[0], views[2])


@given(st.integers(0, 2**32 - 1))
def test_colours_against_the_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*rng.integers(1, 5, 2), 3), np.uint8)
    contrast, saturation = rng.uniform(0.5, 1.5, 2)
    brightness, gains = float(rng.uniform(-0.3, 0.3)), rng.uniform(0.7, 1.3, 3)
    found = recolour(pixels, contrast, saturation, brightness, gains)
    expected = naive_training.recoloured(pixels, contrast, saturation, brightness, gains)
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.501


# Photographs


def test_photographs_are_checked_before_the_first_epoch(tmp_path: Path) -> None:
    write_photographs(tmp_path, {"a": 3})
    files = [ImageFile(f"{place}.png", tmp_path / "a" / f"{place}.png") for place in range(3)]
    calls: list[tuple[int, int]] = []
    check_photographs(files, SIDE, 8, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    check_photographs(files, SIDE, SIDE - 8)
    with pytest.raises(InputError, match=r"3 of 3 photographs .*40 × 48 pixels, the network needs 41"):
        check_photographs(files, SIDE, SIDE - 7)
    data = files[1].path.read_bytes()
    files[1].path.write_bytes(data[: len(data) // 2])
    files[2].path.unlink()
    with pytest.raises(InputError, match=r"2 of 3 photographs cannot be used for training: .*1.png: .*; .*2.png: "):
        check_photographs(files, SIDE, 8)


def test_many_faults_are_counted_not_listed(tmp_path: Path) -> None:
    files = [ImageFile(f"{place}.png", tmp_path / f"{place}.png") for place in range(9)]
    with pytest.raises(InputError, match="and 4 more; remove them"):
        check_photographs(files, SIDE, 8)
