"""The names that files keep for what the program calls otherwise today.

Features name their network by the sha256 of its file, so a network written today must have the bytes that it had under
the earlier names. Files with today's names are read as well.
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
    """The mapping under the names of files, that of nested mappings included.

    A key may be the dotted name of a tensor; each of its parts is looked at.
    """
    return _renamed(content, _STORED)


def from_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a file under the names of the program; undoes `to_stored`."""
    return _renamed(content, _CURRENT)


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        _renamed_key(key, names): _renamed(value, names) if isinstance(value, Mapping) else value
        for key, value in content.items()
    }


def _renamed_key(key: str, names: Mapping[str, str]) -> str:
    return ".".join(names.get(part, part) for part in key.split("."))
