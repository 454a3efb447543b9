"""The backbones by name, and the loading of their published weights from files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.networks import resnet_v2, squeezenet
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.backbone_names import MOST_SKIP
from asmk_engine.networks.checkpoint_files import check_finite, check_tensors
from asmk_engine.networks.efficientnet_lite import EfficientNetLite
from asmk_engine.networks.efficientnet_lite_plan import SCALING
from asmk_engine.networks.resnet import DEPTHS, ResNet
from asmk_engine.networks.resnet_v2 import ResNetV2
from asmk_engine.networks.squeezenet import SqueezeNet
from asmk_engine.networks.tensor_files import SUFFIX, Tensors, read_safetensors
from asmk_engine.networks.vgg import Vgg16

CLASSIFIERS = {
    f"{layer}.{part}"
    for layer in ("fc", "classifier.0", "classifier.1", "classifier.3", "classifier.6")
    for part in ("weight", "bias")
} | {"_fc.weight", "_fc.bias"}
"""The tensors that the published networks have after their backbones."""


@dataclass(frozen=True)
class BackboneKind:
    """A family of backbones.

    make  builds a backbone from its name and `skip`
    onnx  tensor names of its published ONNX file: their prefix, and a function of `skip`; None without such a file
    """

    make: Callable[[str, int], Backbone]
    onnx: tuple[str, Callable[[int], dict[str, str]]] | None = None


BACKBONES: dict[str, BackboneKind] = {
    **{name: BackboneKind(ResNet) for name in DEPTHS},
    "squeezenet1_1": BackboneKind(SqueezeNet, ("squeezenet0_", squeezenet.onnx_names)),
    "vgg16": BackboneKind(Vgg16),
    "resnet50v2": BackboneKind(ResNetV2, ("resnetv24_", resnet_v2.onnx_names)),
    **{name: BackboneKind(EfficientNetLite) for name in SCALING},
}


def build_backbone(name: str, skip: int = 0) -> Backbone:
    """Build a backbone with random weights, without its last `skip` parts.

    Raises InputError, which lists the choices, for an unknown name or a `skip` out of range.
    """
    if name not in BACKBONES:
        raise InputError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    if not 0 <= skip <= MOST_SKIP[name]:
        raise InputError(f"skip is {skip}; expected 0 to {MOST_SKIP[name]} for {name}")
    return BACKBONES[name].make(name, skip)


def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor], where: object, cure: str = "") -> None:
    """Load tensors into a module, which must have exactly these.

    Raises MismatchError, which names every missing, surplus and misshapen tensor, and InputError for a value that is
    not finite. The batch counters of batch normalisation are ignored.
    """
    wanted = {key: value for key, value in module.state_dict().items() if not _is_counter(key)}
    given = {key: value for key, value in tensors.items() if not _is_counter(key)}
    needed, found = ({key: tuple(value.shape) for key, value in one.items()} for one in (wanted, given))
    check_tensors(needed, found, where, cure or "give the weights of this network")
    check_finite({key: value.float().numpy() for key, value in given.items()}, where)
    module.load_state_dict(given, strict=False)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def load_backbone(path: Path | str, name: str, skip: int = 0) -> Backbone:
    """Return the backbone `name` with the ImageNet weights of a file.

    The file may also hold layers that the backbone does not use: the classifier and the dropped stages.
    Raises what `read_tensors` raises, and MismatchError if the tensors do not fit.
    """
    backbone = build_backbone(name, skip)
    used = backbone_tensors(read_tensors(path), name, skip)
    load_tensors(backbone, used, path, f"give ImageNet weights of {name}")
    return backbone.eval()


def backbone_tensors(tensors: Tensors, name: str, skip: int) -> Tensors:
    """Return the tensors that the backbone uses, under its own names, without those it does not use."""
    onnx = BACKBONES[name].onnx
    if onnx is not None and any(key.startswith(onnx[0]) for key in tensors):
        names = onnx[1](skip)
        return {ours: tensors[onnx[0] + theirs] for ours, theirs in names.items() if onnx[0] + theirs in tensors}
    whole = build_backbone(name).state_dict().keys() | CLASSIFIERS
    wanted = build_backbone(name, skip).state_dict().keys()
    return {key: value for key, value in tensors.items() if key in wanted or key not in whole}


def read_tensors(path: Path | str) -> Tensors:
    """Read the tensors of a weight file; other float types become float32.

    .npz and .safetensors files hold plain arrays; everything else is read by torch with `weights_only=True`: a state
    dict, or one under the key `state_dict`. Raises NotFoundError, FormatError or DamagedError.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such weight file; `asmk-engine weights list` shows where to get one")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == SUFFIX:
        return read_safetensors(path)[0]
    return plain_tensors(read_torch(path), path)


def read_torch(path: Path) -> Any:
    """Return the content of a torch file, read with `weights_only=True`.

    Raises FormatError for other files and for files that would run code.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about other pickle protocols, but reads them
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an altered file makes torch fail in any way: IndexError, AssertionError, struct.error
        raise _not_weights(path, error) from None


def _not_weights(path: Path, error: Exception) -> FormatError:
    said = " ".join(str(error).split())[:120]
    return FormatError(f"{path}: not weights that can be read safely ({said}); expected .pth, .safetensors or .npz")


def plain_tensors(content: Any, path: Path) -> Tensors:
    """Return the state dict in the result of `read_torch`; raises FormatError if there is none."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_plain, state.values())):
        raise FormatError(f"{path}: contains no state dict; expected names and tensors, or those under `state_dict`")
    return {str(key): value.float() if value.is_floating_point() else value for key, value in state.items()}


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided


def _read_npz(path: Path) -> Tensors:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except Exception as error:  # an altered file makes zipfile and numpy fail in any way: zlib.error, MemoryError
        said = " ".join(str(error).split())[:120]
        raise DamagedError(f"{path}: damaged .npz file ({said}); get it again") from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise FormatError(f"{path}: {key[:80]!r} is not a numeric array; expected only weights")
    with np.errstate(over="ignore"):  # values that become infinite are refused where they are used
        return {key: torch.from_numpy(np.array(array, np.float32)) for key, array in arrays.items()}
