"""Geometry beside the postings: an index that keeps it through every kind of change, and what damage costs."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError
from asmk_engine.features import Features, FeatureSet
from asmk_engine.features.arrays import ArrayFeatures
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.indexes.manifest import FileEntry
from asmk_engine.inverted.batch import Batch, posting_bytes
from asmk_engine.inverted.geometry_file import (
    ALL_FEATURES,
    features_kept,
    map_geometry,
    row_type,
)
from asmk_engine.inverted.geometry_writer import geometry_name, merge_geometry
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.signatures import Signature
from asmk_engine.inverted.snapshot import check_has_geometry, geometry_by_place
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.geometry import geometry_of
from disks import fast_disk
from geometry_samples import CODEBOOK, DIM, WORDS, check_same, found, made, photographs
from naive_geometry_file import naive_file
from samples import RECIPE, random_codebook, write_features


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def test_no_feature_and_one_feature(tmp_path: Path) -> None:
    images = photographs(40, features=1)
    assert {len(image) for image in images.values()} == {0, 1}
    index = made(tmp_path / "index", images)
    for name, features in images.items():
        check_same(found(index, name), features)
    assert check_index(index.path).clean


@pytest.mark.parametrize("most", [1, 5, "all"])
def test_an_index_gives_back_what_it_was_given(tmp_path: Path, most: int | str) -> None:
    """Added in several commits and segments, with deletions, replaced and merged, opened anew."""
    images = photographs(30)
    index = made(tmp_path / "index", images, most, postings=40)
    assert len(index.snapshot.segments) > 2 and index.geometry == features_kept(most)
    more = photographs(12, seed=9)
    index.add(write_features(tmp_path / "more", more, dim=DIM), existing="replace")
    images |= more
    index.delete(list(images)[5:25:3])
    for _ in range(2):
        index = Index.open(index.path)
        assert check_index(index.path).clean and {*index.names} < {*images}
        for name in index.names:
            check_same(found(index, name), images[name], features_kept(most) or 0)
        assert index.merge()
    assert len(index.snapshot.segments) == 1 and index.snapshot.segments[0].images == len(index.names)
    names = sorted(path.name for path in index.path.glob("*-*.safetensors") if "codebook" not in path.name)
    assert names == [geometry_name(index.snapshot.segments[0].path.name), index.snapshot.segments[0].path.name]
    entry = index.snapshot.manifest.segments[0].geometry
    assert entry is not None
    twin = naive_file(index.path / entry.name, DIM, WORDS)
    for number, rows in enumerate(twin):
        geometry = found(index, index.snapshot.segments[0].name(number))
        assert geometry is not None
        assert geometry.words.tolist() == [row["word"] for row in rows]
        assert geometry.codes[:, 0].tolist() == [row["code"] for row in rows]
        expected = np.array([[row[key] for key in ("x", "y", "scale")] for row in rows]).reshape(-1, 3)
        assert np.allclose(geometry.places[:, :3], expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("first", ["with", "without"])
def test_features_with_angles_beside_those_without(tmp_path: Path, first: str) -> None:
    """In one batch and in two segments, merged in both orders: no angle is invented or lost."""
    plain = {f"plain {name}": image for name, image in photographs(6, seed=4).items()}
    turned = photographs(6, seed=5, angles=True)
    one, other = (turned, plain) if first == "with" else (plain, turned)
    mixed = {name: image for pair in zip(one.items(), other.items(), strict=True) for name, image in pair}
    index = Index.create(tmp_path / "index", CODEBOOK, geometry="all")
    index.add(ArrayFeatures.of_images(list(mixed.items()), CODEBOOK.recipe))
    again = {f"again {name}": image for name, image in one.items()}
    index.add(ArrayFeatures.of_images(list(again.items()), CODEBOOK.recipe))
    for _ in range(2):
        assert check_index(index.path).clean
        for name, image in (mixed | again).items():
            check_same(found(index, name), image)
        index.merge()
    assert len(index.snapshot.segments) == 1


def test_the_geometry_of_an_index_is_that_of_its_features(tmp_path: Path) -> None:
    """One projection and assignment for signature and geometry, also where only the strongest features are kept."""
    images = photographs(6, features=60)
    index = made(tmp_path / "index", images, 20)
    for name, features in images.items():
        projected = CODEBOOK.project(features.descriptors)
        words = CODEBOOK.assign_projected(projected, 1)
        expected = geometry_of(features.strongest(20), projected[:20], words[:20], CODEBOOK)
        geometry = found(index, name)
        assert geometry is not None and len(geometry) == min(20, len(features))
        assert np.array_equal(geometry.words, expected.words) and np.array_equal(geometry.codes, expected.codes)


def test_an_index_without_geometry_is_as_before(tmp_path: Path) -> None:
    images = photographs(10)
    one, other = made(tmp_path / "plain", images, None), made(tmp_path / "with", images)
    query = next(iter(photographs(1, seed=4, features=30).values()))
    assert Searcher(one).search(query, None) == Searcher(other).search(query, None)
    assert one.geometry is None and one.snapshot.manifest.to_json()["format"] == 1
    assert '"geometry"' not in (one.path / "manifest.json").read_text() and found(one, next(iter(images))) is None
    with pytest.raises(InputError, match=r"plain: has no geometry, which verification needs; index .* --geometry"):
        check_has_geometry(one.snapshot, one.path)
    check_has_geometry(other.snapshot, other.path)
    assert other.snapshot.manifest.to_json()["format"] == 3
    segments = [(index.path / index.snapshot.manifest.segments[0].file.name).read_bytes() for index in (one, other)]
    assert segments[0] == segments[1]


def test_a_program_of_an_earlier_version_would_refuse_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path / "index", photographs(2))
    monkeypatch.setattr("asmk_engine.indexes.manifest.FORMATS", (1, 2))
    with pytest.raises(FormatError, match="index format 3, this version reads 2 and below"):
        Index.open(index.path)


def test_images_without_geometry_beside_those_with(tmp_path: Path) -> None:
    """Segments from before geometry was kept, and signatures, which have no places: nothing is invented."""
    before, after = photographs(5), {f"after {name}": image for name, image in photographs(5, seed=2).items()}
    index = made(tmp_path / "index", before, None)
    index.keep_geometry(7)
    index.keep_geometry(7)
    index.add(write_features(tmp_path / "more", after, dim=DIM))
    signature = Signature(np.array([1, 5], np.uint32), np.array([[1], [2]], np.uint64), DIM)
    index.add_signatures([("signed", signature)])
    assert index.geometry == 7 and index.snapshot.segments[0].geometry is None
    for turn in range(2):
        for name in index.names:
            if name in after:
                check_same(found(index, name), after[name], 7)
            else:
                assert found(index, name) is None
        facts = describe(index.path)["geometry"]
        assert (facts["keeps"], facts["images"], facts["images_without"]) == (7, 5, 6)
        assert check_index(index.path).clean
        index.merge()
        assert turn or len(index.snapshot.segments) == 1
    table = index.snapshot.segments[0].geometry
    assert table is not None and table.image(0).image_size == (0, 0) and len(table.image(0)) == 0


def test_joint_indexes_reach_the_geometry_of_each(tmp_path: Path) -> None:
    images, others = photographs(4), {f"b {name}": image for name, image in photographs(4, seed=1).items()}
    joint = JointIndex([made(tmp_path / "a", images), made(tmp_path / "b", others)], [made(tmp_path / "c", images, 2)])
    for name, features in (images | others).items():
        place = joint.snapshot.find(name)
        assert place is not None
        check_same(geometry_by_place(joint.snapshot, *place), features)
    place = joint.snapshot.find("distractor1:image 001.jpg")
    assert place is not None
    check_same(geometry_by_place(joint.snapshot, *place), images["image 001.jpg"], 2)


def test_a_mapped_file_is_kept_through_deletions_and_refreshes(tmp_path: Path) -> None:
    index = made(tmp_path / "index", photographs(6))
    before = index.snapshot.segments[0].geometry
    index.delete(["image 003.jpg"])
    after = index.snapshot.segments[0].geometry
    assert before is not None and after is not None and after.file is before.file
    index.refresh()
    assert index.snapshot.segments[0].geometry_file is before.file


@pytest.mark.parametrize("wrong", [0, -1, "none", "", 1.5, True, 1 << 31])
def test_a_wrong_number_of_features_is_named(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(
        InputError, match=r"geometry is .*; give the number of features to keep of each image, or 'all'"
    ):
        Index.create(tmp_path / "index", CODEBOOK, geometry=wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "index").exists()


def test_contents_of_another_layout_are_refused(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", CODEBOOK)
    contents = Batch(1, 16).contents()
    with pytest.raises(MismatchError, match="features take 16 bytes, the index expects 0"):
        index.add_contents(contents)


def damaged(tmp_path: Path, how: str) -> tuple[Index, str, dict[str, Features]]:
    """An index of two segments, one of which lost its geometry in some way; the name of that file."""
    images = photographs(14)
    index = made(tmp_path / "index", images, "all", postings=60)
    index.delete(["image 002.jpg"])
    entries = index.snapshot.manifest.segments
    assert len(entries) >= 2 and entries[0].geometry is not None
    path = index.path / entries[0].geometry.name
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(whole[:-100])
    else:
        array = map_arrays(Folder(index.path), path.name)
        place = array.begins[how] + array.arrays[how].nbytes // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    return index, path.name, images


DAMAGE = ["missing", "cut", "features", "starts", "sizes", "digests", "checksums"]


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_geometry_costs_only_the_geometry(tmp_path: Path, how: str) -> None:
    index, name, images = damaged(tmp_path, how)
    query = next(iter(photographs(1, seed=4, features=30).values()))
    before = Searcher(index).search(query, None)
    first = index.snapshot.manifest.segments[0]
    report = check_index(index.path)
    assert [(finding.file, finding.kind) for finding in report.findings] == [(name, "damage")]
    planned = repair_index(index.path)
    assert planned.needed and not planned.done and planned.moved == (() if how == "missing" else (name,))
    done = repair_index(index.path, write=True)
    assert (done.lost, done.returned, done.without) == (0, 0, {})
    assert done.without_geometry == {name: first.images - first.deleted_images}
    assert check_index(index.path).clean and not repair_index(index.path).needed
    index = Index.open(index.path)
    assert Searcher(index).search(query, None) == before and index.geometry == ALL_FEATURES
    assert index.snapshot.segments[0].geometry is None and index.snapshot.segments[0].deleted is not None
    kept = [name for name in index.names if (index.snapshot.find(name) or (0,))[0] > 0]
    assert kept
    for name in kept:
        check_same(found(index, name), images[name])
    index.merge()
    assert check_index(index.path).clean and describe(index.path)["geometry"]["images"] == len(kept)


def test_repair_says_it_in_one_line_and_in_json(tmp_path: Path) -> None:
    index, name, _ = damaged(tmp_path, "features")
    count = index.snapshot.segments[0].live
    said = CliRunner().invoke(commands, ["repair", str(index.path)])
    assert f"{count} images kept without the geometry of {name}\n" in said.output and said.exit_code == 0
    told = json.loads(CliRunner().invoke(commands, ["repair", str(index.path), "--yes", "--json"]).output)
    assert told["without_geometry"] == {name: count} and told["done"]


def test_a_damaged_segment_takes_its_geometry_along(tmp_path: Path) -> None:
    index, name, _ = damaged(tmp_path, "features")
    first = index.snapshot.manifest.segments[0].file.name
    (index.path / first).write_bytes(b"altered")
    assert {finding.file for finding in check_index(index.path).findings} == {first, name}
    done = repair_index(index.path, write=True)
    assert done.lost and not done.without_geometry and {first, name} <= {*done.moved}
    assert check_index(index.path).clean


@pytest.mark.parametrize("block", [128, 1 << 20])
def test_altered_geometry_gets_no_new_checksums(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", block)
    index, name, _ = damaged(tmp_path, "features")
    with pytest.raises(DamagedError, match=name):
        Index.open(index.path).merge()
    findings = check_index(index.path).findings
    assert {finding.file for finding in findings if finding.kind != "note"} == {name}


@pytest.mark.parametrize("what", ["a bit beyond the last", "a row that is not its digest's", "falling starts"])
def test_checks_read_what_has_valid_checksums(tmp_path: Path, what: str) -> None:
    """A file as a faulty program would write it, named by the manifest: only its geometry is given up."""
    index = made(tmp_path / "index", photographs(6))
    entry = index.snapshot.manifest.segments[0]
    assert entry.geometry is not None
    folder, name = Folder(index.path), entry.geometry.name
    arrays = {key: array.copy() for key, array in map_arrays(folder, name).arrays.items() if key != "checksums"}
    end = int(arrays["starts"][-1]) - 1
    if what == "falling starts":
        arrays["starts"][1:3] = end, 0
    else:
        arrays["features"].reshape(-1).view(row_type(DIM, WORDS))["code"][0] |= np.uint64(1 << DIM)
    if what == "a bit beyond the last":
        spans = zip(arrays["starts"][:-1].tolist(), arrays["starts"][1:].tolist(), strict=True)
        arrays["digests"][:] = [zlib.crc32(arrays["features"][first:last].tobytes()) for first, last in spans]
    (index.path / name).unlink()
    file = FileEntry.of(folder, name, write_arrays(folder, name, arrays, {}))
    manifest = index.snapshot.manifest.following(segments=(replace(entry, geometry=file),))
    folder.replace_manifest(COPIES, manifest.to_json())
    assert check_index(index.path, fast=True).clean == (what != "falling starts")
    assert {finding.file for finding in check_index(index.path).findings} == {name}
    if what == "falling starts":
        reopened = Index.open(index.path)
        reopened.delete(["image 001.jpg"])
        with pytest.raises(DamagedError, match="its tables contradict each other"):
            reopened.merge()
    assert repair_index(index.path, write=True).without_geometry.keys() == {name}
    assert check_index(index.path).clean


def test_fast_checks_read_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", 128)
    index, name, _ = damaged(tmp_path, "features")
    assert check_index(index.path, fast=True).clean
    assert {finding.file for finding in check_index(index.path).findings} == {name}


def test_the_memory_of_a_batch_includes_the_geometry(tmp_path: Path) -> None:
    """A batch is full when postings and geometry take what its postings alone may take."""
    dim = 128
    codebook = random_codebook(2, dim)  # few words: two postings for hundreds of features
    each, row = posting_bytes(2), row_type(dim, 2).itemsize
    rng = np.random.default_rng(0)
    images = {f"{n:03d}": Features.from_descriptors(rng.normal(size=(400, dim)).astype(np.float32)) for n in range(40)}
    index = Index.create(tmp_path / "index", codebook, geometry="all")
    room = 4000
    index.add(write_features(tmp_path / "features", images, dim=dim), segment_postings=room)
    for entry in index.snapshot.manifest.segments[:-1]:
        segment = next(s for s in index.snapshot.segments if s.path.name == entry.file.name)
        assert segment.geometry is not None
        taken = each * segment.postings + row * len(segment.geometry.features)
        assert each * room <= taken <= each * room + 402 * (each + row)
    assert len(index.snapshot.segments) > 1
    plain = Index.create(tmp_path / "plain", codebook)
    plain.add(FeatureSet.open(tmp_path / "features"), segment_postings=room)
    assert len(plain.snapshot.segments) == 1


def many(count: int) -> Iterator[tuple[str, Features]]:
    rng = np.random.default_rng(0)
    for number in range(count):
        yield f"{number:05d}", Features.from_descriptors(rng.normal(size=(200, 16)).astype(np.float32))


def test_joining_takes_no_more_memory_than_a_piece(tmp_path: Path) -> None:
    codebook = random_codebook(300, 16, recipe=RECIPE)
    index = Index.create(tmp_path / "index", codebook, geometry="all")
    features = write_features(tmp_path / "features", dict(many(1500)), dim=16)
    index.add(features, segment_postings=200_000)
    index.delete(index.names[::7])
    index.refresh()
    segments = index.snapshot.segments
    assert len(segments) > 1
    rows = sum(segment.geometry.features.nbytes for segment in segments if segment.geometry is not None)
    peaks = []
    for chunk in (1 << 14, 1 << 30):
        tracemalloc.start()
        entry = merge_geometry(Folder(tmp_path), "segment-000007.safetensors", segments, chunk_bytes=chunk)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert entry is not None
        joined = map_geometry(Folder(tmp_path), entry, index.images, 300, 16)
        assert not [*joined.problems()]
        (tmp_path / entry.name).unlink()
    assert peaks[0] < 500_000 < rows // 4 < peaks[1]


def run(*words: object) -> str:
    done = CliRunner().invoke(commands, [str(word) for word in words])
    return f"{done.exit_code} {done.output}{done.exception or ''}"


@pytest.fixture
def features(tmp_path: Path) -> Path:
    write_features(tmp_path / "photos.features", photographs(12, features=40), dim=DIM)
    CODEBOOK.save(tmp_path / "c.h5")
    return tmp_path / "photos.features"


def test_index_with_geometry_and_info(features: Path) -> None:
    folder = features.parent
    for option, keeps in ((["--geometry"], "all"), (["--geometry", "9"], 9), (["--geometry=all"], "all")):
        assert run("index", features, "--codebook", folder / "c.h5", "-o", folder / "i", *option).startswith("0")
        facts = describe(folder / "i")
        assert facts["geometry"]["keeps"] == keeps and facts["geometry"]["images"] == 12
        on_disk = sum(path.stat().st_size for path in (folder / "i").iterdir())
        assert facts["bytes"] == sum(facts["bytes_by_part"].values()) == on_disk
        assert facts["bytes_by_part"]["leftover"] == 0 < facts["bytes_by_part"]["geometry"]
        shown = run("info", folder / "i")
        kept = "all" if keeps == "all" else "the strongest 9"
        assert f"{kept} of the features of new images; 12 images have it" in shown and "do not" not in shown
        shutil.rmtree(folder / "i")


def test_an_index_goes_on_as_it_began(features: Path) -> None:
    folder = features.parent
    index = folder / "i"
    run("index", features, "--codebook", folder / "c.h5", "-o", index)
    refused = run("index", features, "-o", index, "--geometry", "5")
    assert "keeps no geometry of an image; add --replace to index its images again" in refused and refused[0] == "1"
    assert Index.open(index).geometry is None
    assert run("index", features, "-o", index, "--geometry", "5", "--replace").startswith("0")
    assert describe(index)["geometry"]["images_without"] == 0
    run("index", features, "-o", index, "--replace")
    assert Index.open(index).geometry == 5 and describe(index)["geometry"]["images"] == 12
    assert "keeps that of 5 features of an image" in run("index", features, "-o", index, "--geometry")
    assert run("index", features, "-o", index, "--geometry", "5").startswith("0")


def test_what_is_no_number_of_features_is_a_usage_error(features: Path) -> None:
    said = run("index", "-o", features.parent / "i", "--geometry", features)
    assert said[0] == "2" and "is neither a number of features nor `all`; give --geometry=all" in said
