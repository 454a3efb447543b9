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
from asmk_engine.extractors.builtin import EXTRACTORS
from asmk_engine.extractors.options import describe_options
from asmk_engine.extractors.presets import PRESETS, Preset
from asmk_engine.extractors.registry import custom_names, find_extractor, import_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.images.listing import ImageList, PathLike
from asmk_engine.iteration import FailureProgress
from asmk_engine.recipes import COMPOSED_EXTRACTORS, IMPORTED, Recipe

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


def load_extractor(name: str = "rootsift", **options: Any) -> Extractor:
    """Create an extractor by name.

    Parameters
    ----------
    name : str
        Name of an extractor or a preset, see `EXTRACTORS` and `PRESETS`, of an extractor that was registered (see
        `register_extractor`) or installed, or `package.module:Class`.
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
    maker = _class_of(preset.extractor if preset else name)
    known = _options_of(maker)
    if unknown := options.keys() - known:
        raise InputError(f"{name} has no option {min(unknown)!r}; it has: {describe_options(maker)}")
    if preset and preset.extractor in COMPOSED_EXTRACTORS:
        options = {**preset.defaults, **options}
    if preset and preset.skip and "skip" in known:
        options.setdefault("skip", preset.skip)
    extractor: Extractor = maker(**options)
    if preset:
        _check_preset(extractor, preset, name)
    return extractor


def _class_of(name: str) -> Any:
    """Return the class of an extractor; raises InputError, with all names, for an unknown one."""
    if name in EXTRACTORS:
        module, attribute = EXTRACTORS[name].split(":")
        return getattr(import_module(module), attribute)
    found = import_extractor(name) if ":" in name else find_extractor(name)
    if found is None:
        names = ", ".join(sorted([*EXTRACTORS, *PRESETS, *custom_names()]))
        raise InputError(f"unknown extractor {name!r}; choose one of {names}, or give package.module:Class")
    return found


def option_names(name: str) -> set[str]:
    """Return the names of the options of an extractor or a preset; raises InputError for an unknown name."""
    preset = PRESETS.get(name)
    return _options_of(_class_of(preset.extractor if preset else name))


def _options_of(maker: Any) -> set[str]:
    fields = dataclasses.fields(maker) if dataclasses.is_dataclass(maker) else ()
    return {field.name for field in fields}


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
    if recipe.is_of_arrays:
        raise InputError(
            f"descriptors of [{recipe}] were given as arrays and cannot be extracted here; query with arrays, as "
            "`Features.from_descriptors` takes them"
        )
    try:
        if recipe.extractor not in EXTRACTORS:
            return _custom_from_recipe(recipe, network, device)
        apart = {} if recipe.weights is None else {"weights": str(_weights(recipe, network)), "device": device}
        return load_extractor(recipe.extractor, **recipe.options, **apart)
    except (InputError, TypeError) as error:  # TypeError: an untrusted recipe has an option called `name`
        cure = "give the features of the queries instead of images"
        raise InputError(f"features of [{recipe}] cannot be extracted here ({error}); {cure}") from None


def _custom_from_recipe(recipe: Recipe, network: Path | None, device: str) -> Extractor:
    """Return a registered or installed extractor, with its own weights if they are those of the recipe.

    The name comes from a recipe, perhaps an untrusted one: nothing is imported that was not registered, installed or
    given as `module:Class` before.
    """
    maker: Any = find_extractor(recipe.extractor)
    if maker is None:
        raise InputError(
            f"there is no extractor {recipe.extractor!r} here: register it, or give --extractor package.module:Class"
        )
    known = _options_of(maker)
    apart: dict[str, Any] = {"device": device} if "device" in known else {}
    made: Extractor = maker(**recipe.options, **apart)
    if recipe.weights is not None and "weights" in known and not _has_weights(made, recipe):
        made = maker(**recipe.options, **apart, weights=str(_weights(recipe, network)))
    if made.recipe != recipe:
        raise InputError(f"the extractor of that name makes features of [{made.recipe}]")
    return made


def _has_weights(extractor: Any, recipe: Recipe) -> bool:
    """Return whether the weights that an extractor has by default are those of a recipe."""
    from asmk_engine.storage.user_files import file_sha256

    path = Path(extractor.weights)
    return path.is_file() and file_sha256(path) == recipe.weights


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
