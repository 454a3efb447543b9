"""Conversion of codebooks and inverted files stored by `asmk` to those of asmk-engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.compat.codebook import plain_codebook
from asmk_engine.compat.hamming import packed_width
from asmk_engine.compat.state_checks import Postings, kind_of, read_centroids, read_postings
from asmk_engine.compat.states import HDF5, read_state
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import check_name, fingerprint_bytes
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.segment_writer import Contents
from asmk_engine.inverted.signatures import code_width
from asmk_engine.recipes import IMPORTED, Recipe
from asmk_engine.storage.user_files import open_file

_BLOCK = 1 << 16


def import_asmk(
    path: Path | str,
    output: Path | str,
    *,
    name: str | None = None,
    codebook: Path | str | None = None,
    names: Sequence[str] | None = None,
) -> Codebook | Index:
    """Convert a codebook file of asmk to one of asmk-engine, or a binary inverted file to a new index.

    Raises NotFoundError, FormatError or DamagedError for missing, other and damaged files, MismatchError if codebook
    and inverted file do not match or vectors are real-valued, and InputError for options of the other kind of file, too
    few or duplicate names, or if `output` of an index is taken.

    name      for a codebook: the name of its descriptors, by default the stem of the file; features imported under the
              same name and of the same dimension match it
    codebook  for an inverted file: the codebook it was built with, a file of asmk-engine or asmk
    names     for an inverted file: names of the images 0, 1, 2, ..., by default their numbers; distractors are named
              `distractor-` and their number
    """
    state = read_state(Path(path))
    if kind_of(state) == "IVF":
        if codebook is None or name is not None:
            raise InputError(f"{path}: an inverted file; give its codebook (--codebook FILE), and no name")
        return _import_inverted_file(read_postings(state, path), path, Path(codebook), output, names)
    centroids = read_centroids(state, path)
    if codebook is not None or names is not None:
        raise InputError(f"{path}: a codebook; the options codebook and names are only for an inverted file")
    made = _named_codebook(centroids, name, Path(path))
    made.save(output)
    return made


def _named_codebook(centroids: np.ndarray, name: str | None, path: Path) -> Codebook:
    label = path.stem if name is None else name
    if not label.strip():
        raise InputError(f"{path}: imported descriptors need a name; give that of their extractor, such as mast3r")
    return plain_codebook(centroids, Recipe(IMPORTED, {"features": label, "dim": centroids.shape[1]}))


def _import_inverted_file(
    postings: Postings, path: Path | str, codebook_path: Path, output: Path | str, names: Sequence[str] | None
) -> Index:
    codebook = _codebook(codebook_path)
    if postings.vectors.dtype != np.uint32:
        raise MismatchError(f"{path}: has real-valued vectors, an index has binary codes; build it with binary: True")
    if postings.vocabulary != codebook.words or postings.vectors.shape[1] != packed_width(codebook.dim):
        raise MismatchError(
            f"{path}: {postings.vocabulary} words and codes of {32 * postings.vectors.shape[1]} bits, but "
            f"{codebook_path} has {codebook}; give the codebook it was built with"
        )
    contents = _contents(postings, _names(postings, names, path), codebook.dim)
    index = Index.create(output, codebook)
    index.add_contents(contents)
    return index


def _codebook(path: Path) -> Codebook:
    """Read a codebook file of asmk-engine or asmk; the latter gets the recipe that an import would give it."""
    with open_file(path, "a codebook") as file:
        start = file.read(len(HDF5))
    if start == HDF5:
        return Codebook.open(path)
    return _named_codebook(read_centroids(read_state(path), path), None, path)


def _names(postings: Postings, names: Sequence[str] | None, path: Path | str) -> list[str]:
    count = postings.n_images - postings.imid_offset
    given = [str(number) for number in range(count)] if names is None else [check_name(name) for name in names]
    if len(given) < count:
        raise InputError(f"{path}: {count} images, but {len(given)} names; give one for each, in their order")
    every = [*(f"distractor-{number:07d}" for number in range(postings.imid_offset)), *given]
    if len(set(every)) < len(every):
        raise InputError(f"{path}: two images have the same name; names must be unique")
    return every


def _contents(postings: Postings, names: list[str], dim: int) -> Contents:
    codes = np.empty((len(postings.words), code_width(dim)), np.uint64)
    for begin in range(0, len(codes), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        codes[rows] = engine_codes(postings.vectors[rows], dim)
    order = np.argsort(postings.words, kind="stable")
    words, images, codes = postings.words[order], postings.images[order], codes[order]
    fingerprints = np.fromiter(_fingerprints(words, images, codes, len(names)), np.uint64, len(names))
    return Contents([name.encode() for name in names], fingerprints, words, images, codes)


def engine_codes(packed: np.ndarray, dim: int) -> np.ndarray:
    """Convert codes packed by asmk, [P, ceil(dim / 32)] uint32, to those of asmk-engine, [P, ceil(dim / 64)] uint64."""
    bits = np.unpackbits(np.ascontiguousarray(packed, ">u4").view(np.uint8), axis=1, count=dim)
    codes = np.zeros((len(packed), 8 * code_width(dim)), np.uint8)
    packed_again = np.packbits(bits, axis=1, bitorder="little")
    codes[:, : packed_again.shape[1]] = packed_again
    return codes.view("<u8").astype(np.uint64)


def _fingerprints(words: np.ndarray, images: np.ndarray, codes: np.ndarray, count: int) -> Iterator[int]:
    """Compute the fingerprint of each image from its words and codes."""
    order = np.argsort(images, kind="stable")
    bounds = np.searchsorted(images[order], np.arange(count + 1))
    for begin, end in itertools.pairwise(bounds):
        rows = order[begin:end]
        yield fingerprint_bytes(words[rows].astype("<u4").tobytes(), codes[rows].astype("<u8").tobytes())
