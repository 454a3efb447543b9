"""An index may carry the network that makes its features: copied, checked, and dropped when it is damaged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asmk_engine.errors import AsmkError, DamagedError, NotFoundError
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.inverted.index import Index
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder, decode_manifest
from disks import CountedDisk, LostDisk, RecordingDisk, fast_disk
from histories import NAMES, observe, signed, small_codebook, small_limits, write_on


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of several blocks."""
    small_limits(monkeypatch)
    folder = Folder(tmp_path)
    write_arrays(folder, "net.safetensors", {"weight": np.arange(900, dtype=np.float32)}, {"architecture": "tiny"})
    return tmp_path / "net.safetensors"


def made(path: Path, network: Path | None) -> Index:
    index = Index.create(path, small_codebook(), network)
    index.add_signatures((name, signed(name)) for name in NAMES[:6])
    return index


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_the_network_is_copied_and_stays_through_every_change(tmp_path: Path, network: Path) -> None:
    index = made(tmp_path / "index", network)
    content = network.read_bytes()
    index.delete(NAMES[:2])
    index.merge()
    write_on(index.path)
    for seen in (index, Index.open(index.path)):
        assert seen.network is not None and seen.network.read_bytes() == content
        assert seen.network.name == f"network-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    entry = Index.open(index.path).snapshot.manifest.network
    assert entry is not None and entry.bytes == len(content)
    assert map_arrays(Folder(index.path), entry.name, entry.checksum).metadata == {"architecture": "tiny"}
    assert check_index(index.path).findings == ()


def test_an_index_without_a_network_says_so_and_its_manifest_is_as_before(tmp_path: Path, network: Path) -> None:
    index = made(tmp_path / "index", None)
    assert index.network is None
    content = decode_manifest((index.path / COPIES[0]).read_bytes(), index.path)
    assert "network" not in content and content["format"] == 1


def test_the_size_of_the_network_stands_for_itself(tmp_path: Path, network: Path) -> None:
    plain, carrying = describe(made(tmp_path / "plain", None).path), describe(made(tmp_path / "index", network).path)
    assert carrying["bytes_by_part"]["network"] == network.stat().st_size
    assert carrying["bytes_by_part"]["leftover"] == 0
    difference = carrying["bytes_per_posting"] - plain["bytes_per_posting"]
    assert difference * plain["postings"] < 1000  # what the manifest says of it


def test_a_file_that_is_no_whole_network_is_refused_before_anything_is_made(tmp_path: Path, network: Path) -> None:
    (tmp_path / "plain.safetensors").write_bytes(b"no header")
    flip(network, len(network.read_bytes()) // 2)
    for path, error in ((network, DamagedError), (tmp_path / "plain.safetensors", DamagedError),
                        (tmp_path / "missing.safetensors", NotFoundError)):  # fmt: skip
        with pytest.raises(error, match=path.name):
            Index.create(tmp_path / "index", small_codebook(), path)
        assert not (tmp_path / "index").exists()


def test_a_damaged_network_is_found_by_check_and_only_it_is_dropped(tmp_path: Path, network: Path) -> None:
    index = made(tmp_path / "index", network)
    expected = observe(index.path)
    assert index.network is not None
    name, whole = index.network.name, index.network.read_bytes()
    for damaged in (whole[:-700] + b"x" + whole[-699:], whole[: len(whole) // 2], whole + b"x"):
        index.network.write_bytes(damaged)
        assert observe(index.path) == expected  # opening and searching read nothing of it
        (finding,) = check_index(index.path).findings
        assert (finding.file, finding.kind) == (name, "damage")
    done = repair_index(index.path, write=True)
    assert (done.moved, done.lost, done.returned) == ((name,), 0, 0)
    assert (index.path / done.folder / name).read_bytes() == whole + b"x"
    assert Index.open(index.path).network is None and observe(index.path) == expected
    assert check_index(index.path).clean and not repair_index(index.path).needed


def test_a_network_of_another_size_or_that_is_missing_is_found(tmp_path: Path, network: Path) -> None:
    index = made(tmp_path / "index", network)
    assert index.network is not None
    manifest = Index.open(index.path).snapshot.manifest
    assert manifest.network is not None
    altered = replace(manifest, network=replace(manifest.network, bytes=7))
    Folder(index.path).replace_manifest(COPIES, altered.to_json())
    (finding,) = check_index(index.path).findings
    assert finding.file == index.network.name and "the manifest says 7" in finding.what
    Folder(index.path).replace_manifest(COPIES, manifest.to_json())
    index.network.unlink()
    (finding,) = check_index(index.path).findings
    assert finding.file == index.network.name
    assert repair_index(index.path, write=True).moved == ()
    assert Index.open(index.path).network is None and check_index(index.path).findings == ()


def test_a_creation_that_stops_anywhere_leaves_a_whole_network_or_no_index(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "recorded"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordingDisk(patch, root)
        Index.create(root / "index", small_codebook(), network)
    fast_disk(monkeypatch)
    found = 0
    for end in range(len(disk.events) + 1):
        path = tmp_path / f"cut {end}"
        lost = LostDisk(disk.events[:end], root)
        lost.write_to(path)  # only what was synced is there
        try:
            index = Index.open(path / "index")
        except AsmkError:
            Index.create(path / "index", small_codebook(), network)
        else:
            found += 1
            assert index.network is not None and index.network.read_bytes() == network.read_bytes()
        write_on(path / "index")
        assert check_index(path / "index").findings == ()
    assert found


def test_a_creation_may_fail_at_every_request(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)
    number, failed = 0, True
    while failed:
        number += 1
        path, failed = tmp_path / f"failed {number}", False

        def react(count: int, last: int = number) -> None:
            if count == last:
                raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            CountedDisk(patch, react)
            try:
                Index.create(path, small_codebook(), network)
            except AsmkError as error:
                failed = "\n" not in str(error)
        if failed and not any((path / name).exists() for name in COPIES):
            Index.create(path, small_codebook(), network)
        write_on(path)
        assert Index.open(path).network is not None and check_index(path).findings == ()
    assert number > 10
