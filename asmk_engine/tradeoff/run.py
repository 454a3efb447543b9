"""The run: measures every configuration of a sweep, one after the other, and records failures."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import AsmkError, InputError
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.storage.stage_cache import StageCache
from asmk_engine.tradeoff.configurations import (
    Configuration,
    FusedConfiguration,
    RerankedConfiguration,
    Sweep,
    plan,
)
from asmk_engine.tradeoff.fused_stages import measure_fused
from asmk_engine.tradeoff.fusion import SourceFusion
from asmk_engine.tradeoff.reranked_stages import measure_reranked
from asmk_engine.tradeoff.results import Failure, Result, put_together
from asmk_engine.tradeoff.sources import FeatureSupply, SourcePaths, check_fusion, open_source
from asmk_engine.tradeoff.stages import VERSION, Measurement, measure_configuration

FAULTS = "failed.txt"


@dataclass(frozen=True)
class Step:
    """A processed configuration: its number from 1, the total, its outcome, and the estimated seconds for the rest."""

    number: int
    total: int
    outcome: Result | Failure
    seconds_left: float


@dataclass(frozen=True)
class TradeoffResult:
    """The measured and the failed configurations of a run, in the order of the plan."""

    results: tuple[Result, ...]
    failures: tuple[Failure, ...]


def run(
    paths: Sequence[SourcePaths],
    ground_truth: GroundTruth,
    sweep: Sweep,
    work: Path,
    on_step: Callable[[Step], None] | None = None,
    fusions: Sequence[SourceFusion] = (),
) -> TradeoffResult:
    """Measure every configuration of the sweep over the sources, except those already measured in the folder `work`.

    The fused sources `fusions` come after the others; their parts are names of `paths`.

    A configuration that fails for any reason is recorded in `failed.txt` there with its traceback, and retried by the
    next run; the others are measured. Raises InputError for two sources with the same name, and the errors of
    `open_source` and `check_fusion`, also if `sweep.rerank` is given and no source has local features.
    """
    names = [*(one.name for one in paths), *(fusion.name for fusion in fusions)]
    if len(set(names)) < len(names) or not paths:
        raise InputError(
            f"the names of the sources are {', '.join(names) or 'missing'}; give one or more, with different names"
        )
    Folder(work).make()
    with WriterLock(work):
        sources = {one.name: open_source(one, ground_truth) for one in paths}
        for fusion in fusions:
            check_fusion(fusion, sources)
        configurations = plan(sweep, {name: source.supply for name, source in sources.items()}, fusions)
        _check_reranked(sweep, configurations)
        outcomes = []
        for step in _steps(StageCache(work, VERSION), sources, configurations, sweep):
            outcomes.append(step.outcome)
            if on_step:
                on_step(step)
    results = tuple(one for one in outcomes if isinstance(one, Result))
    return TradeoffResult(results, tuple(one for one in outcomes if isinstance(one, Failure)))


def _check_reranked(sweep: Sweep, configurations: Sequence[Configuration]) -> None:
    """Raise InputError if answers are to be ranked anew and no configuration can."""
    if sweep.rerank and not any(isinstance(one, RerankedConfiguration) for one in configurations):
        raise InputError(
            "no source has local features, so nothing can be verified; leave --rerank out, or add a source with some"
        )


def _steps(
    cache: StageCache, sources: Mapping[str, FeatureSupply], configurations: Sequence[Configuration], sweep: Sweep
) -> Iterator[Step]:
    begun = time.monotonic()
    faults: list[str] = []
    for number, configuration in enumerate(configurations, start=1):
        outcome = _outcome(cache, sources, configuration, sweep, faults)
        left = (time.monotonic() - begun) / number * (len(configurations) - number)
        _note(Folder(cache.folder), faults)
        yield Step(number, len(configurations), outcome, left)


def _outcome(
    cache: StageCache,
    sources: Mapping[str, FeatureSupply],
    configuration: Configuration,
    sweep: Sweep,
    faults: list[str],
) -> Result | Failure:
    seeds = range(sweep.seeds if configuration.needs_seeds else 1)
    try:
        return put_together(configuration, [_measured(cache, sources, configuration, sweep, seed) for seed in seeds])
    except Exception as error:  # no failure, not even a bug, may stop the other configurations; the file records it
        kind = "" if isinstance(error, AsmkError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        faults.append(f"{configuration}: {reason}\n{traceback.format_exc()}\n")
        return Failure(configuration, reason)


def _measured(
    cache: StageCache, sources: Mapping[str, FeatureSupply], configuration: Configuration, sweep: Sweep, seed: int
) -> Measurement:
    plain = configuration.plain if isinstance(configuration, RerankedConfiguration) else configuration
    parts = plain.parts if isinstance(plain, FusedConfiguration) else (plain,)
    of_parts = [sources[part.source] for part in parts]
    if isinstance(configuration, RerankedConfiguration):
        return measure_reranked(cache, of_parts, configuration, sweep, seed)
    if isinstance(configuration, FusedConfiguration):
        return measure_fused(cache, of_parts, configuration, sweep, seed)
    return measure_configuration(cache, sources[configuration.source], configuration, sweep, seed)


def _note(folder: Folder, faults: Sequence[str]) -> None:
    if faults:
        folder.write(FAULTS, [fault.encode() for fault in faults])
    else:
        folder.remove(FAULTS)
