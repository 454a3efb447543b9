"""Which photograph an image is: equal names, moved folders, changed and repeated photographs, what pruning removes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine import recipes
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSet, Source
from asmk_engine.flat import GlobalIndex
from asmk_engine.images.roots import UNKNOWN, Absence, Root
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.signatures import sign
from asmk_engine.search.query_features import QuerySource
from global_histories import CODEC, POOL
from global_samples import RECIPE
from samples import random_codebook, random_images, write_features

FEATURES = ("--extractor", "rootsift", "--max-features", "400", "--workers", "0")


@dataclass(frozen=True)
class Told:
    """What a command printed, and the error it ended with."""

    code: int
    out: str
    err: str

    def __contains__(self, text: object) -> bool:
        return str(text) in self.err


def call(*arguments: object, code: int = 0) -> Told:
    """Run a command in this process, as the program does, and expect this exit code."""
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    error = result.exception
    if error is not None and not isinstance(error, AsmkError | SystemExit):
        raise error
    told = Told(result.exit_code, result.stdout, result.stderr + (f"\nError: {error}" if error else ""))
    assert told.code == code, told
    return told


def paint(path: Path, seed: int) -> Path:
    """A photograph as distinct from others as those of different things."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(240 // step, 240 // step)) for step in (40, 16, 8)]
    scene = sum(cv2.resize(layer, (240, 240), interpolation=cv2.INTER_CUBIC) for layer in layers)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(128 + 45 * scene, 0, 255).astype(np.uint8))
    return path


def fill(folder: Path, seeds: dict[str, int]) -> Path:
    """A folder of photographs."""
    for name, seed in seeds.items():
        paint(folder / name, seed)
    return folder


def index(*inputs: Path, to: Path, code: int = 0, options: tuple[object, ...] = ()) -> Told:
    words = () if to.exists() else ("--words", "4")
    return call("index", *inputs, "-o", to, *FEATURES, *words, *options, code=code)


def best(to: Path, query: object) -> str:
    """The first hit of a query."""
    hits = json.loads(call("query", to, query, "--format", "jsonl", "--top", "1").out)["hits"]
    return str(hits[0]["name"])


def names(to: Path) -> list[str]:
    return Index.open(to).names


# ------------------------------------------------------------------------------------------------ A. equal names


def test_another_photograph_of_a_name_is_refused_by_name_and_a_prefix_keeps_both(tmp_path: Path) -> None:
    a, b = fill(tmp_path / "a", {"img.jpg": 1, "x.jpg": 2}), fill(tmp_path / "b", {"y.jpg": 3})
    c, to = fill(tmp_path / "c", {"img.jpg": 4, "z.jpg": 5}), tmp_path / "i.index"
    index(a, b, to=to)
    told = index(c, to=to, code=1)
    assert "'img.jpg'" in told and "--prefix" in told and "--update" in told and "1 added" in told
    assert "already indexed" in told and " 0 already indexed" in told  # img.jpg of c is not
    assert names(to) == ["img.jpg", "x.jpg", "y.jpg", "z.jpg"]
    assert best(to, a / "img.jpg") == "img.jpg"
    assert QuerySource(Index.open(to)).image_path("img.jpg") == a / "img.jpg"
    told = index(c, to=to, options=("--prefix", "third"))
    assert names(to) == ["img.jpg", "third/img.jpg", "x.jpg", "y.jpg", "z.jpg"]
    assert "'third/z.jpg' (= 'z.jpg')" in told  # the same file, there already under another name
    assert best(to, c / "img.jpg") == "third/img.jpg" and best(to, a / "img.jpg") == "img.jpg"
    assert QuerySource(Index.open(to)).image_path("third/img.jpg") == c / "img.jpg"
    assert "0 added" in index(c, to=to, options=("--prefix", "third"))


def test_update_replaces_the_photograph_of_a_name(tmp_path: Path) -> None:
    a, c, to = fill(tmp_path / "a", {"img.jpg": 1}), fill(tmp_path / "c", {"img.jpg": 4}), tmp_path / "i.index"
    index(a, to=to)
    index(c, to=to, code=1)
    assert "1 replaced" in index(c, to=to, options=("--update",))
    assert QuerySource(Index.open(to)).image_path("img.jpg") == c / "img.jpg"
    assert FeatureSet.open(tmp_path / "i.features").root("img.jpg") == Root(str(c))


def test_a_card_that_was_taken_away_keeps_its_names(tmp_path: Path) -> None:
    a, b, to = fill(tmp_path / "a", {"IMG_1.jpg": 1}), fill(tmp_path / "b", {"IMG_1.jpg": 2}), tmp_path / "i.index"
    index(a, to=to)
    before = FeatureSet.open(tmp_path / "i.features").read("IMG_1.jpg")
    a.rename(tmp_path / "away")
    assert "'IMG_1.jpg'" in index(b, to=to, code=1)
    kept = FeatureSet.open(tmp_path / "i.features").read("IMG_1.jpg")
    assert np.array_equal(before.descriptors, kept.descriptors)
    assert best(to, tmp_path / "away/IMG_1.jpg") == "IMG_1.jpg"


def test_another_card_in_the_same_reader_is_a_changed_photograph_that_a_prefix_keeps(tmp_path: Path) -> None:
    card, to = fill(tmp_path / "card", {"IMG_1.jpg": 1}), tmp_path / "i.index"
    index(card, to=to)
    first = shutil.copy(card / "IMG_1.jpg", tmp_path / "first.jpg")
    paint(card / "IMG_1.jpg", 2)
    assert "--prefix NAME keeps both" in index(card, to=to, code=1)
    index(card, to=to, options=("--prefix", "two/"))
    assert best(to, first) == "IMG_1.jpg" and best(to, card / "IMG_1.jpg") == "two/IMG_1.jpg"


def test_two_feature_sets_of_equal_names(tmp_path: Path) -> None:
    a, c = fill(tmp_path / "a", {"img.jpg": 1, "x.jpg": 2}), fill(tmp_path / "c", {"img.jpg": 4, "z.jpg": 5})
    for folder in (a, c):
        call("extract", folder, "-o", tmp_path / f"{folder.name}.features", *FEATURES)
    to = tmp_path / "i.index"
    call("index", tmp_path / "a.features", "-o", to, "--words", "4")
    told = call("index", tmp_path / "c.features", "-o", to, code=1)
    assert "'img.jpg'" in told and "1 added" in told and "0 already indexed" in told
    found = QuerySource(Index.open(to)).features("img.jpg")[0]
    assert np.array_equal(found.descriptors, FeatureSet.open(tmp_path / "a.features").read("img.jpg").descriptors)
    with pytest.raises(MismatchError, match=r"another photograph named 'img.jpg'"):
        QuerySource(Index.open(to), features=tmp_path / "c.features").features("img.jpg")
    assert call("extract", c, "-o", tmp_path / "a.features", *FEATURES, code=1).err.count("'img.jpg'") == 1
    assert FeatureSet.open(tmp_path / "a.features").root("img.jpg") == Root(str(a))


def test_only_the_photographs_of_this_call_go_into_the_index(tmp_path: Path) -> None:
    old, new = fill(tmp_path / "old", {"a.jpg": 1, "b.jpg": 2}), fill(tmp_path / "new", {"b.jpg": 3, "c.jpg": 4})
    to = tmp_path / "y.index"
    index(old, to=to)
    shutil.rmtree(to)
    index(new, to=to)
    assert names(to) == ["b.jpg", "c.jpg"] and best(to, new / "b.jpg") == "b.jpg"
    assert best(to, "b.jpg") == "c.jpg"  # asked with its own features, of new
    other = fill(tmp_path / "other", {"d.jpg": 5})
    index(other, to=tmp_path / "y", options=("--features", tmp_path / "y.features"))
    assert names(tmp_path / "y") == ["d.jpg"]


def test_indexes_of_like_names_keep_their_features_apart(tmp_path: Path) -> None:
    index(fill(tmp_path / "one", {"a.jpg": 1}), to=tmp_path / "a")
    index(fill(tmp_path / "two", {"a.jpg": 2}), to=tmp_path / "a.index")
    sets = {path.name: FeatureSet.open(path).roots() for path in tmp_path.glob("*.feature*")}
    assert sets == {"a.feature-set": (Root(str(tmp_path / "one")),), "a.features": (Root(str(tmp_path / "two")),)}


def test_an_index_of_an_early_version_goes_on_with_the_features_it_has(tmp_path: Path) -> None:
    photos, to = fill(tmp_path / "photos", {"a.jpg": 1}), tmp_path / "i"
    index(photos, to=to, options=("--features", tmp_path / "i.features"))
    paint(photos / "b.jpg", 2)
    index(photos, to=to)
    assert not (tmp_path / "i.feature-set").exists() and names(to) == ["a.jpg", "b.jpg"]


def test_a_changed_photograph_is_named_and_asked_with_what_it_was(tmp_path: Path) -> None:
    photos, to = fill(tmp_path / "photos", {"a.jpg": 1, "b.jpg": 2}), tmp_path / "i.index"
    index(photos, to=to)
    was = FeatureSet.open(tmp_path / "i.features").read("a.jpg")
    paint(photos / "a.jpg", 3)
    told = index(photos, to=to, code=1)
    assert "'a.jpg'" in told and "--update" in told and "1 already indexed" in told and "1 left out" in told
    asked = QuerySource(Index.open(to)).features("a.jpg")[0]
    assert np.array_equal(asked.descriptors, was.descriptors)
    shutil.rmtree(tmp_path / "i.features")
    told = call("query", to, "a.jpg", code=1)
    assert "not the photograph that was indexed as" in told and "--update" in told
    assert "1 replaced" in index(photos, to=to, options=("--update",))
    assert QuerySource(Index.open(to)).image_path("a.jpg") == photos / "a.jpg"


def test_the_same_photograph_is_taken_once_and_copies_are_named(tmp_path: Path) -> None:
    photos, to = fill(tmp_path / "p", {"2024/x.jpg": 1, "y.jpg": 2}), tmp_path / "i.index"
    (photos / "z-link.jpg").symlink_to("y.jpg")
    os.link(photos / "y.jpg", photos / "z-hard.jpg")
    shutil.copy(photos / "y.jpg", photos / "copy.jpg")
    told = index(photos, to=to)
    assert names(to) == ["2024/x.jpg", "copy.jpg", "y.jpg"]
    assert "'z-hard.jpg' (= 'y.jpg')" in told and "'z-link.jpg' (= 'y.jpg')" in told
    assert "'y.jpg' (= 'copy.jpg')" in told  # added, and said
    told = index(photos / "2024", to=to)
    assert names(to) == ["2024/x.jpg", "copy.jpg", "y.jpg"] and "'x.jpg' (= '2024/x.jpg')" in told
    shutil.rmtree(tmp_path / "i.features")  # the index knows by itself
    told = index(photos / "2024", to=to)
    assert names(to) == ["2024/x.jpg", "copy.jpg", "y.jpg"] and "'x.jpg' (= '2024/x.jpg')" in told
    assert "0 added" in told and "1 already indexed" in told


def test_where_images_come_from_is_shown(tmp_path: Path) -> None:
    a, b, to = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2}), fill(tmp_path / "b", {"1.jpg": 3}), tmp_path / "i.index"
    index(a, to=to)
    index(b, to=to, options=("--prefix", "bb"))
    expected = [{"folder": str(a), "prefix": "", "images": 2}, {"folder": str(b), "prefix": "bb/", "images": 1}]
    for place in (to, tmp_path / "i.features"):
        assert json.loads(call("info", place, "--json").out)["roots"] == expected
        assert f"{a} (2), {b} (1, named bb/…)" in call("info", place).out
    call("merge", to)
    assert Index.open(to).snapshot.root_counts() == {Root(str(a)): 2, Root(str(b), "bb/"): 1}


def test_photographs_that_moved_are_remembered_where_they_were_found(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2}), tmp_path / "i.index"
    index(a, to=to)
    call("delete", to, "2.jpg")
    b = a.rename(tmp_path / "b")
    told = index(b, to=to)
    assert "1 added" in told and "1 already indexed" in told and "1 found in another folder" in told
    assert Index.open(to).snapshot.root_counts() == {Root(str(b)): 2}
    assert FeatureSet.open(tmp_path / "i.features").root_counts() == {Root(str(b)): 2}
    assert call("check", to).code == 0
    commit = Index.open(to).snapshot.manifest.commit
    assert "found in another" not in index(b, to=to)
    assert Index.open(to).snapshot.manifest.commit == commit
    call("merge", to)
    assert Index.open(to).snapshot.root_counts() == {Root(str(b)): 2} and call("check", to).code == 0


def test_a_set_and_an_index_of_early_versions_learn_the_roots(tmp_path: Path) -> None:
    images = random_images(6, 24, seed=3)
    to = Index.create(tmp_path / "i", random_codebook(8, 24))
    to.add(write_features(tmp_path / "early", images, source=Source(1, 2, 3)))
    assert to.identity(next(iter(images))).root == UNKNOWN and to.snapshot.root_counts() == {}
    rooted = write_features(tmp_path / "now", images, source=Source(1, 2, 3), root=Root("/photos"))
    summary = to.add(rooted, existing="skip")
    assert (summary.unchanged, summary.moved) == (6, 6) and to.snapshot.root_counts() == {Root("/photos"): 6}
    other = write_features(tmp_path / "other", images, source=Source(1, 2, 4))
    assert to.add(other, existing="skip").taken == tuple(sorted(images))  # nobody knows whether it is another


def test_a_global_index_keeps_photographs_apart_too(tmp_path: Path) -> None:
    to, some = GlobalIndex.create(tmp_path / "g", CODEC), dict(list(POOL.items())[:3])
    first = write_features(tmp_path / "a", some, recipe=RECIPE, source=Source(1, 2, 3), root=Root("/a"))
    second = write_features(tmp_path / "b", some, recipe=RECIPE, source=Source(1, 2, 4), root=Root("/b"))
    changed = write_features(tmp_path / "c", some, recipe=RECIPE, source=Source(1, 2, 5), root=Root("/a"))
    to.add(first)
    assert to.add(second, existing="skip").taken == tuple(sorted(some))
    assert to.add(changed, existing="skip").changed == tuple(sorted(some))
    assert to.add(second, existing="update").replaced == 3 and to.snapshot.root_counts() == {Root("/b"): 3}
    assert to.merge() and to.snapshot.root_counts() == {Root("/b"): 3}
    same = write_features(tmp_path / "d", {"n": next(iter(some.values()))}, recipe=RECIPE, source=Source(1, 2, 4),
                          root=Root("/b/sub"))  # fmt: skip
    assert to.add(same).duplicates == {"n": next(iter(sorted(some)))}


def test_indexes_that_are_joined_know_whose_photograph_is_meant(tmp_path: Path) -> None:
    made = []
    for number, folder in enumerate(("a", "b")):
        photos = fill(tmp_path / folder / "photos", {f"{folder}.jpg": number})
        one = Index.create(tmp_path / folder / "i", random_codebook(8, 128, recipe=recipes.Recipe("x", {})))
        image = random_images(1, 128, seed=number)
        feature = write_features(
            tmp_path / folder / "f", {f"{folder}.jpg": next(iter(image.values()))}, root=Root(str(photos)),
            recipe=recipes.Recipe("x", {}),
        )  # fmt: skip
        one.add(feature)
        made.append(one)
    joint = JointIndex(made)
    assert joint.identity("b.jpg").root == Root(str(tmp_path / "b/photos")) and joint.identity("c.jpg") is None
    assert next(joint.photograph_places("b.jpg")) == tmp_path / "b/photos/b.jpg"
    assert len(joint.feature_places) == 2 and tmp_path / "a/photos" in joint.photograph_folders


# ---------------------------------------------------------------------------------------------------- B. pruning


def test_pruning_takes_only_what_is_gone_below_the_roots_of_the_call(tmp_path: Path) -> None:
    a = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2, "3.jpg": 3, "4.jpg": 4})
    b, to = fill(tmp_path / "b", {"5.jpg": 5}), tmp_path / "i.index"
    index(a, to=to, options=("--prune",))
    index(b, to=to, options=("--prune",))
    assert len(names(to)) == 5
    (a / "1.jpg").unlink()
    index(b, to=to, options=("--prune",))
    assert len(names(to)) == 5
    told = index(a, to=to, options=("--prune",))
    assert "--prune removes 1 of 5 images: '1.jpg'" in told and "1 removed" in told
    assert names(to) == ["2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert FeatureSet.open(tmp_path / "i.features").names == names(to)


def test_more_than_half_is_removed_only_when_asked_twice(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2, "3.jpg": 3}), tmp_path / "i.index"
    index(a, to=to)
    for name in ("1.jpg", "2.jpg"):
        (a / name).unlink()
    paint(a / "new.jpg", 9)
    told = index(a, to=to, options=("--prune",), code=1)
    assert "2 of 3 images" in told and "--yes" in told and "1 added" in told
    assert len(names(to)) == 4 and len(FeatureSet.open(tmp_path / "i.features")) == 4
    (a / "new.jpg").unlink()
    told = call("extract", a, "-o", tmp_path / "i.features", "--prune", *FEATURES, code=1)
    assert "3 of 4" in told and len(FeatureSet.open(tmp_path / "i.features")) == 4
    assert "3 removed" in index(a, to=to, options=("--prune", "--yes"))
    assert names(to) == ["3.jpg"] == FeatureSet.open(tmp_path / "i.features").names


def test_what_an_absent_disk_held_stays(tmp_path: Path) -> None:
    disk = fill(tmp_path / "disk", {"far.jpg": 1})
    a = fill(tmp_path / "a", {"1.jpg": 2, "2.jpg": 3, "mount/3.jpg": 4, "4.jpg": 5})
    (a / "link").symlink_to(disk)
    to = tmp_path / "i.index"
    index(a, to=to)
    disk.rename(tmp_path / "unplugged")
    (a / "mount/3.jpg").unlink()
    (a / "4.jpg").unlink()
    told = index(a, to=to, options=("--prune",))
    assert "1 image kept" in told and "empty" in told
    assert names(to) == ["1.jpg", "2.jpg", "link/far.jpg", "mount/3.jpg"]
    index(a, to=to, options=("--prune", "--yes"))
    assert names(to) == ["1.jpg", "2.jpg", "link/far.jpg"]


def test_emptied_and_missing_folders_are_refused(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"1.jpg": 1}), tmp_path / "i.index"
    index(a, to=to)
    (a / "1.jpg").unlink()
    assert "no images found" in index(a, to=to, options=("--prune", "--yes"), code=1)
    a.rmdir()
    assert "no such folder" in index(a, to=to, options=("--prune", "--yes"), code=1)
    assert names(to) == ["1.jpg"]


def test_pruning_by_a_feature_set_takes_what_is_gone_and_not_held(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2, "3.jpg": 3}), tmp_path / "i.index"
    call("extract", a, "-o", tmp_path / "f", *FEATURES)
    call("index", tmp_path / "f", "-o", to, "--words", "4")
    (a / "1.jpg").unlink()
    call("index", tmp_path / "f", "-o", to, "--prune")
    assert len(names(to)) == 3  # the set holds it still
    call("extract", a, "-o", tmp_path / "f", "--prune", *FEATURES)
    assert "1 removed" in call("index", tmp_path / "f", "-o", to, "--prune")
    assert names(to) == ["2.jpg", "3.jpg"]


def test_gone_is_what_is_proven(tmp_path: Path) -> None:
    a = fill(tmp_path / "a", {"1.jpg": 1, "sub/2.jpg": 2})
    (a / "empty").mkdir()
    (a / "nowhere").symlink_to(tmp_path / "missing")
    (a / "dangling.jpg").symlink_to("missing.jpg")
    states = {"0.jpg": "gone", "1.jpg": "", "sub/3.jpg": "gone", "sub/4/5.jpg": "gone", "1.jpg/6.jpg": "gone",
              "empty/7.jpg": "doubtful", "empty/sub/7.jpg": "doubtful", "nowhere/8.jpg": "", "nowhere/9/10.jpg": "",
              "dangling.jpg": "", "x" * 300: "", "a\0b": ""}  # fmt: skip
    for absence in (Absence(), None):  # one for all, and one for each
        assert {name: (absence or Absence()).of(a / name, a) for name in states} == states
    assert Absence().of(tmp_path / "b/1.jpg", tmp_path / "b") == ""  # the root itself is not there
    assert Absence().of(tmp_path / "elsewhere.jpg", a) == "" == Absence().of(a, a)


def test_a_photograph_that_moved_between_folders_of_the_call_is_not_pruned(tmp_path: Path) -> None:
    a, b = fill(tmp_path / "a", {"0.jpg": 0, "1.jpg": 1, "2.jpg": 2}), fill(tmp_path / "b", {"3.jpg": 3})
    to = tmp_path / "i.index"
    index(a, b, to=to)
    (a / "1.jpg").rename(b / "1.jpg")
    assert "1 found in another folder" in index(a, b, to=to, options=("--prune",))
    assert names(to) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert QuerySource(Index.open(to)).image_path("1.jpg") == b / "1.jpg"
    (a / "2.jpg").unlink()
    paint(b / "2.jpg", 9)  # another photograph: the old one stays until somebody says what is meant
    assert "'2.jpg'" in index(a, b, to=to, options=("--prune",), code=1)
    assert names(to) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    index(a, b, to=to, options=("--prune", "--update"))
    assert best(to, b / "2.jpg") == "2.jpg"


def test_folders_below_those_of_the_call_are_pruned_too_but_no_other_prefix(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"s/1.jpg": 1, "s/2.jpg": 2, "t/3.jpg": 3, "4.jpg": 4}), tmp_path / "i.index"
    index(a / "s", to=to)
    index(a / "t", to=to, options=("--prefix", "tt"))
    index(a, to=to)
    (a / "s/1.jpg").unlink()
    shutil.rmtree(a / "t")
    index(a, to=to, options=("--prune",))
    assert names(to) == ["2.jpg", "4.jpg", "tt/3.jpg"]


def test_renamed_photographs_are_neither_lost_nor_called_copies(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2, "3.jpg": 3}), tmp_path / "i.index"
    index(a, to=to)
    (a / "1.jpg").rename(a / "new.jpg")
    told = index(a, to=to, options=("--prune",))
    assert "same content" not in told and names(to) == ["2.jpg", "3.jpg", "new.jpg"]
    images = random_images(1, 24, seed=3)
    deep, flat = ({name: next(iter(images.values()))} for name in ("2024/x.jpg", "x.jpg"))
    one = Index.create(tmp_path / "one", random_codebook(8, 24))
    one.add(write_features(tmp_path / "flat", flat, source=Source(1, 2, 3), root=Root("/p/2024")))
    summary = one.add(write_features(tmp_path / "deep", deep, source=Source(1, 2, 3), root=Root("/p")), prune=True)
    assert (summary.added, summary.removed, summary.same) == (1, 1, {}) and one.names == ["2024/x.jpg"]


def test_a_file_that_only_the_features_know_goes_in_under_its_new_name(tmp_path: Path) -> None:
    p, to = fill(tmp_path / "p", {"2024/x.jpg": 1, "y.jpg": 2}), tmp_path / "i.index"
    index(p, to=to)
    call("delete", to, "2024/x.jpg")
    assert "1 added" in index(p / "2024", to=to) and names(to) == ["x.jpg", "y.jpg"]
    shutil.rmtree(to)
    index(p / "2024", to=to)
    assert names(to) == ["x.jpg"] and best(to, p / "2024/x.jpg") == "x.jpg"


def test_a_photograph_that_was_renamed_onto_another_is_not_pruned(tmp_path: Path) -> None:
    m, to = fill(tmp_path / "m", {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3, "d.jpg": 4}), tmp_path / "i.index"
    index(m, to=to)
    (m / "c.jpg").rename(m / "b.jpg")  # without --update b.jpg stays what it was, so c.jpg has to stay, too
    told = index(m, to=to, options=("--prune",), code=1)
    assert names(to) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] and "removes" not in told
    assert best(to, m / "b.jpg") == "c.jpg" and "c.jpg" in FeatureSet.open(tmp_path / "i.features")
    index(m, to=to, options=("--prune", "--update"))
    assert names(to) == ["a.jpg", "b.jpg", "d.jpg"] and best(to, m / "b.jpg") == "b.jpg"


def test_what_another_index_did_to_shared_features_hides_nothing(tmp_path: Path) -> None:
    p, shared = fill(tmp_path / "p", {"2024/x.jpg": 1, "y.jpg": 2}), ("--features", tmp_path / "shared")
    one, two = tmp_path / "one.index", tmp_path / "two.index"
    for to in (one, two):
        index(p, to=to, options=shared)
    was = Path(shutil.copy(p / "2024/x.jpg", tmp_path / "was.jpg"))
    paint(p / "2024/x.jpg", 9)
    index(p, to=one, options=(*shared, "--update"))
    assert "1 added" in index(p / "2024", to=two, options=shared)  # two has 2024/x.jpg, but as it was
    assert names(two) == ["2024/x.jpg", "x.jpg", "y.jpg"] and best(two, p / "2024/x.jpg") == "x.jpg"
    shutil.copy(was, p / "2024/x.jpg")
    told = index(p, to=two, options=shared)  # two has just this, though the features are of what one has
    assert "2 already indexed" in told and "left out" not in told


def test_a_renamed_photograph_is_not_pruned_by_features_either(tmp_path: Path) -> None:
    m, to = fill(tmp_path / "m", {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}), tmp_path / "i.index"
    call("extract", m, "-o", tmp_path / "f", *FEATURES)
    call("index", tmp_path / "f", "-o", to, "--words", "4")
    (m / "c.jpg").rename(m / "b.jpg")
    told = call("extract", m, "-o", tmp_path / "f", "--prune", *FEATURES)
    assert "--prune removes 1 image: 'c.jpg'" in told
    told = call("index", tmp_path / "f", "-o", to, "--prune", code=1)
    assert names(to) == ["a.jpg", "b.jpg", "c.jpg"] and "removes" not in told
    call("index", tmp_path / "f", "-o", to, "--prune", "--update")
    assert names(to) == ["a.jpg", "b.jpg"]


def test_photographs_of_equal_size_and_time_that_were_swapped_are_told_apart(tmp_path: Path) -> None:
    m, to = fill(tmp_path / "m", {"a.bmp": 1, "b.bmp": 2, "c.bmp": 3}), tmp_path / "i.index"
    for name in ("a.bmp", "b.bmp", "c.bmp"):
        os.utime(m / name, (1_600_000_000, 1_600_000_000))
    index(m, to=to)
    for old, new in (("a.bmp", "t"), ("b.bmp", "a.bmp"), ("t", "b.bmp")):
        (m / old).rename(m / new)
    assert "'a.bmp', 'b.bmp'" in index(m, to=to, code=1)
    assert "2 replaced" in index(m, to=to, options=("--update",))
    assert best(to, m / "a.bmp") == "a.bmp" and best(to, m / "b.bmp") == "b.bmp"


def test_a_file_that_was_touched_is_read_once_more_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, to = fill(tmp_path / "m", {"a.jpg": 1, "b.jpg": 2}), tmp_path / "i.index"
    index(m, to=to)
    (m / "a.jpg").chmod(0o600)
    assert "2 already indexed" in index(m, to=to)
    monkeypatch.setattr("asmk_engine.extraction.intake.file_fingerprint", None)
    assert "2 already indexed" in index(m, to=to)


def test_a_nested_folder_does_not_take_the_names_of_the_outer_one(tmp_path: Path) -> None:
    m, to = fill(tmp_path / "m", {"b.jpg": 1, "sub/b.jpg": 2, "sub/c.jpg": 3}), tmp_path / "i.index"
    index(m, to=to)
    for options in ((), ("--update",)):
        told = index(m / "sub", to=to, options=options)
        assert "'b.jpg' (= 'sub/b.jpg')" in told and names(to) == ["b.jpg", "sub/b.jpg", "sub/c.jpg"]
    call("extract", m / "sub", "-o", tmp_path / "sub.features", *FEATURES)
    told = call("index", tmp_path / "sub.features", "-o", to, "--update")
    assert "'b.jpg' (= 'sub/b.jpg')" in told and names(to) == ["b.jpg", "sub/b.jpg", "sub/c.jpg"]
    assert best(to, m / "b.jpg") == "b.jpg" and best(to, m / "sub/b.jpg") == "sub/b.jpg"


def test_answers_of_different_photographs_of_a_name_are_not_fused(tmp_path: Path) -> None:
    m = fill(tmp_path / "m", {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3})
    index(m, to=tmp_path / "one.index")
    assert call("query", tmp_path / "one.index", "a.jpg", "--fuse", tmp_path / "one.index").code == 0
    paint(m / "a.jpg", 9)
    index(m, to=tmp_path / "two.index")
    told = call("query", tmp_path / "one.index", "b.jpg", "--fuse", tmp_path / "two.index", code=1)
    assert "'a.jpg' is a different photograph" in told


def test_options_that_do_not_go_with_features_are_refused(tmp_path: Path) -> None:
    m = fill(tmp_path / "m", {"a.jpg": 1})
    call("extract", m, "-o", tmp_path / "f", *FEATURES)
    for options in (("--features", tmp_path / "g"), ("--prefix", "x"), ("--all-files",)):
        assert options[0] in call("index", tmp_path / "f", "-o", tmp_path / "i.index", *options, code=1)
    index(m, to=tmp_path / "i.index", options=("--features", tmp_path / "f"))
    call("extract", m, "-o", tmp_path / "g", *FEATURES)
    call("index", tmp_path / "g", "-o", tmp_path / "i.index")
    assert f"{tmp_path / 'f'}, {tmp_path / 'g'}" in call("info", tmp_path / "i.index").out


def test_failures_are_forgotten_when_their_files_are_gone(tmp_path: Path) -> None:
    a, b = fill(tmp_path / "a", {"1.jpg": 1, "2.jpg": 2}), fill(tmp_path / "b", {"3.jpg": 3})
    for folder in (a, b):
        (folder / f"bad {folder.name}.jpg").write_bytes(b"no image")
    to, kept = tmp_path / "i.index", tmp_path / "i.features"
    index(a, b, to=to)
    (a / "bad a.jpg").unlink()
    for folder in (b, a):
        index(folder, to=to, options=("--prune",))
        left = ["bad a.jpg", "bad b.jpg"] if folder == b else ["bad b.jpg"]
        assert sorted(FeatureSet.open(kept).failures) == left
    assert len(names(to)) == 3


def test_a_changed_photograph_beside_a_broken_one_is_named(tmp_path: Path) -> None:
    a, to = fill(tmp_path / "a", {"1.jpg": 1}), tmp_path / "i.index"
    index(a, to=to)
    paint(a / "1.jpg", 2)
    (a / "bad.jpg").write_bytes(b"no image")
    told = index(a, to=to, code=1)
    assert "skipped 'bad.jpg'" in told and "1 photograph whose file was replaced" in told


def test_a_copy_is_remembered_where_it_is_once_the_card_holds_another_photograph(tmp_path: Path) -> None:
    card, to = fill(tmp_path / "card", {"IMG_1.jpg": 1}), tmp_path / "i.index"
    index(card, to=to)
    home = Path(shutil.copytree(card, tmp_path / "home"))
    assert "found in another" not in index(home, to=to)  # both are there
    paint(card / "IMG_1.jpg", 2)
    assert "1 found in another folder" in index(home, to=to)
    assert QuerySource(Index.open(to)).image_path("IMG_1.jpg") == home / "IMG_1.jpg"


def test_concatenation_refuses_descriptors_of_different_photographs(tmp_path: Path) -> None:
    from asmk_engine.errors import InputError
    from asmk_engine.flat.concatenation import concatenate

    some = {"x.jpg": POOL[next(iter(POOL))]}
    other = recipes.Recipe("spoc", {}, "cd" * 32)
    sets = [write_features(tmp_path / name, some, recipe=recipe, source=Source(1, 2, print_), root=Root(f"/{name}"))
            for name, recipe, print_ in (("a", RECIPE, 3), ("b", other, 4), ("c", other, 3))]  # fmt: skip
    with pytest.raises(InputError, match="of other images"):
        concatenate(sets[:2], tmp_path / "both")
    both = concatenate([sets[0], sets[2]], tmp_path / "both")
    assert both.root("x.jpg") == Root("/a")
    moved = write_features(tmp_path / "d", some, recipe=RECIPE, source=Source(1, 2, 3), root=Root("/d"))
    assert concatenate([moved, sets[2]], tmp_path / "both").root("x.jpg") == Root("/d")


# -------------------------------------------------------------------------------------------- D. moved together


@pytest.mark.parametrize("early", [False, True])
def test_index_features_and_photographs_moved_together_are_found(tmp_path: Path, early: bool) -> None:
    home = tmp_path / "home"
    photos, to = fill(home / "photos", {"a.jpg": 1, "b.jpg": 2}), home / "i.index"
    index(photos, to=to)
    if early:  # a manifest without ways
        opened = Index.open(to)
        with opened._writing():
            opened._publish(opened.snapshot.manifest.following(beside={}))
    home.rename(tmp_path / "moved")
    there = tmp_path / "moved"
    assert best(there / "i.index", "a.jpg") == "b.jpg"
    shutil.rmtree(there / "i.features")
    assert best(there / "i.index", "a.jpg") == "b.jpg"
    assert QuerySource(Index.open(there / "i.index")).image_path("a.jpg") == there / "photos/a.jpg"


def test_ways_are_kept_when_the_features_say_the_old_place(tmp_path: Path) -> None:
    home = tmp_path / "home"
    photos, to = fill(home / "data/photos", {"a.jpg": 1, "b.jpg": 2}), home / "i.index"
    call("extract", photos, "-o", home / "sets/p.features", *FEATURES)
    call("index", home / "sets/p.features", "-o", to, "--words", "4")
    home.rename(tmp_path / "moved")
    there = tmp_path / "moved"
    call("index", there / "sets/p.features", "-o", there / "i.index")
    assert QuerySource(Index.open(there / "i.index")).image_path("a.jpg") == there / "data/photos/a.jpg"


def test_what_only_looks_like_the_features_is_passed_by(tmp_path: Path) -> None:
    photos, to = fill(tmp_path / "x/photos", {"a.jpg": 1, "b.jpg": 2}), tmp_path / "i.index"
    call("extract", photos, "-o", tmp_path / "x/f", *FEATURES)
    call("index", tmp_path / "x/f", "-o", to, "--words", "4")
    shutil.rmtree(tmp_path / "x/f")
    (tmp_path / "f").mkdir()
    assert best(to, "a.jpg") == "b.jpg"
    call("extract", photos, "-o", tmp_path / "f", *FEATURES[:2], "--max-features", "50")
    assert best(to, "a.jpg") == "b.jpg"


def test_images_may_be_given_again_and_again(tmp_path: Path) -> None:
    a, b, to = fill(tmp_path / "a", {"1.jpg": 1}), fill(tmp_path / "b", {"2.jpg": 2}), tmp_path / "i.index"
    index(a, b, to=to)
    shutil.rmtree(tmp_path / "i.features")
    new = [folder.rename(tmp_path / f"new {folder.name}") for folder in (a, b)]
    told = call("query", to, "2.jpg", code=1)
    assert "--images" in told and str(b) in told
    assert json.loads(call("query", to, "2.jpg", "--images", new[0], "--images", new[1], "--format", "jsonl").out)
    with pytest.raises(NotFoundError):
        QuerySource(Index.open(to), images_roots=[new[0]]).image_path("2.jpg")


def test_signatures_without_a_photograph_have_no_root(tmp_path: Path) -> None:
    images = random_images(3, 24, seed=1)
    codebook = random_codebook(8, 24)
    to = Index.create(tmp_path / "i", codebook)
    to.add_signatures([(name, sign(image, codebook)) for name, image in images.items()])
    assert {to.identity(name).root for name in images} == {UNKNOWN} and to.identity("nobody") is None
    assert all("root_numbers" not in segment.file.arrays for segment in to.snapshot.segments)
