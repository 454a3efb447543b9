"""Pairs of images for structure from motion, called and written as hloc's `pairs_from_retrieval` does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.runs import check_pair_names
from asmk_engine.features import Features
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.indexes.answers import Hit
from asmk_engine.indexes.searcher import IndexSearcher
from asmk_engine.interop import hloc_reader
from asmk_engine.interop.colmap_model import model_images
from asmk_engine.interop.hloc_queries import Queries, open_queries
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.iteration import Progress
from asmk_engine.search.opening import open_index
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import read_file

Names = Path | str | Iterable[str]
Prefixes = str | tuple[str, ...] | None
AnySearcher = IndexSearcher[Any, Any]

_LARGEST_LIST = 1 << 30


def pairs_from_retrieval(
    descriptors: Path | str | None,
    output: Path | str,
    num_matched: int,
    query_prefix: str | Iterable[str] | None = None,
    query_list: Names | None = None,
    db_prefix: str | Iterable[str] | None = None,
    db_list: Names | None = None,
    db_model: Path | str | None = None,
    db_descriptors: Path | str | Iterable[Path | str] | None = None,
    *,
    index: Path | str | Index | GlobalIndex | FusedIndex | AnySearcher,
    name: str | None = None,
    on_query: Progress | None = None,
) -> int:
    """Write the images of an index that are most similar to each query as pairs, `query image` a line.

    Arguments and rules are those of `hloc.pairs_from_retrieval.main`: queries in their order, the best image first,
    none paired with itself, none whose similarity is below 0. Images that have nothing in common with a query, which
    score 0 in an index of local features, are left out. Equal scores are in byte order of the names.

    Parameters
    ----------
    descriptors : pathlib.Path, str or None
        What asks: hloc's file of local features, when the index is of such features; a folder of photographs, named by
        their path below it, as hloc names them; a feature set; or None for the images of the index.
    output : pathlib.Path or str
        The list of pairs, written whole or not at all.
    num_matched : int
        Images for a query; fewer where there are no more.
    query_prefix, query_list : optional
        The queries, by what their names begin with (text, or several), else by name (the names, or the path of files
        that list one a line, its last part a pattern), else all.
    db_prefix, db_list : optional
        The same for the images that queries are paired with; by default all of the index.
    db_model : pathlib.Path or str, optional
        The folder of a model of COLMAP, whose images count before `db_prefix` and `db_list`.
    db_descriptors : pathlib.Path, str or iterable of them, optional
        Files of hloc: only images that have a group in one of them count. Their descriptors are not read.
    index : pathlib.Path, str, Index, GlobalIndex, FusedIndex, or a searcher of one
        The index that is searched; a searcher to choose how.
    name : str, optional
        What made the local features in the file `descriptors`, as it was called when those of the index were imported;
        by default the stem of the file.
    on_query : callable, optional
        Called with (done, total) queries.

    Returns
    -------
    int
        How many pairs were written.

    Raises
    ------
    InputError
        For a number below 1, no query or no image to pair it with, and names that the list cannot carry.
    NotFoundError
        For queries, images of the database, files and folders that are not there.
    MismatchError
        For features that do not go with the index, and photographs that are others than those indexed.
    """
    searcher = _searcher(index)
    names = _database(searcher, _prefixes(db_prefix), db_list, db_model, db_descriptors)
    with open_queries(descriptors, cast(Any, searcher.index), name) as queries:
        asked = _queries(queries, _prefixes(query_prefix), query_list, descriptors)
        pairs = _pairs(searcher, queries, asked, names, num_matched, on_query)
    folder = Folder(Path(output).parent)
    folder.make()
    folder.write(Path(output).name, ["\n".join(pairs).encode()])
    return len(pairs)


def _pairs(
    searcher: AnySearcher,
    queries: Queries,
    asked: Sequence[str],
    names: Sequence[str] | None,
    count: int,
    on_query: Progress | None,
) -> list[str]:
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise InputError(f"num_matched is {count!r}; give a whole number of 1 or more")
    check_pair_names({*asked, *(searcher.index.names if names is None else names)})
    pairs: list[str] = []
    for done, (query, images) in enumerate(_matched(searcher, queries, asked, names, int(count)), start=1):
        pairs.extend(f"{query} {image}" for image in images)
        if on_query:
            on_query(done, len(asked))
    return pairs


def _searcher(index: Path | str | Index | GlobalIndex | FusedIndex | AnySearcher) -> AnySearcher:
    if isinstance(index, IndexSearcher):
        return index
    opened = open_index(index) if isinstance(index, Path | str) else index
    if isinstance(opened, FusedIndex):
        return FusedSearcher(opened)
    return GlobalSearcher(opened) if isinstance(opened, GlobalIndex) else Searcher(opened)


def _prefixes(given: str | Iterable[str] | None) -> Prefixes:
    return given if given is None or isinstance(given, str) else tuple(given)


def _queries(queries: Queries, prefix: Prefixes, listed: Names | None, where: object) -> list[str]:
    asked = _chosen(queries.names, prefix, listed)
    missing = dict.fromkeys(asked).keys() - set(queries.names)
    if missing:
        place = "the index" if where is None else where
        raise NotFoundError(f"{list_names(sorted(missing))}: not in {place}, which queries were to be taken from")
    if not asked:
        raise InputError(f"no query: {_why_none(prefix, len(queries.names))}")
    return asked


def _database(
    searcher: AnySearcher,
    prefix: Prefixes,
    listed: Names | None,
    model: Path | str | None,
    files: Path | str | Iterable[Path | str] | None,
) -> list[str] | None:
    """The names of the images that queries are paired with, or None for all of the index."""
    if model is None and prefix is None and listed is None and files is None:
        return None
    index = searcher.index
    if model is not None:
        names = model_images(model)
    else:
        names = _chosen(index.names if files is None else _names_in(files), prefix, listed)
    missing = dict.fromkeys(names).keys() - searcher.image_numbers(names).keys()
    if missing:
        raise NotFoundError(
            f"{list_names(sorted(missing))}: not in {index.path}, though queries were to be paired with them; index "
            "them from the folder that the names are relative to"
        )
    if not names:
        raise InputError(f"no image to pair queries with: {_why_none(prefix, len(index))}")
    return list(dict.fromkeys(names))


def _names_in(files: Path | str | Iterable[Path | str]) -> list[str]:
    """The images in files of hloc, of local features or global descriptors."""
    found: list[str] = []
    for path in [files] if isinstance(files, Path | str) else files:
        with hloc_reader.open_hloc(Path(path)) as file:
            found += hloc_reader.image_names(file, Path(path))
    return found


def _chosen(every: Sequence[str], prefix: Prefixes, listed: Names | None) -> list[str]:
    """Names by prefix, else as they are listed, else all: hloc's order of precedence."""
    if prefix is not None:
        return [name for name in every if name.startswith(prefix)]
    if listed is None:
        return list(every)
    return _read_lists(Path(listed)) if isinstance(listed, Path | str) else list(listed)


def _read_lists(path: Path) -> list[str]:
    """The first column of every line of some files, without empty lines and those that begin with #."""
    files = sorted(path.parent.glob(path.name))
    if not files:
        raise NotFoundError(f"{path}: no such list of images; expected a file with one name a line")
    lines = itertools.chain.from_iterable(_lines(file) for file in files)
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"{path}: lists no image; expected one name a line")
    return names


def _lines(path: Path) -> list[str]:
    try:
        return read_file(path, "a list of images", _LARGEST_LIST).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected a list of names, one a line") from None


def _why_none(prefix: Prefixes, count: int) -> str:
    if prefix is None:
        return "none is listed; expected one name or more"
    begins = " or ".join(map(repr, [prefix] if isinstance(prefix, str) else prefix)) or "no prefix at all"
    return f"none of {count} names begins with {begins}; expected the beginning of a name"


def _matched(
    searcher: AnySearcher, queries: Queries, asked: Sequence[str], names: Sequence[str] | None, count: int
) -> Iterator[tuple[str, list[str]]]:
    """Each query with its best images."""
    if names is None:
        for begin in range(0, len(asked), searcher.group_size):
            group = asked[begin : begin + searcher.group_size]
            features = [queries.features(query) for query in group]
            answers = cast("list[list[Hit]]", searcher.search(features, count + 1))
            for query, hits in zip(group, answers, strict=True):
                yield query, [hit.name for hit in hits if hit.name != query and hit.score >= 0][:count]
        return
    numbers = searcher.image_numbers(names)
    by_number = {number: name for name, number in numbers.items()}
    allowed = np.sort(np.fromiter(by_number, np.int64, len(by_number)))
    for query in asked:
        yield query, _best_of(searcher, queries.features(query), allowed, numbers.get(query, -1), by_number, count)


def _best_of(
    searcher: AnySearcher, query: Features, allowed: np.ndarray, own: int, names: dict[int, str], count: int
) -> list[str]:
    """The best images for a query among those of some numbers, itself left out."""
    ranked = searcher.rank(query)
    kept = np.isin(ranked.numbers, allowed) & (ranked.numbers != own) & (ranked.scores >= 0)
    return [names[number] for number in ranked.numbers[kept][:count].tolist()]
