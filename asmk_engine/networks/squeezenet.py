"""SqueezeNet 1.1 without the classifier (Iandola et al., arXiv 1602.07360); parameter names are torchvision's."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import InputError
from asmk_engine.networks.backbone import Backbone

# Fire modules by index in `features`: (input, squeezed, output) channels.
FIRES = {3: (64, 16, 128), 4: (128, 16, 128), 6: (128, 32, 256), 7: (256, 32, 256), 9: (256, 48, 384),
         10: (384, 48, 384), 11: (384, 64, 512), 12: (512, 64, 512)}  # fmt: skip
POOLS = (2, 5, 8)
PLACES = 13


class Fire(nn.Module):
    """A squeezing 1×1 convolution, then parallel 1×1 and 3×3 convolutions, each with ReLU."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, outputs // 2, 1)
        self.expand3x3 = nn.Conv2d(squeezed, outputs // 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, h, w] to [B, outputs, h, w]."""
        sides = self._sides(x)
        if torch.is_grad_enabled():
            return functional.relu(torch.cat(sides, 1), inplace=True)
        return _rectified(*sides)

    def unrectified(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same before the last ReLU."""
        return torch.cat(self._sides(x), 1)

    def _sides(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        squeezed = functional.relu(self.squeeze(x), inplace=True)
        return self.expand1x1(squeezed), self.expand3x3(squeezed)


def _rectified(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Concatenate and rectify two maps in one pass, four times as fast as in two steps on a CPU."""
    half = one.shape[1]
    shape = (one.shape[0], half + other.shape[1], *one.shape[2:])
    both = torch.empty(shape, dtype=one.dtype, device=one.device, memory_format=torch.channels_last)
    torch.clamp_min(one, 0, out=both[:, :half])
    torch.clamp_min(other, 0, out=both[:, half:])
    return both


class SqueezeNet(Backbone):
    """SqueezeNet 1.1 without the last `skip` entries of torchvision's `features`; complete: 512 channels, stride 16.

    Pools round up, as in torchvision, so a partial window at the edge yields a location. Nothing is padded before the
    first pool: the receptive field of location 0 is centred at pixel 15.
    """

    def __init__(self, name: str, skip: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True)]
        self.channels, self.stride = 64, 2
        self.early_channels, self._last_pool = 3, 0
        for place in range(len(layers), PLACES - skip):
            if place in POOLS:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                self.stride *= 2
                self.early_channels, self._last_pool = self.channels, place
            else:
                layers.append(Fire(*FIRES[place]))
                self.channels = FIRES[place][2]
        self.offset, self.least_side = self.stride - 1, self.stride + 1
        self.features = nn.Sequential(*layers)

    def early_offset_of(self, side: int) -> float:
        """Return the offset of map 4."""
        return self.stride / 2 - 1

    def early(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map before the last pool, [B, C4, h4, w4], of normalised pixels [B, 3, H, W]."""
        found: torch.Tensor = self.features[: self._last_pool](pixels)
        return found

    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of the map before the last pool."""
        found: torch.Tensor = self.features[self._last_pool :](maps)
        return found

    def unrectified(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] before the last ReLU; raises InputError if it ends with a pool."""
        *layers, last = self.features
        if not isinstance(last, Fire):
            raise InputError("squeezenet without its last 1, 4 or 7 parts ends with a ReLU or a pool; leave out others")
        for layer in layers:
            pixels = layer(pixels)
        return last.unrectified(pixels)


def onnx_names(skip: int) -> dict[str, str]:
    """Map parameter names to names in the published ONNX file, without prefix, for a backbone with this `skip`."""
    names = _layer("features.0", 0)
    number = 1
    for place in sorted(FIRES):
        if place < PLACES - skip:
            for part in ("squeeze", "expand1x1", "expand3x3"):
                names |= _layer(f"features.{place}.{part}", number)
                number += 1
    return names


def _layer(here: str, number: int) -> dict[str, str]:
    return {f"{here}.{part}": f"conv{number}_{part}" for part in ("weight", "bias")}
