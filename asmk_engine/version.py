"""The version of asmk-engine."""

__version__ = "0.1.0"
