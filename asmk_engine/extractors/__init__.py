"""From an image to local features: one small file for each extractor, one protocol for all.

An extractor is a frozen dataclass of its options that follows the protocol `Extractor`; `EXTRACTORS` names them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from asmk_engine.attempts import Extractor, Origin
from asmk_engine.errors import InputError
from asmk_engine.extraction import Progress, extract_images
from asmk_engine.extractors.options import describe_options
from asmk_engine.features import FeatureSet
from asmk_engine.image_lists import ImageList, PathLike
from asmk_engine.recipes import Recipe

__all__ = ["EXTRACTORS", "Extractor", "FolderExtractor", "Origin", "extractor_from_recipe", "load_extractor"]

EXTRACTORS = {"rootsift": "asmk_engine.extractors.rootsift:RootSift"}
"""Where each extractor is defined, as `module:class`; it is imported when it is asked for."""


def load_extractor(name: str = "rootsift", **options: Any) -> Extractor:
    """The extractor of that name with these options, the others at their defaults.

    InputError for an unknown name, an unknown option or a value out of range; it lists what there is.
    """
    if name not in EXTRACTORS:
        raise InputError(f"there is no extractor {name!r}; there are: {', '.join(sorted(EXTRACTORS))}")
    module, attribute = EXTRACTORS[name].split(":")
    maker = getattr(import_module(module), attribute)
    unknown = options.keys() - {field.name for field in dataclasses.fields(maker)}
    if unknown:
        raise InputError(f"{name} has no option {min(unknown)!r}; it has: {describe_options(maker)}")
    extractor: Extractor = maker(**options)
    return extractor


def extractor_from_recipe(recipe: Recipe) -> Extractor:
    """The extractor that made features of this recipe, so that a query is described in the same way.

    InputError when this version has no such extractor or option: the features came from elsewhere or from a newer one.
    """
    try:
        return load_extractor(recipe.extractor, **recipe.options)
    except (InputError, TypeError) as error:  # TypeError: an option of a stranger's recipe is called `name`
        cure = "give the features of the queries instead of images"
        raise InputError(f"features of [{recipe}] cannot be extracted here ({error}); {cure}") from None


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
        progress: Progress | None = None,
    ) -> FeatureSet:
        """Extract folders, files or lists into the feature set `output` and open it; see `extract_images`."""
        extract_images(self, images, output, workers=workers, strict=strict, prune=prune, progress=progress)
        return FeatureSet.open(output)
