"""The options of networks of local descriptors, as network files carry them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.networks.backbone_names import MOST_SKIP
from asmk_engine.networks.stored_names import from_stored, to_stored

ATTENTIONS = ("norm", "learned")
POST_REDUCTIONS = ("post", "post-whitening")
REDUCTIONS = ("network", *POST_REDUCTIONS, "none")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORM_SQUARED_FLOOR = 1e-10
"""Added under the square root of the attention, as in the HOW code."""


@dataclass(frozen=True)
class LocalOptions:
    """The options of a local network; raises InputError for invalid values.

    backbone   name in `BACKBONES`
    skip       number of last parts of the backbone that are left out
    attention  `norm`: the L2 norm of the map (HOW's w); `learned`: 1×1 to 512, ReLU, 1×1 to 1, softplus (DELF's ŵ)
    smoothing  window side of the average pooling, 3 in HOW; 1 means none (ĥ)
    reduction  `network`: a 1×1 convolution in the network (HOW's o). `post-whitening`: PCA-whitening of unit vectors to
               unit vectors, learned after training (the ô of HOW's Table 1). `post`: the same with a rotation by PCA,
               without whitening (DELF's code). `none`: descriptors have all channels of the backbone
    dim        dimensions of a reduced descriptor
    mean, std  mean and standard deviation of the pixels, RGB
    side_multiple  resampled images have sides of a multiple of this, so that maps of few sizes occur, and all
               locations of a map are padded alike; 1 for any side, as in the HOW code
    """

    backbone: str
    skip: int = 0
    attention: str = "norm"
    smoothing: int = 3
    reduction: str = "network"
    dim: int = 128
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    side_multiple: int = 1

    def __post_init__(self) -> None:
        for key, choices in (("backbone", tuple(MOST_SKIP)), ("attention", ATTENTIONS), ("reduction", REDUCTIONS)):
            if getattr(self, key) not in choices:
                raise InputError(f"{key} is {getattr(self, key)!r}; choose one of {', '.join(choices)}")
        for key, least, most in (
            ("skip", 0, MOST_SKIP[self.backbone]),
            ("smoothing", 1, 255),
            ("dim", 1, 4096),
            ("side_multiple", 1, 64),
        ):
            value = getattr(self, key)
            if type(value) is not int or not least <= value <= most:
                raise InputError(f"{key} is {value!r}; expected a whole number, {least} to {most}, for {self.backbone}")
        if self.smoothing % 2 == 0:
            raise InputError(f"smoothing is {self.smoothing}; expected an odd window side, 1 for none")
        for key in ("mean", "std"):
            check_rgb(key, getattr(self, key))

    @property
    def is_reduced_afterwards(self) -> bool:
        """Whether the reduction is learned after training, from unit vectors."""
        return self.reduction in POST_REDUCTIONS

    def to_json(self) -> str:
        """Return the options as one line of JSON."""
        content = asdict(self)
        if self.side_multiple == 1:
            del content["side_multiple"]  # so that networks from before there was a choice keep their sha256
        return json.dumps(to_stored(content), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object) -> LocalOptions:
        """Read the options from a line of JSON; raises DamagedError, in which `where` names the file."""
        try:
            content: dict[str, Any] = from_stored(json.loads(text))
            pixels: dict[str, Any] = {key: tuple(float(value) for value in content.pop(key)) for key in ("mean", "std")}
            return cls(**content, **pixels)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, InputError) as error:
            raise DamagedError(f"{where}: its network options are not readable ({error}); get it again") from None


def check_rgb(key: str, values: tuple[float, float, float]) -> None:
    """Raise InputError unless `values` are three finite numbers, greater than 0 for `std`."""
    if len(values) != 3 or not all(math.isfinite(value) for value in values) or (key == "std" and min(values) <= 0):
        wanted = "three numbers greater than 0" if key == "std" else "three numbers"
        raise InputError(f"{key} is {list(values)}; expected {wanted} for red, green and blue")


HOW: dict[str, Any] = {"attention": "norm", "smoothing": 3, "reduction": "network"}
