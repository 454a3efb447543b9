"""Questions of clients: what was asked, the features of its photographs, and the search."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import AsmkError, InputError, MismatchError, NotFoundError
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.features import Features, check_features
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.images.boxes import Box, Size
from asmk_engine.indexes.answers import Hit
from asmk_engine.search.several import DEPTH, combined
from asmk_engine.search.turned import UPRIGHT, Turn, best_of_turns, of_turn, turns
from asmk_engine.serve.processes import WorkerProcesses
from asmk_engine.serve.refusals import Refusal, busy, told
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.serve.uploads import Upload
from asmk_engine.sharding.asking import missing_shards
from asmk_engine.verification.reranking import Reranking

MOST_PHOTOGRAPHS = 8
MOST_HITS = 1000
MOST_RERANKED = 200
KEPT_BYTES = 256 << 20
"""Bytes of features of uploads that are kept for further questions about them."""


@dataclass(frozen=True)
class Asked:
    """One photograph of a question: an indexed image or an upload."""

    name: str | None = None
    upload: Upload | None = None


@dataclass(frozen=True)
class Question:
    """What a client asks.

    photographs  of the same thing, one or more
    box          region of the only photograph, in pixels of the upright original
    top          number of hits
    rerank       number of images that are verified, 0 for none
    wanted       turns in which the photographs are searched
    """

    photographs: tuple[Asked, ...]
    box: Box | None = None
    top: int = 30
    rerank: int = 50
    wanted: tuple[Turn, ...] = (UPRIGHT,)

    def __post_init__(self) -> None:
        for what, value, least, most in (("top", self.top, 1, MOST_HITS), ("rerank", self.rerank, 0, MOST_RERANKED)):
            if not least <= value <= most:
                raise Refusal(422, f"{what} is {value}; give {least} to {most}")
        if not 1 <= len(self.photographs) <= MOST_PHOTOGRAPHS:
            count = len(self.photographs)
            raise Refusal(422, f"{count} photographs; give 1 to {MOST_PHOTOGRAPHS}, each as name, upload or file")
        if self.box is not None and len(self.photographs) > 1:
            raise Refusal(422, "a box is a region of one photograph; leave it out, or ask with this photograph alone")


@dataclass(frozen=True)
class Described:
    """The features of a photograph in one turn, and its size, (0, 0) if it is unknown."""

    turn: Turn
    features: Any
    size: Size


@dataclass
class Answered:
    """The answer to a question.

    hits      each with the place of the photograph of the question that it fits best
    sizes     of the photographs, None where unknown
    describe, search  seconds
    notes     what the client should know
    """

    hits: list[tuple[Hit, int]] = field(default_factory=list)
    sizes: list[Size | None] = field(default_factory=list)
    describe: float = 0.0
    search: float = 0.0
    notes: list[str] = field(default_factory=list)
    more: bool = False


class QuestionDescriber:
    """Describes photographs of questions in worker processes, and keeps what was described last."""

    def __init__(self, workers: WorkerProcesses) -> None:
        self._workers = workers
        self._kept: OrderedDict[tuple[Any, ...], list[Described]] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def describe(self, served: ServedIndex, asked: Asked, box: Box | None, wanted: Sequence[Turn]) -> list[Described]:
        """Return the features of a photograph in each turn; raises Refusal."""
        if asked.upload is not None:
            return self._of_upload(served, asked.upload, box, wanted)
        name = asked.name or ""
        if box is None and list(wanted) == [UPRIGHT] and (known := served.remembered(name)) is not None:
            return [Described(UPRIGHT, known, _size(known))]
        return self._of_file(served, served.photograph(name), box, wanted)

    def _of_upload(
        self, served: ServedIndex, upload: Upload, box: Box | None, wanted: Sequence[Turn]
    ) -> list[Described]:
        key = upload.key, served.recipes, box, tuple(wanted)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self._of_file(served, upload.path, box, wanted)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._bytes += _bytes(found)
            while self._bytes > KEPT_BYTES:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return found

    def _of_file(self, served: ServedIndex, path: Path, box: Box | None, wanted: Sequence[Turn]) -> list[Described]:
        extractors, reason = served.extractors
        if not extractors:
            raise Refusal(422, f"{served.name}: photographs cannot be described: {reason}")
        turned = [[turn.quarters, turn.mirrored] for turn in wanted]
        order = {"task": "describe", "extractors": extractors, "path": str(path), "box": box, "turns": turned}
        content, arrays = self._workers.ask(order)
        is_fused, content_of = hasattr(served.index.snapshot.encoder, "kinds"), _fingerprint(path)
        waiting, size = iter(arrays), (int(content["size"][0]), int(content["size"][1]))
        found = []
        for turn, kinds in zip(wanted, content["found"], strict=True):
            # Those of a turned photograph have the size of the turned one.
            own = size if turn.quarters % 2 == 0 else size[::-1]
            parts = [_features(waiting, own) if kind else None for kind in kinds]
            fingerprint = content_of if turn == UPRIGHT and box is None else 0  # a part or turn is another photograph
            features = FusedFeatures(tuple(parts), fingerprint) if is_fused else parts[0]
            found.append(Described(turn, features, size))
        return found


def _fingerprint(path: Path) -> int:
    """Return the fingerprint of a photograph, which may be gone by now: 0 is that of none."""
    try:
        return file_fingerprint(path)
    except OSError:
        return 0


def _bytes(described: Iterable[Described]) -> int:
    """Return about how much memory the features of a photograph take."""
    return sum(
        part.descriptors.nbytes + part.keypoints.nbytes + part.scores.nbytes
        for one in described for part in _parts(one.features) if part is not None
    )  # fmt: skip


def _parts(features: Any) -> tuple[Any, ...]:
    return features.parts if isinstance(features, FusedFeatures) else (features,)


def _features(arrays: Iterable[np.ndarray], size: Size) -> Features:
    """Return the features in the next three arrays, checked: a hostile photograph may have taken over the worker."""
    waiting = iter(arrays)
    found = Features(next(waiting), next(waiting), next(waiting), size)
    try:
        check_features("the photograph", found, None)
    except (InputError, MismatchError) as error:
        raise Refusal(422, told(error)) from None
    return found


def _size(features: Any) -> Size:
    return next(
        (part.image_size for part in _parts(features) if isinstance(part, Features) and any(part.image_size)), (0, 0)
    )


class Searches:
    """Searches in threads; a few run at a time, and a few more may wait.

    waiting  number of searches that may wait
    """

    def __init__(self, waiting: int) -> None:
        self._cores = threads.available_threads()
        self._room = threading.BoundedSemaphore(self._cores + waiting)
        self._running = threading.BoundedSemaphore(self._cores)
        self._active, self._lock = 0, threading.Lock()

    def answer(self, served: ServedIndex, question: Question, described: Sequence[Sequence[Described]]) -> Answered:
        """Return the answer to a question whose photographs are described; raises Refusal."""
        with self.admitted() as count:
            return _searched(served, question, described, count)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[int]:
        """Wait until a search may run, and yield the number of its threads; raises Refusal if too many wait."""
        if not self._room.acquire(blocking=False):
            raise busy("searches")
        try:
            with self._running:
                active = self._change(1)
                try:
                    yield max(1, self._cores // active)
                finally:
                    self._change(-1)
        finally:
            self._room.release()

    def _change(self, by: int) -> int:
        with self._lock:
            self._active += by
            return self._active


def _searched(
    served: ServedIndex, question: Question, described: Sequence[Sequence[Described]], count: int
) -> Answered:
    began = time.perf_counter()
    answer = Answered(sizes=[one[0].size if any(one[0].size) else None for one in described])
    names = {asked.name for asked in question.photographs if asked.name is not None}
    room = question.top + len(names) + 1
    depth = room if len(described) == 1 else max(room, DEPTH)
    rankings = [_of_photograph(served, one, question, depth, count, answer.notes) for one in described]
    kept = [(one.hit, one.photograph) for one in combined(rankings, room) if one.hit.name not in names]
    answer.hits, answer.more = kept[: question.top], len(kept) > question.top
    answer.search = time.perf_counter() - began
    return answer


def _of_photograph(
    served: ServedIndex, described: Sequence[Described], question: Question, top: int, count: int, notes: list[str]
) -> list[Hit]:
    """Return the ranking for one photograph, of all its turns together."""
    reranking = Reranking(question.rerank) if question.rerank and served.verifies else None

    def found(one: Described) -> list[Hit]:
        hits: list[Hit] = served.searcher.search(one.features, top, threads=count, rerank=reranking)
        notes.extend(f"the shard {shard} did not answer; its images are left out" for shard in missing_shards(hits))
        return hits if one.turn == UPRIGHT else of_turn(hits, one.turn, one.size)

    try:
        return best_of_turns([found(one) for one in described], top)
    except NotFoundError as error:  # no geometry: neither in the index nor in a feature set
        reranking = None
        notes.append(f"answers are not verified: {told(error)}")
        return best_of_turns([found(one) for one in described], top)
    except AsmkError as error:
        raise Refusal(422, told(error)) from None


def question_turns(*, rotations: bool, mirror: bool) -> tuple[Turn, ...]:
    """Return the turns in which a photograph is searched."""
    return tuple(turns(rotations=rotations, mirror=mirror))
