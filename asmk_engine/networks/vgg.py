"""VGG-16 without last pool and classifier (Simonyan and Zisserman, ICLR 2015); parameter names are torchvision's."""

from __future__ import annotations

import torch
from torch import nn

from asmk_engine.networks.backbone import Backbone

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg16(Backbone):
    """Thirteen 3×3 convolutions, each with ReLU, and four 2×2 pools between the stages: 512 channels, stride 16.

    Source: the GeM family (Radenović et al., TPAMI 2018), which leaves out the pool after the last stage.
    """

    offset, least_side = 7.5, 16

    def __init__(self, name: str, skip: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for number, stage in enumerate(STAGES):
            if number:
                self.early_channels, self._last_pool = inputs, len(layers)
                layers.append(nn.MaxPool2d(2))
            for outputs in stage:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.channels, self.stride = inputs, 16

    def early_offset_of(self, side: int) -> float:
        """Return the offset of map 4."""
        return 3.5

    def early(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map before the last pool, [B, 512, h4, w4], of normalised pixels [B, 3, H, W]."""
        found: torch.Tensor = self.features[: self._last_pool](pixels)
        return found

    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, 512, h, w] of the map before the last pool."""
        found: torch.Tensor = self.features[self._last_pool :](maps)
        return found
