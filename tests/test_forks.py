"""Forks of a process with threads: the child works, ranks alike, and never waits for threads that do not exist."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asmk_engine import threads
from samples import ENVIRONMENT

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    # Python 3.12 warns of what these tests are about.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

# What hangs is ended from outside: a fork that never returns holds the interpreter, and no thread of it can tell.
BEGIN = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import numpy as np
from pathlib import Path

def forked(function):
    # What a function returns in a child of this process.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, repr(function()).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return told

def repeat(function):
    # Call a function for ever, in another thread; returns once it was called.
    begun = threading.Event()
    def work():
        while True:
            function()
            begun.set()
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
"""
WORLD = """
from samples import make_features, random_codebook, write_features
from asmk_engine import Index, Searcher

rng = np.random.default_rng(0)
images = {f"{number}.jpg": make_features(rng.normal(size=(300, 64))) for number in range(4)}
index = Index.create(Path(sys.argv[2]) / "index", random_codebook(600, 64))
index.add(write_features(Path(sys.argv[2]) / "features", images))
searcher = Searcher(Index.open(index.path), threads=3)

def answers():
    return searcher.search(list(images.values()), 5)
"""
SEARCH = """
expected = repr(answers())
repeat(answers)
for _ in range(8):
    told = forked(answers)
    assert told == expected, told
told = forked(lambda: forked(answers))
assert told == repr(expected), told
"""
MULTIPROCESSING = """
import multiprocessing

def answers_of(number):
    return repr(answers())

expected = answers_of(0)
repeat(answers)
with multiprocessing.get_context("fork").Pool(3) as pool:
    told = pool.map(answers_of, range(4))
assert told == [expected] * 4
"""
TRAINING = """
from samples import write_features, make_features
from asmk_engine import Codebook

rng = np.random.default_rng(0)
images = {f"{number}.jpg": make_features(rng.normal(size=(1500, 32))) for number in range(6)}
features = write_features(Path(sys.argv[2]) / "features", images)

def train():
    return Codebook.train(features, 150, seed=1, rounds=2, backend=sys.argv[3]).fingerprint

expected = repr(train())
told = forked(train)
assert told == expected, told
told = forked(lambda: forked(train))
assert told == repr(expected), told
repeat(train)
for _ in range(3):
    told = forked(train)
    assert told == expected, told
assert repr(train()) == expected
"""
KERNELS = """
from asmk_engine import threads
repeat(lambda: threads.run(lambda item: time.sleep(0.001), range(20), 4))

def numbers():
    return threads.run(abs, range(9), 4) + list(threads.stream(abs, range(9), 4))

for _ in range(20):
    told = forked(numbers)
    assert told == repr(2 * list(range(9))), told
"""
INSIDE_A_TASK = """
from asmk_engine import threads

def numbers():
    return threads.run(abs, range(9), 2)

def task(item):
    return forked(numbers)

for told in threads.run(task, range(8), 2):
    assert told == repr(list(range(9))), told
assert numbers() == list(range(9))
"""
STREAM = """
from asmk_engine import threads
stream = threads.stream(lambda item: time.sleep(0.05) or 2 * item, range(30), 3)
assert [next(stream), next(stream)] == [0, 2]
told = forked(lambda: list(stream))
assert told == repr(list(range(4, 60, 2))), told
told = forked(stream.close)
assert told == "None", told
assert list(stream) == list(range(4, 60, 2))
"""
PROPERTY = """
from samples import random_codebook
codebook = random_codebook(8, 16)
lock = getattr(type(codebook).__dict__["fingerprint"], "lock", None)
if lock is not None:
    held, done = threading.Event(), threading.Event()
    def hold():
        with lock:
            held.set()
            done.wait()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
told = forked(lambda: codebook.fingerprint)
if lock is not None:
    done.set()
assert told == repr(codebook.fingerprint), told
"""


def _play(script: str, folder: Path, *arguments: str) -> None:
    # The end of the interpreter has trouble of its own with threads that are inside a library.
    script = f"{BEGIN}{script}\nsys.stdout.flush()\nos._exit(0)"
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(folder), *arguments]
    # No test of speed: what hangs would hang for ever.
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_child_searches_while_the_parent_does(tmp_path: Path) -> None:
    _play(WORLD + SEARCH, tmp_path)


def test_children_of_multiprocessing_search_while_the_parent_does(tmp_path: Path) -> None:
    _play(WORLD + MULTIPROCESSING, tmp_path)


@pytest.mark.parametrize("backend", ["faiss", "torch", "graph"])
def test_a_child_trains_the_codebook_of_its_parent(tmp_path: Path, backend: str) -> None:
    if backend != "graph" and importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    _play(TRAINING, tmp_path, backend)


@pytest.mark.parametrize("script", [KERNELS, INSIDE_A_TASK, STREAM, PROPERTY], ids=["busy", "task", "stream", "lock"])
def test_a_child_has_a_pool_of_its_own(tmp_path: Path, script: str) -> None:
    _play(script, tmp_path)


def test_a_fork_waits_for_the_blocks_of_other_threads() -> None:
    order: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    def block() -> None:
        with threads.forks_wait():
            begun.set()
            may_end.wait()
            order.append("block")

    other = threading.Thread(target=block)
    other.start()
    begun.wait()
    threading.Timer(0.2, may_end.set).start()
    with threads.forks_wait():  # its own block keeps no thread from forking
        child = os.fork()
        if child == 0:
            os._exit(0)
    order.append("fork")
    assert os.waitpid(child, 0)[1] == 0 and order == ["block", "fork"]
    other.join()
    with threads.forks_wait():  # the way is free again
        pass


def test_results_of_a_library_and_its_errors_reach_the_caller() -> None:
    assert threads.call_library(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        threads.call_library(lambda: 1 // 0)
