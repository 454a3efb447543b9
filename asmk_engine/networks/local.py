"""Local descriptors from a backbone: HOW, DELF and combinations of them, as options of one network.

    pixels ──backbone──▶ map U ──smoothing──▶ Ū ──reduction──▶ descriptors
                        └──attention──▶ scores

HOW (Tolias, Jenicek and Chum, ECCV 2020, §4.1) uses the L2 norm of U as attention, smooths, and reduces in the
network. DELF (Noh et al., ICCV 2017) learns its attention, does not smooth, and reduces unit vectors after training.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.networks.backbones import BACKBONES, build_backbone
from asmk_engine.networks.stored_names import from_stored, to_stored

ATTENTIONS = ("norm", "learned")
POST_REDUCTIONS = ("post", "post-whitening")
REDUCTIONS = ("network", *POST_REDUCTIONS, "none")
HIDDEN = 512  # channels between the two convolutions of a learned attention
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORM_SQUARED_FLOOR = 1e-10  # added under the square root of the attention, as in the HOW code


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
    """

    backbone: str
    skip: int = 0
    attention: str = "norm"
    smoothing: int = 3
    reduction: str = "network"
    dim: int = 128
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]

    def __post_init__(self) -> None:
        for key, choices in (("backbone", tuple(BACKBONES)), ("attention", ATTENTIONS), ("reduction", REDUCTIONS)):
            if getattr(self, key) not in choices:
                raise InputError(f"{key} is {getattr(self, key)!r}; choose one of {', '.join(choices)}")
        for key, least, most in (
            ("skip", 0, BACKBONES[self.backbone].most_skip),
            ("smoothing", 1, 255),
            ("dim", 1, 4096),
        ):
            value = getattr(self, key)
            if type(value) is not int or not least <= value <= most:
                raise InputError(f"{key} is {value!r}; expected a whole number, {least} to {most}, for {self.backbone}")
        if self.smoothing % 2 == 0:
            raise InputError(f"smoothing is {self.smoothing}; expected an odd window side, 1 for none")
        for key in ("mean", "std"):
            _check_rgb(key, getattr(self, key))

    @property
    def is_reduced_afterwards(self) -> bool:
        """Whether the reduction is learned after training, from unit vectors."""
        return self.reduction in POST_REDUCTIONS

    def to_json(self) -> str:
        """Return the options as one line of JSON."""
        return json.dumps(to_stored(asdict(self)), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object) -> LocalOptions:
        """Read the options from a line of JSON; raises DamagedError, in which `where` names the file."""
        try:
            content: dict[str, Any] = from_stored(json.loads(text))
            pixels: dict[str, Any] = {key: tuple(float(value) for value in content.pop(key)) for key in ("mean", "std")}
            return cls(**content, **pixels)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, InputError) as error:
            raise DamagedError(f"{where}: its network options are not readable ({error}); get it again") from None


def _check_rgb(key: str, values: tuple[float, float, float]) -> None:
    """Raise InputError unless `values` are three finite numbers, greater than 0 for `std`."""
    if len(values) != 3 or not all(math.isfinite(value) for value in values) or (key == "std" and min(values) <= 0):
        wanted = "three numbers greater than 0" if key == "std" else "three numbers"
        raise InputError(f"{key} is {list(values)}; expected {wanted} for red, green and blue")


HOW: dict[str, Any] = {"attention": "norm", "smoothing": 3, "reduction": "network"}


class LearnedAttention(nn.Sequential):
    """DELF's attention: 1×1 to 512, ReLU, 1×1 to 1, softplus; maps [B, C, h, w] to [B, 1, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, HIDDEN, 1), nn.ReLU(inplace=True), nn.Conv2d(HIDDEN, 1, 1), nn.Softplus())


class LocalNetwork(nn.Module):
    """A backbone with attention, smoothing and reduction; see `LocalOptions`."""

    def __init__(self, options: LocalOptions) -> None:
        super().__init__()
        self.options = options
        self.backbone = build_backbone(options.backbone, options.skip)
        self.attention = LearnedAttention(self.backbone.channels) if options.attention == "learned" else None
        reduced = options.reduction != "none"
        self.reduction = nn.Conv2d(self.backbone.channels, options.dim, 1) if reduced else None

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.backbone.channels if self.reduction is None else self.options.dim

    def maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smoothed map [B, C, h, w] and the scores [B, h, w] of the map before smoothing."""
        found = self.backbone(pixels)
        scores = norm_attention(found) if self.attention is None else self.attention(found).squeeze(1)
        return smooth(found, self.options.smoothing), scores

    def reduce(self, locations: torch.Tensor) -> torch.Tensor:
        """Return descriptors [..., D] of locations [..., C] of the smoothed map: P c + b.

        With a reduction of unit vectors, locations are normalised before, and descriptors after.
        """
        if self.reduction is None:
            return locations
        weight, bias = self.reduction.weight.flatten(1), self.reduction.bias
        if self.options.reduction == "network":
            return functional.linear(locations, weight, bias)
        reduced = functional.linear(unit_length(locations), weight, bias)
        return unit_length(reduced)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return descriptors [B, D, h, w] and scores [B, h, w] of all locations, at one scale."""
        found, scores = self.maps(pixels)
        return self.reduce(found.movedim(1, -1)).movedim(-1, 1), scores


def norm_attention(found: torch.Tensor) -> torch.Tensor:
    """Return sqrt(Σ_c u_c² + 1e-10) at each location of maps [B, C, h, w]: [B, h, w]. Source: HOW §4.1 and its code."""
    return (found.float().square().sum(1) + NORM_SQUARED_FLOOR).sqrt()


def smooth(found: torch.Tensor, side: int) -> torch.Tensor:
    """Return the average of the side × side locations around each one, without padding at edges. Source: HOW §4.1."""
    if side == 1:
        return found
    return functional.avg_pool2d(found, side, 1, side // 2, count_include_pad=False)


def unit_length(vectors: torch.Tensor) -> torch.Tensor:
    """Divide vectors [..., D] by their length; a zero vector stays zero."""
    return functional.normalize(vectors, dim=-1)


def rescale(pixels: torch.Tensor, scale: float) -> torch.Tensor:
    """Resample pixels [B, 3, H, W] to floor(side · scale), at least 1: bilinear, corners not aligned, no antialiasing.

    Source: the HOW code, where a scale of 1 is the identity, too.
    """
    size = [max(1, int(side * scale)) for side in pixels.shape[-2:]]
    if size == list(pixels.shape[-2:]):
        return pixels
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
