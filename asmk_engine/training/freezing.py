"""Which parts of a network do not learn in which epochs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asmk_engine.errors import InputError

PARTS = ("backbone", "head")
_PATTERN = re.compile(r"(backbone|head)(?:@(\d+)?(-)?(\d+)?)?")


@dataclass(frozen=True)
class Freeze:
    """A part of the network, `backbone` or `head`, the rest, that does not learn from epoch `first` to `last`.

    last  None for the end of the training
    """

    part: str
    first: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.first < 1 or (self.last is not None and self.last < self.first):
            raise InputError(
                f"{self.part!r} cannot be frozen in epochs {self.first} to {self.last}; expected {' or '.join(PARTS)}, "
                "and epochs in increasing order, from 1"
            )

    def holds(self, epoch: int) -> bool:
        """Return whether the part is frozen in an epoch, counted from 1."""
        return self.first <= epoch and (self.last is None or epoch <= self.last)


def parse_freeze(text: str) -> Freeze:
    """Read `backbone`, `backbone@11-`, `head@1-10`, `head@-10` or `head@3`; raises InputError for anything else."""
    found = _PATTERN.fullmatch(text)
    part, first, dash, last = found.groups() if found else ("", None, None, None)
    if not found or ("@" in text and not (first or last)) or (last and not dash):
        raise InputError(f"{text!r}: expected backbone or head, and the epochs, such as backbone@11- or head@1-10")
    end = int(last) if last else None if dash or not first else int(first)
    return Freeze(part, int(first or 1), end)


def check_freezes(freezes: Sequence[Freeze], epochs: int) -> None:
    """Raise InputError if in some epoch nothing of the network learns."""
    for epoch in range(1, epochs + 1):
        if {one.part for one in freezes if one.holds(epoch)} == set(PARTS):
            raise InputError(f"in epoch {epoch} both backbone and head are frozen; leave one of them free")
