"""DELF: locations selected by learned attention, reduced after training (Noh et al., ICCV 2017), as in HOW's paper."""

from __future__ import annotations

from dataclasses import dataclass

from asmk_engine.extractors.network import NetworkExtractor
from asmk_engine.extractors.options import apart, choice, numbers, option, stored_as
from asmk_engine.networks.locations import SCALES


@dataclass(frozen=True)
class Delf(NetworkExtractor):
    """DELF; the fields are its options, those of `How` and one more.

    score_threshold  locations with a lower attention are dropped; 100 for the published model of Google Landmarks,
                     other models have other ranges
    """

    name = "delf"
    attention = "learned"

    weights: str = apart("", "a network file")
    max_features: int = option(1000, 1, 1_000_000)
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers(SCALES, 0.01, 8.0)
    score_threshold: float = option(0.0, 0.0, 1e6)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    dtype: str = stored_as()
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")

    @property
    def least_score(self) -> float | None:
        """The score below which locations are dropped, the option `score_threshold`."""
        return self.score_threshold
