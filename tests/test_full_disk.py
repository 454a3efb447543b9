"""A disk that is really full: nothing is lost, and writing resumes when there is space again."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from asmk_engine.errors import StorageError
from asmk_engine.features import FeatureSet, FeatureWriter
from asmk_engine.inverted.index import Index
from asmk_engine.maintenance.checking import check_index
from asmk_engine.storage.folder import storage_errors
from histories import NAMES, observe, signed, small_codebook
from samples import ENVIRONMENT, RECIPE, make_features, random_codebook, random_images, write_features

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


FULL = "No space left on device; free some space and run the same command again"


def _write_until_full(folder: Path) -> str:
    """Write parts of some 70 KB until it fails; what the error says."""
    rng = np.random.default_rng(0)
    with pytest.raises(StorageError) as caught, FeatureWriter(folder, RECIPE, 32, part_bytes=1) as writer:
        for number in range(100):
            writer.add(f"{number:02d}.jpg", make_features(rng.normal(size=(500, 32))))
    return str(caught.value)


def test_a_part_that_finds_no_room_leaves_none_taken(disk: Path) -> None:
    told = _write_until_full(disk / "features")
    kept = FeatureSet.open(disk / "features")
    parts = sorted(path.name for path in (disk / "features").glob("part-*"))
    assert len(kept) == len(parts) > 2 and not list(disk.rglob("*.tmp"))
    assert told == f"{disk}/features/part-{len(parts):06d}.h5: cannot write the part: {FULL}"
    shutil.rmtree(disk / "features")
    assert len(parts) == int(_write_until_full(disk / "features").split("part-")[1][:6])


def test_writing_features_goes_on_when_there_is_room_again(disk: Path) -> None:
    (disk / "filler").write_bytes(bytes(SIZE - 30_000))
    with pytest.raises(StorageError, match=FULL), FeatureWriter(disk / "features", RECIPE, 32) as writer:
        writer.add("a.jpg", make_features(np.ones((500, 32))))
    (disk / "filler").unlink()
    with FeatureWriter(disk / "features", RECIPE, 32) as writer:
        writer.add("a.jpg", make_features(np.ones((500, 32))))
    assert FeatureSet.open(disk / "features").names == ["a.jpg"]


def test_a_codebook_that_finds_no_room_keeps_the_one_before(disk: Path) -> None:
    small = random_codebook(8, 16)
    small.save(disk / "c.h5")
    with pytest.raises(StorageError) as caught:
        random_codebook(2000, 64).save(disk / "c.h5")
    assert str(caught.value) == f"{disk}/c.h5: cannot write the file: {FULL}"
    assert type(small).open(disk / "c.h5").fingerprint == small.fingerprint
    assert sorted(path.name for path in disk.iterdir()) == ["c.h5"]


def test_hdf5_itself_is_understood(disk: Path) -> None:
    with (
        pytest.raises(StorageError) as caught,
        storage_errors(disk / "a.h5", "write the file"),
        h5py.File(disk / "a.h5", "w") as file,
    ):
        file["array"] = np.zeros(SIZE)
    assert str(caught.value) == f"{disk}/a.h5: cannot write the file: {FULL}"


# As h5py raises them: with a number it puts the words of HDF5 where the system's are.
PARAGRAPH = (
    "Can't write data (file write failed: time = Sun Nov 29\n, filename = 'a.h5', errno = 28, error message = 'x')"
)


@pytest.mark.parametrize("error", [OSError(PARAGRAPH), OSError(28, PARAGRAPH), RuntimeError(PARAGRAPH)])
def test_the_number_is_found_in_what_hdf5_says(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path, "write the file"):
        raise error
    assert str(caught.value) == f"{tmp_path}: cannot write the file: {FULL}"


def test_other_errors_keep_their_words(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="it: HDF5 said no, errno = 0; previously stored data is unchanged"),
        storage_errors(tmp_path, "write it"),
    ):
        raise OSError("HDF5 said\nno, errno = 0")
    with pytest.raises(RuntimeError, match="a bug"), storage_errors(tmp_path, "write it"):
        raise RuntimeError("a bug")


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with (
            pytest.raises(StorageError, match="too large; raise the limit"),
            FeatureWriter(tmp_path, RECIPE, 32) as writer,
        ):
            writer.add("a.jpg", make_features(np.ones((500, 32))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.rglob("*.tmp"))


EXPORTING = """
import sys
from asmk_engine.errors import StorageError
from asmk_engine.features import FeatureSet
from asmk_engine.interop.hloc import export_hloc

try:
    export_hloc(FeatureSet.open(sys.argv[1]), sys.argv[2])
except StorageError as error:
    print(error)
"""


def test_a_full_disk_ends_an_export_in_one_line_and_is_left_clean(disk: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "set", random_images(400, 128))
    command = [sys.executable, "-c", EXPORTING, str(tmp_path / "set"), str(disk / "out.h5")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1 and "HDF5" not in done.stdout and f"{disk}/out.h5" in done.stdout
    assert "No space left on device" in done.stdout and [*disk.iterdir()] == []
