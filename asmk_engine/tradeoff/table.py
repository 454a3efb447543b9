"""The results as tables: CSV for programs, Markdown for reading."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from asmk_engine.tradeoff.configurations import (
    PLACES,
    Configuration,
    FusedConfiguration,
    LocalConfiguration,
    PartConfiguration,
    RerankedConfiguration,
)
from asmk_engine.tradeoff.results import Failure, Result, milliseconds_of, pareto_front

GIBIBYTE = 1 << 30

CSV_NOTES = {
    "method": "source, and the compression of its descriptors; parts and unequal weights of a fused source",
    "features": "n, maximum number of features per image; local features. In fused rows, this and the next five are "
    "joined by + where parts differ",
    "words": "size of the codebook",
    "bits": "bits of a code",
    "assignments": "words per query descriptor",
    "pca": "dimensions after PCA; global descriptors",
    "pq": "dimensions of a sub-space, which is encoded as one byte",
    "rerank": "number of answers that are verified and ranked anew",
    "rerank_by": "what is compared then: places, descriptors or both",
    "seeds": "number of clustering seeds",
    "row": "row of the report, such as the difficulty",
    "map": "mAP in percent, mean over the seeds",
    "map_low": "lower end of its 95 % interval over queries",
    "map_high": "upper end of it",
    "map_seed_spread": "largest minus smallest mAP of a seed",
    "pareto": "1 if no other row has a higher mAP in as few bytes",
    "pareto_time": "1 if no other row has a higher mAP in as few milliseconds of a query",
    "images": "images in the index",
    "queries": "queries with at least one positive",
    "bytes_per_image": "on disk, without the codebook; with the next column",
    "reranking_bytes_per_image": "of these, geometry or features that re-ranking reads, on disk",
    "codebook_bytes": "on disk",
    "words_per_image": "postings per image",
    "assignment_ms": "processor time per query: word assignment of its descriptors, or projection of its vector, which "
    "fused rows count as scoring",
    "scoring_ms": "processor time per query, on one thread",
    "verification_ms": "processor time per query, of verifying answers and ranking them anew, on one thread",
    "query_ms": "processor time per query: the last three together",
    "build_seconds": "processor time of indexing, without feature extraction",
    "learning_seconds": "processor time of the codebook, or of PCA and sub-spaces",
}


def rows(results: Iterable[Result]) -> list[dict[str, str]]:
    """Return one row per result: the columns of `CSV_NOTES`, mAP of other rows of the report, and extrapolations."""
    listed = list(results)
    small, fast = pareto_front(listed), pareto_front(listed, milliseconds_of)
    return [_row(one, one in small, one in fast) for one in listed]


def _row(result: Result, is_small: bool, is_fast: bool) -> dict[str, str]:
    precision = result.precision
    row = {
        **_configuration(result.configuration),
        "seeds": str(result.seeds),
        "row": result.row,
        "map": _number(100 * precision.mean, 2),
        "map_low": _number(100 * precision.low, 2),
        "map_high": _number(100 * precision.high, 2),
        "map_seed_spread": _number(100 * result.seed_spread, 2),
        **{f"map_{row}": _number(100 * mean, 2) for row, mean in result.other_rows.items()},
        "pareto": str(int(is_small)),
        "pareto_time": str(int(is_fast)),
        "images": str(result.images),
        "queries": str(result.queries),
        "bytes_per_image": _number(result.bytes_per_image, 1),
        "reranking_bytes_per_image": _number(result.reranking_bytes_per_image, 1),
        "codebook_bytes": str(result.codebook_bytes),
        "words_per_image": "" if result.words_per_image is None else _number(result.words_per_image, 1),
        "assignment_ms": _number(result.assignment_milliseconds, 3),
        "scoring_ms": _number(result.scoring_milliseconds, 3),
        "verification_ms": _number(result.verification_milliseconds, 3),
        "query_ms": _number(result.query_milliseconds, 3),
        "build_seconds": _number(result.build_seconds, 2),
        "learning_seconds": _number(result.learning_seconds, 2),
    }
    for one in result.extrapolated:
        row[f"extrapolated_GiB_{short_count(one.images)}"] = _number(one.bytes / GIBIBYTE, 3)
        row[f"extrapolated_query_ms_{short_count(one.images)}"] = _number(one.milliseconds, 1)
    return row


def _configuration(configuration: Configuration) -> dict[str, str]:
    plain = configuration.plain if isinstance(configuration, RerankedConfiguration) else configuration
    parts = plain.parts if isinstance(plain, FusedConfiguration) else (plain,)
    given = [_options(part) for part in parts]
    names = ("features", "words", "bits", "assignments", "pca", "pq")
    return {
        "method": configuration.method,
        **{name: _joined(given, name) for name in names},
        "rerank": str(configuration.images) if isinstance(configuration, RerankedConfiguration) else "",
        "rerank_by": configuration.by if isinstance(configuration, RerankedConfiguration) else "",
    }


def _options(configuration: PartConfiguration) -> dict[str, int | None]:
    """Return the columns of a configuration that its kind of index has; None for no PCA or no PQ."""
    if isinstance(configuration, LocalConfiguration):
        return {
            "features": configuration.strongest,
            "words": configuration.words,
            "bits": configuration.bits,
            "assignments": configuration.multiple_assignment,
        }
    return {"pca": configuration.pca, "pq": configuration.pq}


def _joined(given: Sequence[Mapping[str, int | None]], name: str) -> str:
    """Format a column: the values of the parts that have it, joined by + unless they are equal, - for none."""
    values = [options[name] for options in given if name in options]
    if len(set(values)) > 1:
        return "+".join("-" if value is None else str(value) for value in values)
    return "" if not values or values[0] is None else str(values[0])


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def short_count(images: int) -> str:
    """Format a number of images, such as `1M` or `100M`; others in full."""
    return f"{images // 1_000_000}M" if images % 1_000_000 == 0 else str(images)


def csv_text(results: Iterable[Result]) -> str:
    """Format the rows as CSV with a header line; empty for no results."""
    listed = rows(results)
    text = io.StringIO()
    if listed:
        writer = csv.DictWriter(text, list(listed[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    return text.getvalue()


SHORT: Mapping[str, str] = {
    "method": "method",
    "setting": "setting",
    "map": "mAP",
    "interval": "95 %",
    "map_seed_spread": "seed spread",
    "bytes_per_image": "bytes/image",
    "reranking_bytes_per_image": "of these re-ranking",
    "words_per_image": "words/image",
    "assignment_ms": "assign ms",
    "scoring_ms": "score ms",
    "verification_ms": "verify ms",
    "query_ms": "query ms",
    "build_seconds": "build s",
}
"""Columns of the short table and their headings; extrapolated columns follow."""
OF_RERANKING = ("reranking_bytes_per_image", "verification_ms")
"""Those of them that are there only if a row is re-ranked."""
SMALL, FAST = "★", "◆"
"""The marks of a row on the Pareto front over bytes, and over milliseconds."""


def short_rows(results: Iterable[Result]) -> list[dict[str, str]]:
    """Return the short table: the columns of `SHORT` and the extrapolated ones, with marks on the Pareto fronts."""
    listed = rows(results)
    hidden = () if any(row["rerank"] for row in listed) else OF_RERANKING
    return [_short(row, hidden) for row in listed]


def _short(row: Mapping[str, str], hidden: Sequence[str]) -> dict[str, str]:
    marks = {"features": "n", "words": "words", "bits": "bits", "assignments": "assign", "pca": "PCA", "pq": "PQ"}
    settings = [f"{mark} {row[name]}" for name, mark in marks.items() if row[name]]
    if row["rerank"]:
        settings.append(f"rerank {row['rerank']}" + (f" by {row['rerank_by']}" if row["rerank_by"] != PLACES else ""))
    fronts = [mark for name, mark in (("pareto", SMALL), ("pareto_time", FAST)) if row[name] == "1"]
    made = {
        "setting": ", ".join(settings) or "flat",
        "map": " ".join([row["map"], *fronts]),
        "interval": f"{row['map_low']}–{row['map_high']}",
    }
    shown = {name: heading for name, heading in SHORT.items() if name not in hidden}
    short = {heading: made.get(name, row.get(name, "")) for name, heading in shown.items()}
    others = {name: value for name, value in row.items() if name.startswith("map_") and name not in CSV_NOTES}
    short |= {f"mAP {name.removeprefix('map_')}": value for name, value in others.items()}
    for name, value in row.items():
        if name.startswith("extrapolated_"):
            what, _, size = name.removeprefix("extrapolated_").rpartition("_")
            short[f"{what.replace('_', ' ')} at {size} (extrapolated)"] = value
    return short


def markdown(results: Iterable[Result], failures: Iterable[Failure] = ()) -> str:
    """Format the short table and the failed configurations in Markdown, with escaped text."""
    listed = short_rows(results)
    lines = []
    if listed:
        lines.append("| " + " | ".join(listed[0]) + " |")
        lines.append("|" + "---|" * len(listed[0]))
        lines += ["| " + " | ".join(_plain(value) for value in row.values()) + " |" for row in listed]
    lines += [f"- failed: {_plain(str(one.configuration))}: {_plain(one.reason)}" for one in failures]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
