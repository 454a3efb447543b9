"""Which images of an index belong together, and which pairs of them are worth matching."""

from __future__ import annotations

from asmk_engine.groups.finding import find_groups
from asmk_engine.groups.model import Edge, Groups, ImageGroup, Notice
from asmk_engine.groups.options import Grouping
from asmk_engine.groups.pairs import Pair, Pairing, Pairs, find_pairs, write_look_alikes, write_pairs
from asmk_engine.groups.writing import write_groups, write_sheets

__all__ = [
    "Edge",
    "Grouping",
    "Groups",
    "ImageGroup",
    "Notice",
    "Pair",
    "Pairing",
    "Pairs",
    "find_groups",
    "find_pairs",
    "write_groups",
    "write_look_alikes",
    "write_pairs",
    "write_sheets",
]
