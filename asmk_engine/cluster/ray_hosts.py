"""Requests to the actors of shards: all shards at once, within a deadline, again where an actor died or is slow."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from asmk_engine.cluster.connecting import ray_errors, told
from asmk_engine.cluster.search_actors import ActorPlaces, Replica
from asmk_engine.cluster.search_options import HostingOptions
from asmk_engine.errors import AsmkError, NotFoundError, StorageError
from asmk_engine.sharding.hosts import CountedWords, PinnedShard, ShardAnswers

LEAST_HEDGE = 0.05
USUAL = 64
"""Answers by whose median time the usual time of a request is known."""
AGAIN_SECONDS = 0.1
AWAY_SECONDS = 10.0
"""Time for which other replicas are asked rather than one that did not answer."""
START_SECONDS = 180.0
"""Time for the actors to be started: processes, imports, compiled code."""
KEPT = 4


class _Request:
    """One request to one shard, which may be with several replicas.

    begun    when it was first sent, and when it may be sent to a replica again
    sent     the replica of each answer that is waited for
    """

    def __init__(self, number: int, arguments: tuple[Any, ...]) -> None:
        self.number, self.arguments = number, arguments
        self.begun, self.again, self.reason = time.monotonic(), 0.0, ""
        self.sent: dict[Any, Replica] = {}
        self.is_hedged = False


class RayHosts:
    """Asks actors for the shards, see `ShardHosts`; safe to use from several threads.

    ray      the connected package
    options  replicas, deadline, hedging
    """

    def __init__(self, ray: Any, options: HostingOptions | None = None) -> None:
        self._ray, self._options = ray, options or HostingOptions()
        self._places = ActorPlaces(ray, self._options)
        self._lock = threading.Lock()
        self._usual: dict[str, deque[float]] = {}
        self._stored: OrderedDict[Any, Any] = OrderedDict()

    def ask(self, method: str, requests: Mapping[int, tuple[Any, ...]], shards: Sequence[PinnedShard]) -> ShardAnswers:
        """Ask the actors of some shards at the same time, see `ShardHosts.ask`."""
        end = time.monotonic() + self._options.deadline
        waiting = {number: _Request(number, self._sendable(given)) for number, given in requests.items()}
        found: dict[int, Any] = {}
        while waiting and (now := time.monotonic()) < end:
            for request in waiting.values():
                self._send_due(method, request, shards, now)
            for request, answer in self._arrived(waiting, min(end, now + self._pause(method, waiting))):
                if request.number in waiting and self._take(method, request, answer, shards, found):
                    self._forget(waiting.pop(request.number))
        missing = {}
        for number, request in waiting.items():
            self._forget(request)
            missing[number] = request.reason or f"no answer within {self._options.deadline:g} s"
        return ShardAnswers({number: found[number] for number in requests if number in found}, missing)

    def start(self, shards: Sequence[PinnedShard]) -> None:
        """Start the actors of all shards and wait until they are there, which takes longer than any answer.

        A shard that no node can read is left to the requests, which say so.
        """
        end = time.monotonic() + START_SECONDS
        asked = []
        for shard in shards:
            with contextlib.suppress(NotFoundError):
                asked += [one.actor.holds.remote(shard) for one in self._places.of(shard, shards, wait=True)]
        for answer in asked:
            with contextlib.suppress(StorageError), ray_errors("a search actor"):
                self._ray.get(answer, timeout=max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """End all actors."""
        self._places.close()

    def _send_due(self, method: str, request: _Request, shards: Sequence[PinnedShard], now: float) -> None:
        """Send a request that is with nobody, or that a second replica should have as well."""
        is_slow = not request.is_hedged and now - request.begun > self._hedge(method)
        if (request.sent and not is_slow) or now < request.again:
            return
        shard = shards[request.number]
        try:
            replicas = self._places.of(shard, shards)
        except NotFoundError as error:
            request.reason, request.again = str(error), now + AGAIN_SECONDS
            return
        free = [one for one in replicas if one not in request.sent.values()]
        if request.sent:
            request.is_hedged = True
        if free:
            is_back = now - AWAY_SECONDS
            self._send(method, request, shard, min(free, key=lambda one: (one.failed > is_back, one.waiting)))

    def _send(self, method: str, request: _Request, shard: PinnedShard, replica: Replica) -> None:
        try:
            answer = getattr(replica.actor, method).remote(shard, *request.arguments)
        except Exception as error:  # an actor that died may be told when it is called
            self._note(request, shard, replica, error)
            return
        with self._lock:
            replica.waiting += 1
        request.sent[answer] = replica

    def _arrived(self, waiting: Mapping[int, _Request], end: float) -> list[tuple[_Request, Any]]:
        """Wait for as many answers as are needed, until `end`; returns what is there."""
        owners = {answer: request for request in waiting.values() for answer in request.sent}
        pause = max(0.0, end - time.monotonic())
        if not owners:
            time.sleep(min(pause, AGAIN_SECONDS))
            return []
        needed = sum(bool(request.sent) for request in waiting.values())
        ready, _ = self._ray.wait(list(owners), num_returns=needed, timeout=pause)
        return [(owners[answer], answer) for answer in ready]

    def _take(
        self, method: str, request: _Request, answer: Any, shards: Sequence[PinnedShard], found: dict[int, Any]
    ) -> bool:
        """Take an answer; returns False if it is an error that another actor, or the same later, may not have."""
        from ray import exceptions

        replica = request.sent.pop(answer)
        with self._lock:
            replica.waiting -= 1
        try:
            found[request.number] = self._ray.get(answer)
        except exceptions.RayTaskError as error:
            cause = told(error, f"the shard {shards[request.number].path}")
            if not isinstance(cause, NotFoundError | StorageError):
                raise cause from None
            self._note(request, shards[request.number], replica, cause)
            return False
        except exceptions.RayError as error:
            self._note(request, shards[request.number], replica, error)
            return False
        replica.failed = 0.0
        with self._lock:
            self._usual.setdefault(method, deque(maxlen=USUAL)).append(time.monotonic() - request.begun)
        return True

    def _note(self, request: _Request, shard: PinnedShard, replica: Replica, error: Exception) -> None:
        """Note why a replica did not answer; one that will not come back is replaced."""
        from ray import exceptions

        replica.failed = time.monotonic()
        request.again = replica.failed + (0.0 if request.sent else AGAIN_SECONDS)
        if isinstance(error, AsmkError):
            request.reason = str(error)
            return
        request.reason = "its actor died" if isinstance(error, exceptions.RayActorError) else type(error).__name__
        is_away = isinstance(error, exceptions.ActorDiedError | exceptions.ActorUnschedulableError)
        if is_away and not isinstance(error, exceptions.ActorUnavailableError):
            self._places.drop(shard, replica)

    def _forget(self, request: _Request) -> None:
        """Give up answers that are not needed any more."""
        with self._lock:
            for replica in request.sent.values():
                replica.waiting -= 1
        request.sent.clear()

    def _hedge(self, method: str) -> float:
        if self._options.hedge is not None:
            return self._options.hedge
        usual = self._usual.get(method)
        return max(LEAST_HEDGE, 3 * statistics.median(list(usual))) if usual else self._options.deadline

    def _pause(self, method: str, waiting: Mapping[int, _Request]) -> float:
        """Return how long to wait before requests are looked at again."""
        if any(not request.sent for request in waiting.values()):
            return AGAIN_SECONDS
        if self._options.replicas == 1 or all(request.is_hedged for request in waiting.values()):
            return AGAIN_SECONDS
        return max(0.001, min(self._hedge(method), AGAIN_SECONDS))

    def _sendable(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments with the words of all shards as an object that each node fetches once."""
        return tuple(self._reference(one) if isinstance(one, CountedWords) else one for one in arguments)

    def _reference(self, counted: CountedWords) -> Any:
        with self._lock:
            if counted.key not in self._stored:
                self._stored[counted.key] = self._ray.put(counted)
                while len(self._stored) > KEPT:
                    self._stored.popitem(last=False)
            return self._stored[counted.key]
