"""Writing what a run found: table, figure and page, each file whole or not at all."""

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
    """Write `tradeoff.csv`, `.md`, `.png`, `.svg` and `.html` into the folder; raises what `figure.draw` does."""
    circumstances = Circumstances(command, machine(), datetime.date.today().isoformat())
    figure = draw(outcome.results, title)
    told = "\n\n".join(notes(circumstances, outcome.results))
    table = markdown(outcome.results, outcome.failures)
    text = f"# {title}\n\n![{title}]({NAME}.png)\n\n    {command}\n\n{told}\n\n{table}"
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
    """The processor, how many of its cores this process may use, and the threads of the linear algebra if set."""
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = f", linear algebra on {limit} thread{'' if limit == '1' else 's'}" if limit else ""
    return f"{processor_name()}, {available_threads()} cores{threads}"
