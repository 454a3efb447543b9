"""Slow twins of what reads the artefacts of HOW: one descriptor, one layer at a time."""

from __future__ import annotations

import numpy as np


def rows_by_image(vectors: np.ndarray, numbers: np.ndarray) -> dict[int, list[list[float]]]:
    """The descriptors of each image, by its number, in the order of the file."""
    found: dict[int, list[list[float]]] = {}
    for vector, number in zip(vectors, numbers, strict=True):
        found.setdefault(int(number), []).append([float(value) for value in vector])
    return found


def official_shapes(backbone: str, skip: int, dim: int = 128) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in an official checkpoint of HOW upon ResNet-18 or ResNet-50.

    Source: He et al., Deep Residual Learning, Table 1, under the names of torchvision's children, numbered.
    """
    shapes = {"features.0.weight": (64, 3, 7, 7), **normalisation("features.1", 64)}
    blocks = {"resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}[backbone]
    wide = 4 if backbone == "resnet50" else 1
    inside = 64
    for stage in range(4 - skip):
        width = 64 * 2**stage
        for block in range(blocks[stage]):
            name = f"features.{4 + stage}.{block}"
            if wide == 1:
                kernels = [(width, inside, 3), (width, width, 3)]
            else:
                kernels = [(width, inside, 1), (width, width, 3), (4 * width, width, 1)]
            for number, (out, into, side) in enumerate(kernels, start=1):
                shapes[f"{name}.conv{number}.weight"] = (out, into, side, side)
                shapes |= normalisation(f"{name}.bn{number}", out)
            if block == 0 and (stage > 0 or wide > 1):
                shapes[f"{name}.downsample.0.weight"] = (wide * width, inside, 1, 1)
                shapes |= normalisation(f"{name}.downsample.1", wide * width)
            inside = wide * width
    return {**shapes, "dim_reduction.weight": (dim, inside, 1, 1), "dim_reduction.bias": (dim,)}


def normalisation(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a batch normalisation."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (channels,) for part in parts}, f"{name}.num_batches_tracked": ()}
