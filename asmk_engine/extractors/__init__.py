"""Extractors, which turn an image into features: one file for each, one protocol for all.

An extractor is a frozen dataclass of its options that implements the protocol `Extractor`; `EXTRACTORS` lists them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.extraction.attempts import Extractor, Origin
from asmk_engine.extraction.run import extract_images
from asmk_engine.extractors.options import describe_options
from asmk_engine.extractors.presets import PRESETS, Preset
from asmk_engine.features import FeatureSet
from asmk_engine.images.listing import ImageList, PathLike
from asmk_engine.iteration import FailureProgress
from asmk_engine.recipes import IMPORTED, Recipe

__all__ = [
    "EXTRACTORS",
    "PRESETS",
    "Extractor",
    "FolderExtractor",
    "Origin",
    "extractor_from_recipe",
    "load_extractor",
    "network_file",
]

EXTRACTORS = {
    "rootsift": "asmk_engine.extractors.rootsift:RootSift",
    "how": "asmk_engine.extractors.how:How",
    "delf": "asmk_engine.extractors.delf:Delf",
    "gem": "asmk_engine.extractors.global_descriptors:Gem",
    "spoc": "asmk_engine.extractors.global_descriptors:Spoc",
    "mac": "asmk_engine.extractors.global_descriptors:Mac",
    "rmac": "asmk_engine.extractors.global_descriptors:Rmac",
    "crow": "asmk_engine.extractors.global_descriptors:Crow",
    "how-global": "asmk_engine.extractors.how_global:HowGlobal",
}
"""Where each extractor is defined, as `module:class`; modules are imported on first use."""


def load_extractor(name: str = "rootsift", **options: Any) -> Extractor:
    """Create an extractor by name.

    Parameters
    ----------
    name : str
        Name of an extractor or a preset, see `EXTRACTORS` and `PRESETS`.
    **options
        Options of the extractor; the others have their defaults. Extractors with a network need `weights`, the path
        of a weight file.

    Returns
    -------
    Extractor
        An object whose `extract` turns an image into `Features`, and `extract_folder` whole folders into a
        `FeatureSet`.

    Raises
    ------
    InputError
        For an unknown name, an unknown option or a value out of range; the message lists the choices.
    MismatchError
        If a preset is given weights of another network.
    NotFoundError, FormatError, DamagedError
        If a preset's weight file does not exist or cannot be read.

    Examples
    --------
    >>> from asmk_engine import load_extractor
    >>> load_extractor("rootsift", max_features=500).dim
    128
    """
    preset = PRESETS.get(name)
    if preset is None and name not in EXTRACTORS:
        raise InputError(f"unknown extractor {name!r}; choose one of {', '.join(sorted([*EXTRACTORS, *PRESETS]))}")
    module, attribute = EXTRACTORS[preset.extractor if preset else name].split(":")
    maker = getattr(import_module(module), attribute)
    known = {field.name for field in dataclasses.fields(maker)}
    unknown = options.keys() - known
    if unknown:
        raise InputError(f"{name} has no option {min(unknown)!r}; it has: {describe_options(maker)}")
    if preset and preset.skip and "skip" in known:
        options.setdefault("skip", preset.skip)
    extractor: Extractor = maker(**options)
    if preset:
        _check_preset(extractor, preset, name)
    return extractor


def _check_preset(extractor: Any, preset: Preset, name: str) -> None:
    found = extractor.network.options
    if (found.backbone, found.skip) != (preset.backbone, preset.skip):
        raise MismatchError(
            f"{extractor.weights}: its backbone is {found.backbone} with skip {found.skip}, {name} needs "
            f"{preset.backbone} with skip {preset.skip}; use --extractor {preset.extractor}, which accepts any "
            "network, or other weights"
        )


def extractor_from_recipe(recipe: Recipe, network: Path | None = None, device: str = "auto") -> Extractor:
    """Return the extractor that made features of this recipe, so that queries are described in the same way.

    network  network file to try first, such as the one stored in an index
    device   device a network runs on

    Raises InputError if this version has no such extractor or option (the features are from another program or a newer
    version), and NotFoundError if the weights are not available.
    """
    if recipe.extractor == IMPORTED:
        raise InputError(
            f"features of [{recipe}] were made by another program and cannot be extracted here; query with names of "
            "indexed images, or with that program's features of the queries: `asmk-engine import` and --features"
        )
    apart = {} if recipe.weights is None else {"weights": str(_weights(recipe, network)), "device": device}
    try:
        return load_extractor(recipe.extractor, **recipe.options, **apart)
    except (InputError, TypeError) as error:  # TypeError: an untrusted recipe has an option called `name`
        cure = "give the features of the queries instead of images"
        raise InputError(f"features of [{recipe}] cannot be extracted here ({error}); {cure}") from None


def network_file(recipe: Recipe, candidate: Path | None = None) -> Path | None:
    """Return the network file of a recipe: the candidate if its sha256 matches, else one of the cache, else None."""
    from asmk_engine.networks.cache import find_weights
    from asmk_engine.storage.user_files import file_sha256

    if candidate is not None and candidate.is_file() and file_sha256(candidate) == recipe.weights:
        return candidate
    return find_weights(recipe.weights or "")


def _weights(recipe: Recipe, network: Path | None) -> Path:
    found = network_file(recipe, network)
    if found is None:
        raise NotFoundError(
            f"features of [{recipe}] need the network with sha256 {(recipe.weights or '')[:16]}…, which is not on this "
            "machine; give its file with --weights, or give the features of the queries instead of images"
        )
    return found


class FolderExtractor:
    """Mix-in for extractors that adds the extraction of whole folders."""

    def extract_folder(
        self: Extractor,
        images: ImageList | PathLike | Iterable[PathLike],
        output: PathLike,
        *,
        workers: int | None = None,
        strict: bool = False,
        prune: bool = False,
        progress: FailureProgress | None = None,
    ) -> FeatureSet:
        """Extract folders, files or lists of images into the feature set `output` and open it; see `extract_images`."""
        extract_images(self, images, output, workers=workers, strict=strict, prune=prune, progress=progress)
        return FeatureSet.open(output)
