"""How an experiment ranks the first images anew: the part `[[rerank]]` of its file, and the networks that it takes.

A score of a re-ranked ranking has a row such as `medium, cvnet 100`: the row of the protocol, the name of the part, and
how many images were ranked anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asmk_engine.errors import DamagedError, InputError

RERANKERS = ("cvnet", "gv", "rrt")
PRECISIONS = ("fp32", "bf16")
ALL = "all"
DELG, DETECT_TO_RETRIEVE = "delg", "detect-to-retrieve"
BITS = (32, 8)
_NAME = re.compile(r"[a-z0-9-]+")
_ROW = re.compile(r"(?P<row>.+), (?P<name>[a-z0-9-]+) (?P<count>\d+)")
_WANTED = {"local": "a network of delg with a trained local branch", "cvnet": "a network of train-rerank",
           "rrt": "a network of train-rrt, or a checkpoint of the RRT code"}  # fmt: skip


@dataclass(frozen=True)
class Rerank:
    """One way to rank the first images of each ranking anew; a run does what `--rerank NAME` asks for.

    by             `cvnet` (CVNet-Rerank on photographs), `gv` (the verification of the DELF and DELG code) or `rrt`
                   (Reranking Transformer)
    counts         how many images are ranked anew; each number gives rows of its own
    name           name of this part; that of `by` if empty
    weights        name of the published weights of `cvnet` or `rrt`, see `networks.registry`; empty if there are none
    weight         what the score of `cvnet` weighs beside that of the search
    side           photographs with a longer side are shrunk to it for `cvnet`, in pixels
    precision      precision of the network of `cvnet`
    bits           32, or 8 if `cvnet` keeps the levels of photographs in 8 bits
    extractor      extractor of the local features of `gv` and `rrt`; empty in a local experiment, which has its own
    own_network    whether that extractor has a network of its own; else it takes that of the first extractor
    options        options of that extractor
    thresholds     of `gv`: `delg`, those of DELG's script, or `detect-to-retrieve`, those of DELF's
    incomparable   why the re-ranked scores cannot be compared with the published ones
    """

    by: str
    counts: tuple[int, ...]
    name: str = ""
    weights: str = ""
    weight: float = 0.5
    side: int = 16384
    precision: str = "fp32"
    bits: int = 32
    extractor: str = ""
    own_network: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    thresholds: str = DELG
    incomparable: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How it is asked for and how its rows are called."""
        return self.name or self.by

    @property
    def most(self) -> int:
        """The largest of its counts."""
        return max(self.counts)


@dataclass(frozen=True)
class NetworkNeed:
    """A network that re-ranking takes besides those of the extractors.

    kind     `local` (of an extractor of local features), `cvnet` or `rrt`
    rerank   the first part that takes it
    """

    kind: str
    rerank: Rerank

    @property
    def weights(self) -> str:
        """Name of its published weights, or empty."""
        return "" if self.kind == "local" else self.rerank.weights

    @property
    def wanted(self) -> str:
        """What to give if nothing is published."""
        return _WANTED[self.kind]


def reranked_row(row: str, rerank: Rerank, count: int) -> str:
    """Return the row of a re-ranked score: `medium, cvnet 100`."""
    return f"{row}, {rerank.title} {count}"


def split_row(row: str) -> tuple[str, str, int]:
    """Split a row into that of the protocol, the name of the part that ranked anew, and the number; "", 0 for none."""
    found = _ROW.fullmatch(row)
    return (found["row"], found["name"], int(found["count"])) if found else (row, "", 0)


def numbers_of_images(part: Rerank, database: int) -> dict[int, int]:
    """Return count → how many images a rehearsal ranks anew: where it has fewer, up to half of its database."""
    if part.most <= database:
        return {count: count for count in part.counts}
    return {count: max(1, count * database // (2 * part.most)) for count in part.counts}


def chosen(parts: Sequence[Rerank], names: Sequence[str], experiment: str) -> tuple[Rerank, ...]:
    """Return the parts of these names, in the order of the experiment; all of them for `all`.

    raises  InputError for an unknown name
    """
    known = [part.title for part in parts]
    for name in names:
        if name != ALL and name not in known:
            there = f"it has {', '.join(known)}" if known else "it ranks nothing anew; leave --rerank out"
            raise InputError(f"{experiment} has no re-ranking {name!r}; {there}")
    return tuple(part for part in parts if ALL in names or part.title in names)


def networks_of(parts: Sequence[Rerank]) -> list[NetworkNeed]:
    """List the networks that parts take, in the order of `--weights`; one that several parts share is there once."""
    found: dict[tuple[Any, ...], NetworkNeed] = {}
    for part in parts:
        for network in _networks(part):
            found.setdefault(_key(network), network)
    return list(found.values())


def place_of(parts: Sequence[Rerank], wanted: Rerank, kind: str) -> int | None:
    """Return the place of a network of a part in `networks_of`; None if it takes none of this kind."""
    keys = [_key(one) for one in networks_of(parts)]
    mine = [_key(one) for one in _networks(wanted) if one.kind == kind]
    return keys.index(mine[0]) if mine else None


def _networks(part: Rerank) -> list[NetworkNeed]:
    local = [NetworkNeed("local", part)] if part.own_network else []
    return local if part.by == "gv" else [*local, NetworkNeed(part.by, part)]


def _key(network: NetworkNeed) -> tuple[Any, ...]:
    """Return what two equal networks have in common; those of parts without published weights differ by name."""
    part = network.rerank
    if network.kind == "local":
        return ("local", part.extractor, repr(sorted(part.options.items())))
    return (network.kind, part.weights or part.title)


def check_rerank(parts: Sequence[Rerank], is_local: bool, where: str) -> None:
    """Raise DamagedError for a part that contradicts itself or the kind of the experiment."""
    titles = [part.title for part in parts]
    if len(set(titles)) < len(titles):
        raise DamagedError(f"{where}: two parts are called {max(titles, key=titles.count)!r}; keep one")
    for part in parts:
        _check(part, is_local, f"{where}: rerank {part.title}")


def _check(part: Rerank, is_local: bool, where: str) -> None:
    if part.by not in RERANKERS:
        raise DamagedError(f"{where}: by {part.by!r}, expected one of {', '.join(RERANKERS)}")
    if not _NAME.fullmatch(part.title) or part.title == ALL:
        raise DamagedError(f"{where}: a name has small letters, digits and hyphens, and is not {ALL!r}")
    if not part.counts or any(type(one) is not int or one < 1 for one in part.counts):
        raise DamagedError(f"{where}: counts {list(part.counts)}, expected numbers of 1 or more")
    if part.bits not in BITS or part.precision not in PRECISIONS:
        raise DamagedError(f"{where}: bits {part.bits}, precision {part.precision!r}; expected 32 or 8, fp32 or bf16")
    if part.thresholds not in (DELG, DETECT_TO_RETRIEVE):
        raise DamagedError(f"{where}: thresholds {part.thresholds!r}, expected {DELG} or {DETECT_TO_RETRIEVE}")
    if part.side < 16 or not 0 <= part.weight < float("inf"):
        raise DamagedError(f"{where}: side {part.side}, weight {part.weight}; expected 16 or more, 0 or more")
    _check_features(part, is_local, where)


def _check_features(part: Rerank, is_local: bool, where: str) -> None:
    """Raise DamagedError unless it is clear where local features come from."""
    needs = part.by != "cvnet" and not is_local
    if needs != bool(part.extractor):
        told = "write extractor" if needs else "leave extractor out"
        raise DamagedError(f"{where}: extractor {part.extractor!r}; {told}")
    if (part.own_network or part.options) and not part.extractor:
        raise DamagedError(f"{where}: own_network and options are of an extractor; write extractor")
    if part.by == "rrt" and is_local:
        raise DamagedError(f"{where}: rrt needs global descriptors; an experiment of kind local has none")
    if part.by == "gv" and part.weights:
        raise DamagedError(f"{where}: weights {part.weights!r}; gv has no network, leave them out")
