"""Checkpoints of the official codes of SOLAR, GeM-AP, DOLG, CVNet and Token.

    SOLAR   meta and state_dict, as the GeM family: features.conv1…conv5_x, features.soa4, features.soa5, pool.p, whiten
    DIR     (GeM-AP) model_options, state_dict: conv1, layer1…layer4, adpool.p, fc; pca: learned whitenings
    DOLG    globalmodel, localmodel, pool_g, fc_t, fc, perhaps under model_state; the classifier desc_cls is left out
    CVNet   encoder_q, perhaps under model_state; the re-ranking network, conv2ds and cv_learner, is left out
    Token   backbone.block1…block5, tr; the classifier is left out

DOLG and CVNet were trained on images in BGR order. Their first convolution gets its channels in RGB order here, which
computes the same. No code in a file is run; see `official_global`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asmk_engine.errors import FormatError, InputError
from asmk_engine.networks.backbones import load_tensors, plain_tensors
from asmk_engine.networks.composed.network import ComposedNetwork, ComposedOptions, default_options
from asmk_engine.networks.composed.official_layouts import FIRST, LAYOUTS, Layout
from asmk_engine.networks.composed.official_pca import pca_projection
from asmk_engine.networks.official_global import read_content
from asmk_engine.networks.tensor_files import Tensors

_CURE = "give an official checkpoint, such as `asmk-engine weights list` names"
_COUNTER = "num_batches_tracked"
_DEPTHS = {(2, False): "resnet18", (6, False): "resnet34", (6, True): "resnet50", (23, True): "resnet101",
           (36, True): "resnet152"}  # fmt: skip
"""The backbones by the number of blocks of the third stage, and whether these have a third convolution."""


def layout_of(content: Any) -> Layout | None:
    """Return the layout of the content of a torch file; None if it is no checkpoint of a composed network."""
    names = _state(content).keys()
    return next((layout for layout in LAYOUTS if any(name.startswith(layout.mark) for name in names)), None)


def refuse_saved_model(path: Path) -> None:
    """Raise FormatError, which says what to do instead, for a model of TensorFlow, such as those of DELG."""
    if (path / "saved_model.pb").is_file() or path.name.endswith((".tar.gz", ".tgz", ".pb")):
        raise FormatError(
            f"{path}: a TensorFlow SavedModel; only TensorFlow opens it, and its ResNet has strides in other places, "
            "so that its weights fit no network here; describe the photographs with TensorFlow and give the vectors as "
            "arrays, or train delg here with `asmk-engine train-global`"
        )


def read_official_composed(path: Path | str, projection: str = "") -> tuple[ComposedNetwork, dict[str, Any]]:
    """Return the network of an official checkpoint, in evaluation mode, and its origin as JSON values.

    projection  of DIR: the learned whitening to append, `NAME` or `NAME/POWER`, `none` for none. By default
                Landmarks_clean, or the only one, with a power of 0.25, as its code does

    Raises NotFoundError, FormatError for another kind of file, InputError for an unknown network or projection, and
    MismatchError, which names every tensor that is missing, surplus or of another shape.
    """
    path = Path(path)
    refuse_saved_model(path)
    content = read_content(path)
    if layout_of(content) is None:
        raise FormatError(f"{path}: not a checkpoint of SOLAR, DIR, DOLG, CVNet or Token; {_CURE}")
    return network_of_layout(content, path, projection)


def network_of_layout(content: Any, path: Path, projection: str = "") -> tuple[ComposedNetwork, dict[str, Any]]:
    """Return what `read_official_composed` does, of the content of a file that has a layout; raises the same."""
    layout = layout_of(content)
    if layout is None:
        raise FormatError(f"{path}: not a checkpoint of a composed network; {_CURE}")
    _check_description(content, path)
    tensors = _renamed(_state(content), layout, path)
    network = ComposedNetwork(_options(layout, tensors, content, path))
    load_tensors(network, tensors, path, _CURE)
    if not network.exponents_are_positive:
        raise InputError(f"{path}: a GeM exponent is not greater than 0; {_CURE}")
    origin = {"file": path.name, "format": layout.code}
    learned = content.get("pca") if layout.code == "dirtorch" else None
    if projection not in ("", "none") and learned is None:
        raise InputError(f"{path}: has no learned whitening {projection!r}; leave it out")
    if learned is None or projection == "none":
        return network.eval(), origin
    name, mean, matrix = pca_projection(learned, projection, network.dim, path)
    return _projected(network, mean, matrix), {**origin, "projection": name}


def _state(content: Any) -> Mapping[str, Any]:
    """Return names and tensors of a file, without a wrapper and the prefix of parallel training."""
    if not isinstance(content, dict):
        return {}
    state = next((content[key] for key in ("state_dict", "model_state") if isinstance(content.get(key), dict)), content)
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _check_description(content: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for a network of SOLAR or DIR with another pooling, or with layers that are not known here."""
    for key in ("meta", "model_options"):
        described = content.get(key)
        if not isinstance(described, dict):
            continue
        pooling = str(described.get("pooling", "gem"))[:40]
        others = [name for name in ("local_whitening", "regional", "norm_features") if described.get(name)]
        if pooling != "gem" or others:
            found = f"its pooling is {pooling!r}" if pooling != "gem" else f"it has {', '.join(others)}"
            raise InputError(f"{path}: {found}; known here is only gem, without local or regional layers; {_CURE}")


def _renamed(state: Mapping[str, Any], layout: Layout, path: Path) -> Tensors:
    """Return the tensors that the network needs, under the names here; what is not understood keeps its name."""
    kept = {key: value for key, value in state.items() if not key.startswith(layout.left_out)}
    tensors = {layout.rename(key): value for key, value in plain_tensors(kept, path).items()}
    if layout.is_bgr and tensors.get(FIRST, torch.zeros(0)).ndim == 4:
        tensors[FIRST] = tensors[FIRST].flip(1)
    for key, value in tensors.items():
        if key.endswith("exponent"):
            tensors[key] = value.flatten()
    return tensors


def _options(layout: Layout, tensors: Tensors, content: Mapping[str, Any], path: Path) -> ComposedOptions:
    third = [key.split(".") for key in tensors if key.startswith("backbone.layer3.")]
    blocks = len({parts[2] for parts in third}), any(parts[3] == "conv3" for parts in third)
    if blocks not in _DEPTHS:
        raise FormatError(f"{path}: its third stage has {blocks[0]} blocks, as no known ResNet has; {_CURE}")
    seen: list[Any] = [content[key] for key in ("meta", "preprocess") if isinstance(content.get(key), dict)]
    try:
        pixels: dict[str, Any] = {key: _rgb(one[key]) for one in seen for key in ("mean", "std") if key in one}
        options = default_options(layout.network, _DEPTHS[blocks], **layout.switches(tensors))
        return dataclasses.replace(options, **pixels)
    except InputError as error:
        raise InputError(f"{path}: {error}; {_CURE}") from None
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: its mean and std cannot be read ({error}); {_CURE}") from None


def _rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _projected(network: ComposedNetwork, mean: torch.Tensor, matrix: torch.Tensor) -> ComposedNetwork:
    """Return the network with the projection P (x - m), for mean m [D] and matrix P [d, D], float64."""
    found = ComposedNetwork(dataclasses.replace(network.options, projection=len(matrix)), network.backbone)
    layer = {"projection.weight": matrix.float(), "projection.bias": (-matrix @ mean).float()}
    found.load_state_dict({**network.state_dict(), **layer})
    return found.eval()
