"""Checkpoints of the official HOW code (github.com/gtolias/how), in both of its formats.

Since 2020 (`_version` is `how/2020`) the parts of the network are under `net_params`; before, they were under `meta`,
and the reduction was called `whiten`. In both, `features.{i}` are the children of torchvision's ResNet in their order.
No code in the file is run: torch reads it with `weights_only=True`, and numpy numbers and dictionaries among the
scores of a training are skipped, since they are not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asmk_engine.errors import FormatError, InputError
from asmk_engine.networks.backbones import load_tensors, plain_tensors, read_torch
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.resnet import DEPTHS
from asmk_engine.storage.user_files import file_sha256

VERSION = "how/2020"
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_OTHERS = {"dim_reduction": "reduction", "whiten": "reduction"}
_CURE = "give how_r18.pth, how_r50-.pth, or what the training of HOW wrote"


class _Skipped:
    """A stand-in for objects that a training stored next to its weights; it discards its arguments."""

    def __init__(self, *arguments: object) -> None:
        return None

    def __setstate__(self, state: object) -> None:
        return None


def _empty_dict(*arguments: object) -> dict[Any, Any]:
    """A stand-in for the constructor of defaultdict; unpickling adds the items afterwards."""
    return {}


_SKIPPED_NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "_codecs.encode"),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float")),
)
STAND_INS: list[Any] = [*((_Skipped, name) for name in _SKIPPED_NAMES), (_empty_dict, "collections.defaultdict")]


def read_official(path: Path | str) -> tuple[LocalNetwork, dict[str, Any]]:
    """Return the network of an official checkpoint, in evaluation mode, and its origin as JSON values.

    The origin has the name, sha256 and format of the file, and under `runtime` the sizes, scales and number of features
    that the checkpoint is meant to be used with. Source: how/stages/evaluate.py, `_convert_checkpoint`, for both
    formats.

    Raises NotFoundError, FormatError for another kind of file, InputError for an unknown network, and MismatchError,
    which names every tensor that is missing, surplus or of another shape.
    """
    path = Path(path)
    digest = file_sha256(path)
    with torch.serialization.safe_globals(STAND_INS):
        content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise FormatError(f"{path}: not a checkpoint of HOW: it has no state_dict; {_CURE}")
    version = content.get("_version")
    if version not in (None, VERSION):
        raise FormatError(f"{path}: its format is {str(version)[:40]!r}, expected {VERSION!r}; {_CURE}")
    parts = _parts(content, path) if version == VERSION else _old_parts(content, path)
    runtime, network = _plain(parts["runtime"], path), _network(parts, path)
    tensors = {_our_name(name): tensor for name, tensor in plain_tensors(content, path).items()}
    load_tensors(network, tensors, path, _CURE)
    origin = {"file": path.name, "sha256": digest, "format": version or "how, before 2020"}
    return network.eval(), {**origin, "runtime": runtime}


def _parts(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the network's arguments from the format of 2020."""
    parts = content.get("net_params")
    if not isinstance(parts, dict) or not isinstance(parts.get("runtime"), dict):
        raise FormatError(f"{path}: has no net_params with a runtime; {_CURE}")
    return parts


def _old_parts(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the same arguments from the `meta` of the older format, which omits what never changed."""
    meta = content.get("meta")
    wanted = ("architecture", "skip_layer", "dim", "feat_pool_k", "mean", "std")
    missing = [key for key in wanted if not isinstance(meta, dict) or key not in meta]
    if not isinstance(meta, dict) or missing:
        raise FormatError(f"{path}: its meta lacks {', '.join(missing)}; {_CURE}")
    scales = [2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25]
    runtime = {"mean_std": [meta["mean"], meta["std"]], "image_size": 1024, "features_num": 1000, "scales": scales}
    return {
        "architecture": meta["architecture"],
        "skip_layer": meta["skip_layer"],
        "dim_reduction": {"dim": meta["dim"]},
        "smoothing": {"kernel_size": meta["feat_pool_k"]},
        "runtime": {**runtime, "training_scales": [1]},
    }


def _network(parts: Mapping[str, Any], path: Path) -> LocalNetwork:
    backbone = str(parts.get("architecture"))
    if backbone not in DEPTHS:
        raise InputError(f"{path}: its backbone is {backbone[:40]!r}; known are {', '.join(DEPTHS)}; {_CURE}")
    try:
        return LocalNetwork(_options(backbone, parts))
    except InputError as error:
        raise InputError(f"{path}: {error}; {_CURE}") from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: its description of the network cannot be read ({error}); {_CURE}") from None


def _options(backbone: str, parts: Mapping[str, Any]) -> LocalOptions:
    reduction, smoothing = parts.get("dim_reduction"), parts.get("smoothing")
    mean, std = parts["runtime"]["mean_std"]
    return LocalOptions(
        backbone,
        int(parts["skip_layer"]),
        smoothing=int(smoothing["kernel_size"]) if smoothing else 1,
        reduction="network" if reduction else "none",
        dim=int(reduction["dim"]) if reduction else 128,
        mean=_rgb(mean),
        std=_rgb(std),
    )


def _rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _our_name(name: str) -> str:
    """Return the name of a tensor in `LocalNetwork`; unknown names stay as they are."""
    first, _, rest = name.partition(".")
    return f"{_OTHERS[first]}.{rest}" if first in _OTHERS else backbone_name(name)


def backbone_name(name: str) -> str:
    """Return `features.4.0.conv1.weight` as `backbone.layer1.0.conv1.weight`; unknown names stay as they are."""
    first, _, rest = name.partition(".")
    child, _, last = rest.partition(".")
    return f"backbone.{_CHILDREN[child]}.{last}" if first == "features" and child in _CHILDREN else name


def _plain(runtime: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the runtime options that are numbers or lists of numbers."""
    kept = {}
    for key in ("image_size", "features_num", "scales", "training_scales"):
        value = runtime.get(key)
        numbers = value if isinstance(value, list | tuple) else [value]
        if value is None or not all(type(number) in (int, float) for number in numbers):
            raise FormatError(f"{path}: its runtime has no {key} of plain numbers; {_CURE}")
        kept[key] = list(numbers) if isinstance(value, list | tuple) else value
    return kept
