"""Local features in the pickles published by the authors of HOW, as read by `examples/demo_how.py` of asmk.

    vecs [n, D], imids [n]      descriptors of the database, and the image number of each
    qvecs [m, D], qimids [m]    the same for the queries; files for codebooks have only vecs

Image numbers are indices into `imlist` and `qimlist` of the ground truth. No code in a pickle is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError
from asmk_engine.features import Features, FeatureSet, FeatureWriter, check_name, part_names
from asmk_engine.iteration import Progress
from asmk_engine.recipes import IMPORTED, Recipe
from asmk_engine.storage.pickles.unpickle import read_plain_pickle

MOST_BYTES = 64 << 30
"""Maximum file size. 20 million descriptors of 128 float32, for a codebook, are 10 GB and need 30 GB of memory."""
PIECE = 1000
"""Number of descriptors per artificial image, for a file without image numbers."""
_TOO_MANY = 1 << 40
_CURE = "fetch the file again"


@dataclass(frozen=True)
class HowFeatures:
    """The content of a published pickle.

    vectors        [n, D] float16 or float32, the descriptors of the database
    numbers        [n] int64, the image of each descriptor; None in a file for codebooks
    query_vectors  [m, D], as `vectors`; None without queries
    query_numbers  [m] int64, the query of each descriptor; None without queries
    """

    path: Path
    vectors: np.ndarray
    numbers: np.ndarray | None
    query_vectors: np.ndarray | None
    query_numbers: np.ndarray | None


def read_how_features(path: Path | str) -> HowFeatures:
    """Read the arrays of a published pickle of HOW features and check them against each other.

    Raises NotFoundError, FormatError for another kind of pickle or one with other objects than arrays, InputError for
    descriptors that are NaN or infinite, DamagedError for arrays that contradict each other.
    """
    path = Path(path)
    content = read_plain_pickle(path, MOST_BYTES)
    if not isinstance(content, dict) or "vecs" not in content:
        raise FormatError(f"{path}: not published HOW features; expected vecs, imids, qvecs and qimids")
    vectors = _vectors(content["vecs"], "vecs", path)
    numbers = _numbers(content["imids"], "imids", len(vectors), path) if "imids" in content else None
    if "qvecs" not in content and "qimids" not in content:
        return HowFeatures(path, vectors, numbers, None, None)
    if "qvecs" not in content or "qimids" not in content or numbers is None:
        raise DamagedError(f"{path}: one of qvecs, qimids and imids is missing; {_CURE}")
    queries = _vectors(content["qvecs"], "qvecs", path)
    if queries.shape[1] != vectors.shape[1]:
        raise DamagedError(f"{path}: vecs have {vectors.shape[1]} dimensions, qvecs {queries.shape[1]}; {_CURE}")
    return HowFeatures(path, vectors, numbers, queries, _numbers(content["qimids"], "qimids", len(queries), path))


def _vectors(value: Any, key: str, path: Path) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind != "f" or not value.shape[1]:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DamagedError(f"{path}: {key} is {found}, expected descriptors [n, D]; {_CURE}")
    if value.size and not np.isfinite([value.min(), value.max()]).all():  # without a mask of the size of the file
        raise InputError(f"{path}: {key} contains NaN or infinity, expected finite descriptors; {_CURE}")
    return value if value.dtype == np.float16 else value.astype(np.float32, copy=False)


def _numbers(value: Any, key: str, count: int, path: Path) -> np.ndarray:
    plain = isinstance(value, list) and all(type(number) is int and abs(number) < _TOO_MANY for number in value)
    array = np.array(value, np.int64) if plain else value
    if not isinstance(array, np.ndarray) or array.shape != (count,) or (count and array.dtype.kind not in "iuf"):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(value).__name__
        raise DamagedError(f"{path}: {key} is {found}, expected the image numbers of {count} descriptors; {_CURE}")
    if count and not ((array == np.floor(array)).all() and array.min() >= 0 and array.max() < _TOO_MANY):
        raise DamagedError(f"{path}: {key} contains other values than image numbers, counted from 0; {_CURE}")
    return array.astype(np.int64)


def import_how(
    path: Path | str,
    output: Path | str,
    *,
    queries: Path | str | None = None,
    name: str | None = None,
    names: Sequence[str] | None = None,
    query_names: Sequence[str] | None = None,
    on_image: Progress | None = None,
) -> tuple[FeatureSet, FeatureSet | None]:
    """Import the features of a published pickle into feature sets, new or existing; return (database, queries).

    output       feature set of the database
    queries      feature set of the queries; without it they are left out, and None is returned for them
    name         name of the features in their recipe; by default the stem of the file. Only features and codebooks
                 imported under the same name and with the same dimension can be used together.
    names        names of the database images 0, 1, 2, ..., `imlist` of the ground truth; by default their numbers.
                 A named image without descriptors in the file is kept, without features.
    query_names  names of the queries, `qimlist` of the ground truth; by default their numbers
    on_image     called with (done, total) images

    Descriptors stay in the order of the file. The file has no keypoints: all are at 0, 0 with scale 1 and score 1, in
    images of size 0, so that such features cannot be verified geometrically. A file for codebooks becomes images of
    1000 descriptors. Raises as `read_how_features`, and InputError for too few names or names that are not unique.
    """
    found = read_how_features(path)
    label = found.path.stem if name is None else name
    if not label.strip():
        raise InputError(f"{path}: imported features need a name; give that of their network, such as how_r18_1000")
    if queries is not None and found.query_vectors is None:
        raise InputError(f"{path}: contains no queries (no qvecs); leave the feature set of the queries out")
    recipe = Recipe(IMPORTED, {"features": label, "dim": found.vectors.shape[1]})
    database = _images(found.vectors, found.numbers, names, "", found.path)
    query_images = []
    if queries is not None and found.query_vectors is not None:
        query_images = _images(found.query_vectors, found.query_numbers, query_names, "query-", found.path)
    total = len(database) + len(query_images)
    made = _write(output, recipe, found.vectors, database, 0, total, on_image)
    if queries is None or found.query_vectors is None:
        return made, None
    return made, _write(queries, recipe, found.query_vectors, query_images, len(database), total, on_image)


_Rows = list[tuple[str, np.ndarray]]


def _images(
    vectors: np.ndarray, numbers: np.ndarray | None, names: Sequence[str] | None, prefix: str, path: Path
) -> _Rows:
    """Return the name of each image and the rows of its descriptors, in the order of the file."""
    if numbers is None:
        if names is not None:
            raise InputError(f"{path}: has no image numbers for its descriptors; leave the names out")
        begins = range(0, len(vectors), PIECE)
        return [(f"descriptors-{begin:09d}", np.arange(begin, min(begin + PIECE, len(vectors)))) for begin in begins]
    order = np.argsort(numbers, kind="stable")
    present, starts = np.unique(numbers[order], return_index=True)
    rows = dict(zip(present.tolist(), np.split(order, starts[1:]), strict=True)) if len(present) else {}
    if names is None:
        return [(f"{prefix}{number}", some) for number, some in rows.items()]
    return _named(rows, names, path)


def _named(rows: dict[int, np.ndarray], names: Sequence[str], path: Path) -> _Rows:
    last = max(rows, default=-1)
    if last >= len(names):
        raise InputError(f"{path}: has image number {last}, but {len(names)} names; give one name per image, in order")
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two images have the same name; expected unique names")
    none = np.empty(0, np.int64)
    return [(check_name(name), rows.get(number, none)) for number, name in enumerate(names)]


def _write(
    output: Path | str,
    recipe: Recipe,
    vectors: np.ndarray,
    images: _Rows,
    before: int,
    total: int,
    on_image: Progress | None,
) -> FeatureSet:
    known = FeatureSet.open(output) if part_names(Path(output)) else None
    with FeatureWriter(output, recipe, vectors.shape[1]) as writer:
        for done, (name, rows) in enumerate(images, start=before + 1):
            if known is None or name not in known or not _same(known.read(name).descriptors, vectors[rows]):
                writer.add(name, _features(vectors[rows]))
            if on_image:
                on_image(done, total)
    return FeatureSet.open(output)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def _features(descriptors: np.ndarray) -> Features:
    keypoints = np.tile(np.array([0, 0, 1], np.float32), (len(descriptors), 1))
    return Features(descriptors, keypoints, np.ones(len(descriptors), np.float32), (0, 0))
