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
from asmk_engine.reproduction.experiment import Test
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.reproduction.rerank_plan import split_row
from asmk_engine.reproduction.stages import ReproductionResult
from asmk_engine.reproduction.variants import Variant, deviation
from asmk_engine.storage.folder import Folder
from asmk_engine.version import __version__

MARKDOWN, JSON = "report.md", "report.json"
NOT_COMPARED = "not compared"
GIBIBYTE = 2**30
_PACKAGES = ("numpy", "numba", "torch", "pillow", "opencv-python-headless", "h5py", "faiss-cpu", "faiss-gpu")


@dataclasses.dataclass(frozen=True)
class Line:
    """One score of the report, in percent.

    published            the published score, or None
    measured             the score, or the mean of those of several seeds
    inside               whether the published score is within the interval; None if they are not compared
    published_deviation  the published standard deviation over several runs, or None
    deviation            the measured standard deviation over several seeds, or None for one
    by_seed              the score of every seed
    """

    test: str
    row: str
    published: float | None
    measured: Measured
    inside: bool | None
    published_deviation: float | None = None
    deviation: float | None = None
    by_seed: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Total:
    """A number of the report that belongs to several tests or to an index; None where there is none."""

    what: str
    unit: str
    published: float | None
    measured: float | None
    published_deviation: float | None = None
    deviation: float | None = None


def lines(outcome: ReproductionResult) -> list[Line]:
    """List every row of every test with the published score, if any; only like is compared with like."""
    return [
        _line(outcome, test, row, found) for test in outcome.tests for row, found in outcome.measured[test.name].items()
    ]


def _line(outcome: ReproductionResult, test: Test, row: str, found: Measured) -> Line:
    published = test.published.get(row)
    reranker = split_row(row)[1]
    places = (test.name, f"{test.name}, {reranker}") if reranker else (test.name,)
    told = any(outcome.obstacles.get(place) for place in places)
    comparable = not outcome.rehearsal and not told and not math.isnan(found.value)
    inside = found.low <= published <= found.high if comparable and published is not None else None
    by_seed = tuple(scores[test.name][row].value for scores in outcome.by_seed.values())
    spread = outcome.deviation(test.name, row)
    return Line(test.name, row, published, found, inside, test.deviations.get(row), spread, by_seed)


def totals(outcome: ReproductionResult) -> list[Total]:
    """List the published means, memory and words per image of the experiment, with what was measured."""
    found = [
        Total(f"mean of medium and hard, {what}", "%", outcome.row.means[key], _mean(outcome, key == "distractors"))
        for key, what in (("all", "all tests"), ("distractors", "tests with distractors"))
        if key in outcome.row.means
    ]
    if outcome.row.memory:
        found.append(Total(*_memory(outcome)))
    return [*found, *_words(outcome)]


def _mean(outcome: ReproductionResult, distractors: bool) -> float | None:
    """Return the mean of the scores that have a published one; None unless every test was run."""
    tests = [test for test in outcome.row.tests if test.distractors or not distractors]
    if outcome.rehearsal or any(test.name not in outcome.measured for test in tests):
        return None
    scores = [outcome.measured[test.name][row].value for test in tests for row in test.published
              if not split_row(row)[1]]  # fmt: skip
    return sum(scores) / len(scores)


def _memory(outcome: ReproductionResult) -> tuple[str, str, float, float | None]:
    """Return what the published memory is of, that is the largest database, and how much its index takes here."""
    names = [test.distractors for test in outcome.row.tests if test.distractors] or [outcome.row.tests[0].dataset]
    index = None if outcome.rehearsal else outcome.facts.get(f"index of {names[0]}")
    measured = index["bytes"] / GIBIBYTE if index else None
    return f"memory of the index of {names[0]}", "GiB", outcome.row.memory, measured


def _words(outcome: ReproductionResult) -> Iterator[Total]:
    for dataset in dict.fromkeys(test.dataset for test in outcome.tests):
        names = [f"index of {dataset}{Variant(seed).words}" for seed in outcome.by_seed or (0,)]
        found = [facts for name in names if "postings" in (facts := outcome.facts.get(name, {})) and facts["images"]]
        values = [facts["postings"] / facts["images"] for facts in found]
        published, spread = next((one.words, one.words_deviation) for one in outcome.tests if one.dataset == dataset)
        if published or values:
            measured = sum(values) / len(values) if values else None
            what = f"words per image of {dataset}"
            yield Total(what, "", published or None, measured, spread or None, deviation(values))


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
        "seeds": max(1, len(outcome.by_seed)),
        "lines": [_line_as_dict(line) for line in lines(outcome)],
        "totals": [dataclasses.asdict(total) for total in totals(outcome)],
        "not_compared": {test: list(reasons) for test, reasons in outcome.obstacles.items() if reasons},
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
    plain = {key: plain_number(value) for key, value in numbers.items()}
    spread = {"deviation": plain_number(line.deviation), "by_seed": [plain_number(one) for one in line.by_seed]}
    published = {"published": line.published, "published_deviation": line.published_deviation}
    scores = {"test": line.test, "row": line.row, **published, **plain, **spread}
    return {**scores, "queries": line.measured.queries, "published_inside": line.inside}


def plain_number(value: float | None) -> float | None:
    """Return a number as a JSON value: None for NaN."""
    return None if value is None or math.isnan(value) else value


def as_markdown(outcome: ReproductionResult, device: str = "auto") -> str:
    """Format the report as Markdown."""
    content = as_dict(outcome, device)
    parts = (_head(content), _table(lines(outcome)), _reasons(outcome), _totals(totals(outcome)), _details(content))
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(content: dict[str, Any]) -> Iterator[str]:
    yield f"# {content['title']}"
    yield ""
    yield f"Experiment `{content['recipe']}`. Published in: {content['source']}."
    yield ""
    if content["rehearsal"]:
        yield "**A rehearsal** on other images: it shows that every stage runs. No score can be compared."
        yield ""
    if content["seeds"] > 1:
        yield (
            f"Measured with {content['seeds']} seeds of what is learned: mean ± sample standard deviation over them; "
            "the interval spans those of all seeds."
        )
        yield ""


def _table(found: list[Line]) -> Iterator[str]:
    yield "| test | row | published | measured | 95 % interval | queries | published inside |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for line in found:
        inside = {None: "", True: "yes", False: "no"}[line.inside]
        if line.inside is None and line.published is not None:
            inside = NOT_COMPARED
        measured = line.measured
        interval = f"{_number(measured.low)} to {_number(measured.high)}"
        published = _number(line.published, line.published_deviation)
        cells = (line.test, line.row, published, _number(measured.value, line.deviation), interval)
        yield f"| {' | '.join(cells)} | {measured.queries} | {inside} |"
    yield ""


def _reasons(outcome: ReproductionResult) -> Iterator[str]:
    """Yield in words why scores are not compared; the same reason of several tests once."""
    tests: dict[str, list[str]] = {}
    for test, reasons in outcome.obstacles.items():
        for reason in reasons:
            tests.setdefault(reason, []).append(test)
    if tests and not outcome.rehearsal:
        yield from ("Not compared with the published scores, because they are of something else:", "")
        for reason, names in tests.items():
            yield f"- {reason}" + ("" if len(names) == len(outcome.tests) else f" ({', '.join(names)})")
        yield ""


def _totals(found: list[Total]) -> Iterator[str]:
    if found:
        yield from ("| in all | published | measured |", "|---|---:|---:|")
        for one in found:
            unit = f", {one.unit}" if one.unit else ""
            published = _number(one.published, one.published_deviation)
            yield f"| {one.what}{unit} | {published} | {_number(one.measured, one.deviation)} |"
        yield ""


def _number(value: float | None, deviation: float | None = None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.1f}" if deviation is None else f"{value:.1f} ± {deviation:.1f}"


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
