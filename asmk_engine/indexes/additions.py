"""Planning the addition of a feature set to an index, image by image, before anything is written.

A name identifies one image. If the index already has a name, the fingerprints of the contents decide whether it is the
same image, and the roots whether the file was changed in place or is another file of the same name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.extraction.intake import is_elsewhere
from asmk_engine.features import IdentifiedSource
from asmk_engine.images.roots import Root, is_other
from asmk_engine.indexes.snapshot import Commit

EXISTING = ("refuse", "skip", "update", "replace")
View = Commit[Any, Any]


@dataclass(frozen=True)
class AddSummary:
    """The outcome of `Index.add`, in images.

    added       number of new images
    replaced    number of images that were replaced
    unchanged   number of images that were left as they were
    removed     number of images that were removed because they are missing from the feature set
    moved       number of unchanged images found under another root, which the index now records
    changed     names that were skipped although their file was replaced by other content
    taken       names that were skipped because the index has another file, from another place, of the same name
    same        names that were skipped because the index has the same file under another name → that name
    duplicates  names that were added although the index has their content under another name → that name
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0
    moved: int = 0
    changed: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    same: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)


def check_existing(existing: str) -> None:
    """Raise InputError for an unknown way to treat images that the index has already."""
    if existing not in EXISTING:
        raise InputError(f"existing is {existing!r}; choose one of {', '.join(EXISTING)}")


@dataclass
class AdditionPlan:
    """The names of the images by the action planned for them; see `AddSummary`."""

    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    moved: dict[str, Root] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[str]:
        """The names of the images that will be written to the index."""
        return [*self.new, *self.replaced]

    def summary(self) -> AddSummary:
        """Return the summary to report once the plan is carried out."""
        counts = (len(self.new), len(self.replaced), self.unchanged, len(self.removed), len(self.moved))
        return AddSummary(*counts, tuple(self.changed), tuple(self.taken), self.same, self.duplicates)


def plan_addition(view: View, features: IdentifiedSource, existing: str, removed: Iterable[str]) -> AdditionPlan:
    """Plan the action for each image of a source of features.

    existing  `skip`, `update` or `replace`, see `Index.add`
    removed   names of the images to be removed
    """
    names = list(features.names)
    known = view.find_all(names)
    plan = AdditionPlan(removed=list(removed))
    if existing == "replace":
        plan.replaced += known
    else:
        _compare(plan, view, features, known, existing)
    _place_new(plan, view, features, [name for name in names if name not in known])
    return plan


def _compare(
    plan: AdditionPlan, view: View, features: IdentifiedSource, known: dict[str, tuple[int, int]], existing: str
) -> None:
    """Plan the names that the index has; arrays find the unchanged ones at once, usually nearly all of them."""
    there, found = view.identities(list(known.values())), features.identities(list(known))
    numbers = {root: number for number, root in enumerate(there.roots)}
    own = np.array([numbers.get(root, -1) for root in found.roots])[found.numbers]
    is_same = (there.fingerprints == 0) | (there.fingerprints == found.fingerprints)
    plain = is_same & ((own == there.numbers) | (own == 0))
    plan.unchanged += int(np.count_nonzero(plain))
    names = list(known)
    for place in np.flatnonzero(~plain).tolist():
        root = there.roots[int(there.numbers[place])]
        _decide(plan, names[place], root, bool(is_same[place]), view, features, existing)


def _decide(
    plan: AdditionPlan, name: str, known: Root, is_same: bool, view: View, features: IdentifiedSource, existing: str
) -> None:
    root = features.root(name)
    if is_same:
        plan.unchanged += 1
        if is_elsewhere(known, root, name, features.source(name)):
            plan.moved[name] = root
    elif (twin := _twin(view, features, name)) is not None:
        plan.same[name] = twin
    elif existing == "update":
        plan.replaced.append(name)
    else:
        (plan.taken if is_other(known, root, name) else plan.changed).append(name)


def _twin(view: View, features: IdentifiedSource, name: str) -> str | None:
    """Return another name under which the index has the same file with the same content, or None."""
    file, fingerprint = features.root(name).file(name), features.source(name).fingerprint
    names = (root.name(file) for root in view.manifest.roots) if file is not None else ()
    for other, place in view.find_all(found for found in names if found not in (None, name)).items():
        identity = view.identity(place)
        if identity.fingerprint == fingerprint and identity.root.file(other) == file:
            return other
    return None


def _place_new(plan: AdditionPlan, view: View, features: IdentifiedSource, new: Sequence[str]) -> None:
    """Separate new images from files indexed under another name, and record equal contents."""
    prints = {name: print_of(features, name) for name in new}
    there = _by_fingerprint(view, np.array([value for value in prints.values() if value], np.uint64), plan.removed)
    first: dict[int, str] = {}
    for name, value in prints.items():
        others = there.get(value, [])
        file = features.root(name).file(name)
        twin = next((other for other, root in others if file is not None and root.file(other) == file), None)
        if twin is not None:
            plan.same[name] = twin
            continue
        plan.new.append(name)
        if value and (others or value in first):
            plan.duplicates[name] = others[0][0] if others else first[value]
        first.setdefault(value, name)


def print_of(features: IdentifiedSource, name: str) -> int:
    """Return the content fingerprint of an image; 0 if it is meaningless, with neither a file nor a feature."""
    return features.source(name).fingerprint if features.root(name).is_known or features.count(name) else 0


def _by_fingerprint(view: View, wanted: np.ndarray, removed: Collection[str]) -> dict[int, list[tuple[str, Root]]]:
    """Return by fingerprint names and roots of the remaining images with a fingerprint in `wanted`, [n] uint64."""
    found: dict[int, list[tuple[str, Root]]] = {}
    leaving = set(removed)
    for place, number in _places_of(view, wanted):
        identity, name = view.identity((place, number)), view.segments[place].name(number)
        if name not in leaving:
            found.setdefault(identity.fingerprint, []).append((name, identity.root))
    return found


def _places_of(view: View, wanted: np.ndarray) -> Iterator[tuple[int, int]]:
    for place, segment in enumerate(view.segments if len(wanted) else ()):
        live = segment.live_numbers()
        for number in live[np.isin(segment.fingerprints[live], wanted)].tolist():
            yield place, number
