"""Checkpoints of the GeM family, in the format of cnnimageretrieval-pytorch by Radenović, Tolias and Chum.

    meta        architecture, pooling, regional, local_whitening, whitening, mean, std, outputdim; often `Lw`:
                separately learned whitenings, {training set: {`ss` or `ms`: {m, P}}}, for one scale and for many
    state_dict  features.{i}…, pool.p or pool.rpool.p, pool.whiten.*, lwhiten.*, whiten.*

No code in the file is run: torch reads it with `weights_only=True`; numpy arrays are built here from their bytes, and
other objects that a training stored are skipped.
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
"""The poolings by the names of that code, with their value of `GlobalOptions.exponents`."""
_IN_ORDER = ("vgg16", "squeezenet1_1")  # all their layers are numbered under `features`, here and in that code
_ARCHITECTURES = (*DEPTHS, *_IN_ORDER)
_LAYERS = {"lwhiten": "local_whitening", "pool.whiten": "regional_whitening", "whiten": "whitening"}
_MOST = 1 << 27  # bytes of an array: 4096 × 4096 doubles


class _Type:
    """A stand-in for numpy.dtype: the code of a number type."""

    def __init__(self, code: object = "", *rest: object) -> None:
        self.code, self.state = str(code), ("", "<")

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array:
    """A stand-in for numpy.ndarray: shape, type and bytes, from which `values` builds an array."""

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> np.ndarray:
        """Return the array as float64; raises e.g. ValueError or TypeError if it is not float32 or float64."""
        _, shape, kind, by_columns, data = self.state
        dtype = np.dtype({"f4": "f4", "f8": "f8"}[kind.code]).newbyteorder(kind.state[1])
        if not isinstance(data, bytes) or len(data) > _MOST:
            raise ValueError("its data is not bytes, or too large")
        found = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
        return found.astype(np.float64)


class PcaStandIn:
    """A stand-in for scikit-learn's PCA: `state` has its attributes, arrays as those of `array_values`."""

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    """A stand-in for `codecs.encode`, with which old pickles store bytes as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes that are not encoded as latin1")
    return text.encode("latin1")


_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
_STAND_INS: dict[str, Any] = {
    **{name: stand_in for stand_in, name in STAND_INS},
    **{f"{core}._reconstruct": _Array for core in _CORES},
    **dict.fromkeys(("sklearn.decomposition.pca.PCA", "sklearn.decomposition._pca.PCA"), PcaStandIn),
    **{"numpy.ndarray": _Array, "numpy.dtype": _Type, "_codecs.encode": _encoded},
}


def read_content(path: Path) -> Any:
    """Return the content of a torch file, with stand-ins for numpy arrays; raises NotFoundError and as `read_torch`."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such weight file; `asmk-engine weights list` shows where to get one")
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
        return read_torch(path)


def is_official_global(content: Any) -> bool:
    """Return whether this is the content of a GeM-family checkpoint."""
    meta = content.get("meta") if isinstance(content, dict) else None
    return isinstance(meta, dict) and "pooling" in meta and isinstance(content.get("state_dict"), dict)


def read_official_global(path: Path | str, projection: str = "") -> tuple[GlobalNetwork, dict[str, Any]]:
    """Return the network of a GeM-family checkpoint, in evaluation mode, and its origin as JSON values.

    projection  separately learned whitening to append, as `training set/ms`; see `projections`

    Raises NotFoundError, FormatError for another kind of file, InputError for an unknown network or projection, and
    MismatchError, which names every tensor that does not fit.
    """
    path = Path(path)
    content = read_content(path)
    if not is_official_global(content):
        raise FormatError(f"{path}: not a checkpoint of the GeM family: it has no meta with a pooling; {_CURE}")
    network = network_of_official(content, path)
    known = projections(content)
    if projection and projection not in known:
        there = ", ".join(sorted(known)) or "none"
        raise InputError(f"{path}: has no separately learned whitening {projection!r}; it has: {there}")
    if projection:
        network = _projected(network, known[projection], path)
    return network.eval(), {"file": path.name, "format": "cnnimageretrieval-pytorch", "projection": projection}


def projections(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's separately learned whitenings, keyed `training set/ss` (one scale) or `…/ms` (many)."""
    learned = content["meta"].get("Lw")
    sets = learned.items() if isinstance(learned, dict) else ()
    kinds = ((name, each) for name, each in sets if isinstance(each, dict))
    return {f"{name}/{scales}": found for name, each in kinds for scales, found in each.items()}


def network_of_official(content: Mapping[str, Any], path: Path) -> GlobalNetwork:
    """Return the network of such a checkpoint; raises as `read_official_global`, with `path` in messages."""
    network = GlobalNetwork(_options(content, path))
    tensors = {_our_name(name, network): tensor for name, tensor in plain_tensors(content, path).items()}
    if "exponent" in tensors:
        tensors["exponent"] = tensors["exponent"].flatten()
    load_tensors(network, tensors, path, _CURE)
    if network.exponent is not None and not (network.exponent > 0).all():
        raise InputError(f"{path}: a GeM exponent is not greater than 0; {_CURE}")
    return network.eval()


def _options(content: Mapping[str, Any], path: Path) -> GlobalOptions:
    meta, state = content["meta"], content["state_dict"]
    architecture, pooling = str(meta.get("architecture"))[:40], str(meta["pooling"])[:40]
    if architecture not in _ARCHITECTURES:
        raise InputError(f"{path}: its backbone is {architecture!r}; known are {', '.join(_ARCHITECTURES)}; {_CURE}")
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
        raise FormatError(f"{path}: its description of the network cannot be read ({error}); {_CURE}") from None


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
    """Append the projection P (x - m) of a separately learned whitening to the network."""
    try:
        mean, matrix = (torch.from_numpy(array_values(learned[key])) for key in ("m", "P"))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: a separately learned whitening cannot be read ({error}); {_CURE}") from None
    return with_projection(network, mean.flatten(), matrix, path)


def array_values(found: object) -> np.ndarray:
    """Return an array of the file as float64; raises e.g. ValueError or TypeError if it is not one."""
    if isinstance(found, torch.Tensor):
        return found.double().numpy()
    if not isinstance(found, _Array):
        raise TypeError(f"found {type(found).__name__}, expected an array")
    return found.values()
