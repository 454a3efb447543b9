"""Writing the results of a run: table, figure and page, each file atomically."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from asmk_engine.doctor import processor_name
from asmk_engine.storage.folder import Folder
from asmk_engine.threads import available_threads
from asmk_engine.tradeoff.figure import draw
from asmk_engine.tradeoff.page import Circumstances, notes, page
from asmk_engine.tradeoff.run import TradeoffResult
from asmk_engine.tradeoff.table import csv_text, markdown

NAME = "tradeoff"


def write_all(folder: Path, outcome: TradeoffResult, title: str, command: str) -> list[Path]:
    """Write `tradeoff.csv`, `.md`, `.png`, `.svg` and `.html` into the folder; raises the errors of `figure.draw`."""
    circumstances = Circumstances(command, machine(), datetime.date.today().isoformat())
    figure = draw(outcome.results, title)
    paragraphs = "\n\n".join(notes(circumstances, outcome.results))
    table = markdown(outcome.results, outcome.failures)
    text = f"# {title}\n\n![{title}]({NAME}.png)\n\n    {command}\n\n{paragraphs}\n\n{table}"
    contents = {
        "csv": csv_text(outcome.results).encode(),
        "md": text.encode(),
        **figure,
        "html": page(title, figure["svg"], outcome.results, outcome.failures, circumstances).encode(),
    }
    return [_write(folder, f"{NAME}.{form}", content) for form, content in contents.items()]


def _write(folder: Path, name: str, content: bytes) -> Path:
    target = Folder(folder)
    target.make()
    target.write(name, [content])
    return folder / name


def machine() -> str:
    """Describe the processor, the cores this process may use, and the linear algebra threads if they are limited."""
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = f", linear algebra on {limit} thread{'' if limit == '1' else 's'}" if limit else ""
    return f"{processor_name()}, {available_threads()} cores{threads}"
