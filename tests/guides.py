"""Runs the code blocks of a page of the documentation in the current folder, from top to bottom, as a reader would.

    python guides.py PAGE

Python blocks share their names, shell blocks run in bash. `test="skip: REASON"` after the language leaves a block out.
A comment `<!-- test: … -->` right below a block is Python that checks the block: `output` is what the block printed,
`PAGE` the path of the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = ("python", "sh", "text")  # text is not run: it shows output
_BLOCK = re.compile(
    r"^```(?P<language>\S*)(?: test=\"skip: (?P<skip>[^\"]+)\")?\n(?P<code>.*?)^```\n"
    r"(?P<before>\n*<!-- test:\n)?(?(before)(?P<check>.*?)^-->)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its code and the check below it, with the lines of the page that they begin at."""

    language: str
    code: str
    line: int
    skip: str | None
    check: str | None
    check_line: int


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _BLOCK.finditer(page):
        lines = [page.count("\n", 0, place) + 1 for place in (found.start("code"), max(found.start("check"), 0))]
        yield Block(found["language"], found["code"], lines[0], found["skip"], found["check"], lines[1])


def run(path: Path) -> None:
    """Run a page; the first block or check that fails raises, with the line of the page in the traceback.

    What a check defines is there for later checks, and not for the blocks: a reader does not see the checks.
    """
    names = _module("guide")
    checked: dict[str, Any] = {"Path": Path, "PAGE": path}
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.skip is not None or block.language == "text":
            continue
        print(f"{path.name}:{block.line}", file=sys.stderr, flush=True)
        output = _run_python(block, path, names) if block.language == "python" else _run_shell(block.code)
        if block.check is not None:
            scope = checked | names | {"output": output}
            exec(_compiled(block.check, block.check_line, path), scope)
            checked |= {name: value for name, value in scope.items() if name not in names}


def _module(name: str) -> dict[str, Any]:
    """The names of a new module, which dataclasses look up by its name."""
    sys.modules[name] = types.ModuleType(name)
    return vars(sys.modules[name])


def _run_python(block: Block, path: Path, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(_compiled(block.code, block.line, path), names)
    print(printed.getvalue(), end="")
    return printed.getvalue()


def _run_shell(code: str) -> str:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode} of the shell block:\n{code}")
    return done.stdout


def _compiled(code: str, line: int, path: Path) -> Any:
    return compile("\n" * (line - 1) + code, str(path), "exec")


def provide_command(folder: Path) -> dict[str, str]:
    """An environment whose PATH finds the program `asmk-engine`, of the package that is being tested, in `folder`."""
    folder.mkdir()
    program = folder / "asmk-engine"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m asmk_engine "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return {"PATH": os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])}


if __name__ == "__main__":
    run(Path(sys.argv[1]))
