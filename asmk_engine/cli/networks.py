"""Which extractor a command uses, and `asmk-engine whiten`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, check_network_name, plural, quiet_option
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.recipes import GLOBAL_EXTRACTORS

if TYPE_CHECKING:
    from asmk_engine.extractors import Extractor
    from asmk_engine.extractors.presets import Preset
    from asmk_engine.features import FeatureSet
    from asmk_engine.images.listing import ImageFile
    from asmk_engine.recipes import Recipe

FETCHED = ("how-r18", "how-squeezenet", "how-resnet18")
"""The extractors that are tried, in this order, if none is given; the first whose weights have been fetched is used."""
NETWORKS = ("how", "delf")
FETCHED_GPU = ("how-r50-", "how-resnet50", *FETCHED)


def choose_extractor(
    images: Sequence[ImageFile],
    output: Path,
    console: Console,
    *,
    extractor: str | None,
    weights: Path | None,
    device: str | None,
    recipe: Recipe | None = None,
    network: Path | None = None,
    **options: Any,
) -> Extractor:
    """Return the extractor that a command specifies; its network is created if needed.

    images           images on which a network without whitening is whitened
    recipe, network  recipe that is used if no option is given, and the network file that may belong to it
    """
    from asmk_engine.extractors import extractor_from_recipe, load_extractor
    from asmk_engine.extractors.presets import PRESETS

    named = {key: value for key, value in options.items() if value is not None}
    if recipe and not extractor and not named:
        return extractor_from_recipe(recipe, weights or network, device or "auto")
    name = extractor or (_of_checkpoint(weights) if weights else _fetched(device, console))
    if (PRESETS[name].extractor if name in PRESETS else name) in GLOBAL_EXTRACTORS:
        return _global_extractor(name, PRESETS.get(name), weights, output, device, named)
    if name not in PRESETS:
        beside = _copied(weights, output) if weights and name in NETWORKS else weights
        apart = {"weights": beside and str(beside), "device": device}
        return load_extractor(name, **named, **{key: value for key, value in apart.items() if value})
    place = _network(name, PRESETS[name], weights, images, output, console, named.get("max_side", 1024), device)
    return load_extractor(name, weights=str(place), device=device or "auto", **named)


def _copied(weights: Path, output: Path) -> Path:
    """Copy a network file next to the features; InputError for other weights, which only a preset can complete."""
    from asmk_engine.networks.checkpoints import open_checkpoint
    from asmk_engine.training.initial import copy_network, network_beside

    open_checkpoint(weights)
    return copy_network(weights, network_beside(output))


def _global_extractor(
    name: str, preset: Preset | None, weights: Path | None, output: Path, device: str | None, named: dict[str, Any]
) -> Extractor:
    """Return an extractor of global descriptors, with its complete network in a file next to the features."""
    from asmk_engine.extractors import load_extractor
    from asmk_engine.networks.global_checkpoints import Completion
    from asmk_engine.training.initial import complete_global, network_beside

    if preset and weights is None:
        weights = _published(name, preset)
    apart: dict[str, Any] = {"weights": str(weights or ""), "device": device or "auto"}
    pooling = preset.extractor if preset else name
    if weights is None:
        return load_extractor(name, **named, **apart)
    skip = 0 if pooling == "how-global" else named.pop("skip", preset.skip if preset else 0)
    left_open = {"exponent": named.pop("exponent")} if pooling == "gem" and "exponent" in named else {}
    place = complete_global(weights, Completion(pooling, skip, **left_open), network_beside(output))
    return load_extractor(name, **named, **apart | {"weights": str(place)})


def _of_checkpoint(weights: Path) -> str:
    from asmk_engine.networks.checkpoints import is_checkpoint, open_checkpoint
    from asmk_engine.networks.global_checkpoints import KIND as GLOBAL_KIND
    from asmk_engine.networks.global_checkpoints import open_global_checkpoint
    from asmk_engine.networks.tensor_files import kind_of_network

    if kind_of_network(weights) == GLOBAL_KIND:
        return open_global_checkpoint(weights)[0].options.pooling
    if not is_checkpoint(weights):
        raise InputError(
            f"{weights}: these are weights of a backbone, which fit several extractors; give one too, such as "
            "--extractor how-squeezenet"
        )
    return {"norm": "how", "learned": "delf"}[open_checkpoint(weights)[0].options.attention]


def _fetched(device: str | None, console: Console) -> str:
    """Return the extractor whose weights are on this machine, else RootSIFT, which needs none; report which and why."""
    from asmk_engine.extractors.presets import PRESETS
    from asmk_engine.networks.cache import weights_folder
    from asmk_engine.networks.registry import WEIGHTS

    wanted = FETCHED_GPU if (device or "").startswith("cuda") else FETCHED
    for name in wanted:
        if (weights_folder() / WEIGHTS[PRESETS[name].published].file).is_file():
            console.say(f"extractor: {name}, whose weights have been fetched; --extractor selects another")
            return name
    console.say(
        "extractor: rootsift, since no weights of a network have been fetched; `asmk-engine weights fetch how-r18` "
        "downloads some, which give higher accuracy"
    )
    return "rootsift"


def _network(
    name: str,
    preset: Preset,
    weights: Path | None,
    images: Sequence[ImageFile],
    output: Path,
    console: Console,
    max_side: int,
    device: str | None,
) -> Path:
    """Create the network file of a preset next to the features, from the given or the fetched weights."""
    from asmk_engine.training.initial import complete_network, network_beside

    with console.bar("whiten", "images") as progress:
        return complete_network(
            name,
            preset,
            weights or _published(name, preset),
            lambda: images,
            network_beside(output),
            max_side=max_side,
            device=device or "auto",
            progress=progress,
        )


def _published(name: str, preset: Preset) -> Path:
    from asmk_engine.networks.cache import weights_path
    from asmk_engine.networks.registry import published_weights

    if not preset.published:
        raise NotFoundError(f"{name} needs weights, and none are published for it; give a file with --weights")
    return weights_path(published_weights(preset.published))


def network_of(features: FeatureSet, weights: Path | None, console: Console) -> Path | None:
    """Return the network file of a feature set, for its copy in the index; None if there is none or it is missing."""
    from asmk_engine.extractors import network_file
    from asmk_engine.training.initial import network_beside

    if features.recipe.weights is None:
        return None
    for candidate in (weights, network_beside(features.path)):
        if (found := network_file(features.recipe, candidate)) is not None:
            return found
    console.say(
        f"the network of [{features.recipe}] was not found, so the index is created without it and can be queried "
        "with features, but not with new photographs; give the file with --weights"
    )
    return None


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option(
    "--weights", type=PATH, required=True, help="ImageNet weights of the backbone: .npz, .pth or .safetensors."
)
@click.option("-o", "--output", type=PATH, required=True, help="Network file to write, .safetensors.")
@click.option(
    "--extractor",
    default="how-squeezenet",
    show_default=True,
    help="Extractor that will use the network; determines the backbone.",
)
@click.option(
    "--dim", type=click.IntRange(1, 4096), default=128, show_default=True, help="Dimensions of the descriptors."
)
@click.option(
    "--smoothing",
    type=int,
    default=3,
    show_default=True,
    help="Window size of the average pooling of the feature map; 1 for none.",
)
@click.option(
    "--reduction",
    type=click.Choice(["network", "post-whitening", "post"]),
    default="network",
    show_default=True,
    help="network: PCA-whitening as a layer of the network (HOW). post-whitening: PCA-whitening of unit vectors, "
    "learned after training (the post-reduction of HOW's paper). post: the same without whitening, a rotation (DELF).",
)
@click.option(
    "--skip",
    type=click.IntRange(min=0),
    help="Number of final backbone stages (ResNet) or layers (SqueezeNet) to leave out.  "
    "[default: that of --extractor]",
)
@click.option(
    "--images",
    "max_images",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="Maximum number of images to learn from, evenly spread.",
)
@click.option(
    "--max-side",
    type=click.IntRange(min=16),
    default=1024,
    show_default=True,
    help="Shrink images whose longer side exceeds this number of pixels.",
)
@click.option(
    "--device", default="auto", show_default=True, help="Device that runs the network: auto, cpu, cuda or cuda:0."
)
@quiet_option
def whiten(
    images: tuple[Path, ...],
    weights: Path,
    output: Path,
    extractor: str,
    dim: int,
    smoothing: int,
    reduction: str,
    skip: int | None,
    max_images: int,
    max_side: int,
    device: str,
    quiet: bool,
) -> None:
    """Create a HOW network from ImageNet weights.

    The whitening is learned by PCA from the strongest 1000 descriptors of each of the IMAGES (files, folders or lists),
    as at the start of HOW's training. `index` and `extract` do this by themselves if their weights have no reduction.

    \b
    Examples:
      asmk-engine whiten photos/ --weights squeezenet1_1-b8a52dc0.pth -o my.how.safetensors
      asmk-engine index photos/ -o photos.index --weights my.how.safetensors
    """
    from asmk_engine.extractors.presets import PRESETS
    from asmk_engine.images.listing import find_images
    from asmk_engine.networks.checkpoints import save_checkpoint
    from asmk_engine.networks.local import LocalOptions
    from asmk_engine.training.whitening import initial_network

    preset = PRESETS.get(extractor)
    if preset is None or preset.extractor != "how":
        choices = ", ".join(name for name, known in PRESETS.items() if known.extractor == "how")
        raise InputError(f"no backbone is known for extractor {extractor!r}; choose one of {choices}")
    check_network_name(output)
    left_out = preset.skip if skip is None else skip
    options = LocalOptions(preset.backbone, left_out, smoothing=smoothing, reduction=reduction, dim=dim)
    console = Console(quiet)
    with console.bar("whiten", "images") as progress:
        network, origin = initial_network(
            options,
            weights,
            find_images(images, every_file=True).images,
            max_side=max_side,
            max_images=max_images,
            device=device,
            progress=progress,
        )
    digest = save_checkpoint(output, network, origin)
    seen = f"{plural(origin['descriptors'], 'descriptor')} of {plural(origin['images'], 'image')}"
    console.say(f"{output}: {extractor}, {network.dim} dimensions, whitened on {seen}, sha256 {digest[:16]}")
