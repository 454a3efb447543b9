"""Validation of stored states from any source: all arrays are checked against each other before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from asmk_engine.errors import DamagedError, FormatError
from asmk_engine.indexes.image_table import MAX_IMAGES

_CURE = "write or fetch the file again"


@dataclass(frozen=True)
class Postings:
    """The content of an inverted file.

    words        [P] uint32, below `vocabulary`
    images       [P] uint32, below `n_images`, increasing within every word in the order of the postings
    vectors      [P, W] uint32 codes, or [P, D] float32
    imid_offset  number of distractors, which are the first images
    """

    words: np.ndarray
    images: np.ndarray
    vectors: np.ndarray
    vocabulary: int
    n_images: int
    imid_offset: int
    use_idf: bool


def kind_of(state: object) -> str:
    """Return the declared type of a state, `Codebook` or `IVF`, or the Python type of a value that is not a state."""
    said = state.get("type") if isinstance(state, Mapping) else None
    return said if isinstance(said, str) else type(state).__name__


def read_centroids(state: object, where: object) -> np.ndarray:
    """Read the centroids [K, D] float32 in the state of a codebook."""
    content = _content(state, "Codebook", where)
    centroids = content.get("centroids")
    if not isinstance(centroids, np.ndarray) or centroids.ndim != 2 or centroids.dtype.kind != "f":
        raise DamagedError(f"{where}: its centroids are not an array of numbers of shape [K, D]; {_CURE}")
    if not centroids.size or not np.isfinite(centroids).all():
        raise DamagedError(f"{where}: its centroids {centroids.shape} are empty, NaN or infinite; {_CURE}")
    # Writable, because torch warns about sharing a read-only array.
    return np.require(centroids, np.float32, ["C", "W"])


def read_postings(state: object, where: object) -> Postings:
    """Read the postings in the state of an inverted file, in the form of the original or of this package."""
    content = _content(state, "IVF", where)
    parameters = state.get("params") if isinstance(state, Mapping) else None
    idf = parameters.get("use_idf") if isinstance(parameters, Mapping) else None
    use_idf = isinstance(idf, bool | np.bool_) and bool(idf)
    if "ivf_vecs" in content:
        words, images, vectors, vocabulary, bound = _from_lists(content, where)
    else:
        words, images, vectors, vocabulary, bound = _from_columns(content, where)
    n_images = _count(content.get("n_images"), MAX_IMAGES, "n_images", where)
    offset = _count(content.get("imid_offset", 0), n_images, "imid_offset", where)
    _check_postings(words, images, vectors, vocabulary, n_images, where)
    least = int(images.max()) + 1 if len(images) else 0
    if n_images > max(least, bound):
        raise DamagedError(f"{where}: declares {n_images} images, but has {max(least, bound)}; {_CURE}")
    return Postings(words.astype(np.uint32), images.astype(np.uint32), vectors, vocabulary, n_images, offset, use_idf)


_Columns = tuple[np.ndarray, np.ndarray, np.ndarray, int, int]


def _from_lists(content: Mapping[str, Any], where: object) -> _Columns:
    """Read the form of the original: per word an array of vectors and one of image ids, of which `counts` are used."""
    vectors, ids, counts = (content.get(key) for key in ("ivf_vecs", "ivf_image_ids", "counts"))
    if not (isinstance(vectors, list) and isinstance(ids, list) and _is_column(counts)):
        raise DamagedError(f"{where}: has no lists of vectors and image ids with their counts; {_CURE}")
    if not 0 < len(vectors) == len(ids) == len(counts):
        found = f"{len(vectors)} lists of vectors, {len(ids)} of ids, {len(counts)} counts"
        raise DamagedError(f"{where}: {found}; {_CURE}")
    used = [int(word) for word in np.flatnonzero(counts)]
    lists = [_list(vectors[word], ids[word], counts[word], f"{where}: list {word}") for word in used]
    if not lists:
        lists, used = [(np.empty((0, 1), np.uint32), np.empty(0, np.int64))], [0]
    shapes = {(part.shape[1], part.dtype.str) for part, _ in lists}
    if len(shapes) != 1:
        raise DamagedError(f"{where}: its vectors are of several kinds; {_CURE}")
    words = np.repeat(np.array(used, np.int64), [len(part) for part, _ in lists])
    norms = content.get("norm_factor")
    columns = [np.concatenate(column) for column in zip(*lists, strict=True)]
    return words, columns[1], columns[0], len(counts), len(norms) if _is_column(norms) else 0


def _is_column(value: Any) -> TypeGuard[np.ndarray]:
    plain = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf"
    return plain and bool(np.isfinite(value).all())


def _list(vectors: Any, ids: Any, count: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(vectors, np.ndarray) or not isinstance(ids, np.ndarray):
        raise DamagedError(f"{where} is not a pair of arrays; {_CURE}")
    if vectors.ndim != 2 or vectors.dtype.kind not in "uf" or ids.ndim != 1 or ids.dtype.kind not in "iu":
        found = f"vectors {vectors.dtype} {vectors.shape} and ids {ids.dtype} {ids.shape}"
        raise DamagedError(f"{where} has {found}; {_CURE}")
    if not (count == int(count) and 0 < count <= min(len(vectors), len(ids))):
        raise DamagedError(f"{where} counts {count} of {min(len(vectors), len(ids))} entries; {_CURE}")
    plain = vectors[: int(count)].astype(np.uint32 if vectors.dtype.kind == "u" else np.float32, copy=False)
    return plain, ids[: int(count)].astype(np.int64)


def _from_columns(content: Mapping[str, Any], where: object) -> _Columns:
    """Read the form of this package: one column for the words, one for the images, one for the vectors."""
    words, images, vectors, norms = (content.get(key) for key in ("words", "images", "vectors", "norm_factor"))
    if not all(map(_is_column, (words, images, norms))) or not isinstance(vectors, np.ndarray):
        raise DamagedError(f"{where}: has neither lists nor columns of postings; {_CURE}")
    columns = np.asarray(words), np.asarray(images)
    if any(column.dtype.kind not in "iu" for column in columns):
        raise DamagedError(f"{where}: its words or images are not whole numbers; {_CURE}")
    vocabulary = _count(content.get("vocabulary"), 1 << 31, "vocabulary", where)
    return *columns, vectors, vocabulary, len(np.asarray(norms))


def _check_postings(
    words: np.ndarray, images: np.ndarray, vectors: np.ndarray, vocabulary: int, n_images: int, where: object
) -> None:
    if vectors.ndim != 2 or not len(words) == len(images) == len(vectors):
        raise DamagedError(f"{where}: {words.shape} words, {images.shape} images, {vectors.shape} vectors; {_CURE}")
    if vectors.dtype not in (np.uint32, np.float32) or not np.isfinite(vectors).all():
        raise DamagedError(f"{where}: its vectors are {vectors.dtype} or NaN; expected uint32 codes, float32; {_CURE}")
    for column, end, name in ((words, vocabulary, "word"), (images, n_images, "image")):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < end:
            raise DamagedError(f"{where}: a posting is of {name} {column.max()} of {end}; {_CURE}")
    order = np.argsort(words, kind="stable")
    same = np.diff(words[order].astype(np.int64)) == 0
    if (np.diff(images[order].astype(np.int64))[same] <= 0).any():
        raise DamagedError(f"{where}: the images of a word do not increase; {_CURE}")


def _content(state: object, kind: str, where: object) -> Mapping[str, Any]:
    found = kind_of(state)
    content = state.get("state") if isinstance(state, Mapping) else None
    if found != kind or not isinstance(content, Mapping):
        raise FormatError(f"{where}: found {found[:40]!r}, expected the state of {kind!r}; give the other file")
    return content


def _count(value: object, most: int, name: str, where: object) -> int:
    number = int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else -1
    if not 0 <= number <= most:
        raise DamagedError(f"{where}: its {name} is {str(value)[:40]}; expected a count up to {most}; {_CURE}")
    return number
