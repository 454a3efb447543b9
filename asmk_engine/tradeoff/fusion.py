"""Fused sources: other sources of the same run, whose features are searched together in one fused index.

They are written as names joined by +, each with its own n after a colon where it differs from that of the row, and
with weights after an @ where they differ from each other: `both=deep:1000+sift:500@0.67,0.33`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.fused import scores


@dataclass(frozen=True)
class FusionPart:
    """A source as a part of a fused one; `strongest` is its own n, or None for that of the row."""

    source: str
    strongest: int | None = None


@dataclass(frozen=True)
class SourceFusion:
    """A fused source.

    name     name in the command
    parts    two or more sources
    weights  one of 0 or more for each part, or none if they are equal
    """

    name: str
    parts: tuple[FusionPart, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        names = [part.source for part in self.parts]
        if len(names) < 2:
            raise InputError(f"{self}: one part; join the names of two or more sources by +, such as both=deep+sift")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"{self}: {twice!r} is there twice; give each part once")
        if part := next((one for one in self.parts if one.strongest is not None and one.strongest < 1), None):
            raise InputError(f"{self}: n of {part.source!r} is {part.strongest}; give a whole number of 1 or more")
        scores.shares(self.weights or None, len(names), f"parts of {self}")

    def __str__(self) -> str:
        weights = "@" + ",".join(f"{weight:g}" for weight in self.weights) if len(set(self.weights)) > 1 else ""
        return f"{self.name}={'+'.join(part.source for part in self.parts)}{weights}"

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights with the sum 1."""
        return tuple(scores.shares(self.weights or None, len(self.parts)))

    def check_known(self, names: Collection[str]) -> None:
        """Raise InputError for a part that is not one of the sources with features."""
        if unknown := next((part.source for part in self.parts if part.source not in names), None):
            raise InputError(
                f"{self}: {unknown!r} is none of the sources {', '.join(names) or '(none)'} with features; "
                "join names of NAME=FEATURES in the same command"
            )


def is_fusion(word: str, names: Sequence[str]) -> bool:
    """Return whether a word NAME=TEXT is a fused source; a TEXT that exists as a file or folder never is.

    names  those of all sources
    """
    name, _, text = word.partition("=")
    if not name or not text or Path(text).exists():
        return False
    first = text.partition("@")[0].partition(":")[0]
    return "+" in text or (first in names and first != name)


def read_fusion(word: str, names: Collection[str]) -> SourceFusion:
    """Read a fused source NAME=NAME[:N]+NAME[:N]...[@W,W,...]; raises InputError for another form or an unknown part.

    names  those of the sources with features
    """
    name, _, text = word.partition("=")
    joined, sign, weights = text.partition("@")
    parts = tuple(_part(word, part) for part in joined.split("+"))
    fusion = SourceFusion(name, parts, _weights(word, weights) if sign else ())
    fusion.check_known(names)
    return fusion


def _part(word: str, text: str) -> FusionPart:
    source, sign, count = text.partition(":")
    if not source:
        raise InputError(f"{word}: a part has no name; join names of sources by +, such as both=deep+sift")
    if sign and not (count.isascii() and count.isdecimal()):
        raise InputError(
            f"{word}: n of {source!r} is {count!r}; give a whole number of 1 or more, such as {source}:500"
        )
    return FusionPart(source, int(count) if sign else None)


def _weights(word: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError:
        raise InputError(
            f"{word}: weights are {text!r}; give a number for each part, such as both=deep+sift@0.67,0.33"
        ) from None
