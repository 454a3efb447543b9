"""The base class of extractors of other packages: what is left to write is how pixels become descriptors."""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.extraction.attempts import Origin
from asmk_engine.extractors import FolderExtractor
from asmk_engine.extractors.registry import place_of
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import View, view_image
from asmk_engine.images.listing import PathLike
from asmk_engine.recipes import Recipe
from asmk_engine.storage.user_files import file_sha256

APART = ("weights", "device")
"""Options that the recipe does not contain: of weights it has the sha256, and the device affects no descriptor."""


@dataclasses.dataclass(frozen=True)
class CustomExtractor(FolderExtractor):
    """Base class of extractors; a subclass is a frozen dataclass of its options with a method `compute`.

    Decoding, orientation, regions, worker processes, recipes and the conversion to pixels of the original are done
    here. Options are JSON values. An option `weights` is the path of a file, whose sha256 becomes part of the recipe.
    The class must be in a module that worker processes can import, not in the main script.

    Attributes
    ----------
    name : str
        Name of the extractor in recipes.
    dim : int
        Number of dimensions of a descriptor.
    is_global : bool
        Whether `compute` returns one descriptor for the whole image.
    max_side : int
        Larger images are shrunk until their longer side is this many pixels.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class MeanColour(CustomExtractor):
    ...     name = "mean-colour"
    ...     dim = 3
    ...     is_global = True
    ...
    ...     def compute(self, pixels):
    ...         return pixels.mean((0, 1)) / np.linalg.norm(pixels.mean((0, 1)))
    """

    name: ClassVar[str]
    dim: ClassVar[int]
    is_global: ClassVar[bool] = False

    max_side: int = 1024

    @abstractmethod
    def compute(self, pixels: np.ndarray) -> Any:
        """Describe an image.

        Parameters
        ----------
        pixels : numpy.ndarray
            Shape [h, w, 3], uint8, RGB, upright, no side above `max_side`.

        Returns
        -------
        numpy.ndarray or tuple
            A global descriptor [dim]; or for local features descriptors [n, dim], positions or keypoints [n, 2],
            [n, 3] or [n, 4] (x, y and scale in pixels of `pixels`, angle in radians from the x axis towards the y
            axis), and scores [n].
        """

    @property
    def recipe(self) -> Recipe:
        """The name, the options, the sha256 of the weights, and whether descriptors are global."""
        options = {key: value for key, value in self._options().items() if key not in APART}
        weights = getattr(self, "weights", "")
        return Recipe(self.name, options, file_sha256(weights) if weights else None, self.is_global)

    @property
    def origin(self) -> Origin:
        """The function and options with which a worker process creates an equal extractor."""
        place = place_of(type(self))
        if place.startswith("__main__:") or "<locals>" in place:
            raise InputError(
                f"the extractor {self.name!r} is defined in the main script or in a function, where worker processes "
                "cannot find it; put its class in a module, or use workers=0"
            )
        return Origin("asmk_engine.extractors.registry:make_extractor", {"place": place, "options": self._options()})

    def extract(self, image: PathLike | np.ndarray, box: Box | None = None) -> Features:
        """Return the features of an image file or of [H, W, 3] uint8 RGB pixels; see `Extractor.extract`."""
        view = view_image(image, self.max_side, box)
        found = self.compute(view.pixels)
        return self._whole(found, view) if self.is_global else self._local(found, view)

    def _options(self) -> dict[str, Any]:
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        try:
            checked: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"an option of the extractor {self.name!r} is no JSON value ({error})") from None
        return checked

    def _whole(self, found: Any, view: View) -> Features:
        vector = np.asarray(found, np.float32)
        if vector.shape != (self.dim,):
            raise InputError(
                f"the extractor {self.name!r} returned {vector.shape}, expected one descriptor ({self.dim},)"
            )
        height, width = view.pixels.shape[:2]
        centre = np.array([[(width - 1) / 2, (height - 1) / 2, max(width, height)]])
        return Features(vector[None], _keypoints(centre, view), np.ones(1, np.float32), view.image_size)

    def _local(self, found: Any, view: View) -> Features:
        try:
            descriptors, points, scores = (np.asarray(part) for part in found)
        except (TypeError, ValueError):
            raise InputError(
                f"the extractor {self.name!r} must return descriptors, positions and scores of an image"
            ) from None
        if descriptors.dtype not in (np.float16, np.float32):
            descriptors = descriptors.astype(np.float32)
        count, shapes = len(descriptors), (descriptors.shape, points.shape, scores.shape)
        if shapes not in [((count, self.dim), (count, places), (count,)) for places in (2, 3, 4)]:
            raise InputError(
                f"the extractor {self.name!r} returned {', '.join(map(str, shapes))}; expected descriptors "
                f"(n, {self.dim}), positions (n, 2), (n, 3) or (n, 4), and scores (n,)"
            )
        order = np.argsort(-scores, kind="stable")
        return Features(
            descriptors[order], _keypoints(points[order], view), scores[order].astype(np.float32), view.image_size
        )


def _keypoints(points: np.ndarray, view: View) -> np.ndarray:
    """Return keypoints [n, 3|4] float32 in the original for those of the view; scales of 1 pixel if none are given."""
    scales = points[:, 2:3] if points.shape[1] > 2 else np.ones((len(points), 1))
    parts = view.to_original(points[:, :2]), scales * view.scale_factor, points[:, 3:]
    return np.concatenate(parts, axis=1).astype(np.float32)
