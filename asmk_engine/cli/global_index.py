"""The parts of `asmk-engine index` that create and extend a global index, and `augment`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, option_group, parse_numbers, plural, quiet_option
from asmk_engine.cli.reports import Left, told
from asmk_engine.errors import InputError, MismatchError

if TYPE_CHECKING:
    from asmk_engine.features import FeatureSet
    from asmk_engine.flat import Codec, CodecOptions, GlobalIndex
    from asmk_engine.indexes.additions import AddSummary

KEYS = ("pca", "whiten", "pq", "half", "train_on", "concatenate", "part_weights")
_LEAST_SEGMENT = 16 << 20
_COPIES = 3  # copies of a segment in memory: its vectors, those being joined, and those of its groups

global_options = option_group(
    click.option("--pca", type=click.IntRange(min=1), metavar="N", help="Reduce descriptors to N dimensions by PCA."),
    click.option("--whiten", is_flag=True, help="Scale the dimensions to equal variance; requires --pca."),
    click.option(
        "--pq",
        type=click.Choice(["8", "1"]),
        help="Product quantisation: store one byte per 8 dimensions, or per dimension.",
    ),
    click.option("--half", is_flag=True, help="Store vectors in half precision."),
    click.option(
        "--train-on",
        type=PATH,
        metavar="FEATURES",
        help="Feature set on which --pca and --pq are trained.  [default: the indexed one]",
    ),
    click.option(
        "--concatenate", is_flag=True, help="Concatenate the descriptors of several feature sets into one per image."
    ),
    click.option(
        "--part-weights",
        callback=lambda c, p, value: parse_numbers(value),
        help="Weights of the concatenated feature sets, such as 1,0.5.  [default: all 1]",
    ),
)


@dataclass(frozen=True)
class GlobalIndexOptions:
    """The options of `index` for a global index; see its help."""

    pca: int | None = None
    whiten: bool = False
    pq: str | None = None
    half: bool = False
    train_on: Path | None = None
    concatenate: bool = False
    part_weights: tuple[float, ...] | None = None

    @property
    def given(self) -> list[str]:
        """The given options of a new codec, as typed on the command line."""
        chosen = {key: getattr(self, key) for key in ("pca", "whiten", "pq", "half", "train_on")}
        return [f"--{key.replace('_', '-')}" for key, value in chosen.items() if value]

    def refuse(self, features: FeatureSet) -> None:
        """Raise InputError if an option was given that only applies to global descriptors."""
        given = [*self.given, *(["--concatenate"] if self.concatenate else [])]
        if given:
            raise InputError(
                f"{features.path}: {' and '.join(given)} for local features, of [{features.recipe}]; leave that out, "
                "or extract global descriptors"
            )

    def codec_options(self, seed: int) -> CodecOptions:
        """Return the options of a codec; raises InputError if they contradict each other."""
        from asmk_engine.flat import CodecOptions

        return CodecOptions(self.pca, self.whiten, int(self.pq) if self.pq else None, self.half, seed)


def concatenated(sets: Sequence[Path], output: Path, options: GlobalIndexOptions, console: Console) -> FeatureSet:
    """Concatenate the descriptors of several feature sets and store them at `output`."""
    from asmk_engine.features import FeatureSet
    from asmk_engine.flat.concatenation import concatenate

    with console.bar("concatenate", "images") as on_image:
        return concatenate([FeatureSet.open(path) for path in sets], output, options.part_weights, on_image)


def make_codec(features: FeatureSet, options: GlobalIndexOptions, seed: int, console: Console) -> Codec:
    """Train a codec for the features on them or on the set of --train-on."""
    from asmk_engine.features import FeatureSet
    from asmk_engine.flat.codec_training import train_codec

    sample = FeatureSet.open(options.train_on) if options.train_on else features
    if sample.recipe != features.recipe or sample.dim != features.dim:
        raise MismatchError(
            f"{sample.path}: {sample.dim} dimensions of [{sample.recipe}], but {features.path} has {features.dim} of "
            f"[{features.recipe}]; train on descriptors of the same kind"
        )
    with console.bar("train", "images") as progress:
        return train_codec(sample, options.codec_options(seed), progress)


def add_global(
    features: FeatureSet,
    target: GlobalIndex | None,
    output: Path,
    options: GlobalIndexOptions,
    console: Console,
    *,
    codebook: Path | None,
    network: Path | None,
    seed: int,
    memory: int | None,
    left: Left,
    **how: Any,
) -> AddSummary:
    """Add global descriptors to the index at `output`, which is created if missing; `how` is passed to `add`."""
    if codebook is not None:
        raise InputError(f"{codebook}: a global index has no codebook; leave --codebook out")
    from asmk_engine.flat import GlobalIndex
    from asmk_engine.flat.index import check_fits

    room = segment_bytes(memory)
    if target is None:
        codec = make_codec(features, options, seed, console)
        check_fits(features, codec, output)
        target = GlobalIndex.create(output, codec, network)
    elif options.given:
        console.say(f"{output} already exists: {' and '.join(options.given)} ignored")
    with console.bar("index", "images") as on_image:
        summary = target.add(features, segment_bytes=room, on_image=on_image, **how)
    codec = target.codec
    console.say(
        f"{output}: {plural(target.images, 'image')}, {codec.dim} dimensions in {codec.width * codec.dtype.itemsize} "
        f"bytes each: {told(summary, left)}"
    )
    return summary


def segment_bytes(memory: int | None) -> int:
    """Return the bytes of vectors of a segment under a memory limit; InputError names the least limit that suffices."""
    from asmk_engine.flat.index import SEGMENT_BYTES
    from asmk_engine.inverted.batch import BESIDE

    if memory is None:
        return SEGMENT_BYTES
    room = (memory - BESIDE) // _COPIES
    if room < _LEAST_SEGMENT:
        least = (BESIDE + _COPIES * _LEAST_SEGMENT) >> 20
        raise InputError(f"--memory allows {memory >> 20} MiB, but a global index needs at least {least}M")
    return min(SEGMENT_BYTES, room)


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the augmented index; must be new.")
@click.option(
    "--neighbours", type=click.IntRange(min=1), default=10, show_default=True, help="Number of nearest images."
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    help="Exponent of the similarity that weights an image.",
)
@quiet_option
def augment(index_path: Path, output: Path, neighbours: int, alpha: float, quiet: bool) -> None:
    """Apply database-side augmentation to a global index.

    Writes a new index in which the descriptor of each image of INDEX is a weighted sum of its own and those of its
    nearest images.

    \b
    Example:
      asmk-engine augment gem.index -o gem-augmented.index --neighbours 10
    """
    from asmk_engine.flat import Expansion, GlobalIndex
    from asmk_engine.flat.augmentation import augment as blend

    console = Console(quiet)
    with console.bar("augment", "images") as on_image:
        made = blend(GlobalIndex.open(index_path), output, Expansion(neighbours, alpha), on_image=on_image)
    console.say(f"{output}: {plural(made.images, 'image')}, each combined with its {neighbours} nearest images")
