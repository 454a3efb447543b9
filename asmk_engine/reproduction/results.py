"""What earlier runs measured, read back from their `report.json`, which is trusted in nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError
from asmk_engine.images.listing import shown
from asmk_engine.reproduction.report import JSON
from asmk_engine.storage.user_files import read_file

MAX_BYTES = 1 << 26
MOST = 1e18
"""No number of a report is larger: bytes, seconds, images."""
SUFFIX = ".reproduction"


@dataclass(frozen=True)
class MeasuredTest:
    """What was measured in one test.

    scores   row (`medium`, `hard mP@10`) → percent
    queries  number of queries
    seconds  of the search; 0 if not known
    reasons  why the scores are not compared with the published ones; empty if they are
    """

    scores: dict[str, float]
    queries: int
    seconds: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredIndex:
    """An index of a run: its images, its bytes, and the seconds that it took to describe the images, 0 if not known."""

    images: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class MeasuredReranking:
    """What it cost to rank a test anew, 0 where nothing is known.

    pairs               number of pairs that were compared
    image_bytes         bytes that are stored of an image
    image_milliseconds  to describe an image for it
    pair_milliseconds   to compare a pair
    """

    pairs: int
    image_bytes: float
    image_milliseconds: float
    pair_milliseconds: float


@dataclass(frozen=True)
class RunResult:
    """A run of an experiment.

    rehearsal  whether it was one
    tests      by name
    indexes    by name of the data set
    reranked   what re-ranking cost, by name of the test and of the reranker: `roxford5k by cvnet`
    reasons    why re-ranked scores are not compared, by the same names: `roxford5k, cvnet`
    """

    rehearsal: bool
    tests: dict[str, MeasuredTest]
    indexes: dict[str, MeasuredIndex]
    reranked: dict[str, MeasuredReranking] = field(default_factory=dict)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)


def result_place(folder: Path, experiment: str) -> Path:
    """Return where the report of an experiment is, if it was run in `folder` with the default name of its output."""
    return folder / f"{experiment}{SUFFIX}" / JSON


def read_result(path: Path, experiment: str) -> RunResult | None:
    """Return what a report says, None if there is none; DamagedError if it is not the report of this experiment."""
    if not path.exists():
        return None
    data = read_file(path, "a report", MAX_BYTES)
    try:
        content = json.loads(data.decode("utf-8"))
        return _result(content, experiment)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DamagedError(
            f"{shown(path)}: not the report of {experiment} ({said}); run the experiment again"
        ) from None


def _result(content: dict[str, Any], experiment: str) -> RunResult:
    if content["recipe"] != experiment:
        raise ValueError(f"it is of {content['recipe']!r}")
    if type(content["rehearsal"]) is not bool:
        raise ValueError("rehearsal is neither true nor false")
    seconds = {str(stage): _number(one) for stage, one in content["seconds"].items()}
    names = dict.fromkeys(str(line["test"]) for line in content["lines"])
    return RunResult(
        content["rehearsal"],
        {name: _test(name, content, seconds) for name in names},
        {
            stage.removeprefix("index of "): _index(one, seconds.get(stage.replace("index of", "describe"), 0.0))
            for stage, one in content["facts"].items()
            if stage.startswith("index of ")
        },
        {
            fact.removeprefix("re-ranking of "): _reranking(costs)
            for fact, costs in content["facts"].items()
            if fact.startswith("re-ranking of ")
        },
        {str(name): tuple(map(str, reasons)) for name, reasons in content["not_compared"].items()},
    )


def _test(name: str, content: dict[str, Any], seconds: dict[str, float]) -> MeasuredTest:
    lines = [line for line in content["lines"] if line["test"] == name]
    scores = {str(line["row"]): _percent(line["measured"]) for line in lines if line["measured"] is not None}
    queries = max(int(_number(line["queries"])) for line in lines)
    reasons = tuple(str(one) for one in content["not_compared"].get(name, []))
    return MeasuredTest(scores, queries, seconds.get(f"search {name}", 0.0), reasons)


def _index(facts: dict[str, Any], seconds: float) -> MeasuredIndex:
    return MeasuredIndex(int(_number(facts["images"])), int(_number(facts["bytes"])), seconds)


def _reranking(costs: dict[str, Any]) -> MeasuredReranking:
    keys = ("bytes an image", "image milliseconds", "pair milliseconds")
    return MeasuredReranking(int(_number(costs["pairs"])), *(_number(costs[key]) for key in keys))


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MOST:
        raise ValueError(f"{str(value)[:40]!r}, expected a number that is not negative")
    return float(value)


def _percent(value: Any) -> float:
    if type(value) not in (int, float) or not -0.001 <= value <= 100.001:
        raise ValueError(f"the score {str(value)[:40]!r}, expected 0 to 100")
    return float(value)
