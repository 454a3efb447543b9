"""Centre-pivot 4-D convolution: a 2-D convolution over the query, and one over the key, added.

A full 4-D kernel has k⁴ weights; of these, only those are kept in which the query side or the key side is at the centre
of the kernel (Min, Kang and Cho, ICCV 2021, section 4.2). With a stride each convolution sees every `stride`-th place
of the other side, from the first on.

A 4-D tensor is [B, C, h, w, H, W], the query side first. In memory the channels are last, so that the convolution over
the key needs no copy.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.reranking.correlation import correlated

CHUNK_VALUES = 1 << 24
"""Number of correlations that are computed at a time, 64 MB in single precision."""


class CentrePivotConvolution(nn.Module):
    """Two 2-D convolutions with bias, one over each side; their results are added.

    kernel, stride  the same for all four sides; padding is half the kernel
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.query = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.key = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.stride = stride

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, C, h, w, H, W] to [B, outputs, h', w', H', W'], each side divided by the stride, rounded up."""
        over_key = _apart(self.key, maps[:, :, :: self.stride, :: self.stride])
        turned = maps[..., :: self.stride, :: self.stride].permute(0, 1, 4, 5, 2, 3)
        return over_key + _apart(self.query, turned).permute(0, 1, 4, 5, 2, 3)

    def of_correlations(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return what `forward` does of the correlations of unit vectors, of which only a part exists at a time.

        query, key  `unit_levels` of both images, [B, S, D, h, w] and [B, S, D, H, W]; either B may be 1
        """
        count, levels = max(len(query), len(key)), query.shape[1]
        over_key = self._of_places(self.key, query, key, count)
        # With the places of the key as the major levels, the channels of the kernel change places.
        turned = self.query.weight.unflatten(1, (levels, levels)).transpose(1, 2).flatten(1, 2)
        over_query = self._of_places(self.query, key, query, count, turned)
        return over_key + over_query.permute(0, 1, 4, 5, 2, 3)

    def _of_places(
        self,
        convolution: nn.Conv2d,
        places: torch.Tensor,
        whole: torch.Tensor,
        count: int,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Convolve over one image for every `stride`-th place of the other; returns [B, outputs, *places, *image]."""
        seen = places[..., :: self.stride, :: self.stride]
        kernel = convolution.weight if weight is None else weight
        values = count * places.shape[1] * whole[0, :, 0].numel()
        found = []
        for part in seen.flatten(3).split(max(1, CHUNK_VALUES // values), dim=3):
            one = functional.conv2d(correlated(part, whole), kernel, convolution.bias, self.stride, convolution.padding)
            found.append(one.permute(0, 2, 3, 1).unflatten(0, (count, -1)))
        joint = torch.cat(found, 1) if len(found) > 1 else found[0]
        return joint.unflatten(1, seen.shape[-2:]).permute(0, 5, 1, 2, 3, 4)


def _apart(convolution: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    """Convolve [B, C, h, w, H, W] over the last two sides, each of the places of the first two by itself."""
    batch, _, height, width = maps.shape[:4]
    single = maps.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    found: torch.Tensor = convolution(single.contiguous(memory_format=torch.channels_last))
    return found.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2, 4, 5)
