"""Matching the names of a ground truth to those of an index or a ranking; folders and extensions may differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.indexes.joint import is_distractor

_EXTENSIONS = frozenset(["jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "gif", "ppm", "pgm", "jp2"])


@dataclass(frozen=True)
class Resolved:
    """A ground truth with the names of the matched images, and its original names of the missing images."""

    ground_truth: GroundTruth
    missing: tuple[str, ...]


def match_names(wanted: Collection[str], available: Iterable[str], *, whole_ends: bool = False) -> dict[str, str]:
    """Match each wanted name to an available name; wanted names without a match are omitted.

    Tried in this order: equal names; equal except for the image extension; one path ends with all parts of the other
    ("b/c" and "a/b/c.jpg"); the same last part, if no other wanted name has it (not with `whole_ends`).
    A distractor image is matched only by its exact name.

    raises  InputError, with both names, if two available names match equally well, or two wanted names match one
    """
    available = set(available)
    found = {name: name for name in wanted if name in available}
    rest = [name for name in wanted if name not in found]
    candidates = _by_last_part(available.difference(found), {last_part(name) for name in rest})
    alike = Counter(map(last_part, wanted))
    for name in rest:
        last = last_part(name)
        best = _best(name, candidates[last], whole_ends=whole_ends or alike[last] > 1)
        found.update({name: best} if best is not None else {})
    _check_distinct(found)
    return found


def resolve(ground_truth: GroundTruth, available: Iterable[str], *, allow_missing: bool = False) -> Resolved:
    """Rename the images of a ground truth to their names in `available`; queries outside the database keep theirs.

    raises  NotFoundError if all images are missing, or, without `allow_missing`, if any is;
            InputError for ambiguous names, see `match_names`
    """
    available = set(available)
    found = match_names(ground_truth.images, available)
    missing = tuple(name for name in ground_truth.images if name not in found)
    _check_missing(missing, len(ground_truth.images), allow_missing)
    ignored = match_names(ground_truth.ignored, available.difference(found.values()), whole_ends=True)
    renamed = replace(
        ground_truth,
        images=tuple(found.get(name, name) for name in ground_truth.images),
        queries=tuple(_renamed(query, found) for query in ground_truth.queries),
        ignored=frozenset(ignored.values()),
    )
    return Resolved(renamed, missing)


def _check_missing(missing: tuple[str, ...], images: int, allow_missing: bool) -> None:
    if len(missing) == images:
        raise NotFoundError(
            f"none of the {images} images of the ground truth was found: {list_names(missing)}; "
            "give the ground truth of these images"
        )
    if missing and not allow_missing:
        raise NotFoundError(
            f"{len(missing)} of {images} images of the ground truth are missing: {list_names(missing)}; "
            "add them, or allow missing images, which then count as not found"
        )


def _renamed(query: GroundTruthQuery, names: dict[str, str]) -> GroundTruthQuery:
    def renamed(old: frozenset[str]) -> frozenset[str]:
        return frozenset(names.get(name, name) for name in old)

    name = names.get(query.name, query.name) if query.in_database else query.name
    return replace(query, name=name, easy=renamed(query.easy), hard=renamed(query.hard), junk=renamed(query.junk))


def repeated(names: Collection[str]) -> str | None:
    """Return the most frequent name, the first one of ties, or None if no name is repeated."""
    return None if len(set(names)) == len(names) else Counter(names).most_common(1)[0][0]


def _stem(name: str) -> str:
    stem, _, extension = name.rpartition(".")
    return stem if extension.lower() in _EXTENSIONS else name


def last_part(name: str) -> str:
    """Return the name without folders and image extension."""
    return _stem(name.rpartition("/")[2])


def _by_last_part(names: Iterable[str], lasts: set[str]) -> dict[str, list[str]]:
    candidates: dict[str, list[str]] = {last: [] for last in lasts}
    for name in names if lasts else ():
        if (last := last_part(name)) in lasts and not is_distractor(name):
            candidates[last].append(name)
    return {last: sorted(found) for last, found in candidates.items()}


def _best(name: str, candidates: list[str], *, whole_ends: bool) -> str | None:
    """Return the candidate whose path shares the most last parts with the name; all share at least one."""
    fits = {candidate: _fit(_stem(name).split("/"), _stem(candidate).split("/")) for candidate in candidates}
    if whole_ends:
        fits = {candidate: fit for candidate, fit in fits.items() if fit[0]}
    best = [candidate for candidate, fit in fits.items() if fit == max(fits.values())]
    if len(best) > 1:
        raise InputError(f"the name {name!r} matches both {best[0]!r} and {best[1]!r}: write it in full")
    return best[0] if best else None


def _fit(one: list[str], other: list[str]) -> tuple[bool, int, bool]:
    """Return a key that orders matches: one path ends with the other, number of shared last parts, equal paths."""
    shortest = min(len(one), len(other))
    length = next((n for n in range(shortest) if one[-1 - n] != other[-1 - n]), shortest)
    return length == shortest, length, one == other


def _check_distinct(found: dict[str, str]) -> None:
    meant: dict[str, str] = {}
    for name, match in found.items():
        if match in meant:
            raise InputError(f"the names {meant[match]!r} and {name!r} both match {match!r}: write them in full")
        meant[match] = name
