"""`asmk-engine whiten-global`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Console, check_network_name, plural, quiet_option
from asmk_engine.errors import NotFoundError

if TYPE_CHECKING:
    from asmk_engine.features import FeatureSet


@click.command("whiten-global")
@click.argument("features", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The network to write, .safetensors.")
@click.option(
    "--weights", type=PATH, help="What FEATURES were extracted with.  [default: the network kept beside them]"
)
@click.option(
    "--pairs", type=PATH, help="CSV of pairs of images that show the same thing, query,positive: learn from them."
)
@click.option("--dim", type=click.IntRange(min=1), help="Dimensions to keep.  [default: as many as can be learned]")
@click.option(
    "--power",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Of PCA: 1 whitens, 0 only turns, 0.5 lies between, as for GeM-AP.",
)
@quiet_option
def whiten_global(
    features: Path, output: Path, weights: Path | None, pairs: Path | None, dim: int | None, power: float, quiet: bool
) -> None:
    """Learn a whitening of whole-image descriptors from FEATURES, and write their network with it.

    FEATURES are of gem, spoc, mac, rmac or crow. Without --pairs it is PCA-whitening; with them, differences within
    pairs become small. Descriptors of the new network are whitened by themselves.

    \b
    Example:
      asmk-engine extract photos/ -o photos.gem --extractor gem-squeezenet --weights squeezenet1_1-b8a52dc0.pth
      asmk-engine whiten-global photos.gem --dim 256 -o my.gem.safetensors
      asmk-engine index photos/ -o photos.index --extractor gem --weights my.gem.safetensors
    """
    check_network_name(output)
    from asmk_engine.features import FeatureSet
    from asmk_engine.networks.global_checkpoints import save_global_checkpoint
    from asmk_engine.training.global_whitening import read_pairs, whitened_network

    learned_from = FeatureSet.open(features)
    source = _weights(learned_from, weights)
    named = None if pairs is None else read_pairs(pairs)
    network, origin = whitened_network(learned_from, source, pairs=named, dim=dim, power=power)
    digest = save_global_checkpoint(output, network, origin)
    seen = plural(len(learned_from), "image") + (f" and {plural(len(named), 'pair')}" if named else "")
    console = Console(quiet)
    console.say(f"{output}: {network.dim} dimensions, whitened on {seen}, sha256 {digest[:16]}")
    if origin["repair"]:
        console.say(f"few pairs for so many dimensions: {origin['repair']:g} was added to their covariance; more help")


def _weights(features: FeatureSet, weights: Path | None) -> Path:
    from asmk_engine.extractors import network_file
    from asmk_engine.training.initial import network_beside

    if weights is not None:
        if not weights.is_file():
            raise NotFoundError(f"{weights}: no such file of weights; give the file FEATURES were extracted with")
        return weights
    found = network_file(features.recipe, network_beside(features.path))
    if found is None:
        raise NotFoundError(
            f"{features.path}: the weights of [{features.recipe}] are not at hand; give their file with --weights"
        )
    return found
