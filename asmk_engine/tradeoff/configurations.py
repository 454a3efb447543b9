"""The configurations of a sweep, each one way of indexing and searching the features of a source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from asmk_engine.errors import InputError
from asmk_engine.tradeoff.fusion import FusionPart, SourceFusion
from asmk_engine.verification.reranking import Reranking

PLACES, DESCRIPTORS, BOTH = "places", "descriptors", "both"
COMPARED = (PLACES, DESCRIPTORS, BOTH)
_KINDS = {PLACES: "reranked", DESCRIPTORS: "described", BOTH: "placed"}
_RERANKINGS = {PLACES: Reranking, DESCRIPTORS: Reranking.by_descriptors, BOTH: Reranking.by_both}
"""What re-ranking can compare, as `evaluate --rerank-by`."""


@dataclass(frozen=True)
class LocalConfiguration:
    """Local features of a source in an ASMK index.

    source               name of the source of the features
    strongest            n, maximum number of features per image
    bits                 bits of a code: dimensions of a descriptor after the projection
    words                size of the codebook
    multiple_assignment  number of words per query descriptor
    """

    source: str
    strongest: int
    bits: int
    words: int
    multiple_assignment: int

    @property
    def method(self) -> str:
        """Name of the method in tables: that of the source."""
        return self.source

    @property
    def kind(self) -> str:
        """Kind of the index: `asmk`."""
        return "asmk"

    @property
    def needs_seeds(self) -> bool:
        """Whether the result depends on the seed, as k-means is initialised at random."""
        return True

    def __str__(self) -> str:
        sizes = f"n={self.strongest} words={self.words} bits={self.bits} assignments={self.multiple_assignment}"
        return f"{self.source} {sizes}"


@dataclass(frozen=True)
class GlobalConfiguration:
    """Global descriptors of a source, one per image, in a flat index.

    pca  dimensions after PCA, or None for all
    pq   dimensions of a sub-space, which is encoded as one byte: 8 or 1; None for float32
    """

    source: str
    pca: int | None = None
    pq: int | None = None

    @property
    def method(self) -> str:
        """Name of the method in tables, such as `gem+pca+pq8`."""
        return f"{self.source}{'+pca' if self.pca else ''}{f'+pq{self.pq}' if self.pq else ''}"

    @property
    def kind(self) -> str:
        """Kind of the index: `flat`, `pca`, `pq` or `pca+pq`."""
        return "+".join(name for name in ("pca", "pq") if getattr(self, name)) or "flat"

    @property
    def needs_seeds(self) -> bool:
        """Whether the result depends on the seed: only the clustering of sub-spaces is initialised at random."""
        return self.pq is not None

    def __str__(self) -> str:
        given = [f"{name}={value}" for name in ("pca", "pq") if (value := getattr(self, name))]
        return " ".join([self.source, *(given or ["flat"])])


PartConfiguration = LocalConfiguration | GlobalConfiguration


@dataclass(frozen=True)
class FusedConfiguration:
    """One configuration of each part of a fused source, in one fused index.

    source   the fused source as it is written, such as `both=deep+sift`
    parts    a configuration of each part, in order
    weights  the weight of each part in the fused score, with the sum 1
    """

    source: str
    parts: tuple[PartConfiguration, ...]
    weights: tuple[float, ...]

    @property
    def method(self) -> str:
        """Name of the method in tables: that of the source."""
        return self.source

    @property
    def kind(self) -> str:
        """Kind of the index: `fused`."""
        return "fused"

    @property
    def needs_seeds(self) -> bool:
        """Whether the result of a part depends on the seed."""
        return any(part.needs_seeds for part in self.parts)

    @property
    def multiple_assignment(self) -> int:
        """Number of words per query descriptor, which is the same for all parts."""
        return next((part.multiple_assignment for part in self.parts if isinstance(part, LocalConfiguration)), 1)

    def __str__(self) -> str:
        return f"{self.source} ({'; '.join(map(str, self.parts))})"


PlainConfiguration = PartConfiguration | FusedConfiguration


@dataclass(frozen=True)
class RerankedConfiguration:
    """A configuration with local features whose first answers are verified and ranked anew.

    plain   the same without re-ranking
    images  number of answers that are verified
    by      what is compared, of `COMPARED`
    """

    plain: LocalConfiguration | FusedConfiguration
    images: int
    by: str = PLACES

    @property
    def source(self) -> str:
        """Name of the source of the features."""
        return self.plain.source

    @property
    def method(self) -> str:
        """Name of the method in tables: that of the source."""
        return self.plain.method

    @property
    def kind(self) -> str:
        """Kind of the search: `reranked` by places, `described` by descriptors, `placed` by both."""
        return _KINDS[self.by]

    @property
    def needs_seeds(self) -> bool:
        """Whether the result depends on the seed."""
        return self.plain.needs_seeds

    @property
    def reranking(self) -> Reranking:
        """How the first images are ranked anew, as `evaluate --rerank`."""
        return _RERANKINGS[self.by](self.images)

    def __str__(self) -> str:
        return f"{self.plain} rerank={self.images}{'' if self.by == PLACES else f' by {self.by}'}"


Configuration = PlainConfiguration | RerankedConfiguration


@dataclass(frozen=True)
class Sweep:
    """The values to measure; the first value of each list is the base.

    strongest, bits, words, multiple_assignment
                       for local features; empty bits mean the dimensions of the descriptors
    pca, pq            for global descriptors, in addition to the flat index
    one_at_a_time      vary one parameter of the base at a time, instead of all combinations
    seeds              number of clustering seeds per configuration
    rounds, training_per_word
                       for k-means; lower than the defaults of a codebook, since many codebooks are trained
    rerank             numbers of answers to verify and rank anew, in addition to no re-ranking, in every configuration
                       with local features
    rerank_by          what is compared then, of `COMPARED`
    """

    strongest: tuple[int, ...] = (1000, 400, 2000)
    bits: tuple[int, ...] = ()
    words: tuple[int, ...] = (4096,)
    multiple_assignment: tuple[int, ...] = (5,)
    pca: tuple[int, ...] = ()
    pq: tuple[int, ...] = ()
    one_at_a_time: bool = False
    seeds: int = 2
    rounds: int = 10
    training_per_word: int = 80
    rerank: tuple[int, ...] = ()
    rerank_by: tuple[str, ...] = (PLACES,)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else (value,)
            if any(number < 1 for number in values if not isinstance(number, bool | str)):
                raise InputError(f"{field.name} is {value}; give whole numbers of 1 or more")
        for name in ("strongest", "words", "multiple_assignment"):
            if not getattr(self, name):
                raise InputError(f"no {name} to try; give one number or more")
        if not self.rerank_by or set(self.rerank_by) - set(COMPARED):
            raise InputError(f"rerank_by is {self.rerank_by}; give some of {', '.join(COMPARED)}")


@dataclass(frozen=True)
class Supply:
    """The features of a source: global or local, their dimensions, and their maximum number per image."""

    is_global: bool
    dim: int
    most: int


def plan(sweep: Sweep, supplies: Mapping[str, Supply], fusions: Sequence[SourceFusion] = ()) -> list[Configuration]:
    """List the configurations of all sources, in their order, then those of the fused ones, without repetition.

    Each one with local features is followed by the same with re-ranking.

    More features or bits than a source has are reduced to what it has; PCA that would not reduce dimensions is omitted.
    """
    configurations: list[PlainConfiguration] = []
    for source, supply in supplies.items():
        configurations += (
            _global_configurations(sweep, source, supply)
            if supply.is_global
            else _local_configurations(sweep, source, supply)
        )
    for fusion in fusions:
        configurations += _fused_configurations(sweep, fusion, supplies)
    distinct = dict.fromkeys(configurations)
    return [one for plain in distinct for one in (plain, *_reranked_configurations(sweep, plain))]


def _reranked_configurations(sweep: Sweep, plain: PlainConfiguration) -> list[RerankedConfiguration]:
    if isinstance(plain, GlobalConfiguration) or not has_local_features(plain):
        return []
    return [RerankedConfiguration(plain, images, by) for by in sweep.rerank_by for images in sweep.rerank]


def has_local_features(configuration: PlainConfiguration) -> bool:
    """Return whether there is something to verify: local features, in one part at least."""
    parts = configuration.parts if isinstance(configuration, FusedConfiguration) else (configuration,)
    return any(isinstance(part, LocalConfiguration) for part in parts)


def _local_configurations(sweep: Sweep, source: str, supply: Supply) -> Iterator[LocalConfiguration]:
    lists = (sweep.strongest, sweep.bits or (None,), sweep.words, sweep.multiple_assignment)
    return (_local(source, supply, *values) for values in _combined(lists, sweep.one_at_a_time))


def _local(
    source: str, supply: Supply, strongest: int, bits: int | None, words: int, multiple_assignment: int
) -> LocalConfiguration:
    return LocalConfiguration(
        source, min(strongest, supply.most), min(bits or supply.dim, supply.dim), words, multiple_assignment
    )


def _global_configurations(sweep: Sweep, source: str, supply: Supply) -> Iterator[GlobalConfiguration]:
    kept = (None, *(dim for dim in sweep.pca if dim < supply.dim))
    return (
        GlobalConfiguration(source, *values) for values in _combined((kept, (None, *sweep.pq)), sweep.one_at_a_time)
    )


def _fused_configurations(
    sweep: Sweep, fusion: SourceFusion, supplies: Mapping[str, Supply]
) -> Iterator[FusedConfiguration]:
    """Yield a configuration for each combination of options: every part has those of its kind, and its own n if fixed.

    Combinations that differ only in options that no part has are equal.
    """
    lists = (
        *(sweep.strongest, sweep.bits or (None,), sweep.words, sweep.multiple_assignment),
        *((None, *sweep.pca), (None, *sweep.pq)),
    )
    for values in _combined(lists, sweep.one_at_a_time):
        parts = tuple(_part_configuration(part, supplies[part.source], *values) for part in fusion.parts)
        yield FusedConfiguration(str(fusion), parts, fusion.shares)


def _part_configuration(
    part: FusionPart,
    supply: Supply,
    strongest: int,
    bits: int | None,
    words: int,
    multiple_assignment: int,
    pca: int | None,
    pq: int | None,
) -> PartConfiguration:
    if supply.is_global:
        return GlobalConfiguration(part.source, pca if pca and pca < supply.dim else None, pq)
    return _local(part.source, supply, part.strongest or strongest, bits, words, multiple_assignment)


def _combined(lists: tuple[tuple[int | None, ...], ...], one_at_a_time: bool) -> Iterator[tuple]:
    """Yield all combinations of one value per list, or only those that differ from the base in at most one value."""
    if not one_at_a_time:
        yield from itertools.product(*lists)
        return
    base = tuple(values[0] for values in lists)
    for place, values in enumerate(lists):
        yield from ((*base[:place], value, *base[place + 1 :]) for value in values)
