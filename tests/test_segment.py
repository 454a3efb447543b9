"""A mapped segment: no part of it is used before its checksum is verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asmk_engine.errors import DamagedError
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.segment import Segment
from histories import NAMES, signed, small_codebook, small_limits


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_limits(monkeypatch, block=128)
    index = Index.create(tmp_path / "index", small_codebook())
    index.add_signatures((name, signed(name)) for name in NAMES)
    return next(index.path.glob("segment-*"))


def opened(path: Path) -> Segment:
    return Index.open(path.parent).snapshot.segments[0]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", ["codes", "ids"])
def test_a_damaged_list_is_seen_when_it_is_touched(path: Path, part: str) -> None:
    segment = opened(path)
    starts = segment.posting_starts if part == "codes" else segment.id_starts
    size = 8 if part == "codes" else 1
    seen = 0
    for number in range(len(segment.list_words)):
        place = segment.file.begins[part] + size * int(starts[number])
        flip(path, place)
        try:
            damaged = opened(path)
            damaged.verify_lists(np.full(3, -1))
        except DamagedError:
            assert place // 128 <= segment.file.begins["codes"] // 128  # in the block of the header
        else:
            seen += 1
            with pytest.raises(DamagedError, match="were altered"):
                damaged.verify_lists(np.array([-1, number]))
        flip(path, place)
    assert seen > 5
    everything = np.arange(len(segment.list_words))
    for _ in range(2):
        segment.verify_lists(everything)


TABLES = ["posting_starts", "id_starts", "list_words", "range_starts", "word_counts", "fingerprints"]


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_table_is_seen_when_it_is_read(path: Path, table: str) -> None:
    segment = opened(path)
    flip(path, segment.file.begins[table] + segment.file.arrays[table].nbytes - 1)
    with pytest.raises(DamagedError, match="altered"):
        getattr(opened(path), table)


@pytest.mark.parametrize("table", ["name_bytes", "name_offsets", "name_order"])
def test_a_damaged_name_is_seen_when_it_is_read(path: Path, table: str) -> None:
    segment = opened(path)
    flip(path, segment.file.begins[table] + segment.file.arrays[table].nbytes // 2)
    with pytest.raises(DamagedError, match="altered"):
        damaged = opened(path)
        assert [damaged.find(name) for name in NAMES] == [segment.find(name) for name in NAMES]
        list(damaged.names())
