"""The array of rankings that the published evaluation of Revisited Oxford and Paris takes, as a .npy file.

An array [images, queries] of integers: column q holds the numbers of the images in the ranking of query q of the ground
truth, best first. Numbers are 0-based places in its list of images; what the ground truth does not know, distractors above
all, has numbers from there on. Below the last ranked image stands -1, which is no image: it counts as not found.
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

_COLUMNS = 16  # read together: so many numbers of a row lie in one line of the cache
_ROWS = 2048  # turned together: so many rows of these stay in the cache
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_EXPECTED = "expected a .npy array of integers, [images, queries]"


def is_ranks(path: Path | str) -> bool:
    """Whether a file begins as a .npy does; False for what is no file, or cannot be opened."""
    return first_bytes(path, len(_MAGIC)) == _MAGIC


def write_ranks(
    path: Path | str, ground_truth: GroundTruth, rankings: Iterable[tuple[str, Iterable[Scored]]], depth: int
) -> None:
    """Write rankings in the order of the queries of the ground truth, whole or not at all; one ranking is in memory at a time.

    ground_truth     names must be the same as in the rankings, see `names.resolve`; its images must be complete
    rankings  query and hits; queries may be left out, and what the ground truth ignores is not written
    depth     rows of the array: how many images there are to rank, distractors included
    raises    InputError for queries out of order or more images than rows; StorageError
    """
    _check_complete(ground_truth)
    path = Path(path)
    Folder(path.parent).write(path.name, _chunks(ground_truth, rankings, depth))


def read_ranks(path: Path | str, ground_truth: GroundTruth) -> NDArray[np.integer]:
    """The array [images, queries], mapped read-only.

    raises  FormatError for another kind of file or array, MismatchError for another number of queries, NotFoundError,
            StorageError, DamagedError for a file that was cut
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
            f"{path}: {shape[1]} columns, but the ground truth has {len(ground_truth.queries)} queries; the array must be "
            "[images, queries] and made for this ground truth"
        )
    return np.memmap(path, kind, "r", begin, shape, order) if shape[0] and shape[1] else np.empty(shape, kind)


def _layout(file: BinaryIO, path: Path) -> tuple[np.dtype[Any], Literal["C", "F"], tuple[int, int], int]:
    """Kind of number, order, shape and first byte of the numbers, from the header of a .npy file.

    numpy's own reader is not asked: on headers that were altered it fails in too many ways.
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
        raise FormatError(f"{path}: its header is not that of such an array; {_EXPECTED}") from None
    sound = type(rows) is type(columns) is int and rows >= 0 and columns >= 0
    if kind.kind not in "iu" or not sound:
        raise FormatError(f"{path}: an array of {kind} and shape {head['shape']}; {_EXPECTED}")
    return kind, order, (rows, columns), len(magic) + width + length


def evaluate_ranks(ground_truth: GroundTruth, ranks: NDArray[np.integer], *, interval: bool = False) -> Report:
    """Evaluate an array [images, queries] of the numbers of images; see `protocol.evaluate`.

    A few columns at a time are copied and nothing else grows with the array. InputError for a number that stands twice
    in a column or is below -1, MismatchError for another number of columns than queries.
    """
    if ranks.ndim != 2 or ranks.shape[1] != len(ground_truth.queries):
        raise MismatchError(
            f"ranks of shape {ranks.shape}, expected a column for each of {len(ground_truth.queries)} queries"
        )
    evaluator = Evaluator(ground_truth, {name: number for number, name in enumerate(ground_truth.images)})
    for begin in range(0, len(ground_truth.queries), _COLUMNS):
        columns = _turned(ranks[:, begin : begin + _COLUMNS])
        for query, column in zip(ground_truth.queries[begin : begin + _COLUMNS], columns, strict=True):
            if len(column) and column.min() < -1:
                raise InputError(f"query {query.name!r}: the number {column.min()}, expected -1 for none, or 0 and up")
            evaluator.add_numbers(query.name, column)
    return evaluator.report(interval=interval)


def _turned(columns: NDArray[np.integer]) -> NDArray[np.integer]:
    """A copy with a row for each column, made a block at a time: four times as fast as in one go."""
    turned = np.empty(columns.shape[::-1], columns.dtype)
    for begin in range(0, len(columns), _ROWS):
        turned[:, begin : begin + _ROWS] = columns[begin : begin + _ROWS].T
    return turned


def _check_complete(ground_truth: GroundTruth) -> None:
    if not ground_truth.complete:
        raise InputError(
            "this ground truth does not list its database images in order, as an array of rankings needs; use trec or "
            "jsonl"
        )


def _chunks(ground_truth: GroundTruth, rankings: Iterable[tuple[str, Iterable[Scored]]], depth: int) -> Iterator[bytes]:
    # Column after column, so that each ranking is written and forgotten.
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
            raise NotFoundError(f"query {name!r} is not one of the queries that are left; rank them in their order")
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
