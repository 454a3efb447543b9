"""A program for the tests: a command that is killed at random moments, again and again, and then runs to its end.

killed_often.py KILLS SECONDS SEED WORD...

The command runs in children of this process, so that everything is imported once. Each of the first KILLS is killed by
SIGKILL at a random moment of SECONDS. States are saved after each step, and descriptors in pieces of two images, so
that there is as much as possible to be cut. Prints how many were killed, and how long the last one took.
"""

import os
import random
import signal
import sys
import time

from asmk_engine.cli import commands
from asmk_engine.networks.reranking import checkpoints, scoring, transformer_pairs  # noqa: F401
from asmk_engine.storage import system
from asmk_engine.training import kept_descriptors, loop

STEP = 0.002


def main(kills: int, seconds: float, seed: int, words: list[str]) -> None:
    """Kill the command so often, then let it end; exits with its status."""
    rng, killed = random.Random(seed), 0
    for _ in range(kills):
        killed += ended(words, rng.uniform(0, seconds)) == -signal.SIGKILL
    begun = time.monotonic()
    status = ended(words, float("inf"))
    print(f"\n{killed} {time.monotonic() - begun:.3f}")
    sys.exit(status)


def ended(words: list[str], seconds: float) -> int:
    """Run the command in a child, kill it after so many seconds, and return its status, negative after a signal."""
    child = os.fork()
    if child == 0:
        run(words)
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(STEP)


def run(words: list[str]) -> None:
    """Run the command in this process, and end it."""
    kept_descriptors.PIECE = 2
    system.sync_file = system.sync_folder = lambda path: None  # only a machine that stops needs it
    usual = loop.TrainingRun.__init__

    def saving(self: loop.TrainingRun, *given: object, **named: object) -> None:
        usual(self, *given, **{**named, "save_seconds": 0.0})  # type: ignore[arg-type]

    loop.TrainingRun.__init__ = saving  # type: ignore[method-assign,assignment]
    loop.draw_curves = lambda folder: folder
    status = 1
    try:
        commands(words)
    except SystemExit as ended_by:
        status = int(ended_by.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
