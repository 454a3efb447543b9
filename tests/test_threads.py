"""The pool of threads: order of the results, and tasks that submit further tasks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asmk_engine
from asmk_engine import threads
from asmk_engine.errors import InputError

# Every thread of the pool waits inside a task, so inner tasks given to that pool would never begin.
NESTED = """
from asmk_engine import threads

def outer(number):
    return sum(threads.run(lambda inner: 10 * number + inner, range(4), 2))

print(threads.run(outer, range(6), 2))
"""


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert threads.run(lambda item: 2 * item, range(50), count) == list(range(0, 100, 2))
    assert threads.run(str, [], count) == []


def test_an_error_of_a_task_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        threads.run(lambda item: 1 // item, [1, 0, 2], 2)


def test_a_task_may_hand_out_tasks() -> None:
    command = [sys.executable, "-c", NESTED]
    root = str(Path(asmk_engine.__file__).parents[1])
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.fail("the tasks wait for each other")
    assert result.stdout.strip() == str([40 * number + 6 for number in range(6)]), result.stderr


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_stream_keeps_its_order_and_holds_few_items(count: int) -> None:
    given: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            given.append(item)
            yield item

    for place, result in enumerate(threads.stream(lambda item: 2 * item, items(), count)):
        assert result == 2 * place and len(given) <= place + 2 * count
    assert len(given) == 100
    assert list(threads.stream(str, [], count)) == []


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_a_stream_comes_in_its_place(count: int) -> None:
    stream = threads.stream(lambda item: 6 // item, [1, 2, 0, 3], count)
    assert [next(stream), next(stream)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_a_task_may_stream() -> None:
    inner = threads.run(lambda number: list(threads.stream(lambda item: number * item, range(4), 2)), range(6), 2)
    assert inner == [[number * item for item in range(4)] for number in range(6)]


def test_threads_are_counted_from_one() -> None:
    assert threads.thread_count(3) == 3 and threads.thread_count(None) == threads.available_threads() >= 1
    with pytest.raises(InputError, match="threads is 0; give 1 or more"):
        threads.thread_count(0)


def test_threads_are_limited_in_a_block_only() -> None:
    before = threads.available_threads()
    with threads.limited_threads(1):
        assert threads.available_threads() == threads.thread_count(None) == 1
        with threads.limited_threads(10**6):
            assert threads.available_threads() == before
        assert threads.available_threads() == 1
    assert threads.available_threads() == before
