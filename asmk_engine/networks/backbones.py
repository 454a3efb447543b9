"""Every backbone by its name, and its published weights by the files they come in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.networks import resnet_v2, squeezenet
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.resnet import DEPTHS, ResNet
from asmk_engine.networks.resnet_v2 import ResNetV2
from asmk_engine.networks.squeezenet import SqueezeNet
from asmk_engine.networks.tensor_files import SUFFIX, Tensors, read_safetensors
from asmk_engine.networks.vgg import Vgg16

CLASSIFIERS = {
    f"{layer}.{part}"
    for layer in ("fc", "classifier.0", "classifier.1", "classifier.3", "classifier.6")
    for part in ("weight", "bias")
}
"""What torchvision's networks have behind their backbones."""


@dataclass(frozen=True)
class BackboneKind:
    """A family of backbones.

    make        builds one from its name and `skip`
    most_skip   how many trailing parts can be dropped
    onnx        names of its published ONNX file: their prefix, and a function of `skip`; None where there is none
    """

    make: Callable[[str, int], Backbone]
    most_skip: int
    onnx: tuple[str, Callable[[int], dict[str, str]]] | None = None


BACKBONES: dict[str, BackboneKind] = {
    **{name: BackboneKind(ResNet, 3) for name in DEPTHS},
    "squeezenet1_1": BackboneKind(SqueezeNet, 10, ("squeezenet0_", squeezenet.onnx_names)),
    "vgg16": BackboneKind(Vgg16, 0),
    "resnet50v2": BackboneKind(ResNetV2, 3, ("resnetv24_", resnet_v2.onnx_names)),
}


def build_backbone(name: str, skip: int = 0) -> Backbone:
    """A backbone with random weights, without its last `skip` parts; InputError names what there is."""
    if name not in BACKBONES:
        raise InputError(f"there is no backbone {name!r}; there are: {', '.join(BACKBONES)}")
    if not 0 <= skip <= BACKBONES[name].most_skip:
        raise InputError(f"skip is {skip}; {name} can lose 0 to {BACKBONES[name].most_skip} of its last parts")
    return BACKBONES[name].make(name, skip)


def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor], where: object, cure: str = "") -> None:
    """Give a module these tensors, all of them and no others.

    MismatchError names every missing, surplus and misshapen tensor; InputError a value that is not finite. The counters
    of batches that batch normalisation keeps are not asked for.
    """
    wanted = {key: value for key, value in module.state_dict().items() if not _is_counter(key)}
    given = {key: value for key, value in tensors.items() if not _is_counter(key)}
    faults = [f"missing {key}" for key in wanted.keys() - given.keys()]
    faults += [f"surplus {key}" for key in given.keys() - wanted.keys()]
    for key in wanted.keys() & given.keys():
        if wanted[key].shape != given[key].shape:
            faults.append(f"{key} is {list(given[key].shape)}, expected {list(wanted[key].shape)}")
    if faults:
        cure = cure or "give the weights of this network"
        raise MismatchError(f"{where}: {len(faults)} tensors do not fit: {'; '.join(sorted(faults))}; {cure}")
    for key, value in given.items():
        if not torch.isfinite(value.float()).all():
            raise InputError(f"{where}: {key} holds a NaN or infinity; get the file again")
    module.load_state_dict(given, strict=False)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def load_backbone(path: Path | str, name: str, skip: int = 0) -> Backbone:
    """The backbone `name` with the ImageNet weights in a file; what `read_tensors` raises, and MismatchError.

    Layers that the backbone does not use, the classifier and the stages cut off, may stand in the file.
    """
    backbone = build_backbone(name, skip)
    used = backbone_tensors(read_tensors(path), name, skip)
    load_tensors(backbone, used, path, f"give ImageNet weights of {name}")
    return backbone.eval()


def backbone_tensors(tensors: Tensors, name: str, skip: int) -> Tensors:
    """Those of the tensors that the backbone uses, under its own names; what it does not use is left out."""
    onnx = BACKBONES[name].onnx
    if onnx is not None and any(key.startswith(onnx[0]) for key in tensors):
        names = onnx[1](skip)
        return {ours: tensors[onnx[0] + theirs] for ours, theirs in names.items() if onnx[0] + theirs in tensors}
    whole = build_backbone(name).state_dict().keys() | CLASSIFIERS
    wanted = build_backbone(name, skip).state_dict().keys()
    return {key: value for key, value in tensors.items() if key in wanted or key not in whole}


def read_tensors(path: Path | str) -> Tensors:
    """The tensors in a file of weights, as float32 where they are of another float type.

    .npz files hold plain arrays; .safetensors too; everything else is read by torch, with `weights_only=True`: a state
    dict, or one under the key `state_dict`. NotFoundError, FormatError or DamagedError name what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file of weights; `asmk-engine weights list` says where to get them")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == SUFFIX:
        return read_safetensors(path)[0]
    return plain_tensors(read_torch(path), path)


def read_torch(path: Path) -> Any:
    """What a file of torch holds, read with `weights_only=True`; FormatError for what is no such file or runs code."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch doubts other pickle protocols, and reads them
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an altered file makes torch fail in any way: IndexError, AssertionError, struct.error
        raise _not_weights(path, error) from None


def _not_weights(path: Path, error: Exception) -> FormatError:
    said = " ".join(str(error).split())[:120]
    return FormatError(f"{path}: not weights that can be read safely ({said}); expected .pth, .safetensors or .npz")


def plain_tensors(content: Any, path: Path) -> Tensors:
    """The state dict in what `read_torch` returned; FormatError when there is none."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise FormatError(f"{path}: holds no state dict; expected names and tensors, or those under `state_dict`")
    return {str(key): value.float() if value.is_floating_point() else value for key, value in state.items()}


def _read_npz(path: Path) -> Tensors:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except Exception as error:  # an altered file makes zipfile and numpy fail in any way: zlib.error, MemoryError
        said = " ".join(str(error).split())[:120]
        raise DamagedError(f"{path}: not a sound .npz file ({said}); get it again") from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise FormatError(f"{path}: its {key[:80]!r} is no array of numbers; expected weights alone")
    with np.errstate(over="ignore"):  # what becomes infinite is refused where it is used
        return {key: torch.from_numpy(np.array(array, np.float32)) for key, array in arrays.items()}
