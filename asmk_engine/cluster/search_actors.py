"""Actors that answer for shards, each on a node that can read its shard; `RayHosts` asks them.

An actor keeps nothing that it could not read again, so one that died is started anew by Ray, a request is simply sent
again, and any replica can answer it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asmk_engine.cluster.connecting import check_versions, ray_errors, versions
from asmk_engine.cluster.search_options import HostingOptions
from asmk_engine.errors import AsmkError, NotFoundError
from asmk_engine.indexes.manifest import read_manifest
from asmk_engine.sharding.hosts import PinnedShard, ShardHost
from asmk_engine.storage.folder import Folder

CALLS = 8
"""Requests that an actor works on at the same time; each takes all of its threads where it can."""
PROBE_SECONDS = 60.0
PROBE_AGAIN = 5.0
"""Seconds after which nodes are asked again for a shard that none could read."""


class ShardActor(ShardHost):
    """A `ShardHost` in a process of its own; refuses to start with other versions than those that are expected."""

    def __init__(self, threads: int, expected: dict[str, str]) -> None:
        check_versions(expected, "of a search actor")
        super().__init__(threads)


@dataclass(eq=False)
class Replica:
    """One actor of a shard.

    node     the identifier of its node
    waiting  requests that it has not answered
    failed   when it last did not answer one, in the seconds of `time.monotonic`; 0 for never, or since it answered
    """

    actor: Any
    node: str
    waiting: int = 0
    failed: float = 0.0


def readable(shards: Sequence[PinnedShard]) -> list[bool]:
    """Return which of the shards this node can read, by the identity of the index in the folder."""
    found = []
    for shard in shards:
        try:
            found.append(read_manifest(Folder(shard.path)).identity == shard.manifest.identity)
        except AsmkError:
            found.append(False)
    return found


class ActorPlaces:
    """Starts the actors of shards where these can be read; safe to use from several threads.

    ray      the connected package
    options  how many, with how many threads
    """

    def __init__(self, ray: Any, options: HostingOptions) -> None:
        self._ray, self._options = ray, options
        kept: Any = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": CALLS}
        # The events of every request, which only the tools of Ray show, cost up to half a millisecond.
        self._class = ray.remote(**kept, enable_task_events=False)(ShardActor)
        self._lock = threading.Lock()
        self._replicas: dict[str, list[Replica]] = {}
        self._starting: threading.Thread | None = None
        self._tried, self._reason = 0.0, ""

    def of(self, shard: PinnedShard, shards: Sequence[PinnedShard], *, wait: bool = False) -> list[Replica]:
        """Return the actors of a shard; NotFoundError if there are none, because no node can read it or just now.

        Actors that are missing are started by another thread, so that the other shards are not kept waiting.

        shards  all shards, for which actors are started at the same time
        wait    for that thread
        """
        with self._lock:
            if found := list(self._replicas.get(shard.path, [])):
                return found
            is_free = self._starting is None or not self._starting.is_alive()
            if is_free and (self._tried == 0 or time.monotonic() - self._tried > PROBE_AGAIN):
                missing = [one for one in shards if not self._replicas.get(one.path)]
                self._starting = threading.Thread(target=self._start, args=(missing, len(shards)), daemon=True)
                self._starting.start()
            starting = self._starting
        if wait and starting is not None:
            starting.join()
        with self._lock:
            if found := list(self._replicas.get(shard.path, [])):
                return found
        raise NotFoundError(f"no node can read {shard.path}{self._reason}")

    def drop(self, shard: PinnedShard, replica: Replica) -> None:
        """Forget an actor whose node is gone; the next request starts others where they can be."""
        with self._lock:
            kept = self._replicas.get(shard.path, [])
            if replica in kept:
                kept.remove(replica)

    def close(self) -> None:
        """End all actors."""
        with self._lock:
            for replicas in self._replicas.values():
                for replica in replicas:
                    self._ray.kill(replica.actor)
            self._replicas.clear()

    def _start(self, shards: Sequence[PinnedShard], count: int) -> None:
        try:
            with ray_errors("the start of search actors"):
                self._start_all(shards, count)
            self._reason = ""
        except AsmkError as error:  # the cluster is away: the requests say so
            self._reason = f": {error}"
        finally:
            self._tried = time.monotonic()

    def _start_all(self, shards: Sequence[PinnedShard], count: int) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        reads = self._readers(shards, list(nodes))
        load = dict.fromkeys(nodes, 0)
        for place, shard in enumerate(shards):
            able = [node for node in nodes if reads.get(node, [False] * len(shards))[place]]
            for _ in range(self._options.replicas if able else 0):
                used = [replica.node for replica in self._replicas.get(shard.path, [])]
                node = min(able, key=lambda one: (used.count(one), load[one]))
                load[node] += 1
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                actor = self._class.options(scheduling_strategy=there).remote(
                    self._threads(nodes[node], count, len(nodes)), versions()
                )
                with self._lock:
                    self._replicas.setdefault(shard.path, []).append(Replica(actor, node))

    def _readers(self, shards: Sequence[PinnedShard], nodes: Sequence[str]) -> dict[str, list[bool]]:
        """Return for each node that answers which shards it can read."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        probe = self._ray.remote(num_cpus=0, max_retries=0)(readable)
        asked = {
            node: probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(shards)
            for node in nodes
        }
        found = {}
        for node, answer in asked.items():
            try:
                with ray_errors("a node that is asked for shards"):
                    found[node] = self._ray.get(answer, timeout=PROBE_SECONDS)
            except AsmkError:  # a node that leaves at this moment reads nothing
                continue
        return found

    def _threads(self, node: dict[str, Any], shards: int, nodes: int) -> int:
        if self._options.threads is not None:
            return self._options.threads
        actors = -(-shards * self._options.replicas // nodes)
        return max(1, int(node["Resources"].get("CPU", 1)) // actors)
