"""Extractors of global descriptors, one vector per image: GeM, SPoC, MAC, R-MAC and CroW on any backbone.

Weights are a global network (`asmk-engine whiten-global`, `weights convert`), a checkpoint of the GeM family, backbone
weights only, which are completed by the pooling, or a local network, whose backbone is used.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.extractors.network import BatchedExtractor
from asmk_engine.extractors.options import apart, check_options, choice, numbers, option, recipe_options
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import View
from asmk_engine.images.listing import PathLike
from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.networks.global_checkpoints import Completion, open_global_network
from asmk_engine.networks.global_network import GlobalNetwork
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.networks.spatial_attention import activation_norms, grid_of, scale_nearest_one, spatial_attention
from asmk_engine.networks.spatial_map import SpatialMap
from asmk_engine.recipes import Recipe
from asmk_engine.regions.attention_maps import AttentionMap
from asmk_engine.storage.user_files import file_sha256


class WholeImageExtractor(BatchedExtractor):
    """Base class of extractors with one descriptor per image: [1, D] float32, of unit length.

    Its keypoint is the centre of the described part of the image, its scale the longer side of that part, its score 1.
    """

    precision: str
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        check_options(self)
        if not self.weights:
            raise InputError(
                f"{self.name} needs weights: give a network, or ImageNet weights of a backbone, with --weights; "
                "`asmk-engine weights list` shows what is published"
            )

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.network.dim  # type: ignore[return-value]

    @property
    def own_scales(self) -> tuple[float, ...]:
        """The scales at which images are described."""
        return self.scales

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The name, the options that affect descriptors, with the scales in use, and the sha256 of the weights."""
        options = {**recipe_options(self), "scales": list(self.own_scales)}
        kept = {key: value for key, value in options.items() if key not in self.without_effect}
        return Recipe(self.name, kept, file_sha256(self.weights))

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Options that have no effect with these weights, and so are not in the recipe."""
        return ()

    @torch.inference_mode()
    def _run(self, views: list[View]) -> list[Features]:
        pixels = torch.from_numpy(np.stack([view.pixels for view in views]))
        vectors = self._vectors(pixels.to(self.network_device, non_blocking=True)).cpu().numpy()
        return [whole_image(vector, view) for vector, view in zip(vectors, views, strict=True)]

    @torch.inference_mode()
    def attention_maps(
        self, image: PathLike | np.ndarray, box: Box | None = None, *, activations: bool = False
    ) -> list[AttentionMap]:
        """Return what the network attends to in an image, the main map first; none if it has no spatial attention.

        It is computed at the scale nearest to 1 of those of the extractor, where the descriptor combines all.

        activations  return the norms of the activations of the last map of the backbone instead
        Raises as `extract`.
        """
        view = self.viewer.view(image, box)
        pixels = torch.from_numpy(view.pixels[None]).to(self.network_device)
        normalised = normalise_pixels(pixels, self.network.options)  # type: ignore[arg-type]
        compute = activation_norms if activations else spatial_attention
        maps, sides = compute(self.network, normalised, scale_nearest_one(self.own_scales), self.precision)
        return [_located(self.network, one, sides, view) for one in maps]

    def _vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [B, D] float32 of pixels [B, H, W, 3] uint8."""
        normalised = normalise_pixels(pixels, self.network.options)  # type: ignore[arg-type]
        found: torch.Tensor = self.network.descriptor(normalised, self.own_scales, self.precision)  # type: ignore[operator]
        return found


def _located(network: nn.Module, one: SpatialMap, sides: tuple[int, int], view: View) -> AttentionMap:
    """Return a map of attention in pixels of the upright original."""
    height, width = view.pixels.shape[:2]
    first, step = grid_of(network, one, sides, (height, width))
    x, y = view.to_original(np.array([first]))[0].tolist()
    left, top = view.offset
    right, bottom = round(left + width * view.factor[0]), round(top + height * view.factor[1])
    return AttentionMap(
        title=one.title,
        values=one.values[0].float().cpu().numpy(),
        meaning=one.meaning,
        first=(x, y),
        step=(step[0] * view.factor[0], step[1] * view.factor[1]),
        box=(left, top, right, bottom),
        image_size=view.image_size,
        thresholds=one.thresholds,
    )


def whole_image(vector: np.ndarray, view: View) -> Features:
    """Return the features of an image with one descriptor [D] for the whole view."""
    height, width = view.pixels.shape[:2]
    centre = view.to_original(np.array([[(width - 1) / 2, (height - 1) / 2]]))
    side = max(width * view.factor[0], height * view.factor[1])
    keypoints = np.concatenate([centre, [[side]]], axis=1).astype(np.float32)
    return Features(vector[None].astype(np.float32), keypoints, np.ones(1, np.float32), view.image_size)


class PooledExtractor(WholeImageExtractor):
    """Base class of extractors that pool the feature map of a backbone; see `Gem` for the options.

    The default scales are those the network is meant for: 1, 1/√2, 1/2; with a whitening layer 1, √2, 1/√2, as in the
    GeM family; for a network of `whiten-global`, those at which its projection was learned.
    """

    skip: int

    @property
    def completion(self) -> Completion:
        """The options that turn backbone weights into a global network."""
        return Completion(self.name, self.skip)

    @property
    def own_scales(self) -> tuple[float, ...]:
        """The scales at which images are described: the option, else those the network is meant for."""
        return self.scales or self.network.options.own_scales

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The options that complete a backbone, if the weights are a complete network."""
        return ("skip", "exponent") if self._opened[1] else ()

    @property
    def network(self) -> GlobalNetwork:
        """The network on its device; raises as `open_global_network`."""
        return self._opened[0]

    @functools.cached_property
    def _opened(self) -> tuple[GlobalNetwork, bool]:
        """The network, and whether its file was complete."""
        device = choose_device(self.device)
        use_full_precision(device)
        network, complete = open_global_network(self.weights, self.completion)
        moved: Any = network.requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved, complete


@dataclass(frozen=True)
class Gem(PooledExtractor):
    """GeM, the generalised mean of each channel (Radenović, Tolias and Chum, TPAMI 2018); the fields are its options.

    weights    path of a weight file of one of the kinds listed in this module
    skip       number of last parts of the backbone to leave out, if the weights are of a backbone only
    exponent   GeM exponent p, if the weights are of a backbone only
    max_side   larger images are shrunk until their longer side is this many pixels
    scales     image scales, 1 being the size after `max_side`; empty: those the network is meant for
    precision  precision of the convolutions; bf16 is faster on CPUs and GPUs that support it
    device     device the network runs on
    """

    name = "gem"

    weights: str = apart("", "a network file or the weights of a backbone")
    skip: int = option(0, 0, 10)
    exponent: float = option(3.0, 0.1, 100.0)
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers((), 0.01, 8.0)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")

    @property
    def completion(self) -> Completion:
        """The options that turn backbone weights into a global network, with the exponent."""
        return Completion(self.name, self.skip, self.exponent)


@dataclass(frozen=True)
class Spoc(PooledExtractor):
    """SPoC, the average of each channel (Babenko and Lempitsky, ICCV 2015); options as in `Gem`."""

    name = "spoc"

    weights: str = apart("", "a network file or the weights of a backbone")
    skip: int = option(0, 0, 10)
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers((), 0.01, 8.0)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")


@dataclass(frozen=True)
class Mac(Spoc):
    """MAC, the maximum of each channel (Tolias, Sicre and Jégou, ICLR 2016); options as in `Gem`."""

    name = "mac"


@dataclass(frozen=True)
class Rmac(Spoc):
    """R-MAC, the sum of the maxima of squares (Tolias, Sicre and Jégou, ICLR 2016); options as in `Gem`."""

    name = "rmac"


@dataclass(frozen=True)
class Crow(Spoc):
    """CroW, a weighted sum (Kalantidis, Mellina and Osindero, ECCV 2016 workshops); options as in `Gem`."""

    name = "crow"
