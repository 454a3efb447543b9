"""How a sharded index is searched on a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asmk_engine.errors import InputError


@dataclass(frozen=True)
class HostingOptions:
    """The actors that answer for shards, and how long they are waited for.

    Parameters
    ----------
    replicas : int, default 1
        Actors of each shard, on different nodes as far as these can read it. Each has its own memory map; the pages are
        shared on one node.
    deadline : float, default 30
        Seconds that a request to all shards may take; a shard that has not answered by then is missing.
    hedge : float or None, default None
        Seconds after which a second replica is asked as well; by default three times the usual time, at least 0.05.
    threads : int or None, default None
        Threads of an actor; by default the processors of its node divided by the actors there.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    replicas: int = 1
    deadline: float = 30.0
    hedge: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= 64:
            raise InputError(f"{self.replicas} replicas are asked for; give 1 to 64")
        for name, value in (("deadline", self.deadline), ("hedge", self.hedge)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value} seconds; give a number above 0")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}; give 1 or more")
