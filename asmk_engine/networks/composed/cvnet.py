"""CVNet-Global: GeM and a linear layer, trained beside a slowly following copy of itself (Lee et al., CVPR 2022).

    map 5 ─GeM─▶ ─linear─▶ vector

The layers are those of GeM-AP. The copy, whose weights follow by momentum, describes the images of a queue; it belongs
to the training, and a network file has only the one that is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from asmk_engine.networks.composed.gem_ap import GemApHead, GemApOptions


@dataclass(frozen=True)
class CvnetOptions(GemApOptions):
    """The switches of CVNet-Global, those of `GemApOptions`."""


class CvnetHead(GemApHead):
    """GeM with learned p and a linear layer."""
