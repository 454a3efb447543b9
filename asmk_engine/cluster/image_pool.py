"""Images described by actors: as many as there is work for, a bounded number of images in hand, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asmk_engine.cluster.connecting import ray_errors, told, versions
from asmk_engine.cluster.image_actor import ImageActor, actor_options, order_of
from asmk_engine.errors import AsmkError, StorageError
from asmk_engine.extraction.attempts import Extractor, Failed, Outcome
from asmk_engine.images.listing import ImageFile

START_SECONDS = 900.0
"""Time for the first actor to start, in which an autoscaler may start a node."""
CLOSE_SECONDS = 5.0
HAND = 8
"""Images of one message to an actor without a GPU; they are lost with it, and described again."""
HANDS = 2
"""Messages that an actor has at a time, so that it never waits for the next."""
AHEAD = 4
"""Messages for each actor that may be done before the first image that is not; their features wait in memory."""
STARTS = 5
"""Actors that may be lost one after the other before one has started."""
LOSSES = 3
"""Actors that may be lost with an image before it counts as failed; the last times it is in a message by itself."""


@dataclass(frozen=True)
class PoolSize:
    """The actors of a run.

    least, most  numbers of actors; `most` None is one for each of the processors or GPUs that the cluster has
    workers      worker processes of an actor, and processors reserved for it
    gpus         GPUs reserved for an actor, such as 0.5; 0 describes on processors
    """

    least: int = 1
    most: int | None = None
    workers: int = 1
    gpus: float = 0.0


class _Actor:
    """One actor: what it has in hand, and whether it sees the files of this machine."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.ready = False
        self.batch = HAND
        self.sees = True
        self.hands: list[list[int]] = []


class ActorPool:
    """Actors of a cluster as the processes that describe images; use it as a context manager.

    ray        the connected package
    extractor  describes the images
    seconds    time limit per image
    size       the number of actors and what each reserves
    """

    def __init__(self, ray: Any, extractor: Extractor, seconds: float, size: PoolSize) -> None:
        self._ray, self._size = ray, size
        self._options = actor_options(extractor, size.workers, seconds, size.gpus, versions())
        self._most = max(size.least, size.most or self._fitting())
        self._actors: list[_Actor] = []
        self._failed_starts = 0
        self._asked: dict[Any, tuple[_Actor, list[int]]] = {}

    def _fitting(self) -> int:
        """Return how many actors the cluster has room for now."""
        found, size = self._ray.cluster_resources(), self._size
        fits = [found.get("CPU", 0) // size.workers, *([found.get("GPU", 0) // size.gpus] if size.gpus else [])]
        return max(1, int(min(fits)))

    def __enter__(self) -> ActorPool:
        size = self._size
        self._kind = self._ray.remote(ImageActor).options(num_cpus=size.workers, num_gpus=size.gpus, max_restarts=0)
        with ray_errors("actors of extraction"):
            self._sent = self._ray.put(self._options)
        return self

    def __exit__(self, *error: object) -> None:
        self._end(list(self._actors))
        self._actors.clear()
        self._asked.clear()

    def _end(self, actors: Sequence[_Actor]) -> None:
        """Let idle actors close what they have open, for a few seconds, and end all."""
        closing = [actor.handle.close.remote() for actor in actors if actor.ready and not actor.hands]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for actor in actors:
            self._ray.kill(actor.handle)

    def attempt_all(self, images: Sequence[ImageFile]) -> Iterator[Outcome]:
        """Yield the outcome of each image, in the given order."""
        work = _Work(images)
        begun = time.monotonic()
        while not work.is_done:
            self._adapt(work)
            self._hand_out(work)
            self._collect(work)
            self._release(work)
            yield from work.next_outcomes()
            if not any(actor.ready for actor in self._actors) and time.monotonic() - begun > START_SECONDS:
                raise self._not_started()

    def _not_started(self) -> StorageError:
        found, size = self._ray.cluster_resources(), self._size
        return StorageError(
            f"no actor of {size.workers} processors and {size.gpus:g} GPUs started in {START_SECONDS:g} s; the cluster "
            f"has {found.get('CPU', 0):g} processors and {found.get('GPU', 0):g} GPUs; add nodes, or reserve less"
        )

    def _adapt(self, work: _Work) -> None:
        """Start actors while images wait: at first the least number, then at most as many as are ready already."""
        ready = sum(actor.ready for actor in self._actors)
        room = min(self._most, -(-work.left // HAND))
        wanted = self._size.least if not ready else min(room, 2 * ready)
        for _ in range(len(self._actors), max(1, min(wanted, room))):
            actor = _Actor(self._kind.remote())
            self._actors.append(actor)
            self._asked[actor.handle.prepare.remote(self._sent)] = (actor, [])

    def _hand_out(self, work: _Work) -> None:
        limit = work.yielded + AHEAD * sum(actor.batch for actor in self._actors if actor.ready)
        for actor in sorted(self._actors, key=lambda one: len(one.hands)):
            while actor.ready and len(actor.hands) < HANDS and (numbers := work.take(actor.batch, limit)):
                self._ask(actor, numbers, work)

    def _ask(self, actor: _Actor, numbers: list[int], work: _Work) -> None:
        orders = []
        for number in list(numbers):
            try:
                orders.append(order_of(work.images[number], whole=number in work.unseen or not actor.sees))
            except AsmkError as error:  # of its storage
                work.outcomes[number] = Failed(" ".join(str(error).split()))
                numbers.remove(number)
        if numbers:
            actor.hands.append(numbers)
            with ray_errors("images for an actor"):
                self._asked[actor.handle.attempt.remote(orders)] = (actor, numbers)

    def _collect(self, work: _Work) -> None:
        """Wait for an answer, at most a second, and take all that are there."""
        if not self._asked:
            return
        ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=1.0)
        for answer in ready:
            if answer in self._asked:  # else its actor was lost with another answer
                self._take(*self._asked.pop(answer), answer, work)

    def _take(self, actor: _Actor, numbers: list[int], answer: Any, work: _Work) -> None:
        from ray import exceptions

        try:
            found = self._ray.get(answer)
        except exceptions.RayTaskError as error:
            raise told(error, "an actor of extraction") from None
        except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:
            raise told(error, "features of images") from None
        except exceptions.RayError:
            self._lose(actor, work)
            return
        if not actor.ready:
            actor.ready, actor.batch = True, found if found > 1 else HAND
            self._failed_starts = 0
            return
        actor.hands.remove(numbers)
        for number, outcome in zip(numbers, found, strict=True):
            if outcome is None:
                actor.sees = False
                work.unseen.add(number)
                work.again.append([number])
            else:
                work.outcomes[number] = outcome

    def _lose(self, actor: _Actor, work: _Work) -> None:
        """Give the images that a lost actor had to others."""
        self._remove(actor)
        self._ray.kill(actor.handle)
        if not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise StorageError(
                    f"{STARTS} actors were lost while they started, perhaps for lack of memory; use fewer at a time, "
                    "or nodes with more memory"
                )
        if actor.hands:  # an actor works on its first message; the others were not begun
            work.lose(actor.hands[0])
            work.again.extend(actor.hands[1:])

    def _release(self, work: _Work) -> None:
        """End actors that get no more images, so that their nodes are free for others."""
        if work.is_handed_out:
            idle = [actor for actor in self._actors if actor.ready and not actor.hands]
            for actor in idle[: max(0, len(self._actors) - self._size.least)]:
                self._remove(actor)
                self._end([actor])

    def _remove(self, actor: _Actor) -> None:
        self._asked = {answer: held for answer, held in self._asked.items() if held[0] is not actor}
        self._actors.remove(actor)


class _Work:
    """The images of a run: what is to be done, in whose hands, and the outcomes that wait for earlier ones."""

    def __init__(self, images: Sequence[ImageFile]) -> None:
        self.images = images
        self.outcomes: dict[int, Outcome] = {}
        self.unseen: set[int] = set()
        self.again: deque[list[int]] = deque()
        self.yielded = 0
        self._next = 0
        self._losses: dict[int, int] = {}

    @property
    def is_done(self) -> bool:
        """Whether all outcomes were yielded."""
        return self.yielded == len(self.images)

    @property
    def is_handed_out(self) -> bool:
        """Whether no image waits to be given to an actor."""
        return not self.again and self._next == len(self.images)

    @property
    def left(self) -> int:
        """The number of images without an outcome."""
        return len(self.images) - self.yielded - len(self.outcomes)

    def take(self, count: int, limit: int) -> list[int]:
        """Return the numbers of up to `count` images to do next, those to be done again first; none from `limit` on."""
        if self.again:
            return self.again.popleft()
        first, self._next = self._next, max(self._next, min(self._next + count, limit, len(self.images)))
        return list(range(first, self._next))

    def lose(self, numbers: list[int]) -> None:
        """Note that an actor was lost with these images in work."""
        for number in numbers:
            self._losses[number] = self._losses.get(number, 0) + 1
        if any(self._losses[number] < LOSSES for number in numbers):
            alone = len(numbers) > 1 and any(self._losses[number] > 1 for number in numbers)
            self.again.extend([[number] for number in numbers] if alone else [numbers])
            return
        for number in numbers:
            self.outcomes[number] = Failed(
                f"was being extracted when {LOSSES} processes of the cluster were lost, perhaps for lack of memory; "
                "leave the image out, or give actors more processors"
            )

    def next_outcomes(self) -> Iterator[Outcome]:
        """Yield the outcomes that are next in the order of the images."""
        while self.yielded in self.outcomes:
            outcome = self.outcomes.pop(self.yielded)
            self.yielded += 1
            yield outcome
