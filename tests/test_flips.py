"""Every byte of a small index flipped, every length cut, files exchanged: a named error or the same answer."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from asmk_engine.errors import AsmkError
from asmk_engine.inverted.index import Index
from disks import fast_disk
from histories import NAMES, Answer, observe, signed, small_codebook, small_limits

BLOCKS = [128, 1 << 20]  # many blocks, so that what is not touched may be damaged; and one, as small files have
SAMPLE = 25


@pytest.fixture(params=BLOCKS)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two segments, one of them with deletions, and more than one range."""
    small_limits(monkeypatch, block=request.param)
    fast_disk(monkeypatch)
    return _made(tmp_path / "index", NAMES[:9])


def _made(path: Path, names: list[str]) -> Path:
    index = Index.create(path, small_codebook())
    index.add_signatures((name, signed(name)) for name in names[:5])
    index.add_signatures((name, signed(name)) for name in names[5:])
    index.delete(names[1:3])
    return path


def _same_or_refused(path: Path, expected: Answer) -> bool:
    """Whether the index still answers; it may refuse, by one of our own errors, and may not answer otherwise."""
    try:
        assert observe(path) == expected
        return True
    except AsmkError as error:
        assert "\n" not in str(error)
        return False


def _places(path: Path, sample: int | None) -> Iterator[tuple[Path, int]]:
    for file in sorted(path.iterdir()):
        size = file.stat().st_size
        every = range(size)
        yield from ((file, place) for place in (every if not sample else _some(every, sample, file.name)))


def _some(every: range, sample: int, seed: str) -> list[int]:
    drawn = random.Random(seed).sample(every, min(sample, len(every)))
    return sorted({*drawn, *every[:12], *every[-12:]})


def _flip(path: Path, masks: tuple[int, ...], sample: int | None) -> tuple[int, int]:
    expected, cases, refused = observe(path), 0, 0
    for file, place in _places(path, sample):
        whole = file.read_bytes()
        for mask in masks:
            file.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            refused += not _same_or_refused(path, expected)
            cases += 1
        file.write_bytes(whole)
    assert observe(path) == expected
    return cases, refused


def _cut(path: Path, sample: int | None) -> tuple[int, int]:
    expected, cases, refused = observe(path), 0, 0
    for file, length in _places(path, sample):
        whole = file.read_bytes()
        file.write_bytes(whole[:length])
        refused += not _same_or_refused(path, expected)
        cases += 1
        file.write_bytes(whole)
    return cases, refused


def test_a_flipped_byte_is_refused_or_harmless(path: Path) -> None:
    cases, refused = _flip(path, (1,), SAMPLE)
    assert cases > 200 and refused > cases // 3


@pytest.mark.slow
def test_any_flipped_byte_is_refused_or_harmless(path: Path) -> None:
    cases, refused = _flip(path, (1, 128, 255), None)
    print(f"{cases} flips, {refused} refused")


def test_a_cut_file_is_refused_or_not_needed(path: Path) -> None:
    cases, refused = _cut(path, SAMPLE)
    assert cases > 200 and refused > cases // 3


@pytest.mark.slow
def test_a_file_cut_anywhere_is_refused_or_not_needed(path: Path) -> None:
    cases, refused = _cut(path, None)
    print(f"{cases} cuts, {refused} refused")


def test_exchanged_files_are_refused(path: Path, tmp_path: Path) -> None:
    """Between two indexes of one codebook that differ in their images, and inside one index."""
    expected = observe(path)
    other = _made(tmp_path / "other", NAMES[::-1][:9])
    for file in sorted(path.iterdir()):
        for source in (*sorted(other.iterdir()), *sorted(path.iterdir())):
            whole, data = file.read_bytes(), source.read_bytes()
            if whole != data:
                file.write_bytes(data)
                harmless = file.name.startswith(("manifest", "lock"))
                assert not _same_or_refused(path, expected) or harmless
                file.write_bytes(whole)


def test_a_copy_of_the_manifest_of_another_index_is_never_mixed_in(path: Path, tmp_path: Path) -> None:
    other = _made(tmp_path / "other", NAMES[::-1][:9])
    Index.open(other).delete(Index.open(other).names[:1])
    shutil.copy(other / "manifest.json", path / "manifest.json")
    with pytest.raises(AsmkError):
        observe(path)
