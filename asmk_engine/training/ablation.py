"""The ablation of HOW's paper (Tolias, Jenicek and Chum, ECCV 2020): the rows of Table 1, and a curve of Fig. 4.

Components of DELF have a hat in the paper; here H is no smoothing, O a reduction by PCA-whitening of unit vectors after
training, and W a learned attention; h, o and w are HOW's. The hats of rows 2, 3, 6 and 7 cannot be read in the copy of
the paper that was available; they follow from the numbers of words that the table gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress
from asmk_engine.networks.checkpoints import open_checkpoint, save_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.training.classification import random_network
from asmk_engine.training.whitening import initial_network

CONTRASTIVE, CLASSIFICATION = "contrastive", "classification"
STAR = "star"
_ROWS = {
    "1": ("how", CONTRASTIVE),
    "2": ("How", CONTRASTIVE),
    "3": ("HOw", CONTRASTIVE),
    "4": ("HOW", CONTRASTIVE),
    "5": ("HOW", CLASSIFICATION),
    "6": ("HOw", CLASSIFICATION),
    "7": ("How", CLASSIFICATION),
    "8": ("hOW", CLASSIFICATION),
    "9": ("how", CLASSIFICATION),
    STAR: ("how", CONTRASTIVE),
}
ROWS = tuple(_ROWS)
"""The names of the rows: `1` to `9` of Table 1, and `star`, of Fig. 4: mean and projection random, and learned."""


@dataclass(frozen=True)
class AblationRow:
    """What a row trains.

    options          of the network
    loss             `contrastive` or `classification`
    learn_reduction  whether the reduction starts at random and is trained, rather than learned by PCA and kept
    """

    options: LocalOptions
    loss: str
    learn_reduction: bool = False


def ablation_row(name: str, backbone: str = "resnet18", skip: int = 0, dim: int = 128) -> AblationRow:
    """Return what a row trains on a backbone; raises InputError for a row that does not exist."""
    if name not in _ROWS:
        raise InputError(f"there is no row {name!r} of the ablation; choose one of {', '.join(ROWS)}")
    letters, loss = _ROWS[name]
    options = LocalOptions(
        backbone,
        skip,
        attention="learned" if "W" in letters else "norm",
        smoothing=1 if "H" in letters else 3,
        reduction="post-whitening" if "O" in letters else "network",
        dim=dim,
    )
    return AblationRow(options, loss, name == STAR)


def start_network(
    row: AblationRow,
    weights: Path,
    images: Sequence[ImageFile],
    place: Path,
    *,
    seed: int = 0,
    max_side: int = 1024,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[LocalNetwork, dict[str, Any]]:
    """Return the network that a row starts with and its origin; made once and kept at `place`.

    weights  ImageNet weights of the backbone
    images   training images, from which a reduction in the network is learned by PCA-whitening
    seed     seed of attention and reduction where they are random

    Raises InputError if `place` has a network of another row or of other weights, and what `initial_network` raises.
    """
    if not place.exists():
        if row.options.reduction == "network" and not row.learn_reduction:
            made = initial_network(row.options, weights, images, max_side=max_side, device=device, progress=progress)
        else:
            made = random_network(row.options, weights, seed)
        save_checkpoint(place, *made)
    network, origin = open_checkpoint(place)
    if (network.options, origin.get("backbone_sha256")) != (row.options, file_sha256(weights)):
        raise InputError(f"{place}: belongs to another row of the ablation or other weights; give another folder")
    return network, origin
