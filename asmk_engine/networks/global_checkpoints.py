"""Files of global networks: asmk-engine's own, those of the GeM family, and backbones completed by a pooling."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.networks import checkpoint_files, checkpoints
from asmk_engine.networks.backbone_names import MOST_SKIP
from asmk_engine.networks.backbones import (
    BACKBONES,
    CLASSIFIERS,
    backbone_tensors,
    build_backbone,
    load_tensors,
    plain_tensors,
    read_tensors,
)
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.official_global import is_official_global, network_of_official, read_content
from asmk_engine.networks.tensor_files import SUFFIX, Tensors, kind_of_network

KIND = "asmk-engine global network"
_COUNTER = "num_batches_tracked"
_GIVE = "give a global network, a checkpoint of the GeM family, or ImageNet weights of a backbone"


def save_global_checkpoint(path: Path | str, network: GlobalNetwork, origin: dict[str, Any]) -> str:
    """Write a network atomically, replacing an existing file; return the sha256 of the file.

    origin  where the weights came from, as JSON values, for people
    """
    return checkpoints.write_network(path, KIND, network, network.options.to_json(), origin)


def open_global_checkpoint(path: Path | str) -> tuple[GlobalNetwork, dict[str, Any]]:
    """Return the network of an asmk-engine file, in evaluation mode, and the origin of its weights.

    Raises NotFoundError, FormatError for another kind of file, DamagedError if it was altered, and MismatchError if
    its tensors do not fit its options.
    """
    path = Path(path)
    foreign = "not a global network of asmk-engine; make one with `asmk-engine whiten-global`"
    network, origin = checkpoints.open_network(
        path, KIND, foreign, lambda text, where: GlobalNetwork(GlobalOptions.from_json(text, where))
    )
    if network.exponent is not None and not (network.exponent > 0).all():
        raise DamagedError(f"{path}: a GeM exponent is not greater than 0; the file was altered: get it again")
    return network, origin


@dataclass(frozen=True)
class Completion:
    """The options that turn a backbone into a global network.

    pooling   name in `POOLINGS`
    skip      number of last parts of the backbone to leave out; more if the file lacks more
    exponent  GeM exponent p
    """

    pooling: str = "gem"
    skip: int = 0
    exponent: float = 3.0


def open_global_network(path: Path | str, completion: Completion) -> tuple[GlobalNetwork, bool]:
    """Open a global network from any supported file; return it and whether the file holds a complete one.

    The file is an asmk-engine global network, a GeM-family checkpoint, a local network, whose backbone is used, or
    backbone weights only.

    completion  its pooling must match every file; the rest completes a backbone, and must not contradict a complete
                network

    Raises MismatchError for a network with another pooling and for tensors that fit no backbone, InputError for a
    contradicting completion, and what `read_tensors` raises.
    """
    path = Path(path)
    found = network_or_tensors(path, torch_content(path))
    if isinstance(found, GlobalNetwork):
        return _complete(found, completion, path), True
    if isinstance(found, LocalNetwork):
        return _from_local(found, completion, path), False
    return _from_backbone(found, completion, path), False


def torch_content(path: Path) -> Any:
    """Return what torch reads from a file; None for other kinds of files. Raises what `read_content` raises."""
    return None if path.suffix in (".npz", SUFFIX) else read_content(path)


def network_or_tensors(path: Path, content: Any) -> GlobalNetwork | LocalNetwork | Tensors:
    """Return the global or local network of a file that holds one, else its tensors, which may be of a backbone.

    content  of `torch_content`

    The network is in evaluation mode. Raises what the readers of these files raise.
    """
    kind = kind_of_network(path)
    if kind == KIND:
        return open_global_checkpoint(path)[0]
    if kind == checkpoint_files.KIND:
        return checkpoints.open_checkpoint(path)[0]
    if content is None:
        return read_tensors(path)
    return network_of_official(content, path) if is_official_global(content) else plain_tensors(content, path)


def _complete(network: GlobalNetwork, completion: Completion, path: Path) -> GlobalNetwork:
    found = network.options.pooling
    if found != completion.pooling:
        raise MismatchError(
            f"{path}: a network with {found} pooling, expected {completion.pooling}; use --extractor {found}, or "
            "other weights"
        )
    default, own = Completion(), network.exponent.tolist() if network.exponent is not None else []
    fits = completion.skip in (default.skip, network.options.skip)
    if not fits or completion.exponent not in (default.exponent, *own):
        raise InputError(
            f"{path}: a complete network has its own skip and exponent, but skip {completion.skip} and exponent "
            f"{completion.exponent:g} were given; leave them out"
        )
    return network


def _from_local(local: LocalNetwork, completion: Completion, path: Path) -> GlobalNetwork:
    """Return a pooling on the backbone of a local network, with the same normalisation of pixels."""
    seen = local.options
    skip = max(seen.skip, completion.skip)
    options = GlobalOptions(seen.backbone, skip, completion.pooling, mean=seen.mean, std=seen.std)
    return _pooled(options, local.backbone.state_dict(), completion, path)


def _from_backbone(tensors: Tensors, completion: Completion, path: Path) -> GlobalNetwork:
    """Return a pooling on the backbone with these weights, which is recognised by its tensors."""
    name, skip = find_backbone(tensors, completion.skip, path)
    return _pooled(GlobalOptions(name, skip, completion.pooling), tensors, completion, path)


def _pooled(options: GlobalOptions, tensors: Tensors, completion: Completion, path: Path) -> GlobalNetwork:
    backbone = build_backbone(options.backbone, options.skip)
    load_tensors(backbone, backbone_tensors(tensors, options.backbone, options.skip), path, _GIVE)
    network = GlobalNetwork(options, backbone)
    if network.exponent is not None:
        network.exponent.data.fill_(completion.exponent)
    return network.eval()


def find_backbone(tensors: Tensors, least_skip: int, where: object) -> tuple[str, int]:
    """Return name and skip of the backbone that these weights fit, with the smallest skip from `least_skip` on.

    Raises MismatchError if they fit no known backbone.
    """
    published = [name for name in BACKBONES if _is_onnx(tensors, name)]
    for name in published or (name for name in BACKBONES if _may_be_of(tensors, name)):
        for skip in range(least_skip, MOST_SKIP[name] + 1):
            if _fits(tensors, name, skip):
                return name, skip
    raise MismatchError(
        f"{where}: its {len(tensors)} tensors fit no known backbone without its last {least_skip} parts; known are "
        f"{', '.join(BACKBONES)}; {_GIVE}"
    )


def _may_be_of(tensors: Tensors, name: str) -> bool:
    """Return whether every tensor has a name of this backbone or its classifier."""
    return all(key in CLASSIFIERS or key in _shapes(name, 0) or key.endswith(_COUNTER) for key in tensors)


def _fits(tensors: Tensors, name: str, skip: int) -> bool:
    onnx = BACKBONES[name].onnx
    if onnx is not None and _is_onnx(tensors, name):
        names = {ours: onnx[0] + theirs for ours, theirs in onnx[1](skip).items()}
        tensors = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
    return all(key in tensors and tensors[key].shape == shape for key, shape in _shapes(name, skip).items())


def _is_onnx(tensors: Tensors, name: str) -> bool:
    onnx = BACKBONES[name].onnx
    return onnx is not None and any(key.startswith(onnx[0]) for key in tensors)


@functools.cache
def _shapes(name: str, skip: int) -> dict[str, torch.Size]:
    """Return the shapes of a backbone's tensors by name, without allocating them."""
    with torch.device("meta"):
        state = build_backbone(name, skip).state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith(_COUNTER)}
