"""Tensor files in the safetensors layout, asmk-engine's own and others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asmk_engine.errors import AsmkError, NotFoundError
from asmk_engine.storage.arrays import CHECKSUMS, ArrayFile, map_arrays
from asmk_engine.storage.folder import Folder

if TYPE_CHECKING:
    import torch

SUFFIX = ".safetensors"
Tensors = dict[str, "torch.Tensor"]


def kind_of_network(path: Path) -> str | None:
    """Return the `kind` in the metadata of a safetensors file, complete or damaged; None for other files."""
    try:
        return _mapped(path).metadata.get("kind") if path.is_file() and path.suffix == SUFFIX else None
    except AsmkError:
        return None


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors of a safetensors file as float32 and its metadata; checksums, if any, are verified."""
    import torch

    arrays, metadata = read_arrays(path)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the same as arrays, without torch."""
    file = _mapped(path)
    file.verify()
    names = (name for name in file.arrays if name != CHECKSUMS)
    with np.errstate(over="ignore"):  # values that become infinite are refused where they are used
        return {name: np.array(file.arrays[name], np.float32) for name in names}, file.metadata


def _mapped(path: Path) -> ArrayFile:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such weight file; `asmk-engine weights list` shows where to get one")
    return map_arrays(Folder(path.parent), path.name, plain=True)
