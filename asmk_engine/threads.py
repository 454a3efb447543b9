"""One pool of threads for the kernels, which release the interpreter while they run."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asmk_engine.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """The number of threads to use: `threads`, or all available when None; InputError below 1."""
    if threads is None:
        return available_threads()
    if threads < 1:
        raise InputError(f"threads is {threads}; give 1 or more, or leave it out to use all {available_threads()}")
    return threads


_this_thread = threading.local()


def _mark() -> None:
    _this_thread.is_of_a_pool = True


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="asmk", initializer=_mark)


def run(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """The results of `function` for every item, in the order of the items, computed by up to `threads` threads.

    Inside a task of a pool the items are computed one after another by its own thread: waiting for others of the pool
    could last for ever, as they may all be waiting likewise.
    """
    listed = list(items)
    if threads == 1 or len(listed) < 2 or getattr(_this_thread, "is_of_a_pool", False):
        return [function(item) for item in listed]
    return list(_pool(threads).map(function, listed))


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a child starts its own
    os.register_at_fork(after_in_child=_pool.cache_clear)
