"""Files of composed networks: asmk-engine's own, and backbones completed by a head that nobody trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.networks import checkpoints, global_checkpoints
from asmk_engine.networks.backbones import backbone_tensors, build_backbone, load_tensors
from asmk_engine.networks.composed.network import ComposedNetwork, ComposedOptions, default_options, seeded_network
from asmk_engine.networks.composed.official import layout_of, network_of_layout, refuse_saved_model
from asmk_engine.networks.tensor_files import Tensors, kind_of_network

KIND = "asmk-engine composed network"
_GIVE = "give a network file, or ImageNet weights of a whole backbone"


def save_composed_checkpoint(path: Path | str, network: ComposedNetwork, origin: dict[str, Any]) -> str:
    """Write a network atomically, replacing an existing file; return the sha256 of the file.

    origin  where the weights came from, as JSON values, for people
    """
    return checkpoints.write_network(path, KIND, network, network.options.to_json(), origin)


def open_composed_checkpoint(path: Path | str) -> tuple[ComposedNetwork, dict[str, Any]]:
    """Return the network of an asmk-engine file, in evaluation mode, and the origin of its weights.

    Raises NotFoundError, FormatError for another kind of file, DamagedError if it was altered, and MismatchError if
    its tensors do not fit its options.
    """
    path = Path(path)
    foreign = "not a composed network of asmk-engine; make one with `asmk-engine train-global`"
    network, origin = checkpoints.open_network(
        path, KIND, foreign, lambda text, where: ComposedNetwork(ComposedOptions.from_json(text, where))
    )
    if not network.exponents_are_positive:
        raise DamagedError(f"{path}: a GeM exponent is not greater than 0; the file was altered: get it again")
    return network, origin


@dataclass(frozen=True)
class HeadCompletion:
    """The options that turn a backbone into a composed network.

    network  name in `table.NETWORKS`
    seed     seed of the random weights of the head
    """

    network: str
    seed: int = 0


def open_composed_network(path: Path | str, completion: HeadCompletion) -> tuple[ComposedNetwork, bool]:
    """Open a composed network from any supported file; return it and whether the file holds a complete one.

    The file is an asmk-engine composed network or an official checkpoint, or one of which the backbone is used: a
    global or local network, a checkpoint of the GeM family, or backbone weights only. The head of an incomplete one is
    drawn at random.

    Raises MismatchError for another network and for tensors that fit no whole backbone, and what `read_tensors`
    raises.
    """
    path = Path(path)
    refuse_saved_model(path)
    content = global_checkpoints.torch_content(path)
    if (found := composed_of(path, content)) is not None:
        return _complete(found, completion, path), True
    options, tensors = _backbone_of(path, content, completion.network)
    backbone = build_backbone(options.backbone)
    load_tensors(backbone, backbone_tensors(tensors, options.backbone, 0), path, _GIVE)
    options = dataclasses.replace(options, untrained_seed=completion.seed)
    return seeded_network(options, backbone).eval(), False


def composed_of(path: Path, content: Any) -> ComposedNetwork | None:
    """Return the composed network of a file, in evaluation mode; None for other files.

    content  of `global_checkpoints.torch_content`
    """
    if kind_of_network(path) == KIND:
        return open_composed_checkpoint(path)[0]
    return None if layout_of(content) is None else network_of_layout(content, path)[0]


def _complete(network: ComposedNetwork, completion: HeadCompletion, path: Path) -> ComposedNetwork:
    found, seed = network.options.network, network.options.untrained_seed
    if found != completion.network:
        raise MismatchError(
            f"{path}: a network of {found}, expected {completion.network}; use --extractor {found}, or other weights"
        )
    if completion.seed not in (0, seed):
        raise InputError(
            f"{path}: a complete network has its own head, but untrained_seed {completion.seed} was given; leave it out"
        )
    return network


def _backbone_of(path: Path, content: Any, name: str) -> tuple[ComposedOptions, Tensors]:
    """Return the options of a network on the backbone in the file, and the tensors of that backbone."""
    found = global_checkpoints.network_or_tensors(path, content)
    return _options_of(found, name, path) if isinstance(found, dict) else _options_like(found, name, path)


def _options_like(other: Any, name: str, path: Path) -> tuple[ComposedOptions, Tensors]:
    """Return the options and the backbone of another kind of network, with the same normalisation of pixels."""
    seen = other.options
    if seen.skip:
        raise MismatchError(f"{path}: its backbone lacks its last {seen.skip} parts, and {name} needs all; {_GIVE}")
    options = default_options(name, seen.backbone)
    return dataclasses.replace(options, mean=seen.mean, std=seen.std), other.backbone.state_dict()


def _options_of(tensors: Tensors, name: str, path: Path) -> tuple[ComposedOptions, Tensors]:
    found, skip = global_checkpoints.find_backbone(tensors, 0, path)
    if skip:
        raise MismatchError(f"{path}: {found} without its last {skip} parts, and {name} needs all; {_GIVE}")
    return default_options(name, found), tensors
