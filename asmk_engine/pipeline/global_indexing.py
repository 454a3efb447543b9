"""A global index from a feature set: its options, its codec, and the addition of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import FeatureSet
from asmk_engine.flat import Codec, CodecOptions, GlobalIndex
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.flat.concatenation import concatenate
from asmk_engine.flat.index import SEGMENT_BYTES, check_fits
from asmk_engine.images.listing import PathLike
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.inverted.batch import BESIDE
from asmk_engine.iteration import Display
from asmk_engine.pipeline.reports import Reporter
from asmk_engine.pipeline.wording import plural

_LEAST_SEGMENT = 16 << 20
_COPIES = 3  # copies of a segment in memory: its vectors, those being joined, and those of its groups


@dataclass(frozen=True)
class GlobalIndexOptions:
    """How global descriptors are stored in a new index.

    pca, whiten, pq, half  see `CodecOptions`
    train_on      the feature set on which `pca` and `pq` are trained; by default the indexed one
    concatenate   concatenate the descriptors of several feature sets into one per image
    part_weights  weights of the concatenated feature sets; all 1 if None
    """

    pca: int | None = None
    whiten: bool = False
    pq: int | None = None
    half: bool = False
    train_on: PathLike | FeatureSet | None = None
    concatenate: bool = False
    part_weights: tuple[float, ...] | None = None

    @property
    def given(self) -> list[str]:
        """The given options of a new codec, as typed on the command line."""
        chosen = {key: getattr(self, key) for key in ("pca", "whiten", "pq", "half")}
        given = [f"--{key}" for key, value in chosen.items() if value]
        return [*given, *(["--train-on"] if self.train_on is not None else [])]

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
        return CodecOptions(self.pca, self.whiten, self.pq, self.half, seed)


def concatenated(
    sets: Sequence[PathLike | FeatureSet], output: Path, options: GlobalIndexOptions, display: Display
) -> FeatureSet:
    """Concatenate the descriptors of several feature sets and store them at `output`."""
    with display.bar("concatenate", "images") as on_image:
        return concatenate([opened(one) for one in sets], output, options.part_weights, on_image)


def opened(features: PathLike | FeatureSet) -> FeatureSet:
    """Return a feature set that was given as such or by its path."""
    return features if isinstance(features, FeatureSet) else FeatureSet.open(features)


def make_codec(features: FeatureSet, options: GlobalIndexOptions, seed: int, display: Display) -> Codec:
    """Train a codec for the features on them or on the set `train_on`."""
    sample = features if options.train_on is None else opened(options.train_on)
    if sample.recipe != features.recipe or sample.dim != features.dim:
        raise MismatchError(
            f"{sample.path}: {sample.dim} dimensions of [{sample.recipe}], but {features.path} has {features.dim} of "
            f"[{features.recipe}]; train on descriptors of the same kind"
        )
    with display.bar("train", "images") as progress:
        return train_codec(sample, options.codec_options(seed), progress)


def add_global(
    features: FeatureSet,
    target: GlobalIndex | None,
    output: Path,
    options: GlobalIndexOptions,
    reporter: Reporter,
    *,
    codebook: Codebook | PathLike | None,
    network: Path | None,
    seed: int,
    memory: int | None,
    **how: Any,
) -> tuple[GlobalIndex, AddSummary]:
    """Add global descriptors to the index at `output`, which is created if missing; `how` is passed to `add`."""
    if codebook is not None:
        raise InputError(f"{codebook}: a global index has no codebook; leave --codebook out")
    room = segment_bytes(memory)
    if target is None:
        codec = make_codec(features, options, seed, reporter.display)
        check_fits(features, codec, output)
        target = GlobalIndex.create(output, codec, network)
    elif options.given:
        reporter.remark(f"{output} already exists: {' and '.join(options.given)} ignored")
    with reporter.display.bar("index", "images") as on_image:
        summary = target.add(features, segment_bytes=room, on_image=on_image, **how)
    codec = target.codec
    reporter.say(
        f"{output}: {plural(target.images, 'image')}, {codec.dim} dimensions in {codec.width * codec.dtype.itemsize} "
        f"bytes each: {reporter.counts(summary)}"
    )
    return target, summary


def segment_bytes(memory: int | None) -> int:
    """Return the bytes of vectors of a segment under a memory limit; InputError names the least limit that suffices."""
    if memory is None:
        return SEGMENT_BYTES
    room = (memory - BESIDE) // _COPIES
    if room < _LEAST_SEGMENT:
        least = (BESIDE + _COPIES * _LEAST_SEGMENT) >> 20
        raise InputError(f"--memory allows {memory >> 20} MiB, but a global index needs at least {least}M")
    return min(SEGMENT_BYTES, room)
