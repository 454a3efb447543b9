"""The results as tables: CSV for programs, Markdown for reading."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from asmk_engine.tradeoff.configurations import Configuration, FusedConfiguration, LocalConfiguration, PartConfiguration
from asmk_engine.tradeoff.results import Failure, Result, pareto_front

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
    "seeds": "number of clustering seeds",
    "row": "row of the report, such as the difficulty",
    "map": "mAP in percent, mean over the seeds",
    "map_low": "lower end of its 95 % interval over queries",
    "map_high": "upper end of it",
    "map_seed_spread": "largest minus smallest mAP of a seed",
    "pareto": "1 if no other row has a higher mAP in as few bytes",
    "images": "images in the index",
    "queries": "queries with at least one positive",
    "bytes_per_image": "on disk, without the codebook",
    "codebook_bytes": "on disk",
    "words_per_image": "postings per image",
    "assignment_ms": "processor time per query: word assignment of its descriptors, or projection of its vector, which "
    "fused rows count as scoring",
    "scoring_ms": "processor time per query, on one thread",
    "build_seconds": "processor time of indexing, without feature extraction",
    "learning_seconds": "processor time of the codebook, or of PCA and sub-spaces",
}


def rows(results: Iterable[Result]) -> list[dict[str, str]]:
    """Return one row per result: the columns of `CSV_NOTES`, mAP of other rows of the report, and extrapolations."""
    listed = list(results)
    front = pareto_front(listed)
    return [_row(one, one in front) for one in listed]


def _row(result: Result, is_best: bool) -> dict[str, str]:
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
        "pareto": str(int(is_best)),
        "images": str(result.images),
        "queries": str(result.queries),
        "bytes_per_image": _number(result.bytes_per_image, 1),
        "codebook_bytes": str(result.codebook_bytes),
        "words_per_image": "" if result.words_per_image is None else _number(result.words_per_image, 1),
        "assignment_ms": _number(result.assignment_milliseconds, 3),
        "scoring_ms": _number(result.scoring_milliseconds, 3),
        "build_seconds": _number(result.build_seconds, 2),
        "learning_seconds": _number(result.learning_seconds, 2),
    }
    for one in result.extrapolated:
        row[f"extrapolated_GiB_{short_count(one.images)}"] = _number(one.bytes / GIBIBYTE, 3)
        row[f"extrapolated_query_ms_{short_count(one.images)}"] = _number(one.milliseconds, 1)
    return row


def _configuration(configuration: Configuration) -> dict[str, str]:
    parts = configuration.parts if isinstance(configuration, FusedConfiguration) else (configuration,)
    given = [_options(part) for part in parts]
    names = ("features", "words", "bits", "assignments", "pca", "pq")
    return {"method": configuration.method, **{name: _joined(given, name) for name in names}}


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
    "words_per_image": "words/image",
    "assignment_ms": "assign ms",
    "scoring_ms": "score ms",
    "build_seconds": "build s",
}
"""Columns of the short table and their headings; extrapolated columns follow."""


def short_rows(results: Iterable[Result]) -> list[dict[str, str]]:
    """Return the short table: the columns of `SHORT` and the extrapolated ones, with a star on the Pareto front."""
    return [_short(row) for row in rows(results)]


def _short(row: Mapping[str, str]) -> dict[str, str]:
    marks = {"features": "n", "words": "words", "bits": "bits", "assignments": "assign", "pca": "PCA", "pq": "PQ"}
    setting = ", ".join(f"{mark} {row[name]}" for name, mark in marks.items() if row[name])
    made = {
        "setting": setting or "flat",
        "map": row["map"] + (" ★" if row["pareto"] == "1" else ""),
        "interval": f"{row['map_low']}–{row['map_high']}",
    }
    short = {heading: made.get(name, row.get(name, "")) for name, heading in SHORT.items()}
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
