"""How the names of a ground truth or a ranking file are found among others: extensions and folders may differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.truth import Truth, rename

_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".jp2")


@dataclass(frozen=True)
class Resolved:
    """A truth in the names of the images that were found, and the names, as the truth has them, of those that were not."""

    truth: Truth
    missing: tuple[str, ...]


def match_names(wanted: Collection[str], available: Iterable[str]) -> dict[str, str]:
    """The available name that each wanted name means; wanted names without one are left out.

    Tried in this order: the same name; the same but for the image extension; one is the end of the other's path
    ("b/c" and "a/b/c.jpg"); the same last part of the path, if no other wanted name has it.

    raises  InputError, naming both, when two available names fit equally well, or two wanted names mean the same one
    """
    available = set(available)
    found = {name: name for name in wanted if name in available}
    candidates: dict[str, list[str]] = defaultdict(list)
    for name in sorted(available.difference(found)):
        candidates[_parts(name)[-1]].append(name)
    alike = Counter(_parts(name)[-1] for name in wanted)
    for name in wanted:
        if name not in found:
            last = _parts(name)[-1]
            if (best := _best(name, candidates[last], alone=alike[last] == 1)) is not None:
                found[name] = best
    _check_distinct(found)
    return found


def resolve(truth: Truth, available: Iterable[str], *, allow_missing: bool = False) -> Resolved:
    """The truth in the names that its images, and its queries where they are among them, have in `available`.

    raises  NotFoundError when images are missing: all of them, or, without `allow_missing`, any
            InputError for ambiguous names, see `match_names`
    """
    wanted = dict.fromkeys([*truth.images, *(query.name for query in truth.queries)])
    found = match_names(wanted, available)
    missing = tuple(name for name in truth.images if name not in found)
    if truth.images and len(missing) == len(truth.images):
        raise NotFoundError(
            f"none of the {len(missing)} images of the ground truth is there ({list_names(missing)}): "
            "index the folder that it was made for"
        )
    if missing and not allow_missing:
        raise NotFoundError(
            f"{len(missing)} of {len(truth.images)} images of the ground truth are missing: {list_names(missing)}; "
            "index them, or allow missing images, which then count as not found"
        )
    return Resolved(rename(truth, found), missing)


def _parts(name: str) -> tuple[str, ...]:
    """The path of a name without its image extension, as parts."""
    lower = name.lower()
    extension = next((extension for extension in _EXTENSIONS if lower.endswith(extension)), "")
    return tuple(name[: len(name) - len(extension)].split("/"))


def _best(name: str, candidates: list[str], *, alone: bool) -> str | None:
    """The candidate that shares the longest end of the path with the name; all share the last part."""
    shared = {candidate: _shared(_parts(name), _parts(candidate)) for candidate in candidates}
    ends = {candidate: length for candidate, (length, is_end) in shared.items() if is_end}
    pool = ends or ({candidate: length for candidate, (length, _) in shared.items()} if alone else {})
    best = [candidate for candidate, length in pool.items() if length == max(pool.values())]
    if len(best) > 1:
        raise InputError(f"the name {name!r} may mean {best[0]!r} or {best[1]!r}: write it with its folder or extension")
    return best[0] if best else None


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, bool]:
    """How many parts two paths share at the end, and whether that is all of one of them."""
    shortest = min(len(one), len(other))
    length = next((n for n in range(shortest) if one[-1 - n] != other[-1 - n]), shortest)
    return length, length == shortest


def _check_distinct(found: dict[str, str]) -> None:
    meant: dict[str, str] = {}
    for name, match in found.items():
        if match in meant:
            raise InputError(f"the names {meant[match]!r} and {name!r} would both mean {match!r}: write them in full")
        meant[match] = name
