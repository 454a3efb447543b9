"""Learning of a network's reduction after training, as for DELF."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress, counted, evenly
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.training.whitening import IMAGES, learn_reduction, views


def finish_reduction(
    network: LocalNetwork,
    images: Sequence[ImageFile],
    max_side: int,
    progress: Progress | None = None,
    most: int = IMAGES,
) -> dict[str, Any]:
    """Learn the reduction of a network from images, in place; its other weights do not change.

    Returns the numbers of images and descriptors used. Raises InputError if they are too few for the dimensions.
    """
    chosen = evenly(images, most)
    finished = copy.deepcopy(network)  # learning moves the network to the CPU
    seen = learn_reduction(finished, counted(views(chosen, max_side), len(chosen), progress))
    with torch.no_grad():
        for ours, learned in zip(_reduction(network), _reduction(finished), strict=True):
            ours.copy_(learned)
    return seen


def _reduction(network: LocalNetwork) -> list[torch.Tensor]:
    return [] if network.reduction is None else [parameter.data for parameter in network.reduction.parameters()]
