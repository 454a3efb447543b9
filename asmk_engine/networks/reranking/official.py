"""Checkpoints of CVNet's official code, of which the re-ranking network is read here.

    encoder_q.stem, encoder_q.s1…s4, encoder_q.head   the global network; its stages up to s3 give the local map
    conv2ds.{level}.weight                            convolutions of the pyramid
    cv_learner.block{b}.{3u}.conv1, .conv2            convolutions over query and key of unit u of block b
    cv_learner.block{b}.{3u+1}                        group normalisation
    cv_learner.mlp.0, .2                              classifier

The images are in BGR order there; the first convolution gets its channels in RGB order here, which computes the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asmk_engine.errors import FormatError
from asmk_engine.networks.backbones import load_tensors, plain_tensors
from asmk_engine.networks.composed.official_layouts import CVNET_GLOBAL, FIRST
from asmk_engine.networks.reranking.network import RerankNetwork, RerankOptions
from asmk_engine.networks.tensor_files import Tensors

_CURE = "give a checkpoint of CVNet's official code"
_MARK = "cv_learner."
_UNIT = re.compile(r"cv_learner\.block(?P<block>[1-9])\.(?P<place>\d{1,2})\.(?P<rest>.+)")
_PARTS = {"conv1": "convolution.query", "conv2": "convolution.key"}
_DEPTHS = {6: "resnet50", 23: "resnet101"}


def is_official_reranker(content: Any) -> bool:
    """Return whether the content of a torch file has the re-ranking network of CVNet's official code."""
    return any(str(key).startswith(_MARK) for key in _state(content))


def network_of_official_reranker(content: Any, path: Path) -> tuple[RerankNetwork, dict[str, Any]]:
    """Return the network in the content of an official checkpoint, in evaluation mode, and its origin as JSON values.

    Raises FormatError for an unknown backbone, and MismatchError, which names every tensor that is missing, surplus or
    of another shape.
    """
    read = plain_tensors(dict(_state(content)), path).items()
    tensors = {renamed(key): value for key, value in read if not key.startswith(("encoder_q.s4.", "encoder_q.head."))}
    if FIRST in tensors and tensors[FIRST].ndim == 4:
        tensors[FIRST] = tensors[FIRST].flip(1)
    network = RerankNetwork(_options(tensors, path))
    load_tensors(network, tensors, path, _CURE)
    return network.eval(), {"file": path.name, "format": "CVNet"}


def renamed(name: str) -> str:
    """Return the name of a tensor here; a name that is not understood stays as it is."""
    if name.startswith("conv2ds."):
        return name.replace("conv2ds.", "pyramid.levels.", 1)
    if name.startswith("cv_learner.mlp."):
        return name.replace("cv_learner.mlp.", "encoder.classifier.", 1)
    found = _UNIT.fullmatch(name)
    if found is None:
        return CVNET_GLOBAL(name)
    unit, kind = divmod(int(found["place"]), 3)
    layer, _, part = found["rest"].partition(".")
    inner = f"norm.{found['rest']}" if kind == 1 else f"{_PARTS.get(layer, layer)}.{part}" if kind == 0 else ""
    return f"encoder.blocks.{int(found['block']) - 1}.{unit}.{inner}" if inner else name


def _state(content: Any) -> Mapping[str, Any]:
    """Return names and tensors of a file, without a wrapper and the prefix of parallel training."""
    if not isinstance(content, dict):
        return {}
    state = content["model_state"] if isinstance(content.get("model_state"), dict) else content
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _options(tensors: Tensors, path: Path) -> RerankOptions:
    blocks = len({key.split(".")[2] for key in tensors if key.startswith("backbone.layer3.")})
    if blocks not in _DEPTHS:
        raise FormatError(f"{path}: its third stage has {blocks} blocks, expected 6 or 23; {_CURE}")
    levels = sum(key.startswith("pyramid.levels.") for key in tensors)
    first = tensors.get("pyramid.levels.0.weight")
    width = int(first.shape[0]) if first is not None and first.ndim == 4 else 256
    return RerankOptions(_DEPTHS[blocks], width, max(1, levels))
