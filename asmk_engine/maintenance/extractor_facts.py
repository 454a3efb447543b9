"""Which extractor made descriptors, from what is stored with them: their recipe, and the network it names.

Nothing here imports torch: of a network file only the header is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError
from asmk_engine.extractors.presets import PRESETS, Preset
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.networks.stored_names import from_stored
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import map_arrays
from asmk_engine.storage.folder import Folder


def describe_extractor(recipe: Recipe, network: Path | None) -> dict[str, Any]:
    """Describe the extractor of a recipe, as JSON values.

    name       of the extractor
    preset     the name that chooses it with this network, such as `how-squeezenet`; None if there is none
    backbone   of its network; None without a network, or if its file is missing
    weights    the file and the sha256 of the weights of which the network was made, as far as they are recorded
    published  the name of these weights in `asmk-engine weights list`; None if they are not published
    whitened   the number of images on which the network was whitened; None if that was done elsewhere

    network  the file of the network of this recipe, or None
    """
    options, origin = _header(network)
    weights = {
        "file": origin.get("file"),
        "sha256": origin.get("sha256") or origin.get("backbone_sha256"),
    }
    published = next((name for name in WEIGHTS if _is_of(name, weights)), None)
    return {
        "name": recipe.extractor,
        "preset": _preset(recipe.extractor, options, published),
        "backbone": options.get("backbone"),
        "weights": weights,
        "published": published,
        "whitened": origin.get("images") if "descriptors" in origin else None,
    }


def _header(network: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and the origin in a network file; nothing of a file that is missing or cannot be read."""
    if network is None or not network.is_file():
        return {}, {}
    try:
        metadata = map_arrays(Folder(network.parent), network.name, plain=True).metadata
        found = [json.loads(metadata.get(key, "{}")) for key in ("network", "origin")]
        options, origin = (from_stored(content) for content in found)
    except (AsmkError, ValueError, TypeError, AttributeError, RecursionError):  # `check` says what is wrong with it
        return {}, {}
    return options, origin


def _is_of(name: str, weights: dict[str, Any]) -> bool:
    """Whether weights are the published ones of a name, by their digest where one was published, else by their file."""
    entry = WEIGHTS[name]
    if entry.sha256:
        return str(weights["sha256"]).startswith(entry.sha256)
    return entry.file == weights["file"]


def _preset(extractor: str, options: dict[str, Any], published: str | None) -> str | None:
    wanted = extractor, options.get("backbone"), options.get("skip")
    fitting = {name: preset for name, preset in PRESETS.items() if _parts(preset) == wanted}
    exact = [name for name, preset in fitting.items() if published and preset.published == published]
    return next(iter(exact or fitting)) if exact or len(fitting) == 1 else None


def _parts(preset: Preset) -> tuple[str, str, int]:
    return preset.extractor, preset.backbone, preset.skip
