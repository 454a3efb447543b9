"""What states hold, whoever wrote them: every array held against the others before anything is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError

MAX_IMAGES = 1 << 31
_CURE = "write or fetch the file again"


@dataclass(frozen=True)
class Postings:
    """The content of an inverted file.

    words [P] uint32 below `vocabulary`, images [P] uint32 below `n_images`, increasing inside every word in the order
    of the postings; vectors [P, W] uint32 codes or [P, D] float32; the first `imid_offset` images are distractors
    """

    words: np.ndarray
    images: np.ndarray
    vectors: np.ndarray
    vocabulary: int
    n_images: int
    imid_offset: int
    use_idf: bool


def read_centroids(state: object, where: object) -> np.ndarray:
    """The centroids [K, D] float32 in the state of a codebook."""
    content = _content(state, "Codebook", where)
    centroids = content.get("centroids")
    if not isinstance(centroids, np.ndarray) or centroids.ndim != 2 or centroids.dtype.kind != "f":
        raise DamagedError(f"{where}: its centroids are no array of numbers of shape [K, D]; {_CURE}")
    if not centroids.size or not np.isfinite(centroids).all():
        raise DamagedError(f"{where}: its centroids {centroids.shape} are empty, NaN or infinite; {_CURE}")
    return np.ascontiguousarray(centroids, np.float32)


def read_postings(state: object, where: object) -> Postings:
    """The postings in the state of an inverted file, as the original wrote it or as this package does."""
    content = _content(state, "IVF", where)
    parameters = state.get("params") if isinstance(state, Mapping) else None
    use_idf = bool(parameters.get("use_idf", False)) if isinstance(parameters, Mapping) else False
    if "ivf_vecs" in content:
        words, images, vectors, vocabulary, bound = _from_lists(content, where)
    else:
        words, images, vectors, vocabulary, bound = _from_columns(content, where)
    n_images = _count(content.get("n_images"), MAX_IMAGES, "n_images", where)
    offset = _count(content.get("imid_offset", 0) or 0, n_images, "imid_offset", where)
    _check_postings(words, images, vectors, vocabulary, n_images, where)
    least = int(images.max()) + 1 if len(images) else 0
    if n_images > max(least, bound):
        raise DamagedError(f"{where}: speaks of {n_images} images, but holds {max(least, bound)}; {_CURE}")
    return Postings(words.astype(np.uint32), images.astype(np.uint32), vectors, vocabulary, n_images, offset, use_idf)


_Columns = tuple[np.ndarray, np.ndarray, np.ndarray, int, int]


def _from_lists(content: Mapping[str, Any], where: object) -> _Columns:
    """The form of the original: an array of vectors and one of image ids for every word, filled up to its count."""
    vectors, ids, counts = (content.get(key) for key in ("ivf_vecs", "ivf_image_ids", "counts"))
    counts = np.asarray(counts) if isinstance(counts, Sequence | np.ndarray) else np.empty(0)
    if not isinstance(vectors, list | tuple) or not isinstance(ids, list | tuple) or counts.dtype.kind not in "iuf":
        raise DamagedError(f"{where}: has no lists of vectors, image ids and counts; {_CURE}")
    if not len(vectors) == len(ids) == len(counts) or not vectors or counts.ndim != 1:
        raise DamagedError(f"{where}: {len(vectors)} lists of vectors, {len(ids)} of ids, {counts.shape} counts; {_CURE}")
    used = [word for word in range(len(counts)) if counts[word] != 0]
    lists = [_list(vectors[word], ids[word], counts[word], f"{where}: list {word}") for word in used]
    if not lists:
        lists, used = [(np.empty((0, 1), np.uint32), np.empty(0, np.int64))], [0]
    shapes = {(part.shape[1], part.dtype.str) for part, _ in lists}
    if len(shapes) != 1:
        raise DamagedError(f"{where}: its vectors are of several kinds; {_CURE}")
    words = np.repeat(np.array(used, np.int64), [len(part) for part, _ in lists])
    norms = content.get("norm_factor")
    bound = len(norms) if isinstance(norms, Sequence | np.ndarray) and np.ndim(norms) == 1 else 0
    columns = [np.concatenate(column) for column in zip(*lists, strict=True)]
    return words, columns[1], columns[0], len(counts), bound


def _list(vectors: Any, ids: Any, count: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(vectors, np.ndarray) or not isinstance(ids, np.ndarray):
        raise DamagedError(f"{where} is no pair of arrays; {_CURE}")
    if vectors.ndim != 2 or ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DamagedError(f"{where} has vectors {vectors.shape} and ids {ids.dtype} {ids.shape}; {_CURE}")
    if not (count == int(count) and 0 < count <= min(len(vectors), len(ids))):
        raise DamagedError(f"{where} counts {count} of {min(len(vectors), len(ids))} entries; {_CURE}")
    return vectors[: int(count)], ids[: int(count)].astype(np.int64)


def _from_columns(content: Mapping[str, Any], where: object) -> _Columns:
    """The form of this package: one column for the words, one for the images, one for the vectors."""
    words, images, vectors, norms = (content.get(key) for key in ("words", "images", "vectors", "norm_factor"))
    if not all(isinstance(column, np.ndarray) for column in (words, images, vectors, norms)):
        raise DamagedError(f"{where}: has neither lists nor columns of postings; {_CURE}")
    columns = (np.asarray(words), np.asarray(images))
    if any(column.ndim != 1 or column.dtype.kind not in "iu" for column in columns):
        raise DamagedError(f"{where}: its words or images are no columns of whole numbers; {_CURE}")
    vocabulary = _count(content.get("vocabulary"), 1 << 31, "vocabulary", where)
    return (*columns, np.asarray(vectors), vocabulary, np.asarray(norms).size)


def _check_postings(
    words: np.ndarray, images: np.ndarray, vectors: np.ndarray, vocabulary: int, n_images: int, where: object
) -> None:
    if vectors.ndim != 2 or not len(words) == len(images) == len(vectors):
        raise DamagedError(f"{where}: {words.shape} words, {images.shape} images, {vectors.shape} vectors; {_CURE}")
    if vectors.dtype not in (np.uint32, np.float32) or not np.isfinite(vectors).all():
        raise DamagedError(f"{where}: its vectors are {vectors.dtype}, or NaN; expected uint32 codes or float32; {_CURE}")
    for column, end, name in ((words, vocabulary, "word"), (images, n_images, "image")):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < end:
            raise DamagedError(f"{where}: a posting is of {name} {column.max()} of {end}; {_CURE}")
    order = np.argsort(words, kind="stable")
    same = np.diff(words[order].astype(np.int64)) == 0
    if (np.diff(images[order].astype(np.int64))[same] <= 0).any():
        raise DamagedError(f"{where}: the images of a word do not increase; {_CURE}")


def _content(state: object, kind: str, where: object) -> Mapping[str, Any]:
    found = state.get("type") if isinstance(state, Mapping) else type(state).__name__
    content = state.get("state") if isinstance(state, Mapping) else None
    if found != kind or not isinstance(content, Mapping):
        raise FormatError(f"{where}: holds {str(found)[:40]!r}, expected the state of {kind!r}; give the other file")
    return content


def _count(value: object, most: int, name: str, where: object) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= int(value) <= most:  # type: ignore[call-overload]
        raise DamagedError(f"{where}: its {name} is {str(value)[:40]}; expected a count up to {most}; {_CURE}")
    return int(value)  # type: ignore[call-overload,no-any-return]
