"""A local cluster of Ray for the tests of a session, and the processes of it that tests kill."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OBJECT_STORE = 200_000_000
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A lost node is noticed after three seconds instead of thirty.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
ROOT = Path(__file__).resolve().parents[1]


class TestedCluster:
    """A cluster of one node of two processors, to which tests add nodes."""

    __test__ = False

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args=_node(2))

    def add_node(self, processors: int = 1, gpus: int = 0) -> Any:
        """Start another node, of which Ray believes that it has so many GPUs."""
        return self.cluster.add_node(wait=True, num_gpus=gpus, **_node(processors))

    def remove_node(self, node: Any) -> None:
        """Kill all processes of a node at once."""
        self.cluster.remove_node(node, allow_graceful=False)

    def workers(self) -> list[int]:
        """Return the processes of the cluster that run tasks and actors."""
        nodes = [one.process.pid for node in self.cluster.list_all_nodes() for one in node.all_processes["raylet"]]
        found = []
        for pid in nodes:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split() if _is_busy(int(child))]
        return found

    @contextmanager
    def killing(self, seed: int, seconds: float, most: int) -> Iterator[list[int]]:
        """Kill workers at random moments during the block, at most `most`; yields the list of those killed."""
        killed: list[int] = []
        over, rng = threading.Event(), random.Random(seed)

        def kill() -> None:
            while len(killed) < most and not over.wait(seconds * rng.random()):
                if workers := self.workers():
                    victim = rng.choice(workers)
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield killed
        finally:
            over.set()
            thread.join()


def _node(processors: int) -> dict[str, Any]:
    return {"num_cpus": processors, "object_store_memory": OBJECT_STORE, "include_dashboard": False}


def _is_busy(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    # Without one of its agents a node ends, and with it this process.
    return command.startswith(b"ray::") and not command.startswith(b"ray::IDLE") and b"Agent" not in command


@contextmanager
def cluster_of_the_session() -> Iterator[TestedCluster]:
    """Start the cluster, connect this process, and end everything afterwards; skips the tests without Ray."""
    pytest.importorskip("ray", reason="ray is not installed, which runs clusters: pip install 'asmk-engine[ray]'")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{found.getsockname()[1]}"
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ.update(ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, paths))})
    import ray

    started = TestedCluster()
    ray.init(address=started.cluster.address, log_to_driver=False, logging_level="CRITICAL")
    try:
        yield started
    finally:
        ray.shutdown()
        started.cluster.shutdown()


def wait_until(is_so: Any, seconds: float = 30.0) -> None:
    """Wait until something is so, or fail."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
