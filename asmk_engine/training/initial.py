"""Network files for extractors from weights of any kind.

an asmk-engine network file       is copied next to the features
an official HOW checkpoint        is converted
ImageNet weights of a backbone    get a reduction learned from the given images, or a pooling, which needs no images
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.extractors.presets import Preset
from asmk_engine.features.network_place import write_whole
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress
from asmk_engine.networks.checkpoints import is_checkpoint, open_checkpoint, save_checkpoint
from asmk_engine.networks.composed.checkpoints import KIND as COMPOSED_KIND
from asmk_engine.networks.composed.checkpoints import (
    HeadCompletion,
    open_composed_network,
    save_composed_checkpoint,
)
from asmk_engine.networks.global_checkpoints import KIND as GLOBAL_KIND
from asmk_engine.networks.global_checkpoints import Completion, open_global_network, save_global_checkpoint
from asmk_engine.networks.local_options import HOW, LocalOptions
from asmk_engine.networks.official import read_official
from asmk_engine.networks.tensor_files import kind_of_network
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.training.whitening import initial_network

WHITENING_IMAGES = 1000
"""Default number of images from which a reduction is learned: a fifth of the paper's, a million descriptors."""


def complete_network(
    name: str,
    preset: Preset,
    weights: Path,
    images: Callable[[], Sequence[ImageFile]],
    place: Path,
    *,
    max_side: int = 1024,
    max_images: int = WHITENING_IMAGES,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Return the network file at `place`, made from weights of any kind unless it already was made from them.

    name        name of the preset, for messages
    images      function that returns the images, called only if a reduction must be learned from them
    max_side    larger images are shrunk until their longer side is this many pixels
    max_images  number of images to learn from

    Raises InputError for learned attention, which needs training, and what reading the weights raises.
    """
    if is_checkpoint(weights):
        return copy_network(weights, place)
    if preset.published.startswith("how-r"):
        network, origin = read_official(weights)
        save_checkpoint(place, network, origin)
        return place
    if preset.extractor != "how":
        raise InputError(
            f"{weights}: {name} needs learned attention, which ImageNet weights do not contain; train it with "
            "`asmk-engine train-delf`, or use a how- extractor"
        )
    if not _is_made_of(place, weights, preset, max_side):
        options = LocalOptions(preset.backbone, preset.skip, **{**HOW, **preset.network})
        network, origin = initial_network(
            options,
            weights,
            images(),
            max_side=max_side,
            max_images=max_images,
            device=device,
            progress=progress,
        )
        save_checkpoint(place, network, origin)
    return place


def complete_global(weights: Path, completion: Completion, place: Path) -> Path:
    """Return the network file of a global extractor at `place`, made from weights of any kind, without images.

    completion  the pooling, and the options that complete backbone weights. For `how-global` the weights must be a
                local network, which is copied

    Raises FormatError for other weights with `how-global`, and what `open_global_network` raises.
    """
    if completion.pooling == "how-global":
        open_checkpoint(weights)
        return copy_network(weights, place)
    network, complete = open_global_network(weights, completion)
    if kind_of_network(weights) == GLOBAL_KIND:
        return copy_network(weights, place)
    left_open = {} if complete else asdict(completion)
    save_global_checkpoint(place, network, {"file": weights.name, "sha256": file_sha256(weights), **left_open})
    return place


def complete_composed(weights: Path, network: str, seed: int, place: Path) -> Path:
    """Return the network file of a composed extractor at `place`, made from weights of any kind, without images.

    network  name in `composed.table.NETWORKS`
    seed     seed of the head, if the weights are of a backbone only

    Raises what `open_composed_network` raises.
    """
    found, _ = open_composed_network(weights, HeadCompletion(network, seed))
    if kind_of_network(weights) == COMPOSED_KIND:
        return copy_network(weights, place)
    save_composed_checkpoint(place, found, {"file": weights.name, "sha256": file_sha256(weights)})
    return place


def copy_network(weights: Path, place: Path) -> Path:
    """Copy a network file to `place`, unless it is there already, and return `place`."""
    if not (place.is_file() and file_sha256(place) == file_sha256(weights)):
        write_whole(place, weights.read_bytes())
    return place


def _is_made_of(place: Path, weights: Path, preset: Preset, max_side: int) -> bool:
    """Return whether an earlier run, possibly interrupted, left a network made from the same weights there."""
    if not is_checkpoint(place):
        return False
    network, origin = open_checkpoint(place)
    made = (network.options.backbone, network.options.skip, origin.get("backbone_sha256"), origin.get("max_side"))
    return made == (preset.backbone, preset.skip, file_sha256(weights), max_side)
