"""The server of the load test as a child process, and what it takes: memory, threads, files, time of processors."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 120.0
STOP_SECONDS = 60.0


class Server:
    """`asmk-engine serve` for one index, on a free port of the loopback."""

    def __init__(self, index: Path, log: Path) -> None:
        command = [sys.executable, "-m", "asmk_engine", "serve", index, "--port", "0", "--no-browser", "--rate", "1e6"]
        with open(log, "w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        if not address:
            raise SystemExit(f"the server did not start; {log} says why")
        self.host, self.port = "127.0.0.1", int(address.rstrip("/").rpartition(":")[2])

    @property
    def family(self) -> list[int]:
        """The numbers of the server process, first, and of all processes below it."""
        found, waiting = [], [self.process.pid]
        while waiting:
            found.append(waiting.pop())
            waiting += _children(found[-1])
        return found

    def stop(self) -> str:
        """Ask the server to stop and return what was wrong with its end, nothing if it ended well."""
        family = self.family
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"the server did not stop within {STOP_SECONDS:.0f} s"
        time.sleep(1)
        left = [number for number in family if _is_running(number)]
        if left:
            return f"{len(left)} processes outlived the server"
        return "" if status in (0, -signal.SIGTERM) else f"the server ended with status {status}"


def _children(number: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{number}/task"):
            found += map(int, Path(f"/proc/{number}/task/{task}/children").read_text().split())
    return found


def _is_running(number: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def processor_seconds(number: int) -> float:
    """Return the time of processors that a process took so far, 0 if it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


def machine_seconds() -> tuple[float, float]:
    """Return the time of processors that all programs took so far, and the time in which processors had nothing to do.

    Where this cannot be read, as in some containers, it is 0.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        idle = fields[3] + fields[4]
        return (sum(fields) - idle) / TICKS, idle / TICKS
    return 0.0, 0.0


@dataclass
class Sample:
    """What the server and the processes below it take at a moment.

    memory   MiB in memory, with the parts of files that are mapped
    private  MiB without them
    own      those of the server process alone
    """

    memory: float = 0.0
    private: float = 0.0
    own: float = 0.0
    files: int = 0
    threads: int = 0
    processes: int = 0

    @classmethod
    def of(cls, family: list[int]) -> Sample:
        """Take a sample of some processes, the server first."""
        found = cls()
        for number in family:
            with contextlib.suppress(OSError, KeyError):
                text = Path(f"/proc/{number}/status").read_text()
                fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
                memory, private = (int(fields[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))
                files = len(os.listdir(f"/proc/{number}/fd"))
                found.memory, found.private = found.memory + memory, found.private + private
                found.own = found.own or private
                found.files, found.threads = found.files + files, found.threads + int(fields["Threads"])
                found.processes += 1
        return found


@dataclass
class Samples:
    """Samples of a phase, one a second."""

    taken: list[Sample] = field(default_factory=list)

    def growth(self, what: str) -> float:
        """Return the median of the last quarter less the median of the second quarter."""
        values = [float(getattr(sample, what)) for sample in self.taken]
        quarter = max(1, len(values) // 4)
        return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter] or values)

    def last(self, what: str) -> float:
        """Return the median of the last quarter."""
        values = [float(getattr(sample, what)) for sample in self.taken]
        return statistics.median(values[-max(1, len(values) // 4) :])


@contextlib.contextmanager
def sampled(server: Server) -> Iterator[Samples]:
    """Take a sample each second until the block ends."""
    samples, ended = Samples(), threading.Event()

    def take() -> None:
        while True:
            samples.taken.append(Sample.of(server.family))
            if ended.wait(1.0):
                return

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
