"""Stored states: plain values and numpy arrays in one file, recognised by content and not by name.

States are written as array files (`storage.arrays`): the arrays as `array-0`, `array-1`, ..., and everything else as
JSON in the array `tree`, where `{"array": 0}` refers to an array, and a dictionary is written as `{"dict": ...}`.
These files can be read, as can codebooks of asmk-engine, and pickles, by an interpreter that builds only plain values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.pickles.unpickle import read_plain_pickle
from asmk_engine.storage.user_files import open_file

KIND = "asmk-engine state"
HDF5 = b"\x89HDF\r\n\x1a\n"
_STORED = ("u1", "u2", "u4", "i4", "i8", "u8", "f2", "f4", "f8")
_MOST_ARRAYS = 4096
_DEEPEST = 100


def read_state(path: Path) -> Any:
    """Read the value in a file of any of the three kinds.

    Raises NotFoundError, FormatError, DamagedError or StorageError if that is not possible.
    """
    with open_file(path, "a stored state or a pickle") as file:
        start = file.read(9)
    if start.startswith(HDF5):
        return codebook_state(_plain_centroids(Codebook.open(path), path))
    if len(start) == 9 and start[4:] == b"\0\0\0\0{":
        return _read_array_file(path)
    return read_plain_pickle(path)


def codebook_state(centroids: np.ndarray) -> dict[str, Any]:
    """Return the state of a codebook in the form of the original package."""
    return {"type": "Codebook", "params": {"size": len(centroids)}, "state": {"centroids": centroids}}


def _plain_centroids(codebook: Codebook, path: object) -> np.ndarray:
    """Return the centroids of a codebook without projection; raises MismatchError if it projects descriptors."""
    identity = np.eye(codebook.dim, codebook.input_dim, dtype=np.float32)
    if codebook.mean.any() or not np.array_equal(codebook.projection, identity):
        raise MismatchError(
            f"{path}: this codebook whitens descriptors, which asmk_engine.compat does not support; "
            "build one with `--whitening none`, or use asmk_engine.Searcher"
        )
    return codebook.centroids


def write_state(path: Path, value: Any) -> None:
    """Write plain values and arrays as one file, atomically; raises InputError for other values."""
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps(_to_tree(value, arrays, 0)).encode()
    arrays["tree"] = np.frombuffer(tree, np.uint8)
    folder = Folder(path.parent)
    folder.make()
    write_arrays(folder, path.name, arrays, {"kind": KIND})
    folder.sync()


def _to_tree(value: Any, arrays: dict[str, np.ndarray], depth: int) -> Any:
    if depth > _DEEPEST:
        raise InputError(f"a state nested deeper than {_DEEPEST} containers cannot be stored")
    if isinstance(value, np.ndarray):
        return _put_aside(value, arrays)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise InputError("a state whose keys are not all text cannot be stored; make them text")
        return {"dict": {key: _to_tree(part, arrays, depth + 1) for key, part in value.items()}}
    if isinstance(value, list | tuple):
        return [_to_tree(part, arrays, depth + 1) for part in value]
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    raise InputError(f"a {type(value).__name__} cannot be stored; only plain values and arrays of numbers can")


def _put_aside(array: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    if array.dtype.newbyteorder("=").str[1:] not in _STORED or len(arrays) == _MOST_ARRAYS:
        raise InputError(
            f"array {len(arrays)} of a state is {array.dtype}; at most {_MOST_ARRAYS} arrays of "
            f"{', '.join(_STORED)} can be stored in a file"
        )
    number = len(arrays)
    arrays[f"array-{number}"] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return {"array": number}


def _read_array_file(path: Path) -> Any:
    file = map_arrays(Folder(path.parent), path.name)
    if file.metadata.get("kind") != KIND:
        raise FormatError(f"{path}: an array file of kind {file.metadata.get('kind')!r}; expected {KIND!r}")
    file.verify()
    try:
        return _from_tree(json.loads(file.take("tree", "u1", None).tobytes()), file.arrays)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"{path}: its tree of values is not readable; it was altered, restore a copy") from None


def _from_tree(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_from_tree(part, arrays) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[f"array-{tree['array']}"]
    return {key: _from_tree(part, arrays) for key, part in tree["dict"].items()}
