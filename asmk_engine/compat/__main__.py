"""`python -m asmk_engine.compat SCRIPT`: a program written for the package `asmk`, run with this one in its place."""

from __future__ import annotations

import argparse
import builtins
import importlib.util
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

from asmk_engine.compat.assignment import ASSIGNMENTS
from asmk_engine.compat.installation import install
from asmk_engine.errors import AsmkError

_USAGE = "python -m asmk_engine.compat [--assignment exact|graph] [--faiss] (SCRIPT | -m MODULE) [ARGUMENT...]"
_ABOUT = "Run a program written for the package asmk, as `python SCRIPT` would, with asmk_engine.compat in its place."


def main() -> int:
    """Parse, install, run; returns the exit code, and raises the SystemExit of the program."""
    options = _parser().parse_args()
    command = options.module or options.program
    if not command:
        _parser().error("give a script, or a module with -m")
    try:
        install(assignment=options.assignment, faiss=options.faiss)
    except AsmkError as error:
        return _refuse(str(error), 1)
    sys.argv[:] = command
    return run_module(command[0]) if options.module else run_script(command[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m asmk_engine.compat", usage=_USAGE, description=_ABOUT)
    parser.add_argument("--assignment", choices=ASSIGNMENTS, help="how descriptors get their words (default: exact)")
    parser.add_argument("--faiss", action="store_true", help="where faiss is not installed, stand in for IndexFlatL2")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="run a module, as `python -m` does")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="the script and its arguments")
    return parser


def run_script(path: str) -> int:
    """Run a script, or a folder or an archive with `__main__.py`, as the program; returns the exit code."""
    if not os.path.exists(path):
        return _refuse(f"{path}: no such file; expected a Python script, and its arguments after it", 2)
    is_source = not path.endswith(".pyc") and pkgutil.get_importer(path) is None
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path)) if os.path.isfile(path) else path
    return _run(lambda: _run_source(path) if is_source else runpy.run_path(path, run_name="__main__"))


def _run_source(path: str) -> None:
    """Run a file as the module `__main__`, which stays, as `runpy` has it not, until the last thread has ended."""
    where = os.path.join(os.getcwd(), path.removeprefix("./"))  # not made shorter, as Python makes it not
    with io.open_code(where) as file:
        code = compile(file.read(), where, "exec", dont_inherit=True)
    module = ModuleType("__main__")
    module.__file__, module.__loader__ = where, SourceFileLoader("__main__", where)
    vars(module).update(__builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = module
    exec(code, vars(module))


def run_module(name: str) -> int:
    """Run a module, or a package with `__main__`, as the program; returns the exit code."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        return _refuse(f"{name!r}: cannot be found: {' '.join(str(error).split())}", 1)
    if spec is None:
        return _refuse(f"{name!r}: no such module, or a package without __main__; expected what `python -m` runs", 1)
    return _run(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True))


def _run(program: Callable[[], object]) -> int:
    """Run it; an exception is shown as Python shows one, by the hook for it and without the frames that lead here."""
    try:
        program()
    except SystemExit:
        raise
    except KeyboardInterrupt as error:
        raise error.with_traceback(_own_part(error.__traceback__)) from error.__cause__
    except BaseException as error:
        rest = _own_part(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(rest), rest)
        return 1
    return 0


def _own_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback from the first frame of the program on."""
    ours = {__file__, runpy.__file__, "<frozen runpy>"}
    while traceback is not None and traceback.tb_frame.f_code.co_filename in ours:
        traceback = traceback.tb_next
    return traceback


def _refuse(message: str, code: int) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
