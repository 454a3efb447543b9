"""The reduction of a network, learned from images: PCA whitening of its smoothed, unreduced descriptors.

Source: the initialisation of HOW (Tolias et al., ECCV 2020, §4.1 and its code): the first 5000 training images, one
scale, the 1000 strongest locations of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asmk_engine import threads
from asmk_engine.errors import InputError
from asmk_engine.extraction.attempts import Viewed, Viewer, attempt
from asmk_engine.images.decoding import View
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress, counted, evenly
from asmk_engine.networks.backbones import load_backbone
from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.networks.drivers import uses_cpu
from asmk_engine.networks.local import LocalNetwork, unit_length
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.networks.processor import ProcessorNetwork, runs_on_processor
from asmk_engine.networks.processor_multiscale import describe_on_processor
from asmk_engine.storage.user_files import file_sha256

IMAGES = 5000
PER_IMAGE = 1000
EIGENVALUE_FLOOR = 1e-14


def initial_network(
    options: LocalOptions,
    weights: Path,
    images: Sequence[ImageFile],
    *,
    max_side: int = 1024,
    max_images: int = IMAGES,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[LocalNetwork, dict[str, Any]]:
    """Return a network with ImageNet weights and a reduction learned from images, and its origin for the checkpoint.

    weights     weight file of the backbone, see `load_backbone`
    images      images to learn from; if there are more than `max_images`, evenly spaced ones are used
    max_side    larger images are shrunk until their longer side is this many pixels

    Raises InputError if too few images can be read for the dimensions, and what `load_backbone` raises.
    """
    network = LocalNetwork(options)
    network.backbone = load_backbone(weights, options.backbone, options.skip)
    chosen = evenly(images, max_images)
    photographs = counted(views(chosen, max_side), len(chosen), progress)
    if uses_cpu(device) and runs_on_processor(options, "fp32"):
        whitening = learn_reduction(network, photographs, _locations_on_processor(network.eval()))
    else:
        place = choose_device(device)
        use_full_precision(place)
        network = network.eval().to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        whitening = learn_reduction(network, photographs)
    origin = {**asdict(options), "backbone_sha256": file_sha256(weights), "max_side": max_side, **whitening}
    return network.cpu(), origin


def views(images: Iterable[ImageFile], max_side: int) -> Iterator[View]:
    """Yield the images that can be read, decoded by threads while the network runs."""
    viewer = Viewer(max_side)
    outcomes = threads.stream(lambda image: attempt(viewer, image.path), images, max(2, threads.available_threads()))
    return (outcome.view for outcome in outcomes if isinstance(outcome, Viewed))


@torch.inference_mode()
def learn_reduction(
    network: LocalNetwork, photographs: Iterable[View], locations: Callable[[View], torch.Tensor] | None = None
) -> dict[str, Any]:
    """Learn the reduction of a network from images, at one scale; return the numbers of images and descriptors.

    Descriptors are whitened, except with reduction `post`, which only rotates them, as DELF's PCA. With `post` and
    `post-whitening` the reduction is learned from locations of unit length. Raises InputError for a network without
    reduction, or with more dimensions than channels or than the images suffice for.

    locations  returns the strongest locations [n, C] of an image, where another than this network finds them
    """
    reduction = _reduction(network)
    moments = Moments(network.backbone.channels)
    images = 0
    for view in photographs:
        if min(view.pixels.shape[:2]) >= network.backbone.least_side:
            moments.add(locations(view) if locations else _locations_by_torch(network, view))
            images += 1
    network.to("cpu")
    rotates = network.options.reduction == "post"
    _set_reduction(reduction, *moments.whitening(network.options.dim, 0.0 if rotates else 1.0))
    return {"images": images, "descriptors": moments.count}


def _locations_by_torch(network: LocalNetwork, view: View) -> torch.Tensor:
    pixels = torch.from_numpy(view.pixels)[None].to(next(network.parameters()).device)
    return strongest_locations(network, normalise_pixels(pixels, network.options))


def _locations_on_processor(network: LocalNetwork) -> Callable[[View], torch.Tensor]:
    """Return a function that finds the strongest locations of a view without torch, which takes thrice as long."""
    arrays = {
        f"backbone.{name}": value.float().numpy()
        for name, value in network.backbone.state_dict().items()
        if value.is_floating_point()
    }
    unreduced = ProcessorNetwork(replace(network.options, reduction="none"), arrays, "the backbone")

    def locations(view: View) -> torch.Tensor:
        return torch.from_numpy(describe_on_processor(unreduced, view.pixels, (1.0,), PER_IMAGE).descriptors)

    return locations


def strongest_locations(network: LocalNetwork, pixels: torch.Tensor) -> torch.Tensor:
    """Return the locations [n, C] of one image from which PCA is learned, normalised where unit vectors are reduced."""
    maps, scores = network.maps(pixels)
    order = scores.flatten().sort(descending=True, stable=True)[1][:PER_IMAGE]
    locations = maps[0].flatten(1).T[order]
    return unit_length(locations) if network.options.is_reduced_afterwards else locations


class Moments:
    """Count, mean and covariance of vectors, accumulated in one pass in float64."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._shift: torch.Tensor | None = None
        self._sum = torch.zeros(dim, dtype=torch.float64)
        self._products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, vectors: torch.Tensor) -> None:
        """Add vectors [n, dim]; differences to the mean of the first batch are summed, to avoid cancellation."""
        vectors = vectors.to("cpu", torch.float64)
        if not len(vectors):
            return
        if self._shift is None:
            self._shift = vectors.mean(0)
        centred = vectors - self._shift
        self.count += len(vectors)
        self._sum += centred.sum(0)
        self._products += centred.T @ centred

    def whitening(self, dim: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean [C] and P [dim, C] = diag(λ)^(-power/2) Eᵀ, largest eigenvalue first, λ at least 1e-14; float64.

        Source: the HOW code, with power 1. Raises InputError unless there are more vectors than dimensions.
        """
        if self.count <= dim:
            raise InputError(
                f"{self.count} descriptors are too few for a reduction to {dim} dimensions; give more images"
            )
        mean, covariance = self.mean_and_covariance()
        values, directions = torch.linalg.eigh(covariance)
        values, directions = values.flip(0)[:dim].clamp(min=EIGENVALUE_FLOOR), directions.flip(1)[:, :dim]
        # The sign of an eigenvector is arbitrary; it is fixed so that the same images give the same network everywhere.
        signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
        return mean, (directions * signs * values.pow(-power / 2)).T

    def mean_and_covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean [C] and symmetric covariance [C, C], over the count, float64; raises InputError if empty."""
        if self._shift is None:
            raise InputError("no descriptors to learn from; give more images")
        offset = self._sum / self.count
        covariance = self._products / self.count - torch.outer(offset, offset)
        return self._shift + offset, (covariance + covariance.T) / 2


def _reduction(network: LocalNetwork) -> nn.Conv2d:
    """Return the reduction to learn; raises InputError if there is none, or the map has too few channels for it."""
    if network.reduction is None:
        raise InputError("the network has no reduction to learn; choose reduction network, post-whitening or post")
    if network.options.dim > network.backbone.channels:
        dim, most = network.options.dim, network.backbone.channels
        raise InputError(f"a map of {most} channels cannot be whitened to {dim} dimensions; give a dim up to {most}")
    return network.reduction


def _set_reduction(reduction: nn.Conv2d, mean: torch.Tensor, projection: torch.Tensor) -> None:
    reduction.weight.copy_(projection[:, :, None, None])
    if reduction.bias is not None:
        reduction.bias.copy_(-projection @ mean)
