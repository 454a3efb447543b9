"""The local features of DELG: the codes of an autoencoder at the locations that its attention selects."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.extractors.composed import with_seed
from asmk_engine.extractors.network import NetworkExtractor
from asmk_engine.extractors.options import apart, check_options, choice, numbers, option, recipe_options, stored_as
from asmk_engine.networks.composed.checkpoints import HeadCompletion, open_composed_network
from asmk_engine.networks.composed.delg_local import DelgLocalNetwork, local_options
from asmk_engine.networks.composed.network import MOST_SEED, ComposedNetwork
from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.locations import SCALES
from asmk_engine.recipes import Recipe
from asmk_engine.storage.user_files import file_sha256


@dataclass(frozen=True)
class DelgLocal(NetworkExtractor):
    """DELG's local features (Cao, Araujo and Sim, ECCV 2020); options as in `Delf` and `ComposedExtractor`.

    weights          a network of `delg`, or anything with a whole backbone, which gets a random head
    score_threshold  locations with a lower attention are dropped; 454.6 for the published model of GLDv2-clean
    untrained_seed   seed of the random head, if the weights are of a backbone only
    """

    name = "delg-local"
    attention = "learned"

    weights: str = apart("", "a network file or the weights of a backbone")
    untrained_seed: int = option(0, 0, MOST_SEED)
    max_features: int = option(1000, 1, 1_000_000)
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers(SCALES, 0.01, 8.0)
    score_threshold: float = option(0.0, 0.0, 1e6)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    dtype: str = stored_as()
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")

    def __post_init__(self) -> None:
        check_options(self)
        if not self.weights:
            raise InputError(
                "delg-local needs weights: give a network of delg, or ImageNet weights of a backbone, with --weights; "
                "`asmk-engine weights list` shows what is published"
            )

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The name, the options that affect descriptors, with the seed of an untrained head, and the sha256."""
        return with_seed(Recipe(self.name, recipe_options(self), file_sha256(self.weights)), self._whole.options)

    @functools.cached_property
    def _whole(self) -> ComposedNetwork:
        return open_composed_network(self.weights, HeadCompletion("delg", self.untrained_seed))[0]

    @functools.cached_property
    def options(self) -> LocalOptions:
        """The options of the local branch."""
        return local_options(self._whole.options)

    @property
    def processor(self) -> None:
        """None: torch runs this network on processors, too."""

    @functools.cached_property
    def network(self) -> Any:
        """The local branch on its device; raises as `open_composed_network`."""
        import torch

        device = choose_device(self.device)
        use_full_precision(device)
        network = DelgLocalNetwork(self._whole).eval()
        return network.to(device=device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]

    @property
    def least_score(self) -> float | None:
        """The score below which locations are dropped, the option `score_threshold`."""
        return self.score_threshold
