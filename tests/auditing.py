"""A process that audits by the command line, in pieces so small that there are many moments to kill it at."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path

from asmk_engine.audit import finding, pictures, report, report_page, run, sift
from asmk_engine.cli import audit, commands
from asmk_engine.kernels import Kernel, aggregate, elias_fano, geometry, match, names, pairs, places, postings, rank

LOADED = (finding, pictures, report, report_page, run, sift, audit)
# A process that imports this and has children spares them the time, in which they would be killed, to load the kernels.
for module in (aggregate, elias_fano, geometry, match, names, pairs, places, postings, rank):
    for kernel in vars(module).values():
        if isinstance(kernel, Kernel):
            _ = kernel.compiled


def audit_by_command(words: list[str], ended: Connection) -> None:
    """Run a command `audit`; sends True when it ended without an error."""
    os.environ["ASMK_ENGINE_EXTRACTOR"] = "rootsift"
    finding.TOGETHER, pictures.WRITTEN_TOGETHER = 2, 3
    commands.main(words, standalone_mode=False)
    ended.send(True)


def whole_command(train: Path, test: Path, output: Path, *more: str) -> list[str]:
    """The words of the command."""
    small = ("--extractor", "rootsift", "--max-features", "400", "--max-side", "360", "--workers", "0", "--top", "10")
    return ["audit", str(train), str(test), "-o", str(output), *small, "--quiet", *more]
