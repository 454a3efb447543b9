"""From an image to local features: one small file for each extractor, one protocol for all.

An extractor is a frozen dataclass of its options that follows the protocol `Extractor`; `EXTRACTORS` names them all.
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
"""Where each extractor is defined, as `module:class`; it is imported when it is asked for."""


def load_extractor(name: str = "rootsift", **options: Any) -> Extractor:
    """The extractor or preset of that name with these options, the others at their defaults.

    InputError for an unknown name, an unknown option or a value out of range; it lists what there is. MismatchError
    when the weights are not of the preset's network.
    """
    preset = PRESETS.get(name)
    if preset is None and name not in EXTRACTORS:
        raise InputError(f"there is no extractor {name!r}; there are: {', '.join(sorted([*EXTRACTORS, *PRESETS]))}")
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
            f"{extractor.weights}: a network of {found.backbone} without {found.skip} parts, {name} is {preset.backbone} "
            f"without {preset.skip}; use --extractor {preset.extractor}, which takes any, or other weights"
        )


def extractor_from_recipe(recipe: Recipe, network: Path | None = None, device: str = "auto") -> Extractor:
    """The extractor that made features of this recipe, so that a query is described in the same way.

    network  a network file to try first, such as the one an index carries
    device   where a network runs
    InputError when this version has no such extractor or option: the features came from elsewhere or from a newer one.
    NotFoundError when the weights are not at hand.
    """
    if recipe.extractor == IMPORTED:
        raise InputError(
            f"features of [{recipe}] were made by another program, which alone describes photographs that way: ask "
            "with names of indexed images, or with its features of the queries: `asmk-engine import` and --features"
        )
    apart = {} if recipe.weights is None else {"weights": str(_weights(recipe, network)), "device": device}
    try:
        return load_extractor(recipe.extractor, **recipe.options, **apart)
    except (InputError, TypeError) as error:  # TypeError: an option of an untrusted recipe is called `name`
        cure = "give the features of the queries instead of images"
        raise InputError(f"features of [{recipe}] cannot be extracted here ({error}); {cure}") from None


def network_file(recipe: Recipe, candidate: Path | None = None) -> Path | None:
    """The file of the network of a recipe: the candidate, when its sha256 is right, or one of the cache, or None."""
    from asmk_engine.networks.cache import find_weights
    from asmk_engine.storage.user_files import file_sha256

    if candidate is not None and candidate.is_file() and file_sha256(candidate) == recipe.weights:
        return candidate
    return find_weights(recipe.weights or "")


def _weights(recipe: Recipe, network: Path | None) -> Path:
    found = network_file(recipe, network)
    if found is None:
        raise NotFoundError(
            f"features of [{recipe}] need the network with the sha256 {(recipe.weights or '')[:16]}…, which is not at "
            "hand; give its file with --weights, or give the features of the queries instead of images"
        )
    return found


class FolderExtractor:
    """What every extractor can do besides: extract whole folders."""

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
        """Extract folders, files or lists into the feature set `output` and open it; see `extract_images`."""
        extract_images(self, images, output, workers=workers, strict=strict, prune=prune, progress=progress)
        return FeatureSet.open(output)
