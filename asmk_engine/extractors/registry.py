"""Extractors of other packages: registered by a program, installed through an entry point, or given as `module:Class`.

A package installs one with an entry point of the group `asmk_engine.extractors`, `NAME = package.module:Class`. The
recipe of an index names an extractor and never a module: opening an index imports nothing that was not installed,
registered or given.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.extractors.builtin import EXTRACTORS
from asmk_engine.extractors.presets import PRESETS

GROUP = "asmk_engine.extractors"
NEEDED = ("recipe", "dim", "origin", "extract")
"""What an extractor has, see `extraction.attempts.Extractor`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_registered: dict[str, type] = {}


def register_extractor(name: str, extractor: type) -> None:
    """Register an extractor under a name.

    Parameters
    ----------
    name : str
        Name of the extractor in recipes and on the command line: letters, digits, `_`, `.` and `-`.
    extractor : type
        Class with the members of the protocol `Extractor`, such as a subclass of `CustomExtractor`.

    Raises
    ------
    InputError
        If the name is invalid, belongs to another extractor, or if the class lacks a member of the protocol.

    Examples
    --------
    >>> asmk_engine.register_extractor("mine", MyExtractor)
    >>> index = asmk_engine.load_extractor("mine").extract_folder("photos", "photos.features")
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be the name of an extractor; use letters, digits, '_', '.' and '-'")
    known = _registered.get(name)
    if name in EXTRACTORS or name in PRESETS or (known and place_of(known) != place_of(extractor)):
        raise InputError(f"there is an extractor {name!r} already; give another name")
    missing = [member for member in NEEDED if not hasattr(extractor, member)]
    if missing or not isinstance(extractor, type):
        lacks = f"has no {', '.join(missing)}" if missing else "is not a class"
        raise InputError(f"{extractor!r} {lacks}; derive from asmk_engine.extractors.custom.CustomExtractor")
    _registered[name] = extractor


def import_extractor(place: str) -> type:
    """Import the extractor class `package.module:Class`, register it under its `name`, and return it.

    A module that is not installed is looked for in the current folder. Raises InputError if there is no such module or
    class, or what `register_extractor` raises.
    """
    module, _, attribute = place.partition(":")
    if not (module and attribute):
        raise InputError(f"{place!r} is not the place of an extractor; expected package.module:Class")
    first = module.split(".")[0]
    if find_spec(first) is None and any((Path.cwd() / name).exists() for name in (first, f"{first}.py")):
        sys.path.append(os.getcwd())
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{place}: cannot be imported ({error}); expected package.module:Class") from error
    if not isinstance(found, type):
        raise InputError(f"{place}: is not a class; expected package.module:Class")
    register_extractor(str(getattr(found, "name", "")), found)
    return found


def find_extractor(name: str) -> type | None:
    """Return the registered or installed extractor of this name; None if there is none.

    Raises InputError if an installed one cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                register_extractor(name, point.load())
            except (ImportError, AttributeError) as error:
                raise InputError(
                    f"the extractor {name!r} is installed as {point.value}, which cannot be imported ({error}); "
                    "install its package again"
                ) from error
            return _registered[name]
    return None


def custom_names() -> list[str]:
    """Return the names of registered and installed extractors, sorted."""
    return sorted({*_registered, *(point.name for point in entry_points(group=GROUP))})


def place_of(extractor: type) -> str:
    """Return `module:Class` of a class."""
    return f"{extractor.__module__}:{extractor.__qualname__}"


def make_extractor(place: str, options: dict[str, Any]) -> Any:
    """Create the extractor of a worker process: `module:Class` with its options."""
    return import_extractor(place)(**options)
