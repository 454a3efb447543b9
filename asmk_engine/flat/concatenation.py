"""Concatenation of feature sets: several global descriptors of an image as one, see `extractors.concatenation`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.escape import list_names
from asmk_engine.extractors.concatenation import concatenated_recipe, joined
from asmk_engine.features import FeatureSet, FeatureWriter, part_names
from asmk_engine.flat.codec_training import check_global
from asmk_engine.iteration import Progress, counted


def concatenate(
    sets: Sequence[FeatureSet],
    output: Path | str,
    weights: Sequence[float] | None = None,
    on_image: Progress | None = None,
) -> FeatureSet:
    """Write the concatenated descriptors of several feature sets as one set at `output`, or update that set.

    An image already in `output` is kept if its file is the same. Raises InputError for fewer than two sets, invalid
    weights, or an image that is missing from a set or does not have exactly one descriptor in it, and MismatchError for
    features that are not global, two sets of the same recipe, or another recipe at `output`.

    weights   weights of the sets, above 0; all 1 if None
    on_image  receives progress as (done, total) in images
    """
    given = _checked_weights(weights, len(sets))
    for features in sets:
        check_global(features)
    recipe = concatenated_recipe([features.recipe for features in sets], given)
    names, path = _common_names(sets), Path(output)
    known = FeatureSet.open(path) if part_names(path) else None
    due = [name for name in names if not (known and name in known and known.source(name) == sets[0].source(name))]
    dim = sum(features.dim for features in sets)
    with FeatureWriter(path, recipe, dim) as writer:
        for name in set(known.names if known else ()).difference(names):
            writer.remove(name)
        for name in set(names).difference(due):
            if known and known.root(name) != sets[0].root(name):
                writer.move(name, sets[0].root(name))
        for name, first in counted(sets[0].images(due), len(due), on_image):
            others = [features.read(name) for features in sets[1:]]
            writer.add(name, joined([first, *others], given), sets[0].source(name), sets[0].root(name))
    return FeatureSet.open(path)


def _checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if count < 2:
        raise InputError(f"{count} feature sets to concatenate; give two or more")
    if len(given) != count or not all(0 < weight < float("inf") for weight in given):
        raise InputError(f"weights are {given} for {count} feature sets; give one weight above 0 for each")
    return given


def _are_others(first: FeatureSet, other: FeatureSet, name: str) -> bool:
    """Return whether a name is known to belong to different images in the two sets."""
    are_files = first.root(name).is_known and other.root(name).is_known
    return are_files and first.source(name).fingerprint != other.source(name).fingerprint


def _common_names(sets: Sequence[FeatureSet]) -> list[str]:
    first = sets[0]
    for other in sets[1:]:
        for one, two in ((first, other), (other, first)):
            if missing := [name for name in one.names if name not in two]:
                raise InputError(
                    f"{two.path}: missing, but in {one.path}: {list_names(missing)}; extract the same images"
                )
        if mixed := [name for name in first.names if _are_others(first, other, name)]:
            raise InputError(
                f"{other.path}: of other images than in {first.path}: {list_names(mixed)}; extract the same images"
            )
    for features in sets:
        for name in first.names:
            if (count := features.count(name)) != 1:
                raise InputError(f"{features.path}: {name!r} has {count} descriptors; concatenation takes exactly one")
    return first.names
