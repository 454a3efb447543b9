"""The processes of a training: one, or several that `torchrun` has started, each with a GPU of its own or a CPU.

Every process computes the gradient of its share of a step; the gradients are then summed. They are summed after the
step and not during it, as `DistributedDataParallel` does, because a listwise loss needs the vectors of the whole step
first, and parts of a step are back-propagated one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import torch
from torch import distributed, nn

from asmk_engine.errors import InputError

PATIENCE = timedelta(hours=12)  # the others wait while the first process validates


class Processes:
    """The processes of a training; this class is one process alone.

    rank   number of this process, from 0; the first one writes files
    count  number of processes
    """

    rank, count = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values [b, …] of all processes in their order, [B, …], without gradients; b is equal in all."""
        return values.detach()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over the processes."""

    def wait(self) -> None:
        """Wait until all processes are here."""

    def share(self, numbers: range) -> range:
        """Return this process's part of the numbers; raises InputError if they are not equal parts for all."""
        if len(numbers) % self.count:
            raise InputError(
                f"{len(numbers)} items a step cannot be shared by {self.count} processes; give a multiple of "
                f"{self.count}"
            )
        size = len(numbers) // self.count
        return numbers[self.rank * size : (self.rank + 1) * size]

    def split(self, count: int) -> np.ndarray:
        """Return the numbers of this process's equal share of `count` items; the last shares repeat the first ones."""
        padded = np.resize(np.arange(count), -(-count // self.count) * self.count)
        own = self.share(range(len(padded)))
        return padded[own.start : own.stop]

    def joined(self, values: np.ndarray, count: int, device: torch.device) -> np.ndarray:
        """Return the values [count, …] of all items from those of the shares of `split`."""
        found: np.ndarray = self.gather(torch.from_numpy(values).to(device)).cpu().numpy()[:count]
        return found


class JoinedProcesses(Processes):
    """Several processes, joined by `torch.distributed`."""

    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values [b, …] of all processes in their order, [B, …], without gradients; b is equal in all."""
        values = values.detach().contiguous()
        parts = [torch.empty_like(values) for _ in range(self.count)]
        distributed.all_gather(parts, values)
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over the processes, in one message for each type."""
        by_type: dict[torch.dtype, list[torch.Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_type.values():
            joined = torch.cat([one.flatten() for one in gradients])
            distributed.all_reduce(joined)
            begin = 0
            for one in gradients:
                one.copy_(joined[begin : begin + one.numel()].view_as(one))
                begin += one.numel()

    def wait(self) -> None:
        """Wait until all processes are here."""
        distributed.barrier()


def join_processes(device: str) -> tuple[Processes, str]:
    """Return the processes of this training and the device of this one.

    device  as for `choose_device`; of several processes on GPUs, each gets the GPU of its local number

    Processes are joined if `torchrun` has started this one: it sets RANK, WORLD_SIZE and LOCAL_RANK.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(), device
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    return JoinedProcesses(), device
