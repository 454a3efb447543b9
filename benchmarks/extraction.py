"""How fast is the extraction of deep features, and which steps take the time?

    python benchmarks/extraction.py --data DIR [--photos PHOTOS] [--weights NETWORK.safetensors] [--images 32]

Measures extraction end to end, and then each step alone: decoding and resizing, the network and its convolutions,
selecting and reducing the strongest locations, writing. Without PHOTOS, images are noise of 1024 × 768 pixels; without
weights, those of `--backbone` are random, which takes the same time. The floor is the number of operations divided by
the peak of the machine: that of a large matrix product in the same precision, in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from asmk_engine.extraction.run import extract_images
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureWriter
from asmk_engine.images.listing import find_images
from asmk_engine.networks.checkpoints import save_checkpoint
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.local import LocalNetwork, rescale
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.multiscale import normalise_pixels

HALVES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    """Parse the arguments, measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="output folder")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbone", default="squeezenet1_1")
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--max-side", type=int, default=1024)
    parser.add_argument("--precision", default="fp32", choices=HALVES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="a few tiny images, for a trial in seconds")
    options = parser.parse_args()
    if options.small:
        options.images, options.max_side = 3, 96
    found = measure(options)
    for key, value in found.items():
        print(f"{key:<28} {value:10.3f}")
    print(json.dumps(found))


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return all measurements; times are milliseconds per image."""
    options.data.mkdir(parents=True, exist_ok=True)
    weights = options.weights or random_network(options)
    extractor: Any = load_extractor(
        "how", weights=str(weights), max_side=options.max_side, precision=options.precision, device=options.device
    )
    images = find_images(options.photos or noise(options)).images[: options.images]
    paths = [image.path for image in images]
    extractor.extract(paths[0])  # the first image loads the network
    extractor.describe([extractor.viewer.view(paths[0])] * min(extractor.batch_size, len(paths)))
    output = options.data / f"extraction-{time.time_ns()}.features"
    summary = extract_images(extractor, paths, output)
    steps = alone(extractor, paths, output)
    operations = sum(count_operations(extractor, view) for view in steps.pop("views")) / len(paths)
    floor = operations / peak(extractor)
    return {
        "images_per_second": summary.images_per_second,
        "ms_per_image": 1000 * summary.seconds / len(paths),
        **steps,
        "over_convolutions": 1000 * summary.seconds / len(paths) / steps["convolutions_ms"],
        "gigaoperations": operations / 1e9,
        "floor_ms": 1000 * floor,
        "share_of_peak": floor / (summary.seconds / len(paths)),
    }


def alone(extractor: Any, paths: list[Path], output: Path) -> dict[str, Any]:
    """Measure each step alone, in milliseconds per image."""
    decode, views = timed(lambda: [extractor.viewer.view(path) for path in paths])
    convolutions = Convolutions(extractor.network)
    with torch.inference_mode():
        network, _ = timed(lambda: [forward(extractor, view) for view in views], extractor.network_device)
        with convolutions:
            for view in views:
                forward(extractor, view)
    described, features = timed(lambda: extractor.describe(views), extractor.network_device)
    write, _ = timed(lambda: write_features(extractor, features, output.with_suffix(".alone.features")))
    count = len(paths)
    return {
        "decode_ms": 1000 * decode / count,
        "network_ms": 1000 * network / count,
        "convolutions_ms": 1000 * convolutions.seconds / count,
        "select_ms": max(1e-3, 1000 * (described - network) / count),
        "write_ms": 1000 * write / count,
        "views": views,
    }


def timed(function: Callable[[], Any], device: torch.device | None = None) -> tuple[float, Any]:
    """Return the seconds and the result, after waiting for the GPU if there is one."""
    synchronise(device)
    begun = time.perf_counter()
    result = function()
    synchronise(device)
    return time.perf_counter() - begun, result


def synchronise(device: torch.device | None) -> None:
    """Wait until a GPU has finished its work."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def forward(extractor: Any, view: Any) -> None:
    """Run the network at every scale, without selecting features."""
    pixels = torch.from_numpy(view.pixels)[None].to(extractor.network_device)
    normalised = normalise_pixels(pixels, extractor.network.options)
    with automatic_precision(extractor.network_device, extractor.precision):
        for scale in extractor.scales:
            resampled = rescale(normalised, scale)
            if min(resampled.shape[-2:]) >= extractor.network.backbone.least_side:
                extractor.network.maps(resampled)


class Convolutions:
    """Seconds spent in convolutions while the context is open."""

    def __init__(self, network: nn.Module) -> None:
        self._layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        self._device = next(network.parameters()).device
        self.seconds = 0.0

    def __enter__(self) -> Convolutions:
        self._hooks = [layer.register_forward_pre_hook(self._begin) for layer in self._layers]
        self._hooks += [layer.register_forward_hook(self._end) for layer in self._layers]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *arguments: object) -> None:
        synchronise(self._device)
        self._begun = time.perf_counter()

    def _end(self, *arguments: object) -> None:
        synchronise(self._device)
        self.seconds += time.perf_counter() - self._begun


def count_operations(extractor: Any, view: Any) -> float:
    """Count the multiplications and additions in the convolutions for one image at all scales."""
    total = 0.0

    def count(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        total += 2.0 * output.numel() * layer.weight[0].numel()

    layers = [layer for layer in extractor.network.backbone.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        forward(extractor, view)
    for hook in hooks:
        hook.remove()
    return total


def peak(extractor: Any) -> float:
    """Measure the operations per second of a large matrix product on the same device and precision, median of seven."""
    device = extractor.network_device
    side = 8192 if device.type == "cuda" else 2048
    one = torch.rand(side, side, device=device).to(HALVES[extractor.precision])
    seconds = [timed(lambda: one @ one, device)[0] for _ in range(8)][1:]
    return 2 * side**3 / median(seconds)


def write_features(extractor: Any, features: list[Any], output: Path) -> None:
    """Write a feature set of these features."""
    with FeatureWriter(output, extractor.recipe, extractor.dim) as writer:
        for number, found in enumerate(features):
            writer.add(f"{number}.jpg", found)


def random_network(options: argparse.Namespace) -> Path:
    """Write a network with random weights."""
    torch.manual_seed(0)
    path = options.data / f"{options.backbone}-{options.skip}.network.safetensors"
    save_checkpoint(path, LocalNetwork(LocalOptions(options.backbone, options.skip)), {})
    return Path(path)


def noise(options: argparse.Namespace) -> Path:
    """Write a folder of noise images with aspect ratio 4 : 3."""
    folder: Path = options.data / f"noise-{options.max_side}"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(options.images):
        path = folder / f"{number:04d}.jpg"
        if not path.exists():
            pixels = rng.integers(0, 256, (options.max_side * 3 // 4, options.max_side, 3), np.uint8)
            Image.fromarray(pixels).save(path, quality=90)
    return folder


if __name__ == "__main__":
    main()
