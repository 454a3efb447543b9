"""Whether this machine may have a GPU, answered without importing torch, which takes longer than a query."""

from __future__ import annotations

import ctypes
import functools
import sys


def uses_cpu(device: str) -> bool:
    """Return whether a device of this name is the CPU; torch is asked only if there is a driver of a GPU."""
    if device == "cpu" or (device == "auto" and not has_cuda_driver()):
        return True
    from asmk_engine.networks.devices import choose_device

    return choose_device(device).type == "cpu"


@functools.cache
def has_cuda_driver() -> bool:
    """Return whether the driver of NVIDIA's GPUs can be loaded; without it, torch sees none."""
    if sys.platform == "darwin":
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
