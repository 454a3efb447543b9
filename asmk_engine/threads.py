"""One pool of threads for the kernels, which release the interpreter while they run."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    if threads == 1 or len(listed) < 2 or _is_inside_a_task():
        return [function(item) for item in listed]
    return list(_pool(threads).map(function, listed))


def stream(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """The results of `function` for every item of a stream, in its order, computed by up to `threads` threads.

    No more than two items a thread are in hand at a time, finished ones included; `items` is advanced by the caller's
    thread. Inside a task of a pool the items are computed by its own thread, as in `run`.
    """
    if threads == 1 or _is_inside_a_task():
        yield from map(function, items)
        return
    pool = _pool(threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _is_inside_a_task() -> bool:
    return getattr(_this_thread, "is_of_a_pool", False)


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a child starts its own
    os.register_at_fork(after_in_child=_pool.cache_clear)
