"""Ranking files: TREC runs, JSON lines, image pairs and submissions to Google Landmarks v2.

    trec    query Q0 image rank score tag     names with white space, control characters or % as %XX, see `escape`
    jsonl   {"query": name, "hits": [{"name": name, "score": number}, ...]}     supports every name; a hit that was
            verified also has "matches", what `Match.as_dict` returns for each kind of local features, and on request
            in each of them "features", what `Match.contributions` returns; and "verdict" and "probability"
    pairs   query image                       as hloc and COLMAP read them; names with white space are refused
    gldv2   id,images                         a CSV: the best hundred images, without folders and extensions

The array of image numbers of Revisited Oxford and Paris, which depends on the ground truth, is in `ranks.py`.
"""

from __future__ import annotations

import itertools
import json
import math
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

from asmk_engine.errors import DamagedError, FormatError, InputError
from asmk_engine.escape import escape_name, is_awkward, list_names, unescape_name
from asmk_engine.evaluation.landmarks import read_submission, retrieval_header
from asmk_engine.evaluation.names import last_part, repeated
from asmk_engine.indexes.joint import split_mark
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import open_file

FORMATS = ("trec", "jsonl", "pairs", "gldv2")
TAG = "asmk-engine"
SUBMITTED = 100  # images per query, as in the challenge

_READABLE = (
    "a TREC run (query Q0 image rank score tag), JSON lines (query, hits), pairs (query image) or a submission "
    "(id,images)"
)


class Scored(Protocol):
    """A ranked image, with the attributes that ranking files store."""

    @property
    def name(self) -> str:
        """The name of the image."""

    @property
    def score(self) -> float:
        """Its similarity to the query."""


def trec_lines(query: str, hits: Iterable[Scored]) -> Iterator[str]:
    """Yield the lines of one query in a TREC run, with ranks from 1 and full scores.

    raises  InputError for scores that increase with the rank, since readers sort by score, or are not finite
    """
    last = math.inf
    for rank, hit in enumerate(hits, start=1):
        score = _finite(hit.score, query)
        if score > last:
            raise InputError(
                f"query {query!r}: {hit.name!r} at rank {rank} scores above the image before it; TREC readers sort by "
                "score, so use --format jsonl"
            )
        last = score
        yield f"{_column(query)} Q0 {_column(hit.name)} {rank} {score!r} {TAG}"


def jsonl_line(query: str, hits: Iterable[Scored], *, contributions: bool = False) -> str:
    """Format one query as one line of JSON, hits in order; raises InputError for scores that are not finite.

    contributions  also list the matched features of hits that were verified
    """
    entry = {"query": query, "hits": [_entry(query, hit, contributions) for hit in hits]}
    text = json.dumps(entry, ensure_ascii=False)
    # Lone surrogates cannot be encoded in UTF-8, and other characters than the newline break lines in some readers.
    return json.dumps(entry) if is_awkward(text.replace(" ", "")) else text


def _entry(query: str, hit: Scored, contributions: bool) -> dict[str, Any]:
    """Return a hit of JSON lines, with what it has in common with the query where it was verified."""
    entry: dict[str, Any] = {"name": hit.name, "score": _finite(hit.score, query)}
    if matches := getattr(hit, "matches", ()):
        entry["matches"] = [match and _match_entry(match, contributions) for match in matches]
    if (verdict := getattr(hit, "verdict", None)) is not None:
        entry |= {"verdict": verdict, "probability": getattr(hit, "probability", None)}
    if turn := getattr(hit, "turn", ""):
        entry["turn"] = turn
    return entry


def _match_entry(match: Any, contributions: bool) -> dict[str, Any]:
    return {**match.as_dict(), "features": match.contributions()} if contributions else match.as_dict()


def pair_lines(rankings: Iterable[tuple[str, Iterable[Scored]]]) -> Iterator[str]:
    """Yield pairs of images, `query image`, each unordered pair once and no image with itself.

    raises  InputError for names that the format cannot represent: with white space, or beginning with #
    """
    seen: set[tuple[str, str]] = set()
    for query, hits in rankings:
        for hit in hits:
            pair = (query, hit.name) if query <= hit.name else (hit.name, query)
            if query != hit.name and pair not in seen:
                seen.add(pair)
                yield f"{pair_name(query)} {pair_name(hit.name)}"


def ranked_pair_lines(rankings: Iterable[tuple[str, Iterable[Scored]]]) -> Iterator[str]:
    """Yield every ranking completely as pairs, `query image`, best image first, so that it can be evaluated again.

    A query is omitted from its own ranking. Raises InputError for names that the format cannot represent, see
    `pair_name`.
    """
    for query, hits in rankings:
        for hit in hits:
            if query != hit.name:
                yield f"{pair_name(query)} {pair_name(hit.name)}"


def gldv2_lines(rankings: Iterable[tuple[str, Iterable[Scored]]]) -> Iterator[str]:
    """Yield the lines of a retrieval submission, header first; an image id is the name without folder and extension.

    raises  InputError for ids that the CSV cannot represent, or that are repeated in a ranking
    """
    yield "id,images"
    for query, hits in rankings:
        ids = [submitted_id(hit.name) for hit in itertools.islice(hits, SUBMITTED)]
        if (twice := repeated(ids)) is not None:
            raise InputError(f"query {query!r}: two images have the id {twice!r}; a submission needs distinct ids")
        yield f"{submitted_id(query)},{' '.join(ids)}"


def submitted_id(name: str) -> str:
    """Return the name without folders and image extension; raises InputError if a submission cannot represent it.

    A distractor keeps its mark, so that its id differs from those of the database images.
    """
    mark, own = split_mark(name)
    found = mark + last_part(own)
    return submitted_word("id", found, empty=found == mark)


def submitted_word(kind: str, word: str, *, empty: bool) -> str:
    """Return the word, an id or a label; raises InputError if the CSV of a submission cannot represent it."""
    if empty or is_awkward(word) or {",", '"'} & set(word):
        raise InputError(f"the {kind} {word!r} is empty or has white space, a comma or a quote: use another format")
    return word


def run_lines(
    rankings: Iterable[tuple[str, Iterable[Scored]]], form: str, *, contributions: bool = False
) -> Iterator[str]:
    """Yield the lines, without line ends, of rankings in one of `FORMATS`; raises InputError for another format.

    contributions  list the matched features in JSON lines, see `jsonl_line`
    """
    if form == "pairs":
        return pair_lines(rankings)
    if form == "jsonl":
        return (jsonl_line(query, hits, contributions=contributions) for query, hits in rankings)
    if form == "trec":
        return itertools.chain.from_iterable(trec_lines(query, hits) for query, hits in rankings)
    if form == "gldv2":
        return gldv2_lines(rankings)
    raise InputError(f"ranking format {form!r}: expected one of {', '.join(FORMATS)}")


def write_run(
    path: Path | str, rankings: Mapping[str, Iterable[Scored]] | Iterable[tuple[str, Iterable[Scored]]], form: str
) -> None:
    """Write a ranking file in one of `FORMATS`, atomically; pairs include all ranked images, in both directions.

    rankings  consumed one by one, so those of an iterator need not be in memory together
    raises    InputError for names and scores that the format cannot represent; StorageError
    """
    path = Path(path)
    one_by_one = rankings.items() if isinstance(rankings, Mapping) else rankings
    lines = ranked_pair_lines(one_by_one) if form == "pairs" else run_lines(one_by_one, form)
    Folder(path.parent).write(path.name, (f"{line}\n".encode() for line in lines))


def read_run(path: Path | str) -> dict[str, list[str]]:
    """Read query → names of the images, best first, from a file of any format above, detected from its content.

    A TREC run is sorted by decreasing score, ties by rank, as its evaluators do; the others keep their order.

    raises  FormatError for a file of another kind; DamagedError, with the number of the line, for invalid lines and
            images that are repeated under one query; NotFoundError, StorageError
    """
    path = Path(path)
    with open_file(path, "a ranking file") as file:
        lines = _filled_lines(file)
        first = next(lines, None)
        if first is None:
            raise FormatError(f"{path}: empty, expected {_READABLE}")
        if retrieval_header(first[1]):
            return read_submission(path)
        return _reader(first[1], path)(itertools.chain([first], lines), path)


def _filled_lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(file, start=1):
        filled = line.removeprefix(BOM_UTF8 if number == 1 else b"").strip()
        if filled:
            yield number, filled


def _reader(line: bytes, path: Path) -> Callable[[Iterable[tuple[int, bytes]], Path], dict[str, list[str]]]:
    """Return the reader for a file with this first line; the query of a TREC run may begin with a brace too."""
    columns = len(line.split())
    if line[:1] == b"{" and (columns != 6 or _jsonl_entry(line) is not None):
        return _read_jsonl
    if columns == 6:
        return _read_trec
    if columns == 2:
        return _read_pairs
    raise FormatError(f"{path}: the first line has {columns} columns, expected {_READABLE}")


def _finite(score: float, query: str) -> float:
    if not math.isfinite(score):
        raise InputError(f"query {query!r}: a score is {score}, but only finite scores can be written")
    return float(score)


def _column(name: str) -> str:
    if not name:
        raise InputError("an empty name cannot be written into a TREC run: give the image a name")
    return escape_name(name)


def pair_name(name: str) -> str:
    """Return the name; raises InputError if a list of pairs cannot represent it."""
    check_pair_names([name])
    return name


def check_pair_names(names: Iterable[str]) -> None:
    """Raise InputError if a list of pairs cannot represent some names; lists the first of them in byte order."""
    refused = [name for name in names if not name or is_awkward(name) or name.startswith("#")]
    if refused:
        ordered = sorted(refused, key=lambda name: name.encode("utf-8", "surrogatepass"))
        raise InputError(
            f"{list_names(ordered)}: a list of pairs cannot represent names that are empty, have white space, or "
            "begin with #, which marks a comment; rename the images, or use --format jsonl"
        )


def _read_trec(lines: Iterable[tuple[int, bytes]], path: Path) -> dict[str, list[str]]:
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for number, line in lines:
        query, image, rank, score = _trec_columns(line, number, path)
        images = found.setdefault(query, {})
        if image in images:
            _twice(image, query, number, path)
        images[image] = (-score, rank)
    return {query: sorted(images, key=images.__getitem__) for query, images in found.items()}


def _trec_columns(line: bytes, number: int, path: Path) -> tuple[str, str, int, float]:
    columns = line.split()
    if len(columns) != 6:
        _broken(f"{len(columns)} columns, expected the 6 of a TREC run", number, path)
    try:
        query, image = unescape_name(columns[0].decode()), unescape_name(columns[2].decode())
        rank, score = int(columns[3]), float(columns[4])
    except InputError as error:
        _broken(str(error), number, path)
    except ValueError:
        _broken("a rank or score that is not a number, or a name that is not UTF-8", number, path)
    if not math.isfinite(score):
        _broken("a score that is not finite", number, path)
    return query, image, rank, score


def _read_pairs(lines: Iterable[tuple[int, bytes]], path: Path) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for number, line in lines:
        try:
            columns = line.decode().split()
        except UnicodeDecodeError:
            _broken("a name that is not UTF-8", number, path)
        if len(columns) != 2:
            _broken(f"{len(columns)} columns, expected the 2 of a pair", number, path)
        query, image = columns
        if image in found.setdefault(query, {}):
            _twice(image, query, number, path)
        found[query][image] = None
    return {query: list(images) for query, images in found.items()}


def _read_jsonl(lines: Iterable[tuple[int, bytes]], path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, line in lines:
        entry = _jsonl_entry(line)
        if entry is None:
            _broken('not an object {"query": name, "hits": [{"name": name, "score": number}, ...]}', number, path)
        query, names = entry
        if query in found:
            _broken(f"query {query!r} for the second time", number, path)
        if (twice := repeated(names)) is not None:
            _twice(twice, query, number, path)
        found[query] = names
    return found


def _jsonl_entry(line: bytes) -> tuple[str, list[str]] | None:
    try:
        entry: Any = json.loads(line)
        query, names = entry["query"], [hit["name"] for hit in entry["hits"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (query, names) if all(isinstance(name, str) for name in [query, *names]) else None


def _twice(image: str, query: str, number: int, path: Path) -> NoReturn:
    _broken(f"{image!r} for the second time under query {query!r}", number, path)


def _broken(found: str, number: int, path: Path) -> NoReturn:
    raise DamagedError(f"{path}: line {number}: {found}; write the file again")
