"""The sizes of a re-ranking transformer, and the scale numbers of local features, without torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import numpy as np

from asmk_engine.errors import DamagedError, InputError

INVERSE_SCALES = tuple(2.0 ** (step / 2) for step in range(-2, 5))
"""The inverse image scales 0.5, 0.7071, 1, 1.4142, 2, 2.8284 and 4 at which DELG finds local features."""


@dataclass(frozen=True)
class TransformerOptions:
    """The sizes of a re-ranking transformer; raises InputError for invalid ones.

    global_dim  dimensions of global descriptors
    dim         dimensions of local descriptors and of the transformer, divisible by `heads`
    layers      number of encoder layers
    heads       number of attention heads
    hidden      dimensions between the two linear layers of an encoder layer
    features    largest number of local features of an image
    """

    global_dim: int = 2048
    dim: int = 128
    layers: int = 6
    heads: int = 4
    hidden: int = 1024
    features: int = 500

    def __post_init__(self) -> None:
        for name, most in (("global_dim", 8192), ("dim", 4096), ("layers", 64), ("heads", 64), ("hidden", 16384),
                           ("features", 10000)):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise InputError(f"{name} is {value!r}; give a whole number from 1 to {most}")
        if self.dim % self.heads:
            raise InputError(f"dim is {self.dim}, heads {self.heads}; give a dim that is divisible by heads")

    def to_json(self) -> str:
        """Return the options as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object) -> TransformerOptions:
        """Read the options from a line of JSON; raises DamagedError, in which `where` names the file."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError, InputError) as error:
            raise DamagedError(f"{where}: its network options are not readable ({error}); get it again") from None


def scale_numbers(sides: np.ndarray, unit: float) -> np.ndarray:
    """Return the number 0 to 6 of the inverse image scale of each local feature, [n] int64.

    sides  [n] scales of the features in pixels of the original image, all above 0
    unit   scale of a feature that was found at the image scale 1, in the same pixels

    The published code looks its float32 scales up among decimal fractions that are slightly greater, so that
    odd powers of the root of 2 get the number of the scale below: only 0, 2, 4 and 6 occur. Its authors kept this,
    since results were worse otherwise (README of the code), and published weights expect it. Sides are rounded, so they
    count as the nearest of the seven scales first.
    """
    steps = np.rint(2.0 * np.log2(np.maximum(sides, 1e-6).astype(np.float64) / unit)).astype(np.int64)
    return np.clip((steps + 2) // 2 * 2, 0, 6)


def scale_unit(stride: float, image_size: tuple[int, int], max_side: int) -> float:
    """Return the scale, in pixels of the original, of a feature that was found at the image scale 1.

    stride    side of a location of the feature map, in pixels of the image as it was described
    max_side  images with a longer side than this were shrunk to it; 0 for no limit
    """
    shrunk = max(1.0, max(image_size) / max_side) if max_side else 1.0
    if not (math.isfinite(stride) and stride > 0):
        raise InputError(f"the stride of the features is {stride}; give a number above 0")
    return stride * shrunk
