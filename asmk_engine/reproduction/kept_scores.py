"""The scores of pairs that were compared, one file for each query, so that an interrupted re-ranking goes on.

With the scores of a query it is kept what they cost: sums of seconds, images and bytes by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.images.boxes import Box
from asmk_engine.reranking.pair_scorer import PairScorer
from asmk_engine.storage.folder import Folder

Costs = Mapping[str, float]


@dataclass
class _Answer:
    """Scores by name of the image, and what they cost."""

    scores: dict[str, float]
    costs: dict[str, float]


class KeptScorer:
    """A scorer of pairs that compares each pair once, also over several runs; see `PairScorer`.

    scorer  compares the pairs that are not kept
    folder  of the files, which must be of the same scorer, images and queries
    spent   returns what comparing has cost so far, in sums that only grow
    """

    def __init__(self, scorer: PairScorer, folder: Path, spent: Callable[[], Costs]) -> None:
        self._scorer, self._folder, self._spent = scorer, Folder(folder), spent
        self._folder.make()
        self._query, self._answer = "", _Answer({}, {})
        self._costs: dict[str, dict[str, float]] = {}

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        """Return the scores [n] float64; raises as the scorer."""
        if query != self._query or not self._answer.scores:
            self._query, self._answer = query, self._read(query) or _Answer({}, {})
        answer = self._answer
        new = [name for name in candidates if name not in answer.scores]
        if new:
            before = self._spent()
            answer.scores |= dict(zip(new, self._scorer.scores(query, box, new).tolist(), strict=True))
            for key, value in self._spent().items():
                answer.costs[key] = answer.costs.get(key, 0.0) + value - before.get(key, 0.0)
            self._write(query, answer)
        self._costs[query] = answer.costs
        return np.array([answer.scores[name] for name in candidates], np.float64)

    def costs(self) -> dict[str, float]:
        """Return what the scores of all queries cost, of this run and those before."""
        names = {name: None for one in self._costs.values() for name in one}
        return {name: math.fsum(one.get(name, 0.0) for one in self._costs.values()) for name in names}

    def _read(self, query: str) -> _Answer | None:
        """Return what is kept for a query; None for nothing, or a file that cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads((self._folder.path / _file_name(query)).read_bytes())
            if content["query"] == query:
                return _Answer(*({str(k): float(v) for k, v in content[part].items()} for part in ("scores", "costs")))
        return None

    def _write(self, query: str, answer: _Answer) -> None:
        content = {"query": query, "scores": answer.scores, "costs": answer.costs}
        self._folder.write(_file_name(query), [json.dumps(content).encode()])
        self._folder.sync()


def _file_name(query: str) -> str:
    return f"{hashlib.sha256(query.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"
