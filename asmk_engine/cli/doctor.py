"""`asmk-engine doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import json_option, plural
from asmk_engine.errors import DependencyError

if TYPE_CHECKING:
    from asmk_engine.doctor import Diagnosis, PackageState


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show what is installed and what to install for more.

    Each dependency is imported. The exit code is 1 if a required one is missing or broken.
    """
    from asmk_engine.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        click.echo(json.dumps(diagnosis.to_json()))
    else:
        for line in _lines(diagnosis):
            click.echo(line)
    if diagnosis.problems:
        raise DependencyError("; ".join(diagnosis.problems))


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield _row("asmk-engine", diagnosis.version)
    yield _row("Python", diagnosis.python)
    yield _row(
        "system", f"{diagnosis.platform}, {plural(diagnosis.processors, 'processor')}, {diagnosis.threads} usable"
    )
    yield from (_row(finding.name, _summary(finding)) for finding in diagnosis.parts)
    yield _row("compiled kernels", diagnosis.kernel_cache or "no writable folder")
    yield from (f"warning: {text}" for text in diagnosis.warnings)
    if diagnosis.suggestions:
        yield "suggestions:"
        yield from (f"  {text}" for text in diagnosis.suggestions)


def _row(label: str, value: str) -> str:
    return f"{label:<18} {value}"


def _summary(finding: PackageState) -> str:
    if finding.state == "missing":
        return "missing" if finding.required else "not installed"
    if finding.state == "broken":
        return f"broken: {finding.problem}"
    facts = [*(finding.distributions if finding.name in ("faiss", "OpenCV") else ()), *finding.details]
    return f"{finding.version}" + (f" ({', '.join(facts)})" if facts else "")
