"""RootSIFT: OpenCV's SIFT (Lowe, IJCV 2004) with the Hellinger kernel (Arandjelović and Zisserman, CVPR 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from asmk_engine.extraction.attempts import Origin
from asmk_engine.extractors import FolderExtractor
from asmk_engine.extractors.options import all_options, check_options, option, recipe_options, stored_as
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import view_image
from asmk_engine.images.listing import PathLike
from asmk_engine.recipes import Recipe

LAYERS = 3
SIGMA = 1.6
SMALLEST_SIDE = 16
"""Images with a shorter side below this have no features: SIFT detects nothing within 5 pixels of the border."""


@dataclass(frozen=True)
class RootSift(FolderExtractor):
    """The strongest SIFT keypoints, described by RootSIFT; the fields are its options.

    max_features        number of keypoints to keep, the strongest by absolute response
    max_side            larger images are shrunk until their longer side is this many pixels
    contrast_threshold  minimum contrast of a keypoint: lower finds more in pale or dark images, and more noise
    edge_threshold      maximum ratio of curvatures: higher keeps more keypoints on edges
    dtype               type of the stored descriptors, `float16` or `float32`
    """

    max_features: int = option(2000, 1, 1_000_000)
    max_side: int = option(1024, SMALLEST_SIDE, 16384)
    contrast_threshold: float = option(0.02, 0.0, 1.0)
    edge_threshold: float = option(10.0, 1.0, 1000.0)
    dtype: str = stored_as()

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def recipe(self) -> Recipe:
        """The name and all options, the type only if it is not the default."""
        return Recipe("rootsift", recipe_options(self))

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return 128

    @property
    def origin(self) -> Origin:
        """The function and options with which a worker process creates an equal extractor."""
        return Origin("asmk_engine.extractors:load_extractor", {"name": "rootsift", **all_options(self)})

    def extract(self, image: PathLike | np.ndarray, box: Box | None = None) -> Features:
        """Return the features of an image file or of [H, W, 3] uint8 RGB pixels, strongest first.

        box  x1, y1, x2, y2 in pixels of the upright original: only this part is described, at the scale of the whole

        Descriptors are [n, 128] of type `dtype`; keypoints [n, 4] are in pixels of the whole upright original, their
        scale is SIFT's diameter, their angle that of the strongest gradients. An image without texture has no features.
        Raises InputError if the image or the box cannot be used.
        """
        view = view_image(image, self.max_side, box)
        table, raw = self._detect(view.pixels)
        x, y, size, angle, response = table.T
        # One position can have several keypoints of equal response and different angles; this makes their order unique.
        order = np.lexsort((angle, size, x, y, -response))[: self.max_features]
        others = np.stack([size * view.scale_factor, np.radians(angle)], axis=1)
        keypoints = np.concatenate([view.to_original(table[:, :2]), others], axis=1).astype(np.float32)
        return Features(rootsift(raw[order]).astype(self.dtype), keypoints[order], response[order], view.image_size)

    def _detect(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x, y, diameter, angle, response [n, 5] and raw SIFT [n, 128], float32.

        Ties in response may exceed `max_features`.
        """
        if min(pixels.shape[:2]) < SMALLEST_SIDE:
            return np.zeros((0, 5), np.float32), np.zeros((0, 128), np.float32)
        sift = cv2.SIFT.create(
            nfeatures=self.max_features,
            nOctaveLayers=LAYERS,
            contrastThreshold=self.contrast_threshold,
            edgeThreshold=self.edge_threshold,
            sigma=SIGMA,
            enable_precise_upscale=True,  # without it every keypoint is a quarter of a pixel too far to the lower right
        )
        found, raw = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        if not found:
            return np.zeros((0, 5), np.float32), np.zeros((0, 128), np.float32)
        return np.array([(*key.pt, key.size, key.angle, key.response) for key in found], np.float32), raw


def rootsift(descriptors: np.ndarray) -> np.ndarray:
    """Return RootSIFT [n, 128] of raw SIFT [n, 128]: L1 normalisation, then the square root of every component.

    The results have unit Euclidean length; a zero descriptor stays zero. Arandjelović and Zisserman, CVPR 2012, §2.
    """
    sums = descriptors.sum(axis=1, keepdims=True)
    return np.sqrt(descriptors / np.where(sums > 0, sums, 1))
