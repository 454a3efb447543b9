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
                layers.append(nn.MaxPool2d(2))
            for outputs in stage:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.channels, self.stride = inputs, 16

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of normalised pixels [B, 3, H, W]."""
        found: torch.Tensor = self.features(pixels)
        return found
