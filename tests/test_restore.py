"""Deletions are taken back until a merge: against a twin of dictionaries, for every kind of index."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from asmk_engine.cli import commands
from asmk_engine.diffusion import build_neighbours
from asmk_engine.errors import AsmkError, InputError, NotFoundError
from asmk_engine.flat import GlobalIndex, GlobalSearcher
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.images.roots import Root
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.calibrations import NAME as CALIBRATION
from asmk_engine.indexes.calibrations import StoredCalibration, write_calibration
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.maintenance.checking import check_index
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.verdict import constants_of
from disks import fast_disk
from fused_histories import encoders, images_of, write_sets
from global_histories import CODEC
from global_samples import global_images, write_global
from histories import small_codebook
from neighbour_samples import local_index
from samples import random_images, write_features

DIM = 24
Images = dict[str, Any]
Answers = list[list[tuple[str, float]]]


class Kind(NamedTuple):
    """A kind of index: two editions of the same names, and how they are indexed and searched for."""

    pool: Images
    changed: Images
    create: Callable[[Path], Any]
    write: Callable[[Path, Images], Any]
    searched: Callable[[Any, Images], list[Any]]

    def answers(self, index: Any) -> Answers:
        """All hits of all images of the first edition, with their scores."""
        return [[(hit.name, hit.score) for hit in hits] for hits in self.searched(index, self.pool)]


def _local(index: Index, images: Images) -> list[Any]:
    searcher = Searcher(index, multiple_assignment=3, threads=1)
    return [*searcher.search(images.values(), None), *searcher.search(images.values(), 5, rerank=4)]


def _fused(index: FusedIndex, images: Images) -> list[Any]:
    return FusedSearcher(index, threads=1).search([FusedFeatures(parts) for parts in images.values()], None, rerank=4)


def _write_fused(path: Path, images: Images) -> Any:
    """Feature sets whose fingerprints tell the editions apart."""
    is_changed = any(image is FUSED[1].get(name) for name, image in images.items())
    return write_sets(path, images, edition=int(is_changed))


FUSED = images_of(10, seed=3), images_of(10, seed=4)
KINDS = {
    "local": Kind(
        random_images(10, DIM, seed=3),
        random_images(10, DIM, seed=4),
        lambda path: Index.create(path, small_codebook(), geometry="all"),
        lambda path, images: write_features(path, images, dim=DIM),
        _local,
    ),
    "global": Kind(
        global_images(10, seed=3),
        global_images(10, seed=4),
        lambda path: GlobalIndex.create(path, CODEC),
        lambda path, images: write_global(path, images, dim=DIM),
        lambda index, images: GlobalSearcher(index, threads=1).search(images.values(), None),
    ),
    "fused": Kind(
        *FUSED,
        lambda path: FusedIndex.create(path, encoders(), geometry="all"),  # type: ignore[arg-type]
        _write_fused,
        _fused,
    ),
}


class Twin:
    """Segments as dictionaries: name → [content, whether it is live]."""

    def __init__(self, tier: int) -> None:
        self.segments: list[dict[str, list[Any]]] = []
        self.tier = tier

    @property
    def live(self) -> Images:
        return {name: one[0] for segment in self.segments for name, one in segment.items() if one[1]}

    def add(self, images: Images) -> None:
        self.delete(images)
        if images:
            self.segments.append({name: [content, True] for name, content in images.items()})
        if len(self.segments) >= self.tier:
            self.merge()

    def delete(self, names: Iterable[str]) -> None:
        for segment in self.segments:
            for name in names:
                if name in segment:
                    segment[name][1] = False

    def restorable(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if any(name in segment for segment in self.segments)]

    def restore(self, names: Iterable[str]) -> None:
        for name in names:
            next(segment for segment in reversed(self.segments) if name in segment)[name][1] = True

    def merge(self) -> None:
        live = {name: [content, True] for name, content in self.live.items()}
        self.segments = [live] if live else []


@given(data=st.data())
@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_any_history_with_restoring_answers_as_a_fresh_index_would(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("history")
    with pytest.MonkeyPatch.context() as patch:
        fast_disk(patch)
        tier = data.draw(st.sampled_from([3, 9]))
        patch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", tier)
        index, twin = kind.create(folder / "index"), Twin(tier)
        for step in range(data.draw(st.integers(4, 12))):
            _step(index, twin, kind, data, folder / f"f{step}")
            assert sorted(index.names) == sorted(twin.live)
        names = list(twin.live)  # of which the last ones come back, and no other
        assert index.delete(names) == index.restore(names) == len(names)
        assert check_index(index.path).clean
        fresh = kind.create(folder / "fresh")
        if twin.live:
            for edition in (kind.pool, kind.changed):
                images = {name: edition[name] for name, content in twin.live.items() if content is edition[name]}
                fresh.add(kind.write(folder / f"all {id(edition)}", images)) if images else None
        assert kind.answers(index) == kind.answers(fresh)


def _step(index: Any, twin: Twin, kind: Kind, data: st.DataObject, folder: Path) -> None:
    action = data.draw(st.sampled_from(["add", "replace", "delete", "delete", "restore", "restore", "merge"]))
    names = data.draw(st.lists(st.sampled_from(sorted(kind.pool)[:4]), unique=True, min_size=1))
    if action in ("add", "replace"):
        edition = kind.pool if action == "add" else kind.changed
        images = {name: edition[name] for name in names if action == "replace" or name not in twin.live}
        if images:
            index.add(kind.write(folder, images), existing="refuse" if action == "add" else "replace")
            twin.add(images)
    elif action == "delete":
        assert index.delete(names, missing_ok=True) == len({*names} & {*twin.live})
        twin.delete(names)
    elif action == "merge":
        index.merge()
        twin.merge()
    else:
        _restore(index, twin, names)


def _restore(index: Any, twin: Twin, names: list[str]) -> None:
    """All of the names, or an error and no change; then those of them that can be restored."""
    if present := [name for name in names if name in twin.live]:
        _fails_without_change(index, lambda: index.restore(names, missing_ok=True), InputError, "leave these out")
    absent = [name for name in names if name not in present]
    wanted = twin.restorable(absent)
    if len(wanted) < len(absent):
        _fails_without_change(index, lambda: index.restore(absent), NotFoundError, "a merge has removed them")
    assert index.restore([*absent, *absent], missing_ok=True) == len(wanted)
    twin.restore(wanted)


def _fails_without_change(index: Any, call: Callable[[], object], error: type[AsmkError], message: str) -> None:
    before = {path.name: path.read_bytes() for path in index.path.iterdir()}
    with pytest.raises(error, match=message) as caught:
        call()
    assert "nothing was restored" in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in index.path.iterdir()} == before


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    fast_disk(monkeypatch)
    found: Kind = request.param
    return found


def _filled(kind: Kind, tmp_path: Path) -> Any:
    """Two segments: all images, and three of them replaced."""
    index = kind.create(tmp_path / "index")
    index.add(kind.write(tmp_path / "first", kind.pool))
    names = sorted(kind.pool)[:3]
    index.add(kind.write(tmp_path / "second", {name: kind.changed[name] for name in names}), existing="replace")
    return index


def test_everything_is_as_it_was(kind: Kind, tmp_path: Path) -> None:
    """Answers bit by bit, roots and fingerprints; what was replaced stays deleted; readers follow at once."""
    index = _filled(kind, tmp_path)
    before, places, manifest = kind.answers(index), _identities(index), index.snapshot.manifest
    names = sorted(kind.pool)
    gone = [names[0], names[2], *names[5:9]]
    assert index.delete(gone) == 6 and kind.answers(index) != before
    reader = type(index).open(index.path)
    assert index.restore(reversed(gone)) == 6
    assert kind.answers(index) == before and _identities(index) == places
    reader.refresh()
    assert kind.answers(reader) == before
    assert index.snapshot.manifest.commit == manifest.commit + 2
    assert [entry.deleted_images for entry in index.snapshot.manifest.segments] == [3, 0]
    assert index.snapshot.manifest.segments[1] == manifest.segments[1]  # no file for no deletions
    index.merge()
    assert kind.answers(index) == before and check_index(index.path).clean


def _identities(index: Collection[Any, Any]) -> dict[str, object]:
    return {name: index.snapshot.identity(place) for name, place in index.snapshot.find_all(index.names).items()}


def test_the_last_one_added_comes_back_again_and_again(kind: Kind, tmp_path: Path) -> None:
    index = _filled(kind, tmp_path)
    before = kind.answers(index)
    name = sorted(kind.pool)[1]
    for _ in range(2):
        index.delete([name])
        index.restore([name])
        assert kind.answers(index) == before
    index.delete([name])
    index.add(kind.write(tmp_path / "third", {name: kind.pool[name]}))
    _fails_without_change(index, lambda: index.restore([name]), InputError, "are in the index")
    index.merge()
    _fails_without_change(index, lambda: index.restore([name], missing_ok=True), InputError, "are in the index")


def test_after_a_merge_there_is_nothing_to_restore(kind: Kind, tmp_path: Path) -> None:
    index = _filled(kind, tmp_path)
    names = sorted(kind.pool)
    index.delete(names[4:6])
    index.merge()
    for missing in (names[4:6], ["nobody.jpg"]):
        _fails_without_change(index, lambda missing=missing: index.restore(missing), NotFoundError, "index the photo")
    assert index.restore([*names[4:6], "nobody.jpg"], missing_ok=True) == 0
    index.delete(names[:2])
    _fails_without_change(index, lambda: index.restore([names[0], "nobody.jpg"]), NotFoundError, "nobody.jpg")
    assert index.restore([]) == 0 and index.restore(names[:2]) == 2


def test_a_deletion_alone_merges_nothing(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a killed writer has left more segments than there may be; the next addition does."""
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "_tidy", lambda index: None)
        index = _filled(kind, tmp_path)
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 2)
    before, names = kind.answers(index), sorted(kind.pool)
    index.delete(names)
    assert len(index.snapshot.segments) == 2 and kind.answers(index) != before
    index.restore(names)
    assert len(index.snapshot.segments) == 2 and kind.answers(index) == before
    index.delete(names[:1])
    index.add(kind.write(tmp_path / "third", {names[0]: kind.changed[names[0]]}))
    assert len(index.snapshot.segments) == 1 and kind.answers(index) == before
    index.delete(names[:1])
    index.restore(names[:1])
    assert kind.answers(index) == before


def test_roots_found_elsewhere_stay_with_the_image(tmp_path: Path) -> None:
    images = random_images(6, DIM, seed=1)
    index = Index.create(tmp_path / "index", small_codebook())
    index.add(write_features(tmp_path / "here", images, root=Root("/here")))
    names = sorted(images)
    index.delete(names[:1])
    elsewhere = {name: images[name] for name in names[1:3]}
    index.add(write_features(tmp_path / "there", elsewhere, root=Root("/there")), existing="skip")
    index.delete(names[1:2])
    index.restore(names[:2])
    assert index.snapshot.root_counts() == {Root("/here"): 4, Root("/there"): 2}
    assert index.snapshot.origins()[:2] == [(names[0], Root("/here")), (names[1], Root("/there"))]


def test_a_calibration_stays_and_a_neighbour_table_goes_with_its_commit(tmp_path: Path) -> None:
    images = random_images(12, DIM, seed=1)
    index = local_index(tmp_path / "index", images)
    learned = StoredCalibration(constants_of(["rootsift"]), index.snapshot.manifest.commit, 12)
    write_calibration(Folder(index.path), index.snapshot.manifest, learned)
    kept = (index.path / CALIBRATION).read_bytes()
    name = index.names[0]
    index.delete([name])
    build_neighbours(index)
    assert len(list(index.path.glob("neighbours-*"))) == 1
    index.restore([name])
    assert not list(index.path.glob("neighbours-*")) and (index.path / CALIBRATION).read_bytes() == kept
    assert {path.name for path in index.path.iterdir()} >= {*COPIES} and check_index(index.path).clean


def _run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(commands, [str(arg) for arg in args], standalone_mode=True)
    if isinstance(result.exception, AsmkError):
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.stderr


def test_the_command_restores_what_delete_deleted(kind: Kind, tmp_path: Path) -> None:
    """By printed names and lists, in any Unicode form; errors in one line, with nothing changed."""
    index = kind.create(tmp_path / "index")
    contents = iter(kind.pool.values())
    named = {name: next(contents) for name in ("photo 000.jpg", "photo 001 \u00e9.jpg", "photo 002.jpg")}
    index.add(kind.write(tmp_path / "features", named))
    before = kind.answers(index)
    assert "2 images deleted, 1 image left" in _run("delete", index.path, "photo%20000.jpg", "photo 001 \u00e9.jpg")
    assert "nothing was restored" in _run("restore", index.path, "photo%20000.jpg", "nobody.jpg")
    names = tmp_path / "names.txt"
    names.write_text("photo%20001%20e\u0301.jpg\n", encoding="utf-8")
    assert "2 images restored, 3 images now" in _run("restore", index.path, "photo 000.jpg", "--list", names)
    index.refresh()
    assert kind.answers(index) == before
    assert "are in the index" in _run("restore", index.path, "photo%20000.jpg")
    assert "0 images restored" in _run("restore", index.path, "nobody.jpg", "--missing-ok")
    assert "give names, or --list FILE" in _run("restore", index.path, code=2)
    assert "Examples" in CliRunner().invoke(commands, ["restore", "--help"]).output
