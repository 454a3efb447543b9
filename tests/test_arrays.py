"""Array files: exact bytes, aligned views, and no damage that goes unseen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asmk_engine.arrays import BLOCK, map_arrays, write_arrays
from asmk_engine.errors import AsmkError, DamagedError, NotFoundError
from asmk_engine.store import Folder

ARRAYS = {
    "codes": np.arange(12, dtype=np.uint64).reshape(6, 2),
    "empty": np.zeros((0, 3), np.float32),
    "bytes": np.arange(5, dtype=np.uint8),
    "counts": np.arange(3, dtype=np.uint32),
}


def write(folder: Path, arrays: dict[str, np.ndarray] = ARRAYS) -> tuple[Folder, int]:
    store = Folder(folder)
    return store, write_arrays(store, "a.safetensors", arrays, {"kind": "test"})


def test_arrays_come_back_aligned_and_read_only(tmp_path: Path) -> None:
    store, checksum = write(tmp_path)
    file = map_arrays(store, "a.safetensors", checksum)
    file.verify()
    assert file.metadata == {"kind": "test"}
    for name, array in ARRAYS.items():
        found = file.arrays[name]
        assert found.dtype == array.dtype and np.array_equal(found, array)
        assert found.flags.aligned and not found.flags.writeable
    assert file.take("codes", "u8", None, 2).shape == (6, 2)
    for request in (("codes", "u8", None, 3), ("codes", "i8", None, 2), ("none", "u1", None), ("codes", "u8", 12)):
        with pytest.raises(DamagedError):
            file.take(*request)


def test_the_layout_is_that_of_safetensors(tmp_path: Path) -> None:
    """Read by hand from the published layout: header length, JSON, arrays back to back."""
    write(tmp_path)
    data = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert (8 + length) % 64 == 0
    begin, end = header["codes"]["data_offsets"]
    assert header["codes"]["dtype"] == "U64" and body[begin:end] == ARRAYS["codes"].tobytes()
    ends = sorted(entry["data_offsets"] for key, entry in header.items() if key != "__metadata__")
    assert ends[0][0] == 0 and ends[-1][1] == len(body)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(ends))


def test_every_flipped_bit_of_the_content_is_found(tmp_path: Path) -> None:
    store, checksum = write(tmp_path)
    path = tmp_path / "a.safetensors"
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(AsmkError):
            map_arrays(store, "a.safetensors", checksum).verify()


def test_every_cut_is_found(tmp_path: Path) -> None:
    store, checksum = write(tmp_path)
    path = tmp_path / "a.safetensors"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedError, match=r"a\.safetensors"):
            map_arrays(store, "a.safetensors", checksum)


def test_checksums_of_several_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for size in (BLOCK - 400, BLOCK, 2 * BLOCK + 17):
        store, checksum = write(tmp_path, {"big": rng.integers(0, 255, size, dtype=np.uint8)})
        map_arrays(store, "a.safetensors", checksum).verify()
        path = tmp_path / "a.safetensors"
        data = bytearray(path.read_bytes())
        data[-size // 3] ^= 1
        path.write_bytes(data)
        with pytest.raises(DamagedError, match="were altered"):
            map_arrays(store, "a.safetensors", checksum).verify()


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "a").write_bytes(data)
    (folder / "b").write_bytes(len(data).to_bytes(8, "little") + data)
    for name in ("a", "b"):
        with pytest.raises(DamagedError):
            map_arrays(Folder(folder), name)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "U8", "shape": [10**30], "data_offsets": [0, 8]},
        {"dtype": "U8", "shape": [-8], "data_offsets": [0, 8]},
        {"dtype": "U8", "shape": [8.0], "data_offsets": [0, 8]},
        {"dtype": "O", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "U8", "shape": [8], "data_offsets": [0, 10**18]},
        {"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]},
        {"dtype": "U8", "shape": [True] * 8, "data_offsets": [0, 1]},
        {"dtype": "U8", "shape": 8, "data_offsets": [0, 8]},
        None,
        [1],
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"x": entry}).encode()
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(DamagedError):
        map_arrays(Folder(tmp_path), "a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing-there"):
        map_arrays(Folder(tmp_path), "nothing-there")
