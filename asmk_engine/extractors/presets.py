"""Presets, names for an extractor with a particular network: `how-squeezenet` is `how` on SqueezeNet 1.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asmk_engine.networks.efficientnet_lite_plan import PIXELS


@dataclass(frozen=True)
class Preset:
    """An extractor and the backbone that its weights must have.

    extractor  name of the extractor
    backbone   name of the backbone
    skip       number of last parts of the backbone that are left out
    published  name of weights for it, for `asmk-engine weights fetch`; empty if none are published
    network    further options of a network that is made from the weights
    defaults   options of the extractor where the preset differs from it
    """

    extractor: str
    backbone: str
    skip: int = 0
    published: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


LITE_SKIP, LITE_DIM = 1, 128
LITE_SCALES = (1.25, 0.884, 0.625, 0.442, 0.3125, 0.221, 0.15625)
"""Seven scales as HOW's, of an image of 1024 pixels as those are of one of 640: the same work, on pixels that exist."""
DEFAULT = "how-efficientnet-lite0"
"""The extractor of a new index if none is chosen; its network and vocabulary come with the package."""


def _lite(number: int) -> Preset:
    """Return the preset of an EfficientNet-Lite; its options were chosen on photographs, see docs/halves.md."""
    name = f"efficientnet_lite{number}"
    network = {"dim": LITE_DIM, "mean": PIXELS[0], "std": PIXELS[1], "side_multiple": 16}
    published = name if number < 3 else ""
    return Preset("how", name, LITE_SKIP, published, network, {"scales": LITE_SCALES, "precision": "bf16"})


UNSHRUNK = {"max_side": 16384}
"""Images keep their size, as in the codes of DIR, DOLG and CVNet; this side is the longest that any option allows."""

PRESETS = {
    "how-r18": Preset("how", "resnet18", 0, "how-r18"),
    "how-r50-": Preset("how", "resnet50", 1, "how-r50-"),
    "how-resnet18": Preset("how", "resnet18", 0, "resnet18"),
    "how-resnet18-": Preset("how", "resnet18", 1, "resnet18"),
    "how-resnet34": Preset("how", "resnet34", 0, "resnet34"),
    "how-resnet50": Preset("how", "resnet50", 1, "resnet50"),
    "how-resnet50-full": Preset("how", "resnet50", 0, "resnet50"),
    "how-resnet101": Preset("how", "resnet101", 1, "resnet101"),
    "how-squeezenet": Preset("how", "squeezenet1_1", 0, "squeezenet1_1"),
    "how-resnet50v2": Preset("how", "resnet50v2", 1),
    **{f"how-efficientnet-lite{number}": _lite(number) for number in range(5)},
    "delf-resnet18": Preset("delf", "resnet18", 0, "resnet18"),
    "delf-resnet50": Preset("delf", "resnet50", 1, "resnet50"),
    "delf-squeezenet": Preset("delf", "squeezenet1_1", 0, "squeezenet1_1"),
    "delf-resnet50v2": Preset("delf", "resnet50v2", 1),
    "gem-vgg16": Preset("gem", "vgg16", 0, "gem-vgg16"),
    "gem-resnet101": Preset("gem", "resnet101", 0, "gem-resnet101"),
    "gem-w-resnet50": Preset("gem", "resnet50", 0, "gem-w-resnet50"),
    "gem-w-resnet101": Preset("gem", "resnet101", 0, "gem-w-resnet101"),
    "gem-w-resnet152": Preset("gem", "resnet152", 0, "gem-w-resnet152"),
    "gem-w-gl18-resnet50": Preset("gem", "resnet50", 0, "gem-w-gl18-resnet50"),
    "gem-w-gl18-resnet101": Preset("gem", "resnet101", 0, "gem-w-gl18-resnet101"),
    "gem-w-gl18-resnet152": Preset("gem", "resnet152", 0, "gem-w-gl18-resnet152"),
    "gem-resnet18": Preset("gem", "resnet18", 0, "resnet18"),
    "gem-resnet50": Preset("gem", "resnet50", 0, "resnet50"),
    "gem-squeezenet": Preset("gem", "squeezenet1_1", 0, "squeezenet1_1"),
    "gem-resnet50v2": Preset("gem", "resnet50v2", 1),
    "solar-resnet101": Preset("solar", "resnet101", 0, "solar-resnet101"),
    "gem-ap-resnet50": Preset("gem-ap", "resnet50", 0, "gem-ap-resnet50", defaults=UNSHRUNK),
    "gem-ap-resnet101": Preset("gem-ap", "resnet101", 0, "gem-ap-resnet101", defaults=UNSHRUNK),
    "gem-ap-lm18-resnet101": Preset("gem-ap", "resnet101", 0, "gem-ap-lm18-resnet101", defaults=UNSHRUNK),
    "dolg-resnet50": Preset("dolg", "resnet50", 0, "dolg-resnet50", defaults=UNSHRUNK),
    "dolg-resnet101": Preset("dolg", "resnet101", 0, "dolg-resnet101", defaults=UNSHRUNK),
    "cvnet-resnet50": Preset("cvnet", "resnet50", 0, "cvnet-resnet50", defaults=UNSHRUNK),
    "cvnet-resnet101": Preset("cvnet", "resnet101", 0, "cvnet-resnet101", defaults=UNSHRUNK),
    "token-resnet50": Preset("token", "resnet50", 0, "token-resnet50"),
    "token-resnet101": Preset("token", "resnet101", 0, "token-resnet101"),
}
"""All presets by name.

`how-r18`, `how-r50-`, `gem-vgg16`, `gem-resnet101`, `gem-w-…`, `gem-ap-…`, `solar-…`, `dolg-…`, `cvnet-…` and `token-…`
are published networks trained for retrieval; they prepare images as their official codes do. The others have ImageNet
weights (`how-resnet18-` without its last stage, `how-resnet50-full` with all): `how-…` and `delf-…` must be whitened or
trained, `gem-…` can be used as they are.
"""
