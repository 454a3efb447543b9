"""Many images compared with one: levels extracted once for each image, pairs in batches of limited memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from asmk_engine.errors import InputError
from asmk_engine.networks.devices import automatic_precision, choose_device, use_full_precision
from asmk_engine.networks.reranking.checkpoints import open_rerank_network
from asmk_engine.networks.reranking.codes import decode_levels, encode_levels
from asmk_engine.networks.reranking.correlation import unit_levels
from asmk_engine.networks.reranking.network import RerankNetwork
from asmk_engine.storage.user_files import file_sha256

Levels = list[torch.Tensor]
MOST_BYTES = 3 << 29
"""Memory that the pairs of a batch may take together, 1.5 GiB."""
_COPIES = 6  # of the first block's result, which is a quarter of the correlations and has 16 channels


@dataclass
class StageTimes:
    """How often each stage of re-ranking ran, and how long it took in total, in seconds."""

    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def stage(self, name: str, count: int = 1) -> Iterator[None]:
        """Measure one stage for some images or pairs."""
        begun = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begun
        self.counts[name] += count

    def lines(self) -> list[str]:
        """Return one line for each stage: its number and milliseconds each."""
        return [
            f"{name}: {count}, {1000 * self.seconds[name] / count:.1f} ms each"
            for name, count in self.counts.items()
            if count
        ]


class LevelComparer:
    """Extracts the levels of photographs and compares them, with a network in a device and a precision.

    network    in evaluation mode
    precision  name in `devices.PRECISIONS`, of the products and convolutions
    """

    def __init__(self, network: RerankNetwork, precision: str = "fp32", device: str = "auto") -> None:
        self._place = choose_device(device)
        use_full_precision(self._place)
        self.network = network.to(self._place)
        self._precision, self.times = precision, StageTimes()

    @torch.inference_mode()
    def levels(self, pixels: np.ndarray) -> Levels:
        """Return the levels [1, D, h, w] float32 of pixels [H, W, 3] uint8; raises InputError for too few of them."""
        if min(pixels.shape[:2]) < self.network.least_side:
            raise InputError(
                f"{pixels.shape[1]} × {pixels.shape[0]} pixels; the re-ranking network needs {self.network.least_side}"
            )
        with automatic_precision(self._place, self._precision):
            with self.times.stage("local map"):
                maps = self.network.local_maps(torch.from_numpy(pixels)[None])
                self._wait()
            with self.times.stage("pyramid"):
                levels = [level.float() for level in self.network.pyramid(maps)]
                self._wait()
        return levels

    def _wait(self) -> None:
        """Wait until a GPU is done, so that its time counts for the right stage."""
        if self._place.type == "cuda":
            torch.cuda.synchronize(self._place)

    def encoded(self, levels: Levels) -> list[np.ndarray]:
        """Return levels in 8 bits, see `codes`."""
        return encode_levels(levels)

    def decoded(self, codes: Sequence[np.ndarray]) -> Levels:
        """Return levels of codes; raises InputError unless they are of this network."""
        options = self.network.options
        if len(codes) != options.levels or any(code.ndim != 3 or code.shape[2] != options.width for code in codes):
            raise InputError(f"{len(codes)} levels are not those of {options.levels} with {options.width} channels")
        return decode_levels(codes, self._place)

    @torch.inference_mode()
    def scores(self, query: Levels, others: Sequence[Levels]) -> np.ndarray:
        """Return the probabilities [n] float64 that images show what the query shows, by the levels of all.

        Images of one size are compared in batches whose memory stays below `MOST_BYTES`.
        """
        by_size: dict[torch.Size, list[int]] = {}
        for place, levels in enumerate(others):
            by_size.setdefault(levels[-1].shape, []).append(place)
        found, asked = np.zeros(len(others)), unit_levels(query)
        for shape, places in by_size.items():
            size = batch_size(asked[0, 0, 0].numel(), shape[-2] * shape[-1])
            for begin in range(0, len(places), size):
                some = places[begin : begin + size]
                with self.times.stage("pair", len(some)):
                    found[some] = self._compared(asked, [others[place] for place in some])
        return found

    def _compared(self, asked: torch.Tensor, others: Sequence[Levels]) -> np.ndarray:
        with automatic_precision(self._place, self._precision):
            logits = self.network.encoder(asked, unit_levels([torch.cat(level) for level in zip(*others, strict=True)]))
        found: np.ndarray = logits.double().softmax(-1)[:, 1].cpu().numpy()
        return found


def batch_size(query_places: int, key_places: int) -> int:
    """Return how many pairs are compared at once, for images of so many places."""
    return max(1, MOST_BYTES // (_COPIES * 4 * query_places * key_places))


def open_level_comparer(
    path: Path, untrained_seed: int | None, precision: str = "fp32", device: str = "auto"
) -> tuple[LevelComparer, str]:
    """Return what compares with the network of a file, and the sha256 of the file; raises as `open_rerank_network`."""
    network, _ = open_rerank_network(path, untrained_seed)
    return LevelComparer(network, precision, device), file_sha256(path)
