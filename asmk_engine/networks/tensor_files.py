"""Tensor files in the safetensors layout, asmk-engine's own and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from asmk_engine.errors import AsmkError, NotFoundError
from asmk_engine.storage.arrays import CHECKSUMS, ArrayFile, map_arrays
from asmk_engine.storage.folder import Folder

SUFFIX = ".safetensors"
Tensors = dict[str, torch.Tensor]


def kind_of_network(path: Path) -> str | None:
    """Return the `kind` in the metadata of a safetensors file, complete or damaged; None for other files."""
    try:
        return _mapped(path).metadata.get("kind") if path.is_file() and path.suffix == SUFFIX else None
    except AsmkError:
        return None


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors of a safetensors file as float32 and its metadata; checksums, if any, are verified."""
    file = _mapped(path)
    file.verify()
    names = (name for name in file.arrays if name != CHECKSUMS)
    with np.errstate(over="ignore"):  # values that become infinite are refused where they are used
        return {name: torch.from_numpy(np.array(file.arrays[name], np.float32)) for name in names}, file.metadata


def _mapped(path: Path) -> ArrayFile:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such weight file; `asmk-engine weights list` shows where to get one")
    return map_arrays(Folder(path.parent), path.name, plain=True)
