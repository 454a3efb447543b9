"""Imported as `faiss` where that is not installed: exact nearest neighbours on the CPU, and nothing else of it."""

from asmk_engine.compat.index import IndexFlatL2

__all__ = ["IndexFlatL2"]
