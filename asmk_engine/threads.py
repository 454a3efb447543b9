"""One thread pool for the kernels, which release the GIL while they run; and its behaviour after a fork.

Threads do not survive a fork, and a lock held by one of them stays locked in the child. A forked child of this process
therefore starts new threads: see `forks_wait`, `call_library` and `_start_over`. Locks held by other libraries at a
fork cannot be known here; `multiprocessing.get_context("spawn")` avoids the problem.
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
"""Maximum seconds that a fork waits: a block that waits for the forking thread would never end."""

Item = TypeVar("Item")
Result = TypeVar("Result")


_most: int | None = None


@contextlib.contextmanager
def limited_threads(most: int) -> Iterator[None]:
    """Let this process use at most so many threads in a block, as one of several that share a machine's processors."""
    global _most
    before, _most = _most, most
    try:
        yield
    finally:
        _most = before


def available_threads() -> int:
    """Return the number of processors this process may run on, or the limit that was set if that is lower."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count if _most is None else min(count, _most)


def thread_count(threads: int | None) -> int:
    """Return the number of threads to use: `threads`, or all available if None. Raises InputError below 1."""
    if threads is None:
        return available_threads()
    if threads < 1:
        raise InputError(f"threads is {threads}; give 1 or more, or leave it out to use all {available_threads()}")
    return threads


_this_thread = threading.local()


def _mark() -> None:
    _this_thread.is_pool_thread = True


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="asmk", initializer=_mark)


def run(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Return the results of `function` for all items, in their order, computed by up to `threads` threads.

    Inside a task of a pool, the task's own thread computes the items one after another: waiting for other threads of
    the pool could deadlock, because all of them may be waiting too.
    """
    listed = list(items)
    if threads == 1 or len(listed) < 2 or _is_pool_thread():
        return [function(item) for item in listed]
    return list(_pool(threads).map(function, listed))


def stream(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield the results of `function` for the items of a stream, in order, computed by up to `threads` threads.

    At most two items per thread are in progress or finished and not yet yielded; the caller's thread advances `items`.
    Inside a task of a pool, the task's own thread computes the items, as in `run`. A forked child may resume a stream
    of its parent: it computes the pending items again.
    """
    if threads == 1 or _is_pool_thread():
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


def _is_pool_thread() -> bool:
    return getattr(_this_thread, "is_pool_thread", False)


class _PoolTask(Generic[Item, Result]):
    """A function of one item, submitted to a pool; after a fork, `result` computes it in the calling thread."""

    def __init__(self, function: Callable[[Item], Result], item: Item, threads: int) -> None:
        self._function, self._item, self._forks = function, item, _gate.forks
        self._future: Future[Result] = _pool(threads).submit(function, item)

    def result(self) -> Result:
        """Return the result of the function."""
        return self._future.result() if self._forks == _gate.forks else self._function(self._item)

    def cancel(self) -> None:
        """Cancel the task if it has not started."""
        if self._forks == _gate.forks:  # in a child, a vanished thread may have locked the future
            self._future.cancel()


# ---------------------------------------------------------------------------------------------------------- forks


class _Gate:
    """Makes a fork wait for the blocks that other threads are in, and new blocks wait for the fork.

    forks  number of forks between the first process and this one
    """

    def __init__(self, forks: int = 0) -> None:
        self.forks = forks
        self._changed = threading.Condition()
        self._inside: set[int] = set()  # identifiers of threads
        self._forking = 0

    def enter(self) -> None:
        """Enter a block."""
        own = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._forking or own in self._inside)
            self._inside.add(own)

    def leave(self) -> None:
        """Leave a block."""
        with self._changed:
            self._inside.discard(threading.get_ident())
            self._changed.notify_all()

    def close(self) -> None:
        """Before a fork: let no block start, and wait for those of other threads."""
        own = threading.get_ident()
        with self._changed:
            self._forking += 1
            self._changed.wait_for(lambda: self._inside <= {own}, FORK_PATIENCE)

    def open(self) -> None:
        """After a fork, in the parent: let blocks start again."""
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


_gate = _Gate()


@contextlib.contextmanager
def forks_wait() -> Iterator[None]:
    """Prevent other threads from forking this process during a block: `with forks_wait(): a @ b`.

    Use it around calls of libraries with threads of their own, such as matrix products: OpenBLAS stops its threads
    before a fork, and if one of them is busy, the fork never returns. The block must be short, and must neither take a
    lock nor submit tasks.
    """
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()  # in a child forked inside the block this is another gate, which was never entered


def call_library(function: Callable[[], Result]) -> Result:
    """Call a function that computes with OpenMP, as faiss and torch do, and return its result; forks wait for it.

    OpenMP keeps a team of threads for every calling thread; in a forked child, the thread that forked would wait for a
    team that no longer exists. So in a child another thread calls the function, with as many threads as the parent had:
    with fewer threads, libraries add in another order and round differently.
    """
    with forks_wait():
        return _helper().submit(function).result() if _gate.forks else function()


@functools.cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        1, thread_name_prefix="asmk-library", initializer=_set_openmp, initargs=(_openmp_threads,)
    )


_OPENMP = {"faiss": ("omp_get_max_threads", "omp_set_num_threads"), "torch": ("get_num_threads", "set_num_threads")}
_openmp_threads: dict[str, int] = {}  # of each library that was loaded at a fork, as in the first process


def _start_over() -> None:
    """Reset this module in a forked child: new threads, and no lock that a thread of the parent held."""
    global _gate
    _gate = _Gate(_gate.forks + 1)
    _this_thread.is_pool_thread = False  # the thread that forked is the only one here
    _pool.cache_clear()
    _helper.cache_clear()
    _renew_property_locks()
    _leave_openmp()


def _renew_property_locks() -> None:
    """Give the cached properties of this package new locks: up to Python 3.11 each has one lock for all objects."""
    for module in [module for name, module in list(sys.modules.items()) if name.startswith("asmk_engine.")]:
        for kind in [value for value in vars(module).values() if isinstance(value, type)]:
            for member in vars(kind).values():
                if isinstance(member, functools.cached_property) and hasattr(member, "lock"):
                    vars(member)["lock"] = threading.RLock()


def _leave_openmp() -> None:
    """Make libraries called without `call_library` compute in the calling thread, so that they cannot hang."""
    for library, (get_threads, _) in _OPENMP.items():
        module = sys.modules.get(library)
        if hasattr(module, get_threads):  # absent while it is being imported
            _openmp_threads.setdefault(library, getattr(module, get_threads)())
    _set_openmp(dict.fromkeys(_openmp_threads, 1))


def _set_openmp(threads: dict[str, int]) -> None:
    for library, count in threads.items():
        getattr(sys.modules[library], _OPENMP[library][1])(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_start_over)
