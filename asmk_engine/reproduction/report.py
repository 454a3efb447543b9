"""The report of a run: published and measured scores next to each other, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from asmk_engine.doctor import processor_name
from asmk_engine.networks.devices import choose_device, device_name
from asmk_engine.reproduction.evaluation import Measured
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.reproduction.stages import ReproductionResult
from asmk_engine.storage.folder import Folder
from asmk_engine.version import __version__

MARKDOWN, JSON = "report.md", "report.json"
INCOMPARABLE = "not comparable"
_PACKAGES = ("numpy", "numba", "torch", "pillow", "opencv-python-headless", "h5py", "faiss-cpu", "faiss-gpu")


@dataclasses.dataclass(frozen=True)
class Line:
    """One score of the report, in percent.

    published  the published score, or None
    inside     whether the published score is within the interval; None if they cannot be compared
    """

    test: str
    row: str
    published: float | None
    measured: Measured
    inside: bool | None


def lines(outcome: ReproductionResult) -> list[Line]:
    """List every row of every test with the published score, if any; a rehearsal compares none."""
    return [
        _line(outcome, test.name, row, test.published.get(row), found)
        for test in outcome.tests
        for row, found in outcome.measured[test.name].items()
    ]


def _line(outcome: ReproductionResult, test: str, row: str, published: float | None, found: Measured) -> Line:
    comparable = published is not None and not outcome.rehearsal and not math.isnan(found.value)
    inside = found.low <= published <= found.high if comparable and published is not None else None
    return Line(test, row, published, found, inside)


def machine(device: str) -> dict[str, Any]:
    """Describe the machine: processor, system, device of the networks, and versions, but not its host name."""
    return {
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(choose_device(device)),
        "python": platform.python_version(),
        "asmk-engine": __version__,
        **{name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def as_dict(outcome: ReproductionResult, device: str = "auto") -> dict[str, Any]:
    """Return the report as JSON values: percent, None for NaN."""
    return {
        "recipe": outcome.row.name,
        "title": outcome.row.title,
        "source": outcome.row.source,
        "rehearsal": outcome.rehearsal,
        "lines": [_line_as_dict(line) for line in lines(outcome)],
        "differences": [*outcome.row.differences, *_dataset_notes(outcome)],
        "notes": list(outcome.notes),
        "facts": outcome.facts,
        "seconds": {stage: round(seconds, 3) for stage, seconds in outcome.seconds.items()},
        "machine": machine(device),
    }


def _dataset_notes(outcome: ReproductionResult) -> Iterator[str]:
    if outcome.rehearsal:
        return
    for name in dict.fromkeys(test.dataset for test in outcome.tests):
        if note := dataset_of(name).note:
            yield f"{name}: {note}"


def _line_as_dict(line: Line) -> dict[str, Any]:
    numbers = {"measured": line.measured.value, "low": line.measured.low, "high": line.measured.high}
    plain = {key: None if math.isnan(value) else value for key, value in numbers.items()}
    scores = {"test": line.test, "row": line.row, "published": line.published, **plain}
    return {**scores, "queries": line.measured.queries, "published_inside": line.inside}


def as_markdown(outcome: ReproductionResult, device: str = "auto") -> str:
    """Format the report as Markdown."""
    content = as_dict(outcome, device)
    return "\n".join([*_head(content), *_table(lines(outcome), outcome.rehearsal), *_details(content)]) + "\n"


def _head(content: dict[str, Any]) -> Iterator[str]:
    yield f"# {content['title']}"
    yield ""
    yield f"Experiment `{content['recipe']}`. Published in: {content['source']}."
    yield ""
    if content["rehearsal"]:
        yield "**A rehearsal** on other images: it shows that every stage runs. No score can be compared."
        yield ""


def _table(found: list[Line], rehearsal: bool) -> Iterator[str]:
    yield "| test | row | published | measured | 95 % interval | queries | published inside |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for line in found:
        inside = {None: "", True: "yes", False: "no"}[line.inside]
        if rehearsal and line.published is not None:
            inside = INCOMPARABLE
        measured = line.measured
        interval = f"{_number(measured.low)} to {_number(measured.high)}"
        cells = (line.test, line.row, _number(line.published), _number(measured.value), interval)
        yield f"| {' | '.join(cells)} | {measured.queries} | {inside} |"
    yield ""


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"


def _details(content: dict[str, Any]) -> Iterator[str]:
    for title, key in (("Differences from the publication", "differences"), ("Notes", "notes")):
        if content[key]:
            yield from (f"## {title}", "", *(f"- {one}" for one in content[key]), "")
    yield from ("## Outputs", "", *(f"- {key}: {_plain(value)}" for key, value in content["facts"].items()), "")
    total = sum(content["seconds"].values())
    yield from ("## Seconds", "", "| stage | seconds |", "|---|---:|")
    yield from (f"| {stage} | {seconds:.1f} |" for stage, seconds in content["seconds"].items())
    yield from (f"| all | {total:.1f} |", "")
    yield from ("## Machine", "", *(f"- {key}: {value}" for key, value in content["machine"].items()))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def write_report(outcome: ReproductionResult, work: Path, device: str = "auto") -> Path:
    """Write both forms into the work folder; returns the path of the Markdown file. Raises StorageError."""
    folder = Folder(work)
    folder.write(JSON, [json.dumps(as_dict(outcome, device), indent=1, ensure_ascii=False).encode() + b"\n"])
    folder.write(MARKDOWN, [as_markdown(outcome, device).encode()])
    folder.sync()
    return work / MARKDOWN
