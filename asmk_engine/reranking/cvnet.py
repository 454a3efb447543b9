"""The scorer of CVNet-Rerank: levels of the photographs that an index records, compared by the network.

Source: Lee et al., CVPR 2022. Photographs are described at one scale; the query is cut to its region first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asmk_engine.errors import AsmkError, InputError, MismatchError, StorageError
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import view_image
from asmk_engine.reranking.level_cache import LevelCache

if TYPE_CHECKING:
    from asmk_engine.networks.reranking.scoring import StageTimes

TOGETHER = 32  # images whose levels are in memory at once, 7 MB each at 1024 pixels


@dataclass(frozen=True)
class CvnetScoring:
    """How pairs are scored; raises InputError for a bad number.

    weights         network file, or an official checkpoint of CVNet
    max_side        photographs with a longer side are shrunk to it, in pixels; the official code shrinks none
    cache           folder in which the levels of whole photographs are kept in 8 bits; None keeps none
    untrained_seed  seed of the layers that `weights` lacks; None refuses weights that are not complete
    precision       precision of the network
    device          name of `devices.choose_device`
    """

    weights: Path
    max_side: int = 1024
    cache: Path | None = None
    untrained_seed: int | None = None
    precision: str = "fp32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.max_side < 16:
            raise InputError(f"photographs are to be shrunk to {self.max_side} pixels; give 16 or more")


class CvnetScorer:
    """Scores pairs by CVNet-Rerank; see `PairScorer`.

    locate  finds the photograph of a query or of an indexed image by its name; may raise

    An indexed image whose photograph is missing or cannot be read scores 0; `failed` tells why. `level_bytes` has the
    bytes of the levels of each compared image: 4 a value, or 1 in a cache.
    """

    def __init__(self, options: CvnetScoring, locate: Callable[[str], Path]) -> None:
        from asmk_engine.networks.reranking.scoring import open_level_comparer

        self._comparer, sha256 = open_level_comparer(
            options.weights, options.untrained_seed, options.precision, options.device
        )
        self._options, self._locate = options, locate
        settings = f"{options.max_side} {options.precision} {options.untrained_seed}"
        self._cache = LevelCache(options.cache, sha256, settings) if options.cache else None
        self.failed: dict[str, str] = {}
        self.level_bytes: dict[str, int] = {}

    @property
    def times(self) -> StageTimes:
        """How often each stage ran and how long it took: `local map`, `pyramid` and `pair`."""
        return self._comparer.times

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        """Return the probabilities [n] float64 that indexed images show what the query shows.

        Raises what `locate` and `view_image` raise, for the photograph of the query.
        """
        asked = self._levels(self._locate(query), box)
        found = np.zeros(len(candidates))
        for begin in range(0, len(candidates), TOGETHER):
            taken = [
                (place, levels)
                for place in range(begin, min(begin + TOGETHER, len(candidates)))
                if (levels := self._levels_or_none(candidates[place])) is not None
            ]
            places = [place for place, _ in taken]
            found[places] = self._comparer.scores(asked, [levels for _, levels in taken])
        return found

    def summary(self) -> list[str]:
        """Return lines about the time of each stage, the levels in 8 bits, and images that could not be compared."""
        lines = self._comparer.times.lines()
        if self._cache is not None:
            lines.append(f"levels in 8 bits: {self._cache.bytes / 1e6:.1f} MB read or written")
        return lines + [f"{name}: not compared, scores 0: {reason}" for name, reason in self.failed.items()]

    def _levels_or_none(self, name: str) -> Any:
        try:
            levels = self._levels(self._locate(name), None)
            each = 4 if self._cache is None else 1
            self.level_bytes[name] = each * sum(level.numel() for level in levels)
            return levels
        except AsmkError as error:
            self.failed.setdefault(name, str(error))
            return None

    def _levels(self, path: Path, box: Box | None) -> Any:
        """Return the levels of a photograph, or of a region of it, which is never kept."""
        if self._cache is None or box is not None:
            return self._comparer.levels(view_image(path, self._options.max_side, box).pixels)
        try:
            fingerprint = file_fingerprint(path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from None
        codes = self._cache.read(fingerprint)
        if codes is None:
            levels = self._comparer.levels(view_image(path, self._options.max_side).pixels)
            codes = self._comparer.encoded(levels)
            self._cache.write(fingerprint, codes)
        try:
            return self._comparer.decoded(codes)
        except InputError as error:
            raise MismatchError(f"{self._cache.path}: {error}; remove the folder") from None
