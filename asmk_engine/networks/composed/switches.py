"""The switches of heads: fields of frozen dataclasses with allowed values, checked when they are set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from asmk_engine.errors import InputError


def number(default: float, least: float, most: float) -> Any:
    """Return a dataclass field for a number from `least` to `most`; an int if the default is an int."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def numbers(default: Sequence[float], least: float, most: float) -> Any:
    """Return a dataclass field for a tuple of numbers from `least` to `most`, of their type; empty only by default."""
    return dataclasses.field(default=tuple(default), metadata={"least": least, "most": most})


def choice(default: str, choices: Sequence[str]) -> Any:
    """Return a dataclass field for one of several words."""
    return dataclasses.field(default=default, metadata={"choices": tuple(choices)})


def flag(default: bool) -> Any:
    """Return a dataclass field for true or false."""
    return dataclasses.field(default=default, metadata={"choices": (True, False)})


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """Base class of the switches of a head; raises InputError for a value that is not allowed."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "choices" in field.metadata:
                _check_choice(value, field)
            elif isinstance(field.default, tuple):
                object.__setattr__(self, field.name, _checked_numbers(value, field))
            else:
                _check_number(value, field, type(field.default))

    @classmethod
    def from_content(cls, content: Any) -> Any:
        """Return the switches of a mapping of their names; InputError for an unknown one or a value not allowed."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or (unknown := sorted(set(content) - known)):
            found = ", ".join(map(str, unknown)) if isinstance(content, dict) else type(content).__name__
            raise InputError(f"unknown switch {found}; this network has: {', '.join(sorted(known)) or 'none'}")
        return cls(**content)


def _check_choice(value: Any, field: dataclasses.Field[Any]) -> None:
    choices = field.metadata["choices"]
    if not any(value is one or (value == one and type(value) is type(one)) for one in choices):
        raise InputError(f"{field.name} is {value!r}; choose one of {', '.join(map(str, choices))}")


def _checked_numbers(value: Any, field: dataclasses.Field[Any]) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or (not value and field.default):
        raise InputError(f"{field.name} is {value!r}; expected one or more numbers")
    kind = type(field.metadata["least"])
    for one in value:
        _check_number(one, field, kind)
    return tuple(kind(one) for one in value)


def _check_number(value: Any, field: dataclasses.Field[Any], kind: type) -> None:
    allowed = (int,) if kind is int else (int, float)
    least, most = field.metadata["least"], field.metadata["most"]
    if type(value) not in allowed or not math.isfinite(value) or not least <= value <= most:
        noun = "a whole number" if kind is int else "a number"
        raise InputError(f"{field.name} is {value!r}; expected {noun}, {least} to {most}")
