"""The run: every cell of a sweep measured, one after the other, and what failed noted."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import AsmkError, InputError
from asmk_engine.evaluation.model import Truth
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.storage.stage_cache import StageCache
from asmk_engine.tradeoff.configurations import Cell, Sweep, plan
from asmk_engine.tradeoff.results import Failure, Result, put_together
from asmk_engine.tradeoff.sources import FeatureSupply, SourcePaths, open_source
from asmk_engine.tradeoff.stages import VERSION, measure_cell

FAULTS = "failed.txt"


@dataclass(frozen=True)
class Step:
    """One cell was dealt with: its number from 1, of how many, what came of it, and seconds that the rest may take."""

    number: int
    total: int
    outcome: Result | Failure
    seconds_left: float


@dataclass(frozen=True)
class TradeoffResult:
    """All cells of a run, those that were measured and those that failed, in the order of the plan."""

    results: tuple[Result, ...]
    failures: tuple[Failure, ...]


def run(
    paths: Sequence[SourcePaths],
    truth: Truth,
    sweep: Sweep,
    work: Path,
    on_step: Callable[[Step], None] | None = None,
) -> TradeoffResult:
    """Measure every cell of the sweep over the sources, or take it from the folder `work`, where it was measured.

    A cell that fails, for whatever reason, is noted in `failed.txt` there with the place in the program, and tried
    again by the next run; the others go on. Raises InputError for two sources of one name, and what opening a source
    raises.
    """
    names = [one.name for one in paths]
    if len(set(names)) < len(names) or not names:
        raise InputError(
            f"the sources are called {', '.join(names) or 'nothing'}; give one or more, of different names"
        )
    Folder(work).make()
    with WriterLock(work):
        sources = {one.name: open_source(one, truth) for one in paths}
        cells = plan(sweep, {name: source.supply for name, source in sources.items()})
        outcomes = []
        for step in _steps(StageCache(work, VERSION), sources, cells, sweep):
            outcomes.append(step.outcome)
            if on_step:
                on_step(step)
    results = tuple(one for one in outcomes if isinstance(one, Result))
    return TradeoffResult(results, tuple(one for one in outcomes if isinstance(one, Failure)))


def _steps(
    cache: StageCache, sources: Mapping[str, FeatureSupply], cells: Sequence[Cell], sweep: Sweep
) -> Iterator[Step]:
    begun = time.monotonic()
    faults: list[str] = []
    for number, cell in enumerate(cells, start=1):
        outcome = _outcome(cache, sources[cell.source], cell, sweep, faults)
        left = (time.monotonic() - begun) / number * (len(cells) - number)
        _note(Folder(cache.folder), faults)
        yield Step(number, len(cells), outcome, left)


def _outcome(cache: StageCache, source: FeatureSupply, cell: Cell, sweep: Sweep, faults: list[str]) -> Result | Failure:
    seeds = range(sweep.seeds if cell.needs_seeds else 1)
    try:
        return put_together(cell, [measure_cell(cache, source, cell, sweep, seed) for seed in seeds])
    except Exception as error:  # one cell must not lose the others, not even by a bug, which the file then tells of
        kind = "" if isinstance(error, AsmkError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        faults.append(f"{cell}: {reason}\n{traceback.format_exc()}\n")
        return Failure(cell, reason)


def _note(folder: Folder, faults: Sequence[str]) -> None:
    if faults:
        folder.write(FAULTS, [fault.encode() for fault in faults])
    else:
        folder.remove(FAULTS)
