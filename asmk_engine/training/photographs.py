"""Images for training: checked before the first epoch, decoded while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from asmk_engine import threads
from asmk_engine.errors import InputError
from asmk_engine.escape import list_first
from asmk_engine.extraction.attempts import Failed, Viewed, Viewer, attempt
from asmk_engine.images.listing import ImageFile, shown
from asmk_engine.iteration import Progress, counted
from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.multiscale import normalise_pixels

SHOWN = 5
Load = Callable[[], np.ndarray]
Network = TypeVar("Network", bound=nn.Module)


def check_photographs(
    images: Sequence[ImageFile], max_side: int, least_side: int, progress: Progress | None = None
) -> None:
    """Decode every image once; raises InputError, which names the first that cannot be read or are too small.

    max_side    larger images are shrunk until their longer side is this many pixels, as in training
    least_side  shorter side of the smallest image that the backbone accepts, in pixels
    """
    viewer = Viewer(max_side)
    reasons = threads.stream(lambda image: _fault(viewer, image, least_side), images, threads.available_threads())
    faults = []
    for image, reason in counted(zip(images, reasons, strict=True), len(images), progress):
        faults += [f"{shown(image.path)}: {reason}"] if reason else []
    if faults:
        listed = list_first(faults[:SHOWN], len(faults), "; ")
        raise InputError(
            f"{len(faults)} of {len(images)} photographs cannot be used for training: {listed}; "
            "remove them from the data or replace them"
        )


def _fault(viewer: Viewer, image: ImageFile, least_side: int) -> str:
    found = attempt(viewer, image.path)
    if isinstance(found, Failed):
        return found.reason
    height, width = found.view.pixels.shape[:2] if isinstance(found, Viewed) else (0, 0)
    return f"{width} × {height} pixels, the network needs {least_side}" if min(height, width) < least_side else ""


def load_pixels(image: ImageFile, max_side: int) -> np.ndarray:
    """Return [h, w, 3] uint8 RGB of an image, upright, its longer side at most `max_side`; raises InputError."""
    return Viewer(max_side).view(image.path).pixels


def place_network(network: Network, device: str) -> Network:
    """Move the network to a device, channels last in memory, and return it; raises as `choose_device`."""
    place = choose_device(device)
    use_full_precision(place)
    moved: Network = network.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def to_network(pixels: np.ndarray, network: LocalNetwork) -> torch.Tensor:
    """Return pixels [h, w, 3] uint8 as input of the network, [1, 3, h, w], on its device."""
    device = next(network.parameters()).device
    return normalise_pixels(torch.from_numpy(pixels)[None].to(device), network.options)


@torch.no_grad()
def describe(
    vector: Callable[[np.ndarray], torch.Tensor], loads: Iterable[Load], total: int, progress: Progress | None = None
) -> np.ndarray:
    """Return the vectors of images, [n, D] float32; threads load the images shortly before their turn.

    vector  returns the vector [D] of an image, [h, w, 3] uint8
    """
    loaded = threads.stream(lambda load: load(), loads, threads.available_threads())
    vectors = (vector(pixels).cpu().numpy() for pixels in loaded)
    return np.array(list(counted(vectors, total, progress)), np.float32)
