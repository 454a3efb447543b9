"""The device and the precision in which a network runs."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from asmk_engine.errors import InputError

PRECISIONS = ("fp32", "bf16", "fp16")
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name: cpu, cuda, cuda:1 etc.; auto is a GPU if torch sees one, else the CPU.

    Raises InputError for an unknown name and for a GPU that torch does not see.
    """
    seen = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if seen else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    number = name.removeprefix("cuda").removeprefix(":") or "0"
    if not name.startswith("cuda") or not number.isdecimal():
        raise InputError(f"device is {name!r}; choose auto, cpu, cuda, or a GPU by number such as cuda:0")
    if not seen or int(number) >= torch.cuda.device_count():
        count = torch.cuda.device_count() if seen else 0
        raise InputError(f"device {name!r}: torch sees {count} GPUs; use auto, or install torch for CUDA")
    return torch.device("cuda", int(number))


def automatic_precision(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context in which convolutions run in this precision; `fp32` changes nothing.

    Raises InputError for an unknown precision.
    """
    check_precision(precision)
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _HALVES[precision])


def check_precision(precision: str) -> str:
    """Return the precision; raises InputError if it is unknown."""
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return precision


def use_full_precision(device: torch.device) -> None:
    """Make a GPU multiply float32 as float32, not as TF32, with which descriptors differ in the third digit."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def device_name(device: torch.device) -> str:
    """Return the product name of a GPU, or `processor` for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
