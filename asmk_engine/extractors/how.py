"""HOW: the strongest locations of a network trained for retrieval (Tolias, Jenicek and Chum, ECCV 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from asmk_engine.extractors.network import NetworkExtractor
from asmk_engine.extractors.options import apart, choice, numbers, option, stored_as
from asmk_engine.networks.locations import SCALES


@dataclass(frozen=True)
class How(NetworkExtractor):
    """HOW; the fields are its options.

    weights       path of a network file, made by `asmk-engine whiten`, `weights convert` or `train-how`
    max_features  number of features to keep, the strongest over all scales
    max_side      larger images are shrunk until their longer side is this many pixels
    scales        image scales, 1 being the size after `max_side`
    precision     precision of the convolutions; bf16 is faster on CPUs and GPUs that support it
    dtype         type of the stored descriptors, `float16` or `float32`
    device        device the network runs on

    Descriptors are not normalised, as in the paper: the aggregation uses raw whitened vectors.
    """

    name = "how"
    attention = "norm"

    weights: str = apart("", "a network file")
    max_features: int = option(1000, 1, 1_000_000)
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers(SCALES, 0.01, 8.0)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    dtype: str = stored_as()
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")
