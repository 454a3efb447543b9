"""The network of the default extractor: a backbone from a package on PyPI, and a whitening that comes with this one."""

from __future__ import annotations

from pathlib import Path

from asmk_engine.codebooks.shipped import FOLDER
from asmk_engine.errors import DamagedError
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.tensor_files import read_arrays

SUFFIX = ".whitening.safetensors"
KIND = "asmk-engine whitening"


def whitening_file(name: str) -> Path | None:
    """Return the whitening of an extractor that comes with the package, None without one."""
    path = FOLDER / f"{name}{SUFFIX}"
    return path if path.is_file() else None


def write_shipped_network(name: str, backbone: Path, place: Path) -> Path:
    """Write the network of an extractor from its backbone and the whitening of the package; return `place`.

    The file has the same bytes on every machine, so that features and indexes of different machines fit together.
    Raises DamagedError for an altered whitening, and what `load_backbone` raises.
    """
    import torch

    from asmk_engine.networks.backbones import load_backbone
    from asmk_engine.networks.checkpoints import read_origin, save_checkpoint
    from asmk_engine.networks.local import LocalNetwork

    path = FOLDER / f"{name}{SUFFIX}"
    arrays, metadata = read_arrays(path)
    if metadata.get("kind") != KIND:
        raise DamagedError(f"{path}: not a whitening; install asmk-engine again")
    network = LocalNetwork(LocalOptions.from_json(metadata.get("network", ""), path))
    network.backbone = load_backbone(backbone, network.options.backbone, network.options.skip)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()}, strict=False)
    save_checkpoint(place, network.eval(), read_origin(metadata, path))
    return place


def save_whitening(path: Path, network_file: Path) -> None:
    """Write the whitening of a network file alone, with the options and the origin of the network."""
    from asmk_engine.networks.checkpoint_files import read_checkpoint
    from asmk_engine.storage.arrays import write_arrays
    from asmk_engine.storage.folder import Folder

    arrays, metadata = read_checkpoint(network_file)
    reduction = {key: array for key, array in arrays.items() if key.startswith("reduction.")}
    write_arrays(Folder(path.parent), path.name, reduction, {**metadata, "kind": KIND})
