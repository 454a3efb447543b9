"""Drop-in replacement for the package `asmk` (jenicek/asmk): change the import lines and keep the rest.

    from asmk import asmk_method, io_helpers      from asmk_engine.compat import asmk_method, io_helpers
    from asmk.asmk_method import ASMKMethod       from asmk_engine.compat.asmk_method import ASMKMethod
    import asmk.index                             import asmk_engine.compat as asmk
    import faiss, where it is not installed       from asmk_engine.compat import index as faiss

The last line is for programs that use only `IndexFlatL2` of faiss. Parameters, methods, return values and scores are
those of the original, except that

- binary similarities are divided by the dimension itself, not by the next multiple of 32;
- the inverse document frequency always counts all images added so far;
- equal scores are ordered by image id, and no array of the caller is ever changed;
- words are assigned on the CPU, with or without faiss; a `gpu_id` only causes a warning;
- caches are never pickles. Pickles written by the original are read by an interpreter that can only build plain values
  and arrays; files are written as HDF5 (a codebook, in the format of `asmk-engine`) or as array files.
"""

from importlib import import_module

_MODULES = ("asmk_method", "codebook", "index", "inverted_file", "io_helpers", "kernel")

__all__ = ["ASMKMethod", "asmk_method", "codebook", "index", "inverted_file", "io_helpers", "kernel"]


def __getattr__(name: str) -> object:
    """Import a module of this package, or `ASMKMethod`, on first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name == "ASMKMethod":
        return import_module(f"{__name__}.asmk_method").ASMKMethod
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
