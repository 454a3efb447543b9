"""Array files: exact bytes, aligned views, and no undetected damage."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asmk_engine.errors import AsmkError, DamagedError, InputError, NotFoundError
from asmk_engine.storage.arrays import BLOCK, CHECKSUMS, MAX_HEADER, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

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


def touched_blocks(spans: list[tuple[int, int]], block: int) -> set[int]:
    """The blocks that hold a byte of one of the spans, byte by byte."""
    return {place // block for begin, end in spans for place in range(begin, end)}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_asked_for_is_compared_once_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    spans = st.tuples(st.integers(0, 90), st.integers(0, 90)).map(sorted)
    asked = data.draw(st.lists(st.lists(spans, max_size=5), max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asmk_engine.storage.arrays.BLOCK", 128)
        rows = {"rows": np.arange(180, dtype=np.uint64).reshape(90, 2), "few": np.zeros(7, np.uint8)}
        store, checksum = write(tmp_path_factory.mktemp("touched"), rows)
        file = map_arrays(store, "a.safetensors", checksum)
        first = file.begins["rows"]
        seen = touched_blocks([(0, first)], 128)
        compared: list[int] = []
        crc32 = zlib.crc32
        patch.setattr("asmk_engine.storage.arrays.zlib.crc32", lambda block: compared.append(1) or crc32(block))
        for part in asked:
            begins, ends = (np.array([span[i] for span in part], np.int64) for i in (0, 1))
            wanted = touched_blocks([(first + 16 * begin, first + 16 * end) for begin, end in part], 128)
            compared.clear()
            file.verify_spans("rows", begins, ends)
            assert len(compared) == len(wanted - seen)
            seen |= wanted
        assert file.blocks is not None and {n for n, done in enumerate(file.blocks._compared) if done} == seen
        compared.clear()
        file.verified("rows"), file.verified("few")
        assert file.blocks.whole
        number = len(compared)
        file.verify_rows("rows", 0, 90)
        assert len(compared) == number


def test_damage_is_seen_where_it_is_asked_for_and_not_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", 512)
    store, checksum = write(tmp_path, {"rows": np.arange(400, dtype=np.uint64).reshape(200, 2)})
    path = tmp_path / "a.safetensors"
    whole = path.read_bytes()
    first = map_arrays(store, "a.safetensors", checksum).begins["rows"]
    for row in range(0, 200, 7):
        damaged = bytearray(whole)
        damaged[first + 16 * row + 3] ^= 16
        path.write_bytes(damaged)
        if (first + 16 * row) // 512 <= (first - 1) // 512:  # beside the header, which is compared at once
            continue
        file = map_arrays(store, "a.safetensors", checksum)
        far = np.array([n for n in range(200) if abs(n - row) > 32])
        file.verify_spans("rows", far, far + 1)
        file.verify_rows("rows", row, row)
        for ask in (
            lambda file: file.verify_rows("rows", row, row + 1),  # noqa: B023
            lambda file: file.verify_spans("rows", np.array([row]), np.array([row + 1])),  # noqa: B023
            lambda file: file.verified("rows"),
            lambda file: file.verify(),
        ):
            for _ in range(2):  # damage that was reported once is reported again
                with pytest.raises(DamagedError, match="were altered"):
                    ask(file)


def test_a_header_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    for length in range(MAX_HEADER - 1200, MAX_HEADER + 200, 100):
        try:
            write_arrays(store, "a", ARRAYS, {"text": "x" * length})
        except InputError as error:
            assert "header takes" in str(error) and length > MAX_HEADER - 1000
        else:
            assert map_arrays(store, "a").metadata["text"] == "x" * length
    with pytest.raises(InputError):
        write_arrays(store, "a", ARRAYS, {"text": "x" * MAX_HEADER})


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="needs files with holes")
def test_arrays_beyond_four_billion_rows(tmp_path: Path) -> None:
    """A file of 64 GiB that is almost all hole: offsets and row numbers beyond 32 bits."""
    rows = (1 << 32) + 5
    blocks = -(-(16 * rows + 4096) // BLOCK)
    entries = {
        "codes": {"dtype": "U64", "shape": [rows, 2], "data_offsets": [0, 16 * rows]},
        CHECKSUMS: {"dtype": "U8", "shape": [4 * blocks], "data_offsets": [16 * rows, 16 * rows + 4 * blocks]},
    }
    header = json.dumps(entries).encode().ljust(4096 - 8)
    head = (len(header)).to_bytes(8, "little") + header
    end = len(head) + 16 * rows
    last = bytes(end % BLOCK - 16) + bytes([7]) * 16
    sums = [zlib.crc32(head + bytes(BLOCK - len(head)))] + [zlib.crc32(bytes(BLOCK))] * (blocks - 2)
    with open(tmp_path / "a", "wb") as file:
        file.write(head)
        file.seek(end - 16)
        file.write(bytes([7]) * 16)
        file.write(b"".join(crc.to_bytes(4, "little") for crc in [*sums, zlib.crc32(last)]))
    mapped = map_arrays(Folder(tmp_path), "a")
    codes = mapped.take("codes", "u8", None, 2)
    mapped.verify_spans("codes", np.array([0, rows - 3]), np.array([1, rows]))
    assert mapped.blocks is not None and sum(mapped.blocks._compared) == 2
    assert codes[rows - 1, 1] == int.from_bytes(bytes([7]) * 8, "little") and not codes[1 << 32].any()
    with open(tmp_path / "a", "r+b") as file:
        file.seek(end - 1)
        file.write(b"x")
    with pytest.raises(DamagedError, match=f"to {end} were altered"):
        map_arrays(Folder(tmp_path), "a").verify_rows("codes", rows - 1, rows)
