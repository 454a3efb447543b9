"""The whitenings in the checkpoints of DIR: PCA of scikit-learn, with a power of the eigenvalues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from asmk_engine.errors import FormatError, InputError, MismatchError
from asmk_engine.networks.official_global import PcaStandIn, array_values

POWER = 0.25
DEFAULT = "Landmarks_clean"
_CURE = "give a checkpoint of deep-image-retrieval, or `none` as projection"


def pca_projection(learned: Any, wanted: str, dim: int, path: Path) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Return the name of a whitening, its mean [D] and its matrix diag(λ)^(−power) E [d, D], float64.

    learned  what the checkpoint has under `pca`: a PCA, or several by the names of their training sets
    wanted   `NAME` or `NAME/POWER`; empty for the default

    Raises InputError for an unknown name or power, FormatError if it cannot be read, and MismatchError if it is not of
    `dim` dimensions.
    """
    known = {"pca": learned} if isinstance(learned, PcaStandIn) else learned
    if not isinstance(known, dict) or not known:
        raise FormatError(f"{path}: its whitenings cannot be read; {_CURE}")
    name, _, text = wanted.partition("/")
    name = name or (DEFAULT if DEFAULT in known or len(known) > 1 else str(next(iter(known))))
    if name not in known:
        raise InputError(f"{path}: has no learned whitening {name!r}; it has: {', '.join(sorted(map(str, known)))}")
    power = _power(text, path)
    mean, components, variances = _parts(known[name], path)
    if components.shape != (len(variances), dim) or mean.shape != (dim,):
        found = f"{list(mean.shape)} and {list(components.shape)}"
        raise MismatchError(f"{path}: the whitening {name!r} has {found}, expected {dim} dimensions; {_CURE}")
    whitened = components / variances[:, None] ** power
    if not (torch.isfinite(whitened).all() and torch.isfinite(mean).all()):
        raise InputError(f"{path}: the whitening {name!r} contains NaN or infinity; {_CURE}")
    return f"{name}/{power:g}", mean, whitened


def _power(text: str, path: Path) -> float:
    try:
        power = float(text) if text else POWER
    except ValueError:
        power = -1.0
    if not 0 <= power <= 1:
        raise InputError(f"{path}: the power of the whitening is {text[:20]!r}; expected a number from 0 to 1")
    return power


def _parts(learned: Any, path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, components and variances of a PCA."""
    try:
        values = [array_values(learned.state[f"{key}_"]) for key in ("mean", "components", "explained_variance")]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: its whitening cannot be read ({error}); {_CURE}") from None
    mean, components, variances = (torch.from_numpy(value) for value in values)
    if mean.ndim != 1 or components.ndim != 2 or variances.ndim != 1:
        raise FormatError(f"{path}: its whitening has arrays of other shapes than a PCA; {_CURE}")
    return mean, components, variances
