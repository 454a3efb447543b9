"""What an audit asks people: pairs of a query and a training image, and classes whose names say too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

from asmk_engine.errors import DamagedError

PAIR, CLASS = "pair", "class"


def key_of(*names: str) -> str:
    """Return what a question is called in files and addresses: 16 hexadecimal digits that follow from its names."""
    return blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class AuditPair:
    """A query and a training image that the automatic stages take for the same thing.

    Attributes
    ----------
    query, test_set : str
        Name of the query, and label of its test set.
    image, label : str
        Name of the training image, and its class.
    score : float
        Similarity in the index of candidates.
    evidence : float
        What speaks for the pair, see `AuditOptions.evidence`.
    inliers, places : int
        Pairs of features that one map explains, and their distinct places.
    """

    query: str
    test_set: str
    image: str
    label: str
    score: float
    evidence: float
    inliers: int
    places: int

    @property
    def key(self) -> str:
        """The key of the question whether both show the same thing."""
        return key_of(PAIR, self.query, self.image)

    def as_dict(self) -> dict[str, Any]:
        """Return the pair as plain values for JSON, with its key."""
        return {"key": self.key, **asdict(self)}


@dataclass(frozen=True)
class NamedClass:
    """A class that the text path found: its label, the name in which a word was found, and its number of images."""

    label: str
    name: str
    images: int

    @property
    def key(self) -> str:
        """The key of the question whether a test set shows this class."""
        return key_of(CLASS, self.label)

    def as_dict(self) -> dict[str, Any]:
        """Return the class as plain values for JSON, with its key."""
        return {"key": self.key, **asdict(self)}


@dataclass(frozen=True)
class SetCounts:
    """What the automatic stages found between a training set and the queries.

    Attributes
    ----------
    name : str
        Name of the training set.
    images, classes : int
        Its images and classes.
    queries : dict of str to int
        Number of queries of each test set.
    pairs : int
        Pairs that were verified.
    found : int
        Pairs whose evidence suffices.
    found_queries : int
        Queries with such a pair.
    chance : int
        Pairs that were not found, but whose evidence suffices with the query mirrored: what chance gives.
    """

    name: str
    images: int
    classes: int
    queries: dict[str, int]
    pairs: int
    found: int
    found_queries: int
    chance: int


@dataclass(frozen=True, eq=False)
class Questions:
    """All that the automatic stages found, in the order in which people are asked.

    Attributes
    ----------
    counts : SetCounts
        Of the training set.
    controls : tuple of SetCounts
        Of other training sets, for comparison.
    pairs : tuple of AuditPair
        The pairs of each query, the surest first, in the order of the queries.
    named : tuple of NamedClass
        The classes of the text path.
    unread : dict of str to str
        Name of an image or query that was left out → the reason.
    """

    counts: SetCounts
    controls: tuple[SetCounts, ...]
    pairs: tuple[AuditPair, ...]
    named: tuple[NamedClass, ...]
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """The keys of all questions, in their order."""
        asked: list[AuditPair | NamedClass] = [*self.pairs, *self.named]
        return [one.key for one in asked]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "counts": asdict(self.counts),
            "controls": [asdict(one) for one in self.controls],
            "pairs": [one.as_dict() for one in self.pairs],
            "named": [one.as_dict() for one in self.named],
            "unread": self.unread,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Questions:
        """Return the questions of `as_dict`; raises DamagedError for anything else."""
        try:
            return cls(
                SetCounts(**content["counts"]),
                tuple(SetCounts(**one) for one in content["controls"]),
                tuple(AuditPair(**_without_key(one)) for one in content["pairs"]),
                tuple(NamedClass(**_without_key(one)) for one in content["named"]),
                dict(content["unread"]),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"the questions of the audit cannot be read ({error}); run it again") from None


def _without_key(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "key"}
