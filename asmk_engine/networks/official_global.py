"""Checkpoints of the GeM family, as the code cnnimageretrieval-pytorch by Radenović, Tolias and Chum writes them.

    meta        architecture, pooling, regional, local_whitening, whitening, mean, std, outputdim; often `Lw`:
                whitenings that were learned apart, {training set: {`ss` or `ms`: {m, P}}}, for one scale and for many
    state_dict  features.{i}…, pool.p or pool.rpool.p, pool.whiten.*, lwhiten.*, whiten.*

Nothing in the file is run: torch reads it with `weights_only=True`; arrays of numpy are put together here from their
bytes, and what else a training noted is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asmk_engine.errors import FormatError, InputError, NotFoundError
from asmk_engine.networks.backbones import load_tensors, plain_tensors, read_torch
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions, with_projection
from asmk_engine.networks.official import STAND_INS, backbone_name
from asmk_engine.networks.resnet import DEPTHS

_CURE = "give a checkpoint of cnnimageretrieval-pytorch, such as `asmk-engine weights list` names under GeM"
_POOLINGS = {"gem": "one", "gemmp": "channels", "mac": "one", "spoc": "one", "rmac": "one"}
"""What the code calls a pooling, and how many exponents it has."""
_IN_ORDER = ("vgg16", "squeezenet1_1")  # whose layers stand in one row under `features`, here as there
_ARCHITECTURES = (*DEPTHS, *_IN_ORDER)
_LAYERS = {"lwhiten": "local_whitening", "pool.whiten": "regional_whitening", "whiten": "whitening"}
_MOST = 1 << 27  # bytes of an array: 4096 × 4096 doubles


class _Type:
    """Stands for numpy's dtype: the code of a type of number."""

    def __init__(self, code: object = "", *rest: object) -> None:
        self.code, self.state = str(code), ("", "<")

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array:
    """Stands for numpy's array: its shape, type and bytes, of which `values` makes a real one."""

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> np.ndarray:
        """The array, float64; ValueError, TypeError or the like for what is none of float32 or float64."""
        _, shape, kind, by_columns, data = self.state
        dtype = np.dtype({"f4": "f4", "f8": "f8"}[kind.code]).newbyteorder(kind.state[1])
        if not isinstance(data, bytes) or len(data) > _MOST:
            raise ValueError("its bytes are not plain, or too many")
        found = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
        return found.astype(np.float64)


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    """Stands for `codecs.encode`, by which old pickles write bytes as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes that are not written as latin1")
    return text.encode("latin1")


_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
_STAND_INS: dict[str, Any] = {
    **{name: stand_in for stand_in, name in STAND_INS},
    **{f"{core}._reconstruct": _Array for core in _CORES},
    **{"numpy.ndarray": _Array, "numpy.dtype": _Type, "_codecs.encode": _encoded},
}


def read_content(path: Path) -> Any:
    """What a file of torch holds, arrays of numpy as stand-ins; NotFoundError or FormatError, see `read_torch`."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file of weights; `asmk-engine weights list` says where to get them")
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
        return read_torch(path)


def is_official_global(content: Any) -> bool:
    """Whether this is what a checkpoint of the GeM family holds."""
    meta = content.get("meta") if isinstance(content, dict) else None
    return isinstance(meta, dict) and "pooling" in meta and isinstance(content.get("state_dict"), dict)


def read_official_global(path: Path | str, projection: str = "") -> tuple[GlobalNetwork, dict[str, Any]]:
    """The network in a checkpoint of the GeM family, in evaluation mode, and where it came from, as JSON values.

    projection  the whitening learned apart to put behind it, as `training set/ms`; see `projections`
    Raises NotFoundError, FormatError for another kind of file, InputError for a network or a projection that is not
    known, and MismatchError that names every tensor that does not fit.
    """
    path = Path(path)
    content = read_content(path)
    if not is_official_global(content):
        raise FormatError(f"{path}: no checkpoint of the GeM family: it has no meta with a pooling; {_CURE}")
    network = network_of_official(content, path)
    known = projections(content)
    if projection and projection not in known:
        there = ", ".join(sorted(known)) or "none"
        raise InputError(f"{path}: has no whitening {projection!r} learned apart; there are: {there}")
    if projection:
        network = _projected(network, known[projection], path)
    return network.eval(), {"file": path.name, "format": "cnnimageretrieval-pytorch", "projection": projection}


def projections(content: Mapping[str, Any]) -> dict[str, Any]:
    """The whitenings learned apart in a checkpoint, by `training set/ss` (one scale) or `training set/ms` (many)."""
    learned = content["meta"].get("Lw")
    sets = learned.items() if isinstance(learned, dict) else ()
    kinds = ((name, each) for name, each in sets if isinstance(each, dict))
    return {f"{name}/{scales}": found for name, each in kinds for scales, found in each.items()}


def network_of_official(content: Mapping[str, Any], path: Path) -> GlobalNetwork:
    """The network that such a checkpoint holds; `path` is named in errors, see `read_official_global`."""
    network = GlobalNetwork(_options(content, path))
    tensors = {_our_name(name, network): tensor for name, tensor in plain_tensors(content, path).items()}
    if "exponent" in tensors:
        tensors["exponent"] = tensors["exponent"].flatten()
    load_tensors(network, tensors, path, _CURE)
    if network.exponent is not None and not (network.exponent > 0).all():
        raise InputError(f"{path}: an exponent of GeM is not above 0; {_CURE}")
    return network.eval()


def _options(content: Mapping[str, Any], path: Path) -> GlobalOptions:
    meta, state = content["meta"], content["state_dict"]
    architecture, pooling = str(meta.get("architecture"))[:40], str(meta["pooling"])[:40]
    if architecture not in _ARCHITECTURES:
        raise InputError(f"{path}: a network upon {architecture!r}; known are {', '.join(_ARCHITECTURES)}; {_CURE}")
    if pooling not in _POOLINGS:
        raise InputError(f"{path}: its pooling is {pooling!r}; known are {', '.join(_POOLINGS)}; {_CURE}")
    regional = "none" if not meta.get("regional") else "whitened" if "pool.whiten.weight" in state else "sum"
    weight = state.get("whiten.weight") if meta.get("whitening") else None
    try:
        red, green, blue = (float(value) for value in meta["mean"])
        deviations = tuple(float(value) for value in meta["std"])
        return GlobalOptions(
            architecture,
            pooling="gem" if pooling == "gemmp" else pooling,
            exponents=_POOLINGS[pooling],
            local_whitening=bool(meta.get("local_whitening")),
            regional=regional,
            whitening=0 if weight is None else int(weight.shape[0]),
            mean=(red, green, blue),
            std=(deviations[0], deviations[1], deviations[2]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FormatError(f"{path}: what its meta says of the network is not understood ({error}); {_CURE}") from None


def _our_name(name: str, network: GlobalNetwork) -> str:
    """The name of a tensor here; a name that is not understood stays as it is."""
    if name in ("pool.p", "pool.rpool.p"):
        return "exponent"
    layer, _, part = name.rpartition(".")
    if layer in _LAYERS:
        return f"{_LAYERS[layer]}.{part}"
    if network.options.backbone in _IN_ORDER:
        return f"backbone.{name}" if name.startswith("features.") else name
    return backbone_name(name)


def _projected(network: GlobalNetwork, learned: Any, path: Path) -> GlobalNetwork:
    """The network with the projection P (x - m) of a whitening learned apart behind it."""
    try:
        mean, matrix = (torch.from_numpy(_values(learned[key])) for key in ("m", "P"))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: a whitening learned apart is not understood ({error}); {_CURE}") from None
    return with_projection(network, mean.flatten(), matrix, path)


def _values(found: object) -> np.ndarray:
    """An array of the file, float64; ValueError, TypeError or the like for what is none."""
    if isinstance(found, torch.Tensor):
        return found.double().numpy()
    if not isinstance(found, _Array):
        raise TypeError(f"a {type(found).__name__} instead of an array")
    return found.values()
