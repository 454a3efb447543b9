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
@click.option("-o", "--output", type=PATH, required=True, help="Network file to write, .safetensors.")
@click.option(
    "--weights", type=PATH, help="Network with which FEATURES were extracted.  [default: the one kept next to them]"
)
@click.option("--pairs", type=PATH, help="CSV of matching images, one pair query,positive per line, to learn from.")
@click.option("--dim", type=click.IntRange(min=1), help="Dimensions to keep.  [default: as many as can be learned]")
@click.option(
    "--power",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Power of the whitening without --pairs: 1 for full whitening, 0 for rotation only, 0.5 as for GeM-AP.",
)
@quiet_option
def whiten_global(
    features: Path, output: Path, weights: Path | None, pairs: Path | None, dim: int | None, power: float, quiet: bool
) -> None:
    """Learn a whitening of global descriptors.

    FEATURES is a feature set of gem, spoc, mac, rmac or crow. Writes its network with the whitening as last layer.
    Without --pairs it is PCA-whitening; with them, a whitening that makes the differences within pairs small.

    \b
    Examples:
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
        console.say(
            f"few pairs for the dimensions: {origin['repair']:g} was added to their covariance; give more pairs"
        )


def _weights(features: FeatureSet, weights: Path | None) -> Path:
    from asmk_engine.extractors import network_file
    from asmk_engine.features.network_place import network_beside

    if weights is not None:
        if not weights.is_file():
            raise NotFoundError(f"{weights}: no such file of weights; give the network that made FEATURES")
        return weights
    found = network_file(features.recipe, network_beside(features.path))
    if found is None:
        raise NotFoundError(
            f"{features.path}: the weights of [{features.recipe}] were not found; give the file with --weights"
        )
    return found
