"""The names of the backbones, and how much of each can be left out."""

from __future__ import annotations

from asmk_engine.networks.efficientnet_lite_plan import ENDS, SCALING

MOST_SKIP: dict[str, int] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), 3),
    "squeezenet1_1": 10,
    "vgg16": 0,
    "resnet50v2": 3,
    **dict.fromkeys(SCALING, len(ENDS) - 1),
}
"""The largest number of trailing parts that can be left out of each backbone."""
