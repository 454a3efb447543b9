"""Files of re-ranking networks: asmk-engine's own, official checkpoints, and backbones completed by random layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.networks import checkpoints
from asmk_engine.networks.backbones import backbone_tensors, build_backbone, load_tensors
from asmk_engine.networks.composed.checkpoints import composed_of
from asmk_engine.networks.global_checkpoints import find_backbone, network_or_tensors, torch_content
from asmk_engine.networks.reranking.network import SKIPS, RerankNetwork, RerankOptions, seeded_rerank_network
from asmk_engine.networks.reranking.official import is_official_reranker, network_of_official_reranker
from asmk_engine.networks.tensor_files import Tensors, kind_of_network

KIND = "asmk-engine re-ranking network"
_GIVE = "give a re-ranking network, a checkpoint of CVNet, or a global network or ImageNet weights to begin with"


def save_rerank_checkpoint(path: Path | str, network: RerankNetwork, origin: dict[str, Any]) -> str:
    """Write a network atomically, replacing an existing file; return the sha256 of the file.

    origin  where the weights came from, as JSON values, for people
    """
    return checkpoints.write_network(path, KIND, network, network.options.to_json(), origin)


def open_rerank_checkpoint(path: Path | str) -> tuple[RerankNetwork, dict[str, Any]]:
    """Return the network of an asmk-engine file, in evaluation mode, and the origin of its weights.

    Raises NotFoundError, FormatError for another kind of file, DamagedError if it was altered, and MismatchError if
    its tensors do not fit its options.
    """
    foreign = "not a re-ranking network of asmk-engine; make one with `asmk-engine train-rerank`"
    return checkpoints.open_network(
        Path(path), KIND, foreign, lambda text, where: RerankNetwork(RerankOptions.from_json(text, where))
    )


def open_rerank_network(
    path: Path | str, untrained_seed: int | None = None, **options: Any
) -> tuple[RerankNetwork, dict[str, Any]]:
    """Return a network from any supported file, in evaluation mode, and the origin of its weights.

    A complete file is an asmk-engine re-ranking network or an official checkpoint of CVNet. Of any other, which holds a
    global network or backbone weights, the backbone is used, and all other layers are drawn at random.

    untrained_seed  the seed of the random layers; None refuses a file that is not complete
    options         `width` and `levels` of a network that is not complete

    Raises InputError for an incomplete file without a seed, and for a complete one with a seed or options that it was
    not made with; and what the readers of these files raise.
    """
    path = Path(path)
    content = torch_content(path)
    if (found := _complete_network(path, content)) is not None:
        return _checked(found[0], untrained_seed, options, path), found[1]
    if untrained_seed is None:
        raise InputError(
            f"{path}: has no layers for re-ranking, and random ones would rank at random; train them with "
            "`asmk-engine train-rerank`, or give a seed for an experiment"
        )
    return _completed(path, content, untrained_seed, options)


def start_rerank_network(path: Path | str, seed: int, **options: Any) -> tuple[RerankNetwork, dict[str, Any]]:
    """Return a network to train, and the origin of its weights: that of a complete file, or one completed at random.

    seed, options  of a network that is not complete; a complete one must have been made with the same options

    Raises what `open_rerank_network` raises.
    """
    path = Path(path)
    content = torch_content(path)
    if (found := _complete_network(path, content)) is not None:
        return _checked(found[0], None, options, path), found[1]
    return _completed(path, content, seed, options)


def _complete_network(path: Path, content: Any) -> tuple[RerankNetwork, dict[str, Any]] | None:
    if kind_of_network(path) == KIND:
        return open_rerank_checkpoint(path)
    return network_of_official_reranker(content, path) if is_official_reranker(content) else None


def _completed(path: Path, content: Any, seed: int, options: dict[str, Any]) -> tuple[RerankNetwork, dict[str, Any]]:
    """Return a network on the backbone in a file, whose other layers are drawn at random."""
    name, tensors, pixels = _backbone_of(path, content)
    made = RerankOptions(name, **options, **pixels, untrained_seed=seed)
    backbone = build_backbone(made.backbone, made.skip)
    load_tensors(backbone, backbone_tensors(tensors, made.backbone, made.skip), path, _GIVE)
    return seeded_rerank_network(made, backbone).eval(), {"file": path.name, "untrained_seed": seed}


def _checked(network: RerankNetwork, seed: int | None, options: dict[str, Any], path: Path) -> RerankNetwork:
    found = dataclasses.asdict(network.options)
    given = {**options, "untrained_seed": seed} if seed is not None else options
    others = [f"{key} {value}" for key, value in given.items() if found[key] != value]
    if others:
        raise InputError(f"{path}: a complete network was not made with {', '.join(others)}; leave these out")
    return network


def _backbone_of(path: Path, content: Any) -> tuple[str, Tensors, dict[str, Any]]:
    """Return name and tensors of the backbone in a file, and the normalisation of its pixels where it is known."""
    found = composed_of(path, content) or network_or_tensors(path, content)
    if not isinstance(found, dict):
        return _like(found)
    name, _ = find_backbone(found, 0, path)
    return name, found, {}


def _like(network: Any) -> tuple[str, Tensors, dict[str, Any]]:
    """Return what `_backbone_of` does, of a network of another kind."""
    seen = network.options
    if seen.skip > SKIPS.get(seen.backbone, 0):
        raise InputError(f"a backbone without its last {seen.skip} parts has no map of stride 16; {_GIVE}")
    return seen.backbone, network.backbone.state_dict(), {"mean": seen.mean, "std": seen.std}
