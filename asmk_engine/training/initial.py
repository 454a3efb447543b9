"""From the weights that are at hand to a network file that an extractor can use.

a network file of ours         is copied beside the features
an official HOW checkpoint     is converted
ImageNet weights of a backbone    get a reduction learned from the photographs at hand, or a pooling, which needs none
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extractors.presets import Preset
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress
from asmk_engine.networks.checkpoints import is_checkpoint, open_checkpoint, save_checkpoint
from asmk_engine.networks.global_checkpoints import KIND as GLOBAL_KIND
from asmk_engine.networks.global_checkpoints import Completion, open_global_network, save_global_checkpoint
from asmk_engine.networks.local import HOW, LocalOptions
from asmk_engine.networks.official import read_official
from asmk_engine.networks.tensor_files import kind_of_network
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.training.whitening import initial_network

WHITENING_IMAGES = 1000
"""Photographs that a reduction is learned from when nobody says more: a fifth of the paper's, a million descriptors."""
SUFFIX = ".network.safetensors"


def network_beside(features: Path) -> Path:
    """Where the network of a feature set is kept: photos.network.safetensors for photos.features."""
    whole = features.resolve()
    return whole.with_name(whole.name.removesuffix(".features") + SUFFIX)


@contextmanager
def keeping(place: Path, sha256: str | None) -> Iterator[None]:
    """While the network at `place` may be replaced: that of features which are there already is put back.

    sha256  what the recipe of those features names, or None
    MismatchError when another network came to stand there.
    """
    known = place.is_file() and file_sha256(place) == sha256
    content = place.read_bytes() if known else b""
    yield
    if known and file_sha256(place) != sha256:
        _write(place, content)
        raise MismatchError(
            f"{place}: belongs to features that are there already, and other weights or options were given; "
            "use those, or write the features elsewhere"
        )


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
    """The network file at `place`, made of weights of any kind unless it was made of the same weights before.

    name    of the preset, for messages
    images  the photographs, asked for only when a reduction must be learned from them
    InputError for a learned attention, which photographs alone cannot teach; what reading the weights raises.
    """
    if is_checkpoint(weights):
        return copy_network(weights, place)
    if preset.published.startswith("how-r"):
        network, origin = read_official(weights)
        save_checkpoint(place, network, origin)
        return place
    if preset.extractor != "how":
        raise InputError(
            f"{weights}: {name} has a learned attention, which ImageNet weights do not bring; train one with "
            "`asmk-engine train-delf`, or use a how- extractor"
        )
    if not _is_made_of(place, weights, preset, max_side):
        options = LocalOptions(preset.backbone, preset.skip, **HOW)
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
    """The network file of a whole-image extractor at `place`, made of weights of any kind; no photographs are needed.

    completion  the pooling, and what completes weights of a backbone; see `open_global_network` for what is raised. For
                `how-global` the weights are a local network, which is copied; FormatError for others
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


def copy_network(weights: Path, place: Path) -> Path:
    """The file at `place`, a copy of a network file."""
    if not (place.is_file() and file_sha256(place) == file_sha256(weights)):
        _write(place, weights.read_bytes())
    return place


def _write(place: Path, content: bytes) -> None:
    folder = Folder(place.parent)
    folder.make()
    folder.write(place.name, [content])
    folder.sync()


def _is_made_of(place: Path, weights: Path, preset: Preset, max_side: int) -> bool:
    """Whether an earlier run, perhaps stopped since, left a network of the same weights there."""
    if not is_checkpoint(place):
        return False
    network, origin = open_checkpoint(place)
    made = (network.options.backbone, network.options.skip, origin.get("backbone_sha256"), origin.get("max_side"))
    return made == (preset.backbone, preset.skip, file_sha256(weights), max_side)
