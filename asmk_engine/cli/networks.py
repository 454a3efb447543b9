"""`asmk-engine whiten`."""

from __future__ import annotations

from pathlib import Path

import click

from asmk_engine.cli.common import PATH, Console, check_network_name, plural, quiet_option
from asmk_engine.errors import InputError

DEFAULT = "how-squeezenet"


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option(
    "--weights", type=PATH, required=True, help="ImageNet weights of the backbone: .npz, .pth or .safetensors."
)
@click.option("-o", "--output", type=PATH, required=True, help="Network file to write, .safetensors.")
@click.option(
    "--extractor",
    default="auto",
    help="Extractor that will use the network; determines the backbone. auto: how-squeezenet.  [default: auto]",
)
@click.option(
    "--dim",
    type=click.IntRange(1, 4096),
    help="Dimensions of the descriptors.  [default: 128]",
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
    dim: int | None,
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
    from asmk_engine.networks.local_options import LocalOptions
    from asmk_engine.training.whitening import initial_network

    extractor = DEFAULT if extractor == "auto" else extractor
    preset = PRESETS.get(extractor)
    if preset is None or preset.extractor != "how":
        choices = ", ".join(name for name, known in PRESETS.items() if known.extractor == "how")
        raise InputError(f"no backbone is known for extractor {extractor!r}; choose one of {choices}")
    check_network_name(output)
    left_out = preset.skip if skip is None else skip
    chosen = {**preset.network, "smoothing": smoothing, "reduction": reduction}
    options = LocalOptions(preset.backbone, left_out, **(chosen if dim is None else {**chosen, "dim": dim}))
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
