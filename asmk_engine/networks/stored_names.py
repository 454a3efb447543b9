"""Names in network files that differ from the current names in the code.

Features identify their network by the sha256 of its file, so a network must still be written with the same bytes as
under the earlier names. Files with the current names can be read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STORED = {
    "augmented_pairs": "self_made",
    "backbone": "trunk",
    "backbone_sha256": "trunk_sha256",
    "batch_size": "together",
    "freeze_backbone": "freeze_trunk",
    "ground_truth": "truth",
    "multiple_assignment": "assignments",
}
_CURRENT = {stored: current for current, stored in _STORED.items()}


def to_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping, and those nested in it, with the names used in files.

    A key may be the dotted name of a tensor; each of its parts is translated.
    """
    return _renamed(content, _STORED)


def from_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of a file with the current names; the inverse of `to_stored`."""
    return _renamed(content, _CURRENT)


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        _renamed_key(key, names): _renamed(value, names) if isinstance(value, Mapping) else value
        for key, value in content.items()
    }


def _renamed_key(key: str, names: Mapping[str, str]) -> str:
    return ".".join(names.get(part, part) for part in key.split("."))
