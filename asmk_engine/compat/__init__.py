"""Drop-in replacement for the package `asmk` (jenicek/asmk): change the import lines and keep the rest.

    from asmk import asmk_method, io_helpers      from asmk_engine.compat import asmk_method, io_helpers
    from asmk.asmk_method import ASMKMethod       from asmk_engine.compat.asmk_method import ASMKMethod
    import asmk.index                             import asmk_engine.compat as asmk
    import faiss, where it is not installed       from asmk_engine.compat import index as faiss

The last line serves programs that only make an `IndexFlatL2` of faiss. A program that cannot be changed runs behind one
line, or without any, its command being `python SCRIPT` or `python -m MODULE` before:

    import asmk_engine.compat; asmk_engine.compat.install()
    python -m asmk_engine.compat SCRIPT           python -m asmk_engine.compat -m MODULE

Parameters, methods, return values and scores are those of the original, except that

- binary similarities are divided by the dimension itself, not by the next multiple of 32; the functions of `hamming`
  divide by the given number, as the original's do;
- the inverse document frequency always counts all images there are, whatever was added when;
- equal scores are ordered by image id, and no array of the caller is ever changed;
- words are assigned on the CPU, with or without faiss; a `gpu_id` is answered by a warning;
- where `params["index"]["assignment"]` is `graph`, or `install(assignment="graph")` was called, words are found through
  links between near words, which misses the nearest of some descriptors; otherwise by comparing with all words, as the
  original does, whether by an index of this package or by an `IndexFlatL2` of faiss that a program makes, whose place
  that one takes;
- caches are never pickles. Pickles that the original wrote are read by an interpreter that can build nothing but
  plain values and arrays; what is written is HDF5 (a codebook, as `asmk-engine` itself reads it) or an array file.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from asmk_engine.compat.names import MODULES

if TYPE_CHECKING:
    from asmk_engine.compat.asmk_method import ASMKMethod
    from asmk_engine.compat.installation import install, uninstall

_HOMES = {"ASMKMethod": "asmk_method", "install": "installation", "uninstall": "installation"}

__all__ = [
    "ASMKMethod",
    "asmk_method",
    "codebook",
    "functional",
    "hamming",
    "index",
    "install",
    "inverted_file",
    "io_helpers",
    "kernel",
    "uninstall",
]


def __getattr__(name: str) -> object:
    """Import a module of the drop-in, or what it exports, on first use (PEP 562)."""
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
