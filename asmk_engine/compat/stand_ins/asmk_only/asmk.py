"""Imported as `asmk` in a process that was started by another: the drop-in takes the place of this module."""

from asmk_engine.compat.installation import install_in_child

install_in_child()
