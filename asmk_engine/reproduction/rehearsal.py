"""Rehearsals of many experiments at once: every stage of each, on the same few photographs, with random networks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import AsmkError
from asmk_engine.iteration import Display
from asmk_engine.reproduction.catalogue import open_experiment
from asmk_engine.reproduction.datasets import Rehearsed
from asmk_engine.reproduction.drawings import draw_photographs
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.papers import PublishedTable, table_experiments
from asmk_engine.reproduction.report import write_report
from asmk_engine.reproduction.rerank_plan import ALL
from asmk_engine.reproduction.results import result_place
from asmk_engine.reproduction.stages import run


@dataclass(frozen=True)
class Rehearsal:
    """One experiment that was rehearsed: its seconds, and the error that ended it, None if it ran to its report."""

    experiment: str
    seconds: float
    error: AsmkError | None = None


def rehearsed_names(tables: Sequence[PublishedTable] = ()) -> list[str]:
    """List the experiments of tables, or of all for none, in their order, each once; none with a file of its own."""
    tabled = table_experiments()
    names = (row.experiment for table in tables for row in table.rows) if tables else iter(tabled)
    return [name for name in dict.fromkeys(names) if name in tabled]


@contextmanager
def drawn_photographs() -> Iterator[Rehearsed]:
    """Draw photographs into a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="asmk-engine-") as folder:
        yield draw_photographs(Path(folder) / "photographs")


def rehearse(
    names: Sequence[str], photographs: Rehearsed, folder: Path, display: Display, device: str = "cpu"
) -> Iterator[Rehearsal]:
    """Rehearse experiments one after the other, with distractors and all re-ranking; yields each when it is done.

    folder  takes an output folder for each, `NAME.reproduction`; those of an interrupted rehearsal go on
    """
    for name in names:
        begun, error = time.monotonic(), None
        work = result_place(folder, name).parent
        try:
            row = open_experiment(name)
            rerank = (ALL,) if row.rerank else ()
            settings = Settings(work, distractors=True, device=device, workers=0, threads=1, rerank=rerank)
            write_report(run(row, photographs, settings, display), work, device)
        except AsmkError as found:
            error = found
        yield Rehearsal(name, time.monotonic() - begun, error)
