"""The memory of indexing does not grow with the number of images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.inverted.batch import BESIDE, CODEBOOK_COPIES, LEAST_POSTINGS, MEBIBYTE, Batch, postings_within
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.signatures import Signature
from asmk_engine.pipeline.wording import parse_size
from samples import random_codebook

WORDS, POSTINGS = 2000, 600
LIMIT = 100_000


def signatures(images: int) -> Iterator[tuple[str, Signature]]:
    rng = np.random.default_rng(0)
    for number in range(images):
        words = np.sort(rng.choice(WORDS, POSTINGS, replace=False)).astype(np.uint32)
        yield f"{number:06d}", Signature(words, rng.integers(0, 2**64, (POSTINGS, 1), dtype=np.uint64))


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return random_codebook(WORDS, 64)


def peak(path: Path, codebook: Codebook, images: int, segment_postings: int) -> int:
    index = Index.create(path, codebook)
    tracemalloc.start()
    try:
        index.add_signatures(signatures(images), segment_postings=segment_postings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_follows_the_limit_and_not_the_input(
    tmp_path: Path, codebook: Codebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Index, "merge_chunk", LIMIT)
    peak(tmp_path / "warm", codebook, 200, LIMIT)
    limited = peak(tmp_path / "limited", codebook, 3000, LIMIT)  # 1.8 million postings, merges on the way
    everything = peak(tmp_path / "everything", codebook, 3000, 1 << 30)
    assert limited < 8 * MEBIBYTE < 3000 * POSTINGS * 12 < everything


def test_a_batch_gives_back_what_it_took() -> None:
    batch = Batch(1)
    taken = dict(signatures(30))
    for number, (name, signature) in enumerate(taken.items()):
        batch.append(name, signature, number)
    contents = batch.contents()
    assert [name.decode() for name in contents.names] == list(taken) and contents.fingerprints.tolist() == [*range(30)]
    assert batch.postings == len(contents.words) == 30 * POSTINGS
    for number, signature in enumerate(taken.values()):
        rows = contents.images == number
        assert np.array_equal(contents.words[rows], signature.words)
        assert np.array_equal(contents.codes[rows], signature.codes)


def test_more_memory_makes_larger_segments(codebook: Codebook) -> None:
    fixed = BESIDE + CODEBOOK_COPIES * sum(array.nbytes for array in codebook.arrays().values())
    assert postings_within(fixed + 24 * 5_000_000, codebook) == 5_000_000
    with pytest.raises(InputError, match=r"needs at least \d+ MiB; allow") as caught:
        postings_within(fixed, codebook)
    least = parse_size(str(caught.value).split("allow ")[1].split()[0])
    assert LEAST_POSTINGS <= postings_within(least, codebook) < LEAST_POSTINGS + MEBIBYTE
    with pytest.raises(InputError):
        postings_within(least - MEBIBYTE, codebook)


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"512": 512, "4k": 4096, "800M": 800 << 20, "1.5G": 3 << 29, "2 GiB": 2 << 30, "1tb": 1 << 40}
    assert {text: parse_size(text) for text in sizes} == sizes
    for text in ("", "G", "-1G", "1,5G", "2X", "1e3", "٣M", "inf"):
        with pytest.raises(InputError, match="is not a size"):
            parse_size(text)
