"""asmk-engine's own network files: options, weights and checksums in one file of the safetensors layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import DamagedError, FormatError
from asmk_engine.networks.backbones import load_tensors
from asmk_engine.networks.checkpoint_files import KIND, read_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.stored_names import from_stored, to_stored
from asmk_engine.networks.tensor_files import kind_of_network, read_safetensors
from asmk_engine.storage.arrays import write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import file_sha256


def save_checkpoint(path: Path | str, network: LocalNetwork, origin: dict[str, Any]) -> str:
    """Write a network atomically, replacing an existing file; return the sha256 of the file.

    origin  where the weights came from, as JSON values, for people and for `whiten`, which detects its own output
    """
    return write_network(path, KIND, network, network.options.to_json(), origin)


def write_network(path: Path | str, kind: str, network: nn.Module, options: str, origin: dict[str, Any]) -> str:
    """Write the tensors of a network atomically, with its kind, options and origin; return the sha256 of the file."""
    path = Path(path)
    folder = Folder(path.parent)
    folder.make()
    floats = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    arrays = {key: _plain(value) for key, value in to_stored(floats).items()}
    metadata = {"kind": kind, "network": options, "origin": json.dumps(to_stored(origin), sort_keys=True)}
    write_arrays(folder, path.name, arrays, metadata)
    folder.sync()
    return file_sha256(path)


def _plain(value: torch.Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().contiguous().float().numpy()
    return array


def open_checkpoint(path: Path | str) -> tuple[LocalNetwork, dict[str, Any]]:
    """Return the network of a file, in evaluation mode, and the origin of its weights.

    Raises NotFoundError, FormatError for another kind of file, DamagedError if it was altered, and MismatchError if
    its tensors do not fit its options.
    """
    path = Path(path)
    arrays, metadata = read_checkpoint(path)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    network = LocalNetwork(LocalOptions.from_json(metadata.get("network", ""), path))
    load_tensors(network, tensors, path, "the file was altered: get it again")
    return network.eval(), read_origin(metadata, path)


Made = TypeVar("Made", bound=nn.Module)


def open_network(path: Path, kind: str, foreign: str, make: Callable[[str, Path], Made]) -> tuple[Made, dict[str, Any]]:
    """Return the network of a file of this kind and the origin of its weights; raises as `open_checkpoint`.

    foreign  what is said of another kind of file
    make     makes the network of its options in JSON, with random weights
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("kind") != kind:
        raise FormatError(f"{path}: {foreign}, or from a published checkpoint with `asmk-engine weights convert`")
    network = make(metadata.get("network", ""), path)
    load_tensors(network, from_stored(tensors), path, "the file was altered: get it again")
    return network.eval(), read_origin(metadata, path)


def read_origin(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """Return the origin of the weights of a network file; raises DamagedError if it is not readable."""
    try:
        return from_stored(json.loads(metadata.get("origin", "{}")))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise DamagedError(f"{path}: its origin is not readable: the file was altered; get it again") from None


def is_checkpoint(path: Path | str) -> bool:
    """Return whether a file is an asmk-engine network, complete or damaged."""
    return kind_of_network(Path(path)) == KIND
