"""The drop-in under the name of the original, for programs whose import lines cannot be changed."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from asmk_engine.compat.assignment import ASSIGNMENTS, check_assignment, choose_assignment
from asmk_engine.compat.names import MODULES, NAME
from asmk_engine.errors import InputError

ASSIGNMENT_VARIABLE = "ASMK_ENGINE_ASSIGNMENT"
"""The environment variable that passes the choice to processes started from here."""

_PACKAGE = __name__.rpartition(".")[0]
_STAND_INS = Path(__file__).resolve().parent / "stand_ins"
_ASMK_FOLDER, _FAISS_FOLDER = (str(_STAND_INS / name) for name in ("asmk_only", "faiss_only"))
_replaced: dict[str, ModuleType] = {}  # modules of the original whose place was taken


def install(*, assignment: str | None = None, force: bool = False, faiss: bool = False) -> None:
    """Let `import asmk`, and the import of any of its modules, find this package.

    Call it before the program that imports `asmk`. Processes that it starts by `multiprocessing`, in whatever way, find
    the same; those that it starts otherwise do not. Called again it changes nothing but what it is told anew.

    Parameters
    ----------
    assignment : {"exact", "graph"}, optional
        How descriptors get their words: by comparing with all, as the original does and as it is without this, or
        through a graph of words (see `asmk_engine.compat.assignment`).
    force : bool, default False
        Take the place of the original where it is imported already. What programs took from it before stays what it is.
    faiss : bool, default False
        Let `import faiss`, where it is not installed, find a module that has nothing but `IndexFlatL2`. Programs that
        ask whether faiss is there are told so too.

    Raises
    ------
    InputError
        When another `asmk` is imported already, or for an unknown assignment; nothing is changed then.

    Examples
    --------
    >>> import asmk_engine.compat
    >>> asmk_engine.compat.install()
    >>> from asmk import asmk_method, kernel
    """
    if assignment is not None:
        check_assignment(assignment)
    others = {name: module for name, module in sys.modules.items() if _is_of_another(name, module)}
    if NAME in others and not force:
        raise InputError(
            f"{getattr(others[NAME], '__file__', None) or NAME}: this asmk is imported already; call "
            "asmk_engine.compat.install() before it, or take its place with force=True"
        )
    own = {NAME: import_module(_PACKAGE), **{f"{NAME}.{one}": import_module(f"{_PACKAGE}.{one}") for one in MODULES}}
    for name in others:
        _replaced.setdefault(name, sys.modules.pop(name))
    sys.modules.update(own)
    # Second, since many programs rely on their own folder being the first.
    _put_on_path(_ASMK_FOLDER, 1)
    if faiss:
        _put_on_path(_FAISS_FOLDER, len(sys.path))
    if assignment is not None:
        choose_assignment(assignment)
        os.environ[ASSIGNMENT_VARIABLE] = assignment


def uninstall() -> None:
    """Undo all that `install` did, the choice of an assignment included; what it took the place of is back."""
    for name in [name for name, module in sys.modules.items() if _is_named(name) and _is_own(module)]:
        del sys.modules[name]
    sys.modules.update(_replaced)
    _replaced.clear()
    sys.path[:] = [folder for folder in sys.path if folder not in (_ASMK_FOLDER, _FAISS_FOLDER)]
    if str(Path(getattr(sys.modules.get("faiss"), "__file__", None) or "/").parent) == _FAISS_FOLDER:
        del sys.modules["faiss"]
    choose_assignment(ASSIGNMENTS[0])
    os.environ.pop(ASSIGNMENT_VARIABLE, None)


def install_in_child() -> None:
    """What the module `asmk` does that a started process finds on its path: install, as the process before was told."""
    install(assignment=os.environ.get(ASSIGNMENT_VARIABLE))


def _put_on_path(folder: str, place: int) -> None:
    if folder not in sys.path:
        sys.path.insert(place, folder)


def _is_named(name: str) -> bool:
    return name == NAME or name.startswith(f"{NAME}.")


def _is_own(module: ModuleType | None) -> bool:
    """Whether a module is one of this package, or the stand-in for it, under whatever name it was imported."""
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(_STAND_INS.parent)


def _is_of_another(name: str, module: ModuleType | None) -> bool:
    return _is_named(name) and module is not None and not _is_own(module)
