"""The array of rankings that the published evaluation of Revisited Oxford and Paris reads, as a .npy file.

An array [images, queries] of integers: column q is the ranking of query q of the ground truth as image numbers, best
first. Numbers are 0-based positions in its list of images; images that are not in the list, such as distractors, have
the numbers after it. A shorter ranking is padded with -1, which is no image: the rest counts as not found.
"""

from __future__ import annotations

import ast
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.evaluation.protocol import Evaluator, Report
from asmk_engine.evaluation.runs import Scored
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import first_bytes, open_file

_COLUMNS = 16  # columns read together: that many numbers of a row share a cache line
_ROWS = 2048  # rows transposed together: they fit in the cache
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_EXPECTED = "expected a .npy array of integers, [images, queries]"


def is_ranks(path: Path | str) -> bool:
    """Return whether a file begins like a .npy file; False if it is not a file or cannot be opened."""
    return first_bytes(path, len(_MAGIC)) == _MAGIC


def write_ranks(
    path: Path | str, ground_truth: GroundTruth, rankings: Iterable[tuple[str, Iterable[Scored]]], depth: int
) -> None:
    """Write rankings in the order of the queries of the ground truth, atomically, one ranking in memory at a time.

    ground_truth  its names must be the same as in the rankings, see `names.resolve`; its images must be complete
    rankings      query and hits; queries may be missing, and images that the ground truth ignores are not written
    depth         rows of the array: the number of images to rank, including distractors
    raises        NotFoundError for queries out of order, InputError for more images than rows; StorageError
    """
    _check_complete(ground_truth)
    path = Path(path)
    Folder(path.parent).write(path.name, _chunks(ground_truth, rankings, depth))


def read_ranks(path: Path | str, ground_truth: GroundTruth) -> NDArray[np.integer]:
    """Open the array [images, queries], mapped read-only.

    raises  FormatError for another kind of file or array, MismatchError for another number of queries, NotFoundError,
            StorageError, DamagedError for a truncated file
    """
    path = Path(path)
    _check_complete(ground_truth)
    with open_file(path, "an array of rankings") as file:
        kind, order, shape, begin = _layout(file, path)
        size = os.fstat(file.fileno()).st_size
    if begin + kind.itemsize * shape[0] * shape[1] > size:
        raise DamagedError(f"{path}: {size} bytes are too few for {shape[0]} × {shape[1]} numbers; write it again")
    if shape[1] != len(ground_truth.queries):
        raise MismatchError(
            f"{path}: {shape[1]} columns, but the ground truth has {len(ground_truth.queries)} queries; the array must "
            "be [images, queries] and made for this ground truth"
        )
    return np.memmap(path, kind, "r", begin, shape, order) if shape[0] and shape[1] else np.empty(shape, kind)


def _layout(file: BinaryIO, path: Path) -> tuple[np.dtype[Any], Literal["C", "F"], tuple[int, int], int]:
    """Return dtype, order, shape and offset of the data, from the header of a .npy file.

    Does not use the reader of numpy, which fails in many ways on altered headers.
    """
    magic = file.read(len(_MAGIC) + 2)
    if magic[: len(_MAGIC)] != _MAGIC or len(magic) < len(_MAGIC) + 2:
        raise FormatError(f"{path}: not a .npy file; {_EXPECTED}")
    width = 2 if magic[-2] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    try:
        head = ast.literal_eval(file.read(min(length, _LONGEST_HEADER)).decode("latin-1").strip())
        kind, (rows, columns) = np.dtype(str(head["descr"])), head["shape"]
        order: Literal["C", "F"] = "F" if head["fortran_order"] else "C"
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError):
        raise FormatError(f"{path}: invalid header; {_EXPECTED}") from None
    sound = type(rows) is type(columns) is int and rows >= 0 and columns >= 0
    if kind.kind not in "iu" or not sound:
        raise FormatError(f"{path}: an array of {kind} and shape {head['shape']}; {_EXPECTED}")
    return kind, order, (rows, columns), len(magic) + width + length


def evaluate_ranks(ground_truth: GroundTruth, ranks: NDArray[np.integer], *, interval: bool = False) -> Report:
    """Evaluate an array [images, queries] of image numbers; see `protocol.evaluate`.

    Copies a few columns at a time; no other memory grows with the array. Raises InputError for a number that is
    repeated in a column or below -1, MismatchError if the number of columns is not that of the queries.
    """
    if ranks.ndim != 2 or ranks.shape[1] != len(ground_truth.queries):
        raise MismatchError(
            f"ranks of shape {ranks.shape}, expected a column for each of {len(ground_truth.queries)} queries"
        )
    evaluator = Evaluator(ground_truth, {name: number for number, name in enumerate(ground_truth.images)})
    for begin in range(0, len(ground_truth.queries), _COLUMNS):
        columns = _transposed(ranks[:, begin : begin + _COLUMNS])
        for query, column in zip(ground_truth.queries[begin : begin + _COLUMNS], columns, strict=True):
            if len(column) and column.min() < -1:
                raise InputError(f"query {query.name!r}: the number {column.min()}, expected -1 for none, or 0 or more")
            evaluator.add_numbers(query.name, column)
    return evaluator.report(interval=interval)


def _transposed(columns: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return a transposed copy, made block by block: four times as fast as in one step."""
    transposed = np.empty(columns.shape[::-1], columns.dtype)
    for begin in range(0, len(columns), _ROWS):
        transposed[:, begin : begin + _ROWS] = columns[begin : begin + _ROWS].T
    return transposed


def _check_complete(ground_truth: GroundTruth) -> None:
    if not ground_truth.complete:
        raise InputError(
            "this ground truth does not list its database images in order, which an array of rankings needs; use trec "
            "or jsonl"
        )


def _chunks(ground_truth: GroundTruth, rankings: Iterable[tuple[str, Iterable[Scored]]], depth: int) -> Iterator[bytes]:
    # Column by column, so that only one ranking is in memory.
    head = {"descr": "<i4", "fortran_order": True, "shape": (depth, len(ground_truth.queries))}
    yield _header(head)
    numbers = {name: number for number, name in enumerate(ground_truth.images)}
    others = count(len(numbers))
    waiting = iter([query.name for query in ground_truth.queries])
    for name, hits in rankings:
        for query in waiting:
            if query == name:
                break
            yield _column([], depth, query)
        else:
            raise NotFoundError(f"query {name!r} is not one of the remaining queries; rank the queries in their order")
        ranked = [hit.name for hit in hits if hit.name not in ground_truth.ignored]
        yield _column([_number(image, numbers, others) for image in ranked], depth, name)
    for query in waiting:
        yield _column([], depth, query)


def _number(name: str, numbers: dict[str, int], others: Iterator[int]) -> int:
    if name not in numbers:
        numbers[name] = next(others)
    return numbers[name]


def _column(ranked: Sequence[int], depth: int, query: str) -> bytes:
    if len(ranked) > depth:
        raise InputError(f"query {query!r}: {len(ranked)} ranked images, expected {depth} at most")
    column = np.full(depth, -1, "<i4")
    column[: len(ranked)] = ranked
    return column.tobytes()


def _header(head: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, head)
    return buffer.getvalue()
