"""Search of an index of any kind: what `query`, `evaluate` and `classify` share."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from asmk_engine.cli.cluster_options import cluster_index
from asmk_engine.cli.common import PATH, Console, Failures, option_group, parse_numbers, was_given
from asmk_engine.cli.diffusion import check_neighbour_options, with_neighbours
from asmk_engine.cli.search_options import SearchOptions
from asmk_engine.errors import InputError, MismatchError

if TYPE_CHECKING:
    from asmk_engine.diffusion import AugmentingSearcher, DiffusionSearcher
    from asmk_engine.flat import GlobalIndex, GlobalSearcher
    from asmk_engine.fused.index import FusedIndex
    from asmk_engine.fused.search import FusedSearcher
    from asmk_engine.images.boxes import Box
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.indexes.joint import JointIndex
    from asmk_engine.indexes.searcher import RerankingSearcher
    from asmk_engine.inverted.index import Index
    from asmk_engine.inverted.search import Searcher
    from asmk_engine.recipes import Recipe
    from asmk_engine.search.query_features import FusedQuerySource, QuerySource
    from asmk_engine.sharding.hosted_index import HostedIndex

    AnyIndex = Index | GlobalIndex | FusedIndex | JointIndex[Any]
    PlainSearcher = Searcher | GlobalSearcher | FusedSearcher
    AnySearcher = PlainSearcher | DiffusionSearcher | AugmentingSearcher | RerankingSearcher[Any]
    AnySource = QuerySource | FusedQuerySource

FUSED = 1000  # number of images of each ranking that are fused
_OF_FEATURES = {"alpha": "--alpha", "threshold": "--threshold", "multiple_assignment": "--assignments", "idf": "--idf"}

expansion_options = option_group(
    click.option(
        "--expansion",
        type=click.IntRange(min=1),
        metavar="K",
        help="Query expansion, for a global index: add the K nearest images to the query and search again.",
    ),
    click.option(
        "--expansion-alpha",
        type=click.FloatRange(min=0),
        default=3.0,
        show_default=True,
        help="Exponent of the similarity that weights an image in the expansion.",
    ),
)
kind_weights_option = click.option(
    "--kind-weights",
    metavar="W1,W2,...",
    callback=lambda context, parameter, value: parse_numbers(value),
    help="Weights of the kinds of features in the score, for an index of several kinds.  [default: those it stores]",
)
rerank_options = option_group(
    click.option(
        "--rerank",
        type=click.IntRange(min=1),
        metavar="K",
        help="Verify the first K images by the places of their features, and rank them anew; 50 is a good number. "
        "Needs local features, whose places are in an index made with --geometry or in the feature set it remembers.",
    ),
    click.option(
        "--rerank-by",
        type=click.Choice(["places", "descriptors", "both"]),
        default="places",
        show_default=True,
        help="What --rerank compares: the places of features; the descriptors alone, which are in the feature set that "
        "the index remembers; or both, which takes the longest. docs/halves.md has what each gains.",
    ),
    click.option(
        "--join",
        "joins",
        type=click.IntRange(1, 5),
        metavar="N",
        help="Query expansion: images that --rerank verifies beyond doubt join the query, which is searched again, N "
        "times (1 or 2). No sure gain over --rerank alone.",
    ),
)
turn_options = option_group(
    click.option(
        "--rotations", is_flag=True, help="Also search with the query turned by 90, 180 and 270 degrees; takes longer."
    ),
    click.option("--mirror", is_flag=True, help="Also search with the query mirrored; takes twice as long."),
)
fusion_options = option_group(
    click.option(
        "--fuse", "other_path", type=PATH, metavar="OTHER", help="Fuse the ranking with that of another index."
    ),
    click.option(
        "--fusion",
        type=click.Choice(["scores", "ranks"]),
        default="scores",
        show_default=True,
        help="scores: sum of the scores, scaled to 0 to 1. ranks: sum of the reciprocal ranks.",
    ),
    click.option(
        "--fuse-weight",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="Weight of OTHER in the sum; the weight of INDEX is 1 minus this.",
    ),
)


def searcher_of(index: AnyIndex, options: SearchOptions, console: Console) -> AnySearcher:
    """Return a searcher for an index of any kind, with --diffusion, --augmentation and --rerank if they are given.

    Raises InputError for --kind-weights of an index of one kind, and for --rerank of one without local features; and
    what `with_neighbours` raises.
    """
    from asmk_engine.indexes.searcher import RerankingSearcher

    check_neighbour_options(options)
    reranking = options.reranking
    if reranking is not None and all(recipe.is_global for recipe in _recipes(index)):
        raise InputError(
            f"{index.path}: has no local features, whose places --rerank and --explain compare; leave them out"
        )
    searcher: AnySearcher = with_neighbours(_plain_searcher(index, options), options, console)
    return searcher if reranking is None else RerankingSearcher(cast(Any, searcher), reranking)


def cluster_searcher(index: HostedIndex, options: SearchOptions, allow_partial: bool) -> AnySearcher:
    """Return a searcher for a sharded index on a cluster, with --rerank if it is given."""
    from asmk_engine.indexes.searcher import RerankingSearcher
    from asmk_engine.inverted.search import SelectiveMatch
    from asmk_engine.sharding.fused_search import searcher_of_shards

    _check_kind_weights(index, options)
    searcher = searcher_of_shards(
        index, SelectiveMatch(options.alpha, options.threshold, options.idf),
        multiple_assignment=options.multiple_assignment, weights=options.kind_weights, allow_partial=allow_partial,
        threads=options.threads,
    )  # fmt: skip
    reranking = options.reranking
    return cast(Any, searcher if reranking is None else RerankingSearcher(searcher, reranking))


def opened_for_search(
    path: Path, cluster: dict[str, Any], options: SearchOptions, console: Console
) -> tuple[Any, AnySearcher]:
    """Open an index of any kind, in this process or on a cluster, and return it with its searcher."""
    from asmk_engine.search.opening import open_any

    if (hosted := cluster_index(path, cluster)) is not None:
        return hosted, cluster_searcher(hosted, options, cluster["allow_partial"])
    index = open_any(path)
    return index, searcher_of(index, options, console)


def check_cluster_search(cluster: dict[str, Any], search: dict[str, Any], other: Path | None) -> None:
    """Raise UsageError for options of a search that need all images in one process, which --ray has not."""
    names = ("diffusion", "augmentation", "expansion", "rotations", "mirror")
    given = [f"--{name.replace('_', '-')}" for name in names if search[name]] + ["--fuse"] * (other is not None)
    if cluster["ray"] is not None and given:
        raise click.UsageError(f"--ray and {given[0]} exclude each other; give one of them")


def _plain_searcher(index: AnyIndex, options: SearchOptions) -> PlainSearcher:
    from asmk_engine.flat import Expansion, GlobalSearcher
    from asmk_engine.flat.codec import Codec
    from asmk_engine.fused.search import FusedSearcher
    from asmk_engine.fused.snapshot import Fusion
    from asmk_engine.inverted.search import Searcher, SelectiveMatch

    expansion = Expansion(options.expansion, options.expansion_alpha) if options.expansion else None
    match = SelectiveMatch(options.alpha, options.threshold, options.idf)
    if isinstance(index.snapshot.encoder, Fusion):
        return FusedSearcher(
            cast(Any, index), match, multiple_assignment=options.multiple_assignment, expansion=expansion,
            weights=options.kind_weights, threads=options.threads,
        )  # fmt: skip
    _check_kind_weights(index, options)
    if isinstance(index.snapshot.encoder, Codec):
        return GlobalSearcher(cast(Any, index), expansion, threads=options.threads)
    return Searcher(cast(Any, index), match, multiple_assignment=options.multiple_assignment, threads=options.threads)


def _check_kind_weights(index: Any, options: SearchOptions) -> None:
    """Raise InputError for --kind-weights of an index of one kind."""
    if options.kind_weights is not None and not hasattr(index.snapshot.encoder, "kinds"):
        raise InputError(f"{index.path}: has one kind of features, which needs no weight; leave --kind-weights out")


def check_options(index: AnyIndex, searcher: object, options: SearchOptions, console: Console) -> None:
    """Raise InputError if no index supports a given --expansion; print a message if none uses a given match option."""
    indexes = [source.index for source in searcher.sources] if isinstance(searcher, Fused) else [index]
    are_global = [recipe.is_global for one in indexes for recipe in _recipes(one)]
    if options.expansion and not any(are_global):
        raise InputError(f"{index.path}: holds local features, but --expansion needs global descriptors; leave it out")
    given = [option for name, option in _OF_FEATURES.items() if was_given(name)]
    if given and all(are_global):
        console.say(f"{' and '.join(given)}: ignored, since the index has global descriptors")


def _recipes(index: Any) -> list[Recipe]:
    """Return the recipe of each kind of features of an index."""
    encoder = index.snapshot.encoder
    return [kind.recipe for kind in encoder.kinds] if hasattr(encoder, "kinds") else [index.recipe]


class TurningSearcher:
    """Searches with photographs and their turned versions.

    index    an index of any kind
    options  with rotations, mirror or both
    """

    def __init__(self, index: AnyIndex, options: SearchOptions) -> None:
        self.index, self._options = index, options
        self._searcher = _plain_searcher(index, options)

    def search_photograph(self, photograph: Path, box: Box | None, top: int | None) -> list[Hit]:
        """Return the best images for a photograph, each by the turn that fits best."""
        from asmk_engine.search.turned import search_turned, turns

        wanted = turns(rotations=self._options.rotations, mirror=self._options.mirror)
        return search_turned(self._searcher, photograph, wanted, top, box=box, rerank=self._options.reranking)


@dataclass(frozen=True)
class Fused:
    """The searchers of two indexes whose rankings are fused, and the sources of their query features.

    method, weight   fusion method, and weight of the second index
    """

    sources: tuple[AnySource, AnySource]
    searchers: tuple[AnySearcher, AnySearcher]
    method: str
    weight: float

    def search(self, name: str, box: Box | None, top: int) -> list[Hit]:
        """Return the best images for a query, whose features are extracted separately for each index."""
        from asmk_engine.search.fusion import fuse

        depth = max(FUSED, top)
        pairs: Any = zip(self.sources, self.searchers, strict=True)
        rankings = [searcher.search(source.features(name, box)[0], depth) for source, searcher in pairs]
        hits = fuse(rankings, method=self.method, weights=[1 - self.weight, self.weight], top=top)
        self._check_same([hit.name for hit in hits])
        return hits

    def _check_same(self, names: list[str]) -> None:
        """Raise MismatchError if a name of a ranking belongs to different images in the two indexes."""
        one, other = (source.index for source in self.sources)
        for name in names:
            first, second = one.identity(name), other.identity(name)
            are_files = first and second and first.root.is_known and second.root.is_known
            if first and second and are_files and first.fingerprint != second.fingerprint:
                raise MismatchError(
                    f"{name!r} is a different photograph in {one.path} than in {other.path}, so their rankings cannot "
                    "be fused; bring both up to date with `asmk-engine index --update`"
                )


def open_fused(
    source: AnySource,
    searcher: AnySearcher,
    other: Path,
    options: SearchOptions,
    method: str,
    weight: float,
    images_roots: Sequence[Path],
    console: Console,
) -> Fused:
    """Return the fused searcher of an index and the one at `other`, which uses its recorded query features.

    --kind-weights, --diffusion and --augmentation are of the first index only.
    """
    from asmk_engine.search.opening import open_any
    from asmk_engine.search.query_features import query_source

    index = open_any(other)
    sources = source, query_source(index, images_roots=images_roots)
    own = replace(options, kind_weights=None, diffusion=False, augmentation=None)
    return Fused(sources, (searcher, searcher_of(index, own, console)), method, weight)


def answer(
    source: AnySource,
    searcher: AnySearcher | Fused | TurningSearcher,
    queries: Sequence[str],
    box: Box | None,
    top: int | None,
    failed: Failures,
) -> list[tuple[str, list[Hit]]]:
    """Return the queries that succeed, each with its best images; errors of the others are recorded in `failed`."""
    found: list[tuple[str, list[Hit]]] = []
    if isinstance(searcher, Fused):
        for query in queries:
            with failed.noting(query):
                found.append((query, searcher.search(query, box, top or FUSED)))
        return found
    if isinstance(searcher, TurningSearcher):
        for query in queries:
            with failed.noting(query):
                name = source.indexed_name(query)
                source_path = Path(query) if name is None else source.image_path(name)
                found.append((query, searcher.search_photograph(source_path, box, top)))
        return found
    names: list[str] = []
    features: list[Any] = []
    for query in queries:
        with failed.noting(query):
            features.append(source.features(query, box)[0])
            names.append(query)
    return list(zip(names, searcher.search(features, top), strict=True)) if names else []


def tell_ambiguous(source: AnySource, queries: Sequence[str], console: Console) -> None:
    """Report queries that are used as names of indexed images although files of these names exist."""
    for query in queries:
        if query in source.index and os.path.isfile(query):
            console.say(f"{query!r} is the indexed image of this name; ./{query} queries with the file of this name")


def check_printable_pairs(names: Collection[str], stream: TextIO) -> None:
    """Raise InputError if image pairs, which escape nothing, or the encoding of the output cannot hold some names."""
    from asmk_engine.cli.common import unprintable
    from asmk_engine.escape import list_names
    from asmk_engine.evaluation.runs import check_pair_names

    check_pair_names(names)
    if strange := unprintable(names, stream):
        raise InputError(
            f"{list_names(strange)}: the encoding of the output, {stream.encoding}, lacks characters of these names; "
            "set PYTHONIOENCODING=utf-8"
        )
