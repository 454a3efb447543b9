"""Numbers and sizes in words, for messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from asmk_engine.errors import InputError
from asmk_engine.escape import list_first

NAMED = 5


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 image`, `1 234 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")


def parse_size(text: str) -> int:
    """Return `800M` or `1.5G` as bytes, with units of powers of 1024; raises InputError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise InputError(f"{text!r} is not a size: give a number with K, M, G or T, such as 800M or 1.5G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def named(names: Collection[str] | Mapping[str, str], limit: int = NAMED) -> str:
    """Return the first few names, quoted, each with that of its duplicate if there is one, and how many more."""
    twins = names if isinstance(names, Mapping) else {}
    texts = [f"{name!r} (= {twins[name]!r})" if twins.get(name) else repr(name) for name in list(names)[:limit]]
    return list_first(texts, len(names))
