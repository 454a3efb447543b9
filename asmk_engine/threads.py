"""One pool of threads for the kernels, which release the interpreter while they run; and what a fork makes of it.

Threads do not survive a fork, and whatever lock one of them held stays locked in the child. A forked child of this
process therefore starts threads of its own, and works: see `forks_wait`, `call_library` and `_start_over`. What other
libraries in the process hold at a fork nobody here can know; `multiprocessing.get_context("spawn")` avoids all of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from asmk_engine.errors import InputError

FORK_PATIENCE = 300.0
"""Seconds that a fork waits at most: a block that waits for the thread that forks would never end."""

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
    thread. Inside a task of a pool the items are computed by its own thread, as in `run`. A forked child may go on with
    a stream of its parent: it computes again what the threads had in hand that it lacks.
    """
    if threads == 1 or _is_inside_a_task():
        yield from map(function, items)
        return
    pending: deque[_PoolTask[Item, Result]] = deque()
    try:
        for item in items:
            pending.append(_PoolTask(function, item, threads))
            if len(pending) == 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for task in pending:
            task.cancel()


def _is_inside_a_task() -> bool:
    return getattr(_this_thread, "is_of_a_pool", False)


class _PoolTask(Generic[Item, Result]):
    """A function of one item, under way in a pool; forgotten by a fork, it is computed by who asks for the result."""

    def __init__(self, function: Callable[[Item], Result], item: Item, threads: int) -> None:
        self._function, self._item, self._forks = function, item, _gate.forks
        self._future: Future[Result] = _pool(threads).submit(function, item)

    def result(self) -> Result:
        """What the function returns."""
        return self._future.result() if self._forks == _gate.forks else self._function(self._item)

    def cancel(self) -> None:
        """Let it not begin, where it has not."""
        if self._forks == _gate.forks:  # in a child, a thread that is gone may have locked the future
            self._future.cancel()


# ---------------------------------------------------------------------------------------------------------- forks


class _Gate:
    """Lets a fork wait for the blocks that other threads are in, and new blocks for the fork.

    forks  how many forks lie between the first process and this one
    """

    def __init__(self, forks: int = 0) -> None:
        self.forks = forks
        self._changed = threading.Condition()
        self._inside: set[int] = set()  # threads
        self._forking = 0

    def enter(self) -> None:
        """Begin a block."""
        own = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._forking or own in self._inside)
            self._inside.add(own)

    def leave(self) -> None:
        """End a block."""
        with self._changed:
            self._inside.discard(threading.get_ident())
            self._changed.notify_all()

    def close(self) -> None:
        """Before a fork: let no block begin, and wait for those of other threads."""
        own = threading.get_ident()
        with self._changed:
            self._forking += 1
            self._changed.wait_for(lambda: self._inside <= {own}, FORK_PATIENCE)

    def open(self) -> None:
        """After a fork, in the parent."""
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


_gate = _Gate()


@contextlib.contextmanager
def forks_wait() -> Iterator[None]:
    """A block during which no other thread forks this process: `with forks_wait(): a @ b`.

    It belongs around calls of libraries that have threads of their own, matrix products among them: OpenBLAS stops its
    threads before a fork, and where one of them is at work, the fork never returns. Such a block must be short, and
    must neither take a lock nor hand out tasks.
    """
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()  # in a child that began the block in its parent this is another gate, which was never entered


def call_library(function: Callable[[], Result]) -> Result:
    """What a function returns that computes with OpenMP, as those of faiss and torch do; forks wait for it.

    OpenMP keeps a team of threads for every thread that calls it, and in the thread that forked it waits for a team
    that is gone. So in a forked child another thread calls the function, with as many threads as the parent had:
    libraries add in another order, and round otherwise, where the threads are fewer.
    """
    with forks_wait():
        return _helper().submit(function).result() if _gate.forks else function()


@functools.cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        1, thread_name_prefix="asmk-library", initializer=_set_openmp, initargs=(_openmp_threads,)
    )


_OPENMP = {"faiss": ("omp_get_max_threads", "omp_set_num_threads"), "torch": ("get_num_threads", "set_num_threads")}
_openmp_threads: dict[str, int] = {}  # of each library that was loaded at a fork, in the first of the parents


def _start_over() -> None:
    """In a forked child: threads of its own, and no lock that a thread of the parent has kept."""
    global _gate
    _gate = _Gate(_gate.forks + 1)
    _this_thread.is_of_a_pool = False  # the thread that forked is the only one here, and waits for nobody
    _pool.cache_clear()
    _helper.cache_clear()
    _renew_property_locks()
    _leave_openmp()


def _renew_property_locks() -> None:
    """Give the cached properties of this package new locks: until Python 3.11 each has one, for all objects."""
    for module in [module for name, module in list(sys.modules.items()) if name.startswith("asmk_engine.")]:
        for kind in [value for value in vars(module).values() if isinstance(value, type)]:
            for member in vars(kind).values():
                if isinstance(member, functools.cached_property) and hasattr(member, "lock"):
                    vars(member)["lock"] = threading.RLock()


def _leave_openmp() -> None:
    """Let libraries that are called otherwise than by `call_library` compute in the calling thread, and not wait."""
    for library, (get_threads, _) in _OPENMP.items():
        module = sys.modules.get(library)
        if hasattr(module, get_threads):  # not while it is being imported
            _openmp_threads.setdefault(library, getattr(module, get_threads)())
    _set_openmp(dict.fromkeys(_openmp_threads, 1))


def _set_openmp(threads: dict[str, int]) -> None:
    for library, count in threads.items():
        getattr(sys.modules[library], _OPENMP[library][1])(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_start_over)
