"""Options of extractors: the fields of their frozen dataclasses, with allowed values and descriptions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from asmk_engine.errors import InputError


def option(default: float, least: float, most: float) -> Any:
    """Return a dataclass field for a number from `least` to `most`; an int if the default is an int."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def numbers(default: Sequence[float], least: float, most: float) -> Any:
    """Return a dataclass field for distinct numbers from `least` to `most`; it may be empty only if the default is."""
    return dataclasses.field(default=tuple(default), metadata={"least": least, "most": most, "many": True})


def choice(default: str, choices: Sequence[str]) -> Any:
    """Return a dataclass field for one of several words."""
    return dataclasses.field(default=default, metadata={"choices": tuple(choices)})


def stored_as() -> Any:
    """Return the dataclass field for the type of stored descriptors: float16, half the size, or float32.

    The recipe names it only if it is float32, so that recipes from before there was a choice stay equal.
    """
    return dataclasses.field(default="float16", metadata={"choices": ("float16", "float32"), "named_if_chosen": True})


def apart(default: str, meaning: str) -> Any:
    """Return a dataclass field for text outside the recipe: it affects no descriptor, or is recorded in another way."""
    return dataclasses.field(default=default, metadata={"apart": True, "meaning": meaning})


def describe_options(extractor: type) -> str:
    """Return the names, ranges and defaults of an extractor's options, for a message."""
    return ", ".join(f"{field.name} ({_described(field)})" for field in dataclasses.fields(extractor))


def recipe_options(extractor: Any) -> dict[str, Any]:
    """Return the options that belong to the recipe, as JSON values."""
    return {
        field.name: _as_json(value)
        for field in dataclasses.fields(extractor)
        if not field.metadata.get("apart")
        and ((value := getattr(extractor, field.name)) != field.default or not field.metadata.get("named_if_chosen"))
    }


def all_options(extractor: Any) -> dict[str, Any]:
    """Return all options as JSON values."""
    return {field.name: _as_json(getattr(extractor, field.name)) for field in dataclasses.fields(extractor)}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_options(extractor: Any) -> None:
    """Raise InputError for an option of the wrong type or out of range; convert numbers to plain int and float.

    The conversion makes equal recipes identical when written: 10 and 10.0 would differ.
    """
    for field in dataclasses.fields(extractor):
        checked = _checker(field)(getattr(extractor, field.name), field)
        object.__setattr__(extractor, field.name, checked)


def _checker(field: dataclasses.Field[Any]) -> Callable[[Any, dataclasses.Field[Any]], Any]:
    if field.metadata.get("apart"):
        return _check_text
    if "choices" in field.metadata:
        return _check_choice
    return _check_numbers if field.metadata.get("many") else _check_number


def _check_text(value: Any, field: dataclasses.Field[Any]) -> str:
    return str(value)


def _check_choice(value: Any, field: dataclasses.Field[Any]) -> Any:
    choices = field.metadata["choices"]
    if value not in choices:
        raise InputError(f"{field.name} is {value!r}; choose one of {', '.join(choices)}")
    return value


def _check_numbers(value: Any, field: dataclasses.Field[Any]) -> tuple[float, ...]:
    none_is_allowed = field.default == ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not (value or none_is_allowed):
        raise InputError(f"{field.name} is {value!r}; expected one or more numbers, each {_range(field)}")
    found = tuple(_check_one(item, field, float) for item in value)
    if len(set(found)) < len(found):
        raise InputError(f"{field.name} is {list(found)}; give each number once")
    return found


def _check_number(value: Any, field: dataclasses.Field[Any]) -> Any:
    return _check_one(value, field, type(field.default))


def _check_one(value: Any, field: dataclasses.Field[Any], kind: Any) -> Any:
    wanted = Integral if kind is int else Real
    if not isinstance(value, wanted) or isinstance(value, bool) or not _is_finite(value):
        noun = "a whole number" if kind is int else "a number"
        raise InputError(f"{field.name} is {value!r}; expected {noun}, {_range(field)}")
    if not field.metadata["least"] <= value <= field.metadata["most"]:
        raise InputError(f"{field.name} is {value}; expected {_range(field)}")
    return kind(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer too large for a float
        return False


def _described(field: dataclasses.Field[Any]) -> str:
    if field.metadata.get("apart"):
        return str(field.metadata["meaning"])
    if "choices" in field.metadata:
        return f"{' or '.join(field.metadata['choices'])}, default {field.default}"
    if "least" not in field.metadata:
        return "any value" if field.default is dataclasses.MISSING else f"default {_as_json(field.default)}"
    default = "the network's own" if field.default == () else _as_json(field.default)
    return f"{_range(field)}, default {default}"


def _range(field: dataclasses.Field[Any]) -> str:
    return f"{field.metadata['least']} to {field.metadata['most']}"
