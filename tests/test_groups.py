"""Groups of a collection and pairs for structure from motion: against slow twins, and on synthetic collections."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

import naive_groups
from asmk_engine import Features, GlobalIndex, Index, Searcher
from asmk_engine.cli import commands
from asmk_engine.demo import bundled_photos
from asmk_engine.errors import InputError, NotFoundError, StorageError
from asmk_engine.flat import Codec
from asmk_engine.groups import Grouping, Pairing, find_groups, find_pairs, write_groups, write_pairs
from asmk_engine.groups.comparison import EVIDENCE, compared
from asmk_engine.groups.finding import collection_graph
from asmk_engine.groups.graph import bridges, communities, components, members
from asmk_engine.groups.notices import common_words, hubs_of
from asmk_engine.groups.pairs import automatic_pairs
from asmk_engine.groups.pixels import GreyImage, agreement
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.iteration import Silent
from asmk_engine.storage import system
from asmk_engine.verification.geometry import image_geometry
from asmk_engine.verification.match import Verification, match
from disks import fast_disk
from global_samples import write_global
from samples import ENVIRONMENT, make_features, random_codebook, write_features

DIM, WORDS, SIZE = 32, 64, (640, 480)
CODEBOOK = random_codebook(WORDS, DIM)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


# --- a collection -----------------------------------------------------------------------------------------------------


def features_of(places, descriptors):
    keypoints = np.concatenate([places, np.full((len(places), 1), 12.0)], 1).astype(np.float32)
    scores = np.linspace(1, 0.5, len(places), dtype=np.float32)
    return Features(np.ascontiguousarray(descriptors, np.float32), keypoints, scores, SIZE)


class Thing:
    """A flat thing with features at random places."""

    def __init__(self, seed, count=90):
        rng = np.random.default_rng(seed)
        self.places = rng.uniform((20, 20), (620, 460), (count, 2))
        self.descriptors = rng.normal(size=(count, DIM))

    def copy(self, seed):
        """Nearly the same features at the same places."""
        rng = np.random.default_rng((1, seed))
        return features_of(self.places, self.descriptors + 0.02 * rng.normal(size=self.descriptors.shape))

    def view(self, seed, others=30):
        """Two thirds of the features, turned, moved and not quite where a map puts them, among others."""
        rng = np.random.default_rng((2, seed))
        kept = rng.permutation(len(self.places))[: 2 * len(self.places) // 3]
        angle, scale = rng.uniform(-0.1, 0.1), rng.uniform(0.9, 1.0)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        places = (self.places[kept] - 320) @ turn.T + 320 + rng.normal(0, 2.0, (len(kept), 2))
        descriptors = self.descriptors[kept] + 0.1 * rng.normal(size=(len(kept), DIM))
        more = rng.uniform((0, 0), SIZE, (others, 2)), rng.normal(size=(others, DIM))
        return features_of(np.concatenate([places, more[0]]), np.concatenate([descriptors, more[1]]))


def made(path, images, geometry="all", segments=1):
    """An index of these images, in one segment or several."""
    index = Index.create(path, CODEBOOK, geometry=geometry)
    names = list(images)
    for number in range(segments):
        part = {name: images[name] for name in names[number::segments]}
        index.add(write_features(path.with_name(f"{path.stem}-{number}.features"), part, dim=DIM))
    return index


def world(things=3, views=4, alone=4):
    images = {
        f"{thing}-{view}.jpg": Thing(thing).view(10 * thing + view) for thing in range(things) for view in range(views)
    }
    images |= {f"alone-{number}.jpg": Thing(100 + number).copy(number) for number in range(alone)}
    return images


def names_of(groups):
    return {frozenset(group.images) for group in groups}


# --- graphs -----------------------------------------------------------------------------------------------------------


def random_graph(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 14))
    pairs = sorted(
        {tuple(sorted(rng.choice(count, 2, replace=False).tolist())) for _ in range(rng.integers(0, 2 * count))}
        if count > 1
        else set()
    )
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    return count, pairs, ends[:, 0], ends[:, 1], rng.uniform(0.1, 2, len(pairs))


@pytest.mark.parametrize("seed", range(30))
def test_components_and_bridges_like_their_twins(seed):
    count, pairs, ones, others, _ = random_graph(seed)
    labels = components(count, ones, others)
    assert {frozenset(part.tolist()) for part in members(labels)} == naive_groups.components(count, pairs)
    assert bridges(count, ones, others) == naive_groups.bridges(count, pairs)


@pytest.mark.parametrize("seed", range(30))
def test_no_node_can_move_to_another_community_for_more_modularity_than_at_the_end(seed):
    count, pairs, ones, others, weights = random_graph(seed)
    labels = communities(count, ones, others, weights)
    assert labels[0] == 0 and {*labels.tolist()} == {*range(labels.max() + 1)}
    if pairs:
        edges = [(one, other, weight) for (one, other), weight in zip(pairs, weights.tolist(), strict=True)]
        whole = components(count, ones, others)
        best = naive_groups.modularity(labels.tolist(), edges)
        assert best >= naive_groups.modularity(whole.tolist(), edges) - 1e-9
        assert best >= naive_groups.modularity(list(range(count)), edges) - 1e-9
        assert all(
            whole[one] == whole[other] for one, other in zip(*np.nonzero(labels[:, None] == labels), strict=True)
        )


def test_two_cliques_with_a_pair_between_them_are_two_communities():
    pairs = [(i, j) for base in (0, 5) for i in range(base, base + 5) for j in range(i + 1, base + 5)] + [(2, 7)]
    ones, others = np.array(pairs).T
    assert communities(10, ones, others, np.ones(len(pairs))).tolist() == [0] * 5 + [1] * 5
    assert bridges(10, ones, others) == [(20, 5, 5)]
    assert components(10, ones, others).tolist() == [0] * 10


def test_a_hub_matches_images_that_do_not_match_each_other():
    rows = np.zeros(14, EVIDENCE)
    rows["one"][:12], rows["other"][:12] = 0, np.arange(1, 13)
    rows["one"][12:], rows["other"][12:] = [1, 20], [2, 21]
    [hub] = hubs_of(rows)
    assert (hub.image, hub.degree) == (0, 12) and hub.clustering == pytest.approx(1 / 66)


def test_words_of_most_images_are_told():
    view = SimpleNamespace(list_lengths=np.array([0, 60, 3, 100, 1, *[2] * 60]))
    assert [(one.word, one.share) for one in common_words([view], 100)] == [(3, 1.0), (1, 0.6)]
    assert common_words([view], 300) == [] and common_words([], 0) == []


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [2, 50])
@pytest.mark.parametrize("segments", [1, 3])
def test_edges_like_the_twin(tmp_path, neighbours, segments):
    images = world(things=2, views=4, alone=2)
    index = made(tmp_path / "index", images, segments=segments)
    names = index.names
    searcher = Searcher(index, multiple_assignment=1)
    near = []
    for name in names:
        found = [hit.name for hit in searcher.search(images[name], None) if hit.name != name][:neighbours]
        near.append([names.index(other) for other in found])
    with collection_graph(index, Grouping(neighbours)) as graph:
        numbers = {graph.images.name(number): number for number in range(graph.images.count)}
        geometries = [graph.images.geometries(numbers[name])[0] for name in names]
        found = {
            tuple(sorted(names.index(graph.images.name(int(row[end]))) for end in ("one", "other"))): float(
                row["weight"]
            )
            for row in graph.edges
        }
    expected = naive_groups.edges(geometries, near, 8, 0.8)
    assert len(expected) >= 8 and found == pytest.approx(expected, rel=1e-6)


def test_the_weaker_direction_counts():
    """Features far from where a map puts them are inliers in one direction and not in the other."""
    different = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one = Thing(seed).copy(0)
        places = 0.4 * one.keypoints[:, :2] + rng.normal(0, 4.0, (len(one), 2))
        scales = np.where(rng.random(len(one)) < 0.5, 5.0, 3.5)[:, None]
        keypoints = np.concatenate([places, scales], 1).astype(np.float32)
        other = replace(Thing(seed).copy(1), keypoints=keypoints)
        geometries = [image_geometry(features, CODEBOOK) for features in (one, other)]
        ways = [(geometries[0], geometries[1]), (geometries[1], geometries[0])]
        weights = [naive_groups.weight(match(a, b), a) for a, b in ways]
        row = compared(*geometries, Verification())
        assert row is not None and float(row["weight"]) == pytest.approx(min(weights), rel=1e-6)
        different += abs(weights[0] - weights[1]) > 0.01
    assert different > 5


@pytest.mark.parametrize("geometry", [None, "all"])
def test_things_are_groups_whatever_the_segments_threads_and_where_the_geometry_is(tmp_path, geometry):
    expected = None
    for segments, threads in ((1, 1), (3, 2)):
        folder = tmp_path / f"{segments}"
        folder.mkdir()
        groups = find_groups(made(folder / "index", world(), geometry, segments), threads=threads)
        assert names_of(groups) == {frozenset(f"{thing}-{view}.jpg" for view in range(4)) for thing in range(3)}
        assert groups.alone == tuple(f"alone-{number}.jpg" for number in range(4)) and groups.images == 16
        found = [group.as_dict() | {"edges": len(group.rows)} for group in groups]
        assert expected in (None, found)
        expected = found
        assert all(edge.kind == "view" for group in groups for edge in group.edges)


def test_copies_and_views_without_photographs(tmp_path):
    thing = Thing(0)
    images = {f"copy-{number}.jpg": thing.copy(number) for number in range(3)} | {"view.jpg": thing.view(1)}
    [group] = find_groups(made(tmp_path / "index", images))
    assert group.photographs == (("copy-0.jpg", "copy-1.jpg", "copy-2.jpg"), ("view.jpg",))
    kinds = {frozenset((edge.one, edge.other)): edge.kind for edge in group.edges}
    assert all((kind == "view") == ("view.jpg" in pair) for pair, kind in kinds.items()) and len(kinds) == 6


def test_many_copies_are_one_group_and_hide_no_view(tmp_path):
    """Two photographs of a thing, each with far more copies than neighbours that are compared."""
    thing = Thing(0)
    other = thing.view(7, others=0)
    images = {f"a-{number:03d}.jpg": thing.copy(number) for number in range(150)}
    for number in range(60):
        rng = np.random.default_rng(number)
        noise = 0.02 * rng.normal(size=other.descriptors.shape)
        images[f"b-{number:03d}.jpg"] = features_of(other.keypoints[:, :2], other.descriptors + noise)
    index = made(tmp_path / "index", images)
    [group] = find_groups(index, Grouping(5))
    assert len(group) == 210 and sorted(map(len, group.photographs)) == [60, 150]
    assert len(group.rows) <= 6 * 210
    equal = made(tmp_path / "equal", {f"{number:03d}.jpg": thing.copy(0) for number in range(120)})
    [group] = find_groups(equal, Grouping(3))
    assert len(group) == 120 and len(group.photographs) == len(group.communities) == 1


def marked(images, seed=9, place=(430, 380)):
    """The same images with a watermark."""
    rng = np.random.default_rng(seed)
    places, descriptors = rng.uniform((0, 0), (200, 90), (24, 2)) + place, rng.normal(size=(24, DIM))
    return {
        name: features_of(
            np.concatenate([one.keypoints[:, :2], places]), np.concatenate([one.descriptors, descriptors])
        )
        for name, one in images.items()
    }


def test_a_watermark_joins_nothing_and_is_told(tmp_path):
    images = marked({f"{number:02d}.jpg": Thing(number).copy(0) for number in range(12)})
    images |= marked({"view.jpg": Thing(3).view(1)})
    index = made(tmp_path / "index", images)
    groups = find_groups(index, work=tmp_path / "work")
    assert names_of(groups) == {frozenset({"03.jpg", "view.jpg"})}
    overlays = [notice for notice in groups.notices if notice.kind == "overlay"]
    assert len(overlays) >= 12 and "a watermark" in str(overlays[0])
    [group] = find_groups(index, Grouping(overlays=True), work=tmp_path / "work")
    assert len(group) == 13


@pytest.mark.parametrize("images", [{}, {"one.jpg": Thing(0).copy(0)}, {"none.jpg": make_features(np.empty((0, DIM)))}])
def test_collections_without_a_pair(tmp_path, images):
    index = made(tmp_path / "index", images) if images else Index.create(tmp_path / "index", CODEBOOK, geometry="all")
    groups = find_groups(index, Grouping(10_000, mirror=False))
    assert len(groups) == 0 and groups.alone == tuple(images)
    write_groups(groups, tmp_path / "out")
    assert json.loads((tmp_path / "out/groups.json").read_text())["alone"] == list(images)
    assert find_pairs(index).pairs == ()


def test_no_match_at_all_and_deleted_images(tmp_path):
    index = made(tmp_path / "index", world(1, 3, 4), segments=2)
    index.delete(["0-0.jpg", "0-1.jpg"])
    groups = find_groups(index)
    assert len(groups) == 0 and len(groups.alone) == 5 and not groups.notices


def test_what_cannot_be_compared_is_told_in_a_line(tmp_path):
    index = made(tmp_path / "index", world(1, 2, 0), None)
    other = made(tmp_path / "other", {"alone.jpg": Thing(100).copy(0)}, None)
    with pytest.raises(InputError, match="give one index"):
        find_groups(JointIndex([index, other]))
    vectors = write_global(
        tmp_path / "flat.features", {f"{n}.jpg": make_features(np.eye(4)[n : n + 1]) for n in (0, 1)}
    )
    flat = GlobalIndex.create(tmp_path / "flat", Codec(vectors.recipe, 4))
    flat.add(vectors)
    with pytest.raises(InputError, match="global descriptors have no places"):
        find_groups(flat)
    assert find_pairs(flat).pairs == ()
    for part in (tmp_path / "index-0.features").glob("*"):
        part.unlink()
    with pytest.raises(
        NotFoundError, match=r"neither the geometry nor the features of '0-0.jpg'.*--geometry"
    ) as caught:
        find_groups(Index.open(tmp_path / "index"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"neighbours": 0}, {"places": 3}, {"weight": -1.0}, {"weight": float("nan")}])
def test_options_out_of_range(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*; give"):
        Grouping(**wrong)


# --- interruption -----------------------------------------------------------------------------------------------------


class Stopping(Silent):
    """A display that interrupts the run at a certain report."""

    def __init__(self, after):
        self.left = after

    def bar(self, what, unit, *, by_last=False):
        @contextlib.contextmanager
        def stop():
            def report(done, total, failed=0):
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt

            yield report

        return stop()


def as_bytes(groups, folder):
    write_groups(groups, folder)
    return (folder / "groups.json").read_bytes(), (folder / "groups.csv").read_bytes()


def test_an_interrupted_run_goes_on_and_a_damaged_piece_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr("asmk_engine.groups.verified.SEARCH_PIECE", 4)
    monkeypatch.setattr("asmk_engine.groups.verified.PAIRS_PIECE", 40)
    index = made(tmp_path / "index", world(), segments=2)
    expected = as_bytes(find_groups(index), tmp_path / "expected")
    work, stops = tmp_path / "work", 0
    for after in range(1, 100):
        try:
            groups = find_groups(index, work=work, display=Stopping(after))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 4 and as_bytes(groups, tmp_path / "found") == expected
    pieces = {path.name: path.stat().st_mtime_ns for path in work.iterdir() if path.suffix}
    damaged = sorted(work.glob("verified-*"))[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (work / "nearest-000000.safetensors.tmp").write_bytes(b"half")
    assert as_bytes(find_groups(index, work=work), tmp_path / "found") == expected
    changed = {path.name for path in work.iterdir() if path.suffix and path.stat().st_mtime_ns != pieces[path.name]}
    assert changed == {damaged.name}


def test_another_commit_starts_anew(tmp_path):
    index = made(tmp_path / "index", world())
    assert len(find_groups(index, work=tmp_path / "work")) == 3
    index.add(write_features(tmp_path / "more.features", {"0-9.jpg": Thing(0).view(99)}, dim=DIM))
    groups = find_groups(index, work=tmp_path / "work")
    assert "0-9.jpg" in groups.groups[0].images and len(groups.groups[0]) == 5


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_process_goes_on(tmp_path):
    made(tmp_path / "index", world(4, 5, 4))
    command = [sys.executable, "-m", "asmk_engine", "groups", str(tmp_path / "index"), "-q", "-o"]
    expected = tmp_path / "expected"
    started = time.monotonic()
    subprocess.run([*command, str(expected), "--sheets", "0"], env=ENVIRONMENT, check=True)
    whole = time.monotonic() - started
    for share in (0.7, 0.9):
        process = subprocess.Popen([*command, str(tmp_path / "out"), "--sheets", "0"], env=ENVIRONMENT)
        time.sleep(share * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "out"), "--sheets", "0"], env=ENVIRONMENT, check=True)
    for name in ("groups.json", "groups.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (expected / name).read_bytes()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    index = made(tmp_path / "index", world())
    groups = find_groups(index)
    before = as_bytes(groups, tmp_path / "out")

    def full(file, place, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system, "write", full)
    for act in (
        lambda: write_groups(groups, tmp_path / "out"),
        lambda: find_groups(index, work=tmp_path / "work"),
        lambda: write_pairs(find_pairs(index, work=None), tmp_path / "out/pairs.txt"),
    ):
        with pytest.raises(StorageError, match="free some space") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert ((tmp_path / "out/groups.json").read_bytes(), (tmp_path / "out/groups.csv").read_bytes()) == before
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "out/pairs.txt").exists()


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_once_each_and_the_best_of_each_image(tmp_path):
    images = world(2, 4, 2)
    index = made(tmp_path / "index", images, segments=2)
    found = find_pairs(index, Pairing(3))
    searcher = Searcher(index, multiple_assignment=1)
    expected: dict[frozenset[str], float] = {}
    for name in index.names:
        for hit in [hit for hit in searcher.search(images[name], None) if hit.name != name][:3]:
            expected.setdefault(frozenset((name, hit.name)), hit.score)
    assert {frozenset((pair.one, pair.other)): pair.score for pair in found.pairs} == pytest.approx(expected, rel=1e-6)
    assert len(found.pairs) == len(expected) and [pair.one for pair in found.pairs] == sorted(
        p.one for p in found.pairs
    )
    least = sorted(expected.values())[len(expected) // 2]
    assert {pair.score >= np.float32(least) for pair in find_pairs(index, Pairing(3, least)).pairs} == {True}
    assert found.pairs == find_pairs(index, Pairing(3), threads=1).pairs


def test_verified_pairs_and_neighbours_in_a_sequence(tmp_path):
    index = made(tmp_path / "index", world(2, 5, 2))
    verified = find_pairs(index, Pairing(verified=True))
    assert {(pair.one[0], pair.other[0]) for pair in verified.pairs} == {("0", "0"), ("1", "1")}
    assert verified.lonely == ("alone-0.jpg", "alone-1.jpg") and len(verified.pairs) == 20
    skipping = find_pairs(index, Pairing(verified=True, skip_neighbours=2))
    steps = {abs(int(pair.one[2]) - int(pair.other[2])) for pair in skipping.pairs}
    assert steps == {3, 4}


@pytest.mark.parametrize(
    ("images", "pairs"), [(0, 0), (1, 0), (2, 1), (12, 11), (24, 23), (100, 30), (1000, 40), (10**6, 70)]
)
def test_automatic_number_of_pairs(images, pairs):
    assert automatic_pairs(images) == pairs


def run(*words):
    done = CliRunner().invoke(commands, [str(word) for word in words])
    return f"{done.exit_code} {done.output}{done.exception or ''}"


def test_the_commands(tmp_path):
    images = world() | {"two words.jpg": Thing(50).copy(0)}
    made(tmp_path / "index", images)
    said = run("groups", tmp_path / "index", "-o", tmp_path / "out", "--sheets", 2)
    assert said.startswith("0 ") and "3 groups of 12 images, 0 of them copies; 5 images alone; 2 contact sheets" in said
    assert sorted(path.name for path in (tmp_path / "out/sheets").iterdir()) == ["group-1.png", "group-2.png"]
    table = list(csv.DictReader((tmp_path / "out/groups.csv").read_text().splitlines()))
    assert len(table) == 17 and {row["kind"] for row in table} == {"view", "alone"}
    content = json.loads((tmp_path / "out/groups.json").read_text())
    assert content["commit"] == 2 and content["options"]["neighbours"] == 50 and len(content["groups"]) == 3
    assert len(content["groups"][0]["edges"]) == 6
    assert "white space" in run("pairs", tmp_path / "index", "-o", tmp_path / "pairs.txt")
    said = run(
        "pairs",
        tmp_path / "index",
        "-o",
        tmp_path / "pairs.txt",
        "--verified",
        "--scores",
        "--look-alikes",
        tmp_path / "doubt.tsv",
    )
    assert "18 pairs, at most 16 of an image" in said
    lines = (tmp_path / "pairs.txt").read_text().splitlines()
    assert len(lines) == 18 and all(len(line.split()) == 3 for line in lines)
    assert (tmp_path / "doubt.tsv").exists() and not (tmp_path / "pairs.txt.work").exists()
    assert "hloc refuses" in run("pairs", tmp_path / "index", "-o", tmp_path / "p", "--scores", "--format", "hloc")
    assert run("pairs", tmp_path / "index", "-o", tmp_path / "p", "--pairs-per-image", "0").startswith("2 ")


# --- photographs ------------------------------------------------------------------------------------------------------


def photographs(folder):
    """Three photographs, files made of the first two, and another view of the third, as a homography would show it."""
    folder.mkdir()
    images = {
        name: np.array(Image.open(photo.path).convert("RGB"))
        for photo in bundled_photos()
        if (name := photo.name.split(".")[0])
    }
    for name in ("rocket", "coffee", "astronaut"):
        Image.fromarray(images[name]).save(folder / f"{name}.jpg", quality=95)
    rocket, coffee = (Image.fromarray(images[name]) for name in ("rocket", "coffee"))
    width, height = rocket.size
    rocket.save(folder / "rocket-again.jpg", quality=40)
    rocket.crop((width // 5, height // 6, width, height)).save(folder / "rocket-crop.jpg", quality=85)
    ImageOps.mirror(coffee).save(folder / "coffee-mirrored.jpg", quality=85)
    height, width = images["astronaut"].shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = np.array([[30, 20], [width - 60, 0], [width, height - 40], [0, height]], np.float32)
    view = cv2.warpPerspective(images["astronaut"], cv2.getPerspectiveTransform(corners, moved), (width, height))
    Image.fromarray(view).save(folder / "astronaut-aside.jpg", quality=85)


def test_pixels_of_one_photograph_agree_wherever_it_was_cut():
    images = {photo.name.split(".")[0]: np.array(Image.open(photo.path).convert("L")) for photo in bundled_photos()}
    whole = images["rocket"]
    height, width = whole.shape
    cut = whole[height // 4 :, width // 3 :]
    darker = np.clip(0.6 * cut.astype(float) + 10, 0, 255).astype(np.uint8)
    affine = np.array([[1.0, 0, -(width // 3) + 3], [0, 1, -(height // 4) - 4]])  # a few pixels off
    back = np.array([[1.0, 0, width // 3 - 3], [0, 1, height // 4 + 4]])
    one, other = small(whole), small(darker)
    assert agreement(one, other, affine) > 0.998 and agreement(other, one, back) > 0.998
    assert agreement(one, small(images["coffee"]), np.eye(3)[:2]) < 0.9
    assert agreement(one, other, np.array([[1e-3, 0, 0], [0, 1e-3, 0]])) == 0.0
    assert agreement(one, other, np.array([[1.0, 0, 9999], [0, 1, 0]])) == 0.0


def small(pixels):
    """As the images are loaded that are compared."""
    factor = max(pixels.shape) / 256
    size = (round(pixels.shape[1] / factor), round(pixels.shape[0] / factor))
    shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return GreyImage(shrunk, (pixels.shape[1] / size[0], pixels.shape[0] / size[1]))


def test_copies_crops_and_mirrored_photographs(tmp_path):
    photographs(tmp_path / "photos")
    run(
        "index",
        tmp_path / "photos",
        "-o",
        tmp_path / "index",
        "--extractor",
        "rootsift",
        "--geometry",
        "all",
        "--workers",
        0,
    )
    said = run("groups", tmp_path / "index", "-o", tmp_path / "out", "--mirror")
    assert "3 groups of 7 images, 3 of them copies; 0 images alone" in said, said
    table = {row["image"]: row for row in csv.DictReader((tmp_path / "out/groups.csv").read_text().splitlines())}
    kinds = {name: (row["kind"], row["same_as"]) for name, row in table.items()}
    assert kinds["rocket.jpg"] == ("view", "") and kinds["rocket-again.jpg"] == ("copy", "rocket.jpg")
    assert kinds["rocket-crop.jpg"] == ("crop", "rocket.jpg")
    assert {kinds["coffee.jpg"], kinds["coffee-mirrored.jpg"]} >= {("view", "")}
    assert {kinds["coffee.jpg"][0], kinds["coffee-mirrored.jpg"][0]} == {"view", "mirrored"}
    assert (
        kinds["astronaut-aside.jpg"][0] == "view"
        and table["astronaut.jpg"]["group"] == table["astronaut-aside.jpg"]["group"]
    )
    for path in (tmp_path / "photos").iterdir():
        path.unlink()
    said = run("groups", tmp_path / "index", "-o", tmp_path / "gone")
    assert said.startswith("0 ") and "2 groups of 5 images" in said and "without a readable photograph" in said
    sheets = sorted((tmp_path / "gone/sheets").iterdir())
    with Image.open(sheets[0]) as sheet:
        assert len(sheets) == 2 and sheet.size[0] > 600
