"""Searching an index of whatever kind: what `query` and `evaluate` share."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from asmk_engine.cli.common import PATH, Console, Failures, option_group, was_given
from asmk_engine.errors import InputError, MismatchError

if TYPE_CHECKING:
    from asmk_engine.features import Features
    from asmk_engine.flat import GlobalIndex, GlobalSearcher
    from asmk_engine.images.boxes import Box
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.indexes.joint import JointIndex
    from asmk_engine.inverted.index import Index
    from asmk_engine.inverted.search import Searcher
    from asmk_engine.search.query_features import QuerySource

    AnyIndex = Index | GlobalIndex | JointIndex[Any]
    AnySearcher = Searcher | GlobalSearcher

FUSED = 1000  # images of each ranking that are fused
_OF_FEATURES = {"alpha": "--alpha", "threshold": "--threshold", "multiple_assignment": "--assignments", "idf": "--idf"}

expansion_options = option_group(
    click.option(
        "--expansion",
        type=click.IntRange(min=1),
        metavar="K",
        help="Of a global index: add its K nearest images to a query and search again.",
    ),
    click.option(
        "--expansion-alpha",
        type=click.FloatRange(min=0),
        default=3.0,
        show_default=True,
        help="Power of a similarity that weighs an image in the expansion.",
    ),
)
fusion_options = option_group(
    click.option(
        "--fuse", "other_path", type=PATH, metavar="OTHER", help="Fuse with the answers of another index, of any kind."
    ),
    click.option(
        "--fusion",
        type=click.Choice(["scores", "ranks"]),
        default="scores",
        show_default=True,
        help="Sum scores that are brought to 0 to 1, or reciprocal ranks.",
    ),
    click.option(
        "--fuse-weight",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="Share of OTHER in the sum; INDEX has the rest.",
    ),
)


@dataclass(frozen=True)
class SearchOptions:
    """What the commands let one choose of a search; see their help."""

    alpha: float
    threshold: float
    multiple_assignment: int
    idf: bool
    threads: int | None
    expansion: int | None = None
    expansion_alpha: float = 3.0


def searcher_of(index: AnyIndex, options: SearchOptions) -> AnySearcher:
    """A searcher for an index of either kind; InputError where query expansion is asked of local features."""
    from asmk_engine.flat import Expansion, GlobalSearcher
    from asmk_engine.flat.codec import Codec
    from asmk_engine.inverted.search import Searcher, SelectiveMatch

    if isinstance(index.snapshot.encoder, Codec):
        expansion = Expansion(options.expansion, options.expansion_alpha) if options.expansion else None
        return GlobalSearcher(cast(Any, index), expansion, threads=options.threads)
    match = SelectiveMatch(options.alpha, options.threshold, options.idf)
    return Searcher(cast(Any, index), match, multiple_assignment=options.multiple_assignment, threads=options.threads)


def check_options(index: AnyIndex, searcher: AnySearcher | Fused, options: SearchOptions, console: Console) -> None:
    """InputError where no index takes an expansion that is asked for, a message where none takes a match option."""
    indexes = [source.index for source in searcher.sources] if isinstance(searcher, Fused) else [index]
    are_global = [one.recipe.is_global for one in indexes]
    if options.expansion and not any(are_global):
        raise InputError(f"{index.path}: holds local features, --expansion goes with global descriptors; leave it out")
    given = [option for name, option in _OF_FEATURES.items() if was_given(name)]
    if given and all(are_global):
        console.say(f"{' and '.join(given)}: of no use for global descriptors, and not used")


@dataclass(frozen=True)
class Fused:
    """The searchers of two indexes whose answers are fused, and where each takes the features of a query.

    method, weight   how, and the share of the second
    """

    sources: tuple[QuerySource, QuerySource]
    searchers: tuple[AnySearcher, AnySearcher]
    method: str
    weight: float

    def search(self, name: str, box: Box | None, top: int) -> list[Hit]:
        """The best images for a query, described anew for each index."""
        from asmk_engine.search.fusion import fuse

        depth = max(FUSED, top)
        pairs = zip(self.sources, self.searchers, strict=True)
        rankings = [searcher.search(source.features(name, box)[0], depth) for source, searcher in pairs]
        hits = fuse(rankings, method=self.method, weights=[1 - self.weight, self.weight], top=top)
        self._check_same([hit.name for hit in hits])
        return hits

    def _check_same(self, names: list[str]) -> None:
        """MismatchError when a name in an answer is one photograph in one index and another in the other."""
        one, other = (source.index for source in self.sources)
        for name in names:
            first, second = one.identity(name), other.identity(name)
            are_files = first and second and first.root.is_known and second.root.is_known
            if first and second and are_files and first.fingerprint != second.fingerprint:
                raise MismatchError(
                    f"{name!r} is another photograph in {one.path} than in {other.path}, so their answers cannot be "
                    "fused; bring both up to date with `asmk-engine index --update`"
                )


def open_fused(
    source: QuerySource,
    searcher: AnySearcher,
    other: Path,
    options: SearchOptions,
    method: str,
    weight: float,
    images_roots: Sequence[Path],
) -> Fused:
    """A searcher of an index and of the one at `other`, which takes its queries' features from where it remembers."""
    from asmk_engine.search.opening import open_index
    from asmk_engine.search.query_features import QuerySource

    index = open_index(other)
    sources = source, QuerySource(index, images_roots=images_roots)
    return Fused(sources, (searcher, searcher_of(index, options)), method, weight)


def answer(
    source: QuerySource,
    searcher: AnySearcher | Fused,
    queries: Sequence[str],
    box: Box | None,
    top: int | None,
    failed: Failures,
) -> list[tuple[str, list[Hit]]]:
    """Each of some queries that can be asked, with its best images; those that cannot are noted in `failed`."""
    if isinstance(searcher, Fused):
        found = []
        for query in queries:
            with failed.noting(query):
                found.append((query, searcher.search(query, box, top or FUSED)))
        return found
    asked: list[str] = []
    features: list[Features] = []
    for query in queries:
        with failed.noting(query):
            features.append(source.features(query, box)[0])
            asked.append(query)
    return list(zip(asked, searcher.search(features, top), strict=True)) if asked else []


def tell_ambiguous(source: QuerySource, queries: Sequence[str], console: Console) -> None:
    """Say which queries are taken for indexed images although there are files of these names here."""
    for query in queries:
        if query in source.index and os.path.isfile(query):
            console.say(f"{query!r} is the indexed image of this name; ./{query} asks with the file that is here")


def check_printable_pairs(names: Collection[str], stream: TextIO) -> None:
    """InputError when image pairs, which escape nothing, cannot carry or the output cannot write some of the names."""
    from asmk_engine.cli.common import unprintable
    from asmk_engine.escape import list_names
    from asmk_engine.evaluation.runs import check_pair_names

    check_pair_names(names)
    if strange := unprintable(names, stream):
        raise InputError(
            f"{list_names(strange)}: the output is written in {stream.encoding}, which has no letters for that; set "
            "PYTHONIOENCODING=utf-8"
        )
