"""Which share of its backbone's rate has a global network with a head, and which share do its operations allow?

    python benchmarks/global_extraction.py [--networks cvnet,dolg] [--backbone resnet101] [--sides 512,384]
        [--precision fp32] [--rounds 5]

Describes an image at the scales of each network, and passes the same scaled images through its backbone alone, in
alternation. `share` is the ratio of the medians, backbone by network; `allowed` is what it would be if every operation
took the same time: the operations of the backbone divided by all. Weights are random, which takes the same time.
"""

from __future__ import annotations

import argparse

import torch
from timing import alternate, medians, show
from torch.utils.flop_counter import FlopCounterMode

from asmk_engine.networks.composed.network import ComposedNetwork, build_composed
from asmk_engine.networks.composed.resampling import resampled
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.networks.devices import automatic_precision, choose_device


def main() -> None:
    """Parse the arguments, measure every network, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--sides", default="512,384", help="width and height of the image in pixels")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a tiny image and backbone, for a trial in seconds")
    options = parser.parse_args()
    if options.small:
        options.networks, options.backbone, options.sides, options.rounds = "cvnet,dplg", "squeezenet1_1", "96,64", 1
    found: dict[str, float] = {}
    for name in options.networks.split(","):
        found |= {f"{name}_{key}": value for key, value in measured(name, options).items()}
    show(found)


@torch.inference_mode()
def measured(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds of an image, the share of the backbone's rate, and the share that operations allow."""
    device = choose_device(options.device)
    network = build_composed(name, options.backbone).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    width, height = map(int, options.sides.split(","))
    pixels = torch.randn(1, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    scales = network.options.own_scales

    def whole() -> None:
        network.descriptor(pixels, scales, options.precision)
        finish(device)

    def backbone() -> None:
        parts = resampled(pixels, scales, network.backbone.least_side, network.options.kind.resampling)
        with automatic_precision(device, options.precision):
            for part in parts:
                network.backbone.late(network.backbone.early(part))
        finish(device)

    times = medians(alternate({"whole": whole, "backbone": backbone}, options.rounds))
    return {
        "ms": 1000 * times["whole"],
        "share": times["backbone"] / times["whole"],
        "allowed": operations(network, pixels, alone=True) / operations(network, pixels, alone=False),
    }


def operations(network: ComposedNetwork, pixels: torch.Tensor, *, alone: bool) -> int:
    """Return the floating-point operations of an image at its own size, in the backbone alone or in all."""
    counter = FlopCounterMode(display=False)
    with counter:
        if alone:
            network.backbone.late(network.backbone.early(pixels))
        else:
            network(pixels)
    return int(counter.get_total_flops())


def finish(device: torch.device) -> None:
    """Wait for the device, so that the time of a call includes its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
