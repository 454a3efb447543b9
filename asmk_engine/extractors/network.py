"""Base classes of extractors with a network: open weights, batch images of one size, recover from a full GPU."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extraction.attempts import Origin, Viewer
from asmk_engine.extractors import FolderExtractor
from asmk_engine.extractors.options import all_options, check_options, recipe_options
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import View
from asmk_engine.images.listing import PathLike
from asmk_engine.networks.checkpoint_files import read_checkpoint
from asmk_engine.networks.drivers import uses_cpu
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.locations import LocalDescriptors
from asmk_engine.networks.processor import ProcessorNetwork, runs_on_processor
from asmk_engine.networks.processor_multiscale import describe_on_processor
from asmk_engine.recipes import Recipe
from asmk_engine.storage.user_files import file_sha256

if TYPE_CHECKING:
    import torch
    from torch import nn

    from asmk_engine.networks.local import LocalNetwork

BATCH_PIXELS = 1 << 24
"""Pixels of a batch at scale 1 on a GPU: about twenty images of 1024 × 768, and 3 GB of maps at seven scales."""
WINDOWED = 96
"""Number of images among which batches of one size are formed on a GPU."""


class BatchedExtractor(FolderExtractor, ABC):
    """A `TwoStepExtractor` with a network: images are decoded first and described in batches."""

    name: ClassVar[str]
    weights: str
    device: str
    max_side: int

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network on its device."""

    @abstractmethod
    def _run(self, views: list[View]) -> list[Features]:
        """Return the features of views of one size."""

    @property
    def origin(self) -> Origin:
        """The function and options with which a worker process creates an equal extractor."""
        options = {"name": self.name, **all_options(self)}
        return Origin("asmk_engine.extractors:load_extractor", options)

    @property
    def viewer(self) -> Viewer:
        """The decoding and shrinking of images, which worker processes do."""
        return Viewer(self.max_side)

    @property
    def batch_size(self) -> int:
        """Number of images to decode before describing them: one on a CPU.

        On a CPU batches gain nothing, and single-threaded processes are twice as fast as threads that wait for each
        other after every layer.
        """
        return 1 if uses_cpu(self.device) else WINDOWED

    def extract(self, image: PathLike | np.ndarray, box: Box | None = None) -> Features:
        """Return the features of an image file or of [H, W, 3] uint8 RGB pixels; see `Extractor.extract`."""
        return self.describe([self.viewer.view(image, box)])[0]

    def describe(self, views: Sequence[View]) -> list[Features]:
        """Return the features of each view, in order; views of one size pass through the network together."""
        found: dict[int, Features] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, view in enumerate(views):
            groups.setdefault(view.pixels.shape, []).append(number)
        for shape, members in groups.items():
            most = 1 if self.batch_size == 1 else max(1, BATCH_PIXELS // (shape[0] * shape[1]))
            for begin in range(0, len(members), most):
                batch = members[begin : begin + most]
                found |= zip(batch, self._describe_batch([views[number] for number in batch]), strict=True)
        return [found[number] for number in range(len(views))]

    def _describe_batch(self, views: list[View]) -> list[Features]:
        """Return the features of views of one size; if the device runs out of memory, in two halves."""
        if len(views) == 1:
            return self._run(views)
        import torch

        try:
            return self._run(views)
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()
        half = len(views) // 2
        return [*self._describe_batch(views[:half]), *self._describe_batch(views[half:])]

    @property
    def network_device(self) -> torch.device:
        """The device the network is on."""
        return next(self.network.parameters()).device


class NetworkExtractor(BatchedExtractor):
    """Base class of extractors of local features; see `How` for the options.

    Features are sorted by decreasing score; keypoints are the centres of receptive fields, their scale is the side of a
    location of the feature map, in pixels of the original image.
    """

    attention: ClassVar[str]
    precision: str
    max_features: int
    scales: tuple[float, ...]
    dtype: str

    def __post_init__(self) -> None:
        check_options(self)
        if not self.weights:
            raise InputError(
                f"{self.name} needs weights: give a network file with --weights, made by `asmk-engine whiten`, "
                "`weights convert` or `train-how`; `asmk-engine weights list` shows what is published"
            )

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The name, the options that affect descriptors, and the sha256 of the weights."""
        self._check_kind()
        return Recipe(self.name, recipe_options(self), file_sha256(self.weights))

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.network.dim if self.processor is None else self.processor.dim

    @functools.cached_property
    def options(self) -> LocalOptions:
        """The options of the network, without its weights."""
        return LocalOptions.from_json(read_checkpoint(self.weights)[1].get("network", ""), self.weights)

    @functools.cached_property
    def processor(self) -> ProcessorNetwork | None:
        """The network as it runs on processors; None where torch runs it: on a GPU, and for other backbones."""
        if not (uses_cpu(self.device) and runs_on_processor(self.options, self.precision)):
            return None
        return ProcessorNetwork.open(self.weights, self.precision)

    @functools.cached_property
    def network(self) -> LocalNetwork:
        """The network of torch on its device; raises as `open_checkpoint`."""
        import torch

        from asmk_engine.networks.checkpoints import open_checkpoint
        from asmk_engine.networks.devices import choose_device, use_full_precision
        from asmk_engine.networks.folding import folded

        device = choose_device(self.device)
        use_full_precision(device)
        network = folded(open_checkpoint(self.weights)[0])
        return network.to(device=device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]

    def _check_kind(self) -> None:
        uses_cpu(self.device)  # refuses a device that there is not
        found = self.options.attention
        if found != self.attention:
            other = {"norm": "how", "learned": "delf"}[found]
            raise MismatchError(
                f"{self.weights}: a network with {found} attention, {self.name} needs {self.attention}; "
                f"use --extractor {other}, or other weights"
            )

    def _run(self, views: list[View]) -> list[Features]:
        if (network := self.processor) is not None and self.least_score is None:
            found = [describe_on_processor(network, view.pixels, self.scales, self.max_features) for view in views]
        else:
            found = self._run_by_torch(views)
        return [_features(one, view, self.dtype) for one, view in zip(found, views, strict=True)]

    def _run_by_torch(self, views: list[View]) -> list[LocalDescriptors]:
        import torch

        from asmk_engine.networks.multiscale import describe, normalise_pixels

        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack([view.pixels for view in views]))
            pixels = pixels.to(self.network_device, non_blocking=True)
            normalised = normalise_pixels(pixels, self.network.options)
            return describe(self.network, normalised, self.scales, self.max_features, self.least_score, self.precision)

    @property
    def least_score(self) -> float | None:
        """The score below which locations are dropped; None keeps all."""
        return None


def _features(found: LocalDescriptors, view: View, dtype: str) -> Features:
    positions = view.to_original(found.positions)
    sizes = found.sizes[:, None] * np.float32(view.scale_factor)
    keypoints = np.concatenate([positions, sizes], axis=1).astype(np.float32)
    return Features(found.descriptors.astype(dtype), keypoints, found.scores.astype(np.float32), view.image_size)
