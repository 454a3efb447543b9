"""Options of an extractor: the fields of its frozen dataclass, each with the range that is checked and explained."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral, Real
from typing import Any

from asmk_engine.errors import InputError


def option(default: float, least: float, most: float) -> Any:
    """A dataclass field for a number from `least` to `most`; an int option where the default is an int."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def describe_options(extractor: type) -> str:
    """Names, ranges and defaults of the options of an extractor, for a message."""
    fields = dataclasses.fields(extractor)
    return ", ".join(f"{field.name} ({_range(field)}, default {field.default})" for field in fields)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number beyond every float
        return False


def check_options(extractor: Any) -> None:
    """Raise InputError for an option that is no number or out of range; turn numbers into plain int and float.

    Plain, because equal recipes must be written alike: 10 and 10.0 are not.
    """
    for field in dataclasses.fields(extractor):
        value: Any = getattr(extractor, field.name)
        kind: Any = type(field.default)
        wanted = Integral if kind is int else Real
        if not isinstance(value, wanted) or isinstance(value, bool) or not _is_finite(value):
            noun = "a whole number" if kind is int else "a number"
            raise InputError(f"{field.name} is {value!r}; expected {noun}, {_range(field)}")
        if not field.metadata["least"] <= value <= field.metadata["most"]:
            raise InputError(f"{field.name} is {value}; expected {_range(field)}")
        object.__setattr__(extractor, field.name, kind(value))


def _range(field: dataclasses.Field[Any]) -> str:
    return f"{field.metadata['least']} to {field.metadata['most']}"
