"""A disk that is really full: nothing is lost, and writing goes on when there is room again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asmk_engine.checking import check_index
from asmk_engine.errors import StorageError
from asmk_engine.index import Index
from histories import NAMES, observe, signed, small_codebook

SIZE = 400_000  # bytes of the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, where this machine lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(index: Index) -> int:
    """Add until the disk is full; returns how many additions were acknowledged."""
    for number in range(100_000):
        try:
            index.add_signatures([(f"{number:06d}.jpg", signed(NAMES[number % len(NAMES)]))])
        except StorageError as error:
            assert "free some space" in str(error) and "\n" not in str(error)
            return number
    raise RuntimeError("the disk was never full")


def test_a_full_disk_costs_what_was_not_acknowledged(disk: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(SIZE // 2))
    index = Index.create(disk / "index", small_codebook())
    kept = _fill(index)
    assert kept > 3
    found = Index.open(disk / "index")
    assert kept <= found.images <= kept + 1 and check_index(disk / "index").clean
    before = observe(disk / "index")
    with contextlib.suppress(StorageError):  # whether there is room for that depends on what was joined last
        found.merge()
    assert observe(disk / "index")[1] == before[1] and check_index(disk / "index").clean
    filler.unlink()
    again = Index.open(disk / "index")
    again.merge()
    again.add_signatures([("after.jpg", signed(NAMES[0]))])
    assert again.images == found.images + 1
    assert check_index(disk / "index").clean
