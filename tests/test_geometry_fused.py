"""Geometry of the local features of an index of several kinds: in every change, and what damage costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.flat import Codec, GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.joint import JointFusedIndex
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.inverted.batch import posting_bytes
from asmk_engine.inverted.geometry_file import row_type
from asmk_engine.inverted.snapshot import Snapshot, geometry_by_place
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.geometry import image_geometry
from disks import fast_disk
from fused_histories import DIM, NAMES, POOL, QUERIES, WORDS, create, some, write_sets
from samples import random_codebook


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def made(folder: Path, geometry: int | str | None, names: list[str], postings: int = 1 << 24) -> FusedIndex:
    """An index of images of the pool."""
    index = create(folder / "index")
    if geometry is not None:
        index.keep_geometry(geometry)
    index.add(write_sets(folder / "sets", some(names)), segment_postings=postings)
    return index


def check_geometry(index: FusedIndex | JointFusedIndex, name: str, most: int, stored: str = "") -> bool:
    """Compare the geometry of an image with its features; returns whether it has any features."""
    place = index.snapshot.find(name)
    local = index.snapshot.views[0]
    assert place is not None and isinstance(local, Snapshot)
    found, features = geometry_by_place(local, *place), POOL[stored or name][0]
    if features is None:
        assert found is None
        return False
    expected = image_geometry(features, local.encoder, most=most)
    assert found is not None and len(found) == min(most, len(features))
    assert np.array_equal(found.words, expected.words) and np.array_equal(found.codes, expected.codes)
    assert np.abs(found.places[:, :2] - expected.places[expected.features][:, :2]).max(initial=0) < 0.01
    return len(features) > 0


def test_geometry_follows_every_change(tmp_path: Path) -> None:
    index = made(tmp_path, 5, NAMES[:10], postings=40)
    assert len(index.snapshot.segments) > 1 and index.geometry == 5
    index.add(write_sets(tmp_path / "more", some(NAMES[10:14])))
    index.delete(NAMES[2:8:2])
    for _ in range(2):
        index = FusedIndex.open(index.path)
        assert sum(check_geometry(index, name, 5) for name in index.names) > 5
        assert check_index(index.path).clean
        facts = describe(index.path)
        parts = next(kind for kind in facts["kinds"] if kind["name"] == "parts")["geometry"]
        assert parts["keeps"] == 5 and parts["images"] + parts["images_without"] == facts["images"]
        assert (
            facts["bytes"] == sum(path.stat().st_size for path in index.path.iterdir())
            and facts["bytes_by_part"]["geometry"]
        )
        index.merge()
    assert len([*index.path.glob("geometry-*-1.safetensors")]) == len(index.snapshot.segments) == 1
    assert not [*index.path.glob("geometry-*-2.safetensors")]


def test_an_index_begins_to_keep_geometry(tmp_path: Path) -> None:
    index = made(tmp_path, None, NAMES[:6])
    assert index.geometry is None and index.snapshot.manifest.to_json()["format"] == 2
    answers = FusedSearcher(index).search(QUERIES, None)
    index.keep_geometry("all")
    index.add(write_sets(tmp_path / "more", some(NAMES[6:10])))
    index.delete(NAMES[6:10])
    assert FusedSearcher(index).search(QUERIES, None) == answers
    index.add(write_sets(tmp_path / "again", some(NAMES[:3]), edition=1), existing="replace")
    index.merge()
    assert check_index(index.path).clean and index.snapshot.manifest.to_json()["format"] == 3
    local = index.snapshot.views[0]
    assert isinstance(local, Snapshot)
    for name in NAMES[:6]:
        place = index.snapshot.find(name)
        if name in NAMES[:3]:
            check_geometry(index, name, 1 << 20)
        else:
            assert place is not None and geometry_by_place(local, *place) is None


def test_joint_indexes_and_kept_maps(tmp_path: Path) -> None:
    index = made(tmp_path, 4, NAMES[:6])
    before = index.snapshot.segments[0].parts[0].geometry_file
    index.delete(NAMES[:1])
    assert before is not None and index.snapshot.segments[0].parts[0].geometry_file is before
    other = made(tmp_path / "other", 4, NAMES[6:9])
    joint = JointFusedIndex([index], [other])
    assert sum(check_geometry(joint, name, 4) for name in NAMES[1:6]) > 1
    assert sum(check_geometry(joint, f"distractor1:{name}", 4, name) for name in NAMES[6:9]) > 0


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_damaged_geometry_costs_only_the_geometry(tmp_path: Path, how: str) -> None:
    index = made(tmp_path, "all", NAMES[:10], postings=40)
    entry = index.snapshot.manifest.segments[0]
    file = entry.kinds[0].geometry
    assert file is not None and entry.kinds[1].geometry is None
    answers = FusedSearcher(index).search(QUERIES, None)
    path = index.path / file.name
    whole = path.read_bytes()
    path.unlink()
    if how == "altered":
        path.write_bytes(whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    assert [(finding.file, finding.kind) for finding in check_index(index.path).findings] == [(file.name, "damage")]
    done = repair_index(index.path, write=True)
    assert (done.lost, done.without, done.without_geometry) == (0, {}, {file.name: entry.images})
    assert check_index(index.path).clean
    index = FusedIndex.open(index.path)
    assert FusedSearcher(index).search(QUERIES, None) == answers
    assert index.snapshot.manifest.segments[0].kinds[0].geometry is None
    assert index.snapshot.manifest.segments[1].kinds[0].geometry is not None
    index.merge()
    assert check_index(index.path).clean


def test_a_damaged_kind_takes_its_geometry_along(tmp_path: Path) -> None:
    index = made(tmp_path, "all", NAMES[:6])
    entry = index.snapshot.manifest.segments[0].kinds[0]
    (index.path / entry.file.name).write_bytes(b"altered")
    done = repair_index(index.path, write=True)
    assert entry.geometry is not None and {entry.file.name, entry.geometry.name} == {*done.moved}
    assert done.without == {"parts": 6} and check_index(index.path).clean
    assert FusedIndex.open(index.path).images == 6


def test_geometry_counts_where_a_segment_is_filled(tmp_path: Path) -> None:
    index = made(tmp_path, "all", NAMES)
    kind, source = index.snapshot.encoder.kinds[0], write_sets(tmp_path / "again", some(NAMES))["parts"]
    for name in source.names:
        count, each = source.count(name), row_type(DIM, WORDS).itemsize
        assert kind.size(source, name, None) == count
        assert kind.size(source, name, 3) == count + min(count, 3) * each // posting_bytes(1)
        assert kind.size(source, name, 1 << 20) == count + count * each // posting_bytes(1)


def test_global_descriptors_alone_have_no_geometry(tmp_path: Path) -> None:
    index = made(tmp_path, None, NAMES[:2])
    whole = index.encoders["whole"]
    assert isinstance(whole, Codec)
    for number, deed in enumerate((
        lambda: FusedIndex.create(tmp_path / "whole", {"whole": whole}, geometry=3),
        lambda: FusedIndex.create(tmp_path / "again", {"whole": whole}).keep_geometry(3),
    )):  # fmt: skip
        with pytest.raises(InputError, match="global descriptors have no geometry"):
            deed()
        assert (tmp_path / ("whole", "again")[number]).exists() == (number == 1)
    both = FusedIndex.create(tmp_path / "both", {"parts": random_codebook(WORDS, DIM), "whole": whole}, geometry=3)
    assert both.geometry == 3


@pytest.mark.parametrize("where", ["the whole segment", "the global kind"])
def test_a_manifest_with_geometry_of_vectors_is_refused(tmp_path: Path, where: str) -> None:
    index = made(tmp_path, 4, NAMES[:4])
    content = index.snapshot.manifest.to_json()
    segment = content["segments"][0]
    (segment if where == "the whole segment" else segment["kinds"][1])["geometry"] = segment["kinds"][0]["geometry"]
    Folder(index.path).replace_manifest(COPIES, content)
    with pytest.raises(DamagedError, match="a segment has geometry of features that have no words"):
        FusedIndex.open(index.path)
    whole = GlobalIndex.create(tmp_path / "whole", 8)
    whole.add_matrix(["a"], np.ones((1, 8), np.float32))
    content = whole.snapshot.manifest.to_json()
    content["segments"][0]["geometry"] = segment["kinds"][0]["geometry"]
    Folder(whole.path).replace_manifest(COPIES, content)
    with pytest.raises(DamagedError, match="a segment has geometry of features that have no words"):
        GlobalIndex.open(whole.path)


@pytest.mark.parametrize("wrong", [-1, "300", 1.5, None, 1 << 62])
def test_a_manifest_with_a_wrong_number_is_refused(tmp_path: Path, wrong: object) -> None:
    index = made(tmp_path, 4, NAMES[:4])
    Folder(index.path).replace_manifest(COPIES, {**index.snapshot.manifest.to_json(), "geometry": wrong})
    with pytest.raises(DamagedError, match="an entry is missing or invalid"):
        FusedIndex.open(index.path)
