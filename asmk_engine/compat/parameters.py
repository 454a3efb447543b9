"""The parameter tree: steps, their sections, and the options in them.

index           gpu_id
train_codebook  codebook: size
build_ivf       kernel: binary · ivf: use_idf · quantize: multiple_assignment · aggregate:
query_ivf       quantize: multiple_assignment · aggregate: · search: topk · similarity: similarity_threshold, alpha
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from asmk_engine.errors import InputError

Parameters = dict[str, Any]

_SIZE = re.compile(r"([1-9][0-9]*)([kM]?)")
_UNITS = {"": 1, "k": 1024, "M": 1024**2}


def parse_size(size: object) -> int:
    """Parse a codebook size: a number, or text such as `64k` (× 1024) and `1M` (× 1024²)."""
    match = _SIZE.fullmatch(str(size))
    if match is None or isinstance(size, bool):
        raise InputError(f"codebook size is {size!r}; give a whole number of 1 or more, or text such as '64k' or '1M'")
    return int(match[1]) * _UNITS[match[2]]


def step_parameters(params: Mapping[str, Any], step: str, override: Mapping[str, Any] | None = None) -> Parameters:
    """Return the parameters of a step; those in `override` replace the stored ones, option by option."""
    merged = _mapping(params.get(step), f"params['{step}']")
    for name, value in _mapping(override, "step_params").items():
        stored = merged.get(name)
        both = isinstance(stored, Mapping) and isinstance(value, Mapping)
        merged[name] = {**stored, **value} if both else value  # type: ignore[dict-item]
    return merged


def section(step: Mapping[str, Any], name: str, known: Collection[str]) -> Parameters:
    """Return the options of one section of a step, empty if it is missing; raises InputError for an unknown option."""
    options = _mapping(step.get(name), f"section {name!r}")
    for option in options:
        if option not in known:
            expected = ", ".join(known) or "no options"
            raise InputError(f"section {name!r} of the parameters has {option!r}; expected {expected}")
    return options


def positive(value: object, name: str) -> int:
    """Return a whole number of 1 or more; raises InputError for other values."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise InputError(f"{name} is {value!r}; give a whole number of 1 or more")
    return int(value.__index__())


def _mapping(value: object, what: str) -> Parameters:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is {type(value).__name__}; expected a dictionary of parameters")
    return dict(value)
