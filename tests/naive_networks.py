"""Slow twins of the networks, in float64, one location at a time: written from the papers, not from the modules.

Maps are [C, h, w]. The tensors of a network come as a dictionary under the names that torchvision publishes.
"""

from __future__ import annotations

import math

import numpy as np

Weights = dict[str, np.ndarray]
EPSILON = 1e-5  # of batch normalisation


# ------------------------------------------------------------------------------------------------------------ layers


def convolution(x: np.ndarray, weight: np.ndarray, stride: int = 1, pad: int = 0, bias: object = None) -> np.ndarray:
    """Each output is the sum of products with the window that begins at stride · location − pad; zeros lie around."""
    outputs, _, side, _ = weight.shape
    height, width = (padded(x, pad, 0.0).shape[axis] for axis in (1, 2))
    rows, columns = (height - side) // stride + 1, (width - side) // stride + 1
    wide = padded(x, pad, 0.0)
    found = np.zeros((outputs, rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = wide[:, row * stride : row * stride + side, column * stride : column * stride + side]
            found[:, row, column] = weight.reshape(outputs, -1) @ window.reshape(-1)
    return found if bias is None else found + np.asarray(bias)[:, None, None]


def padded(x: np.ndarray, pad: int, value: float) -> np.ndarray:
    """The map with `pad` locations of a value around it."""
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad)), constant_values=value)


def normalisation(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """Batch normalisation by its running statistics."""
    parts = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (weights[f"{name}.{part}"] for part in parts)
    found = np.zeros_like(x)
    for channel in range(len(x)):
        found[channel] = (x[channel] - mean[channel]) / math.sqrt(variance[channel] + EPSILON)
        found[channel] = found[channel] * weight[channel] + bias[channel]
    return found


def rectified(x: np.ndarray) -> np.ndarray:
    """Negative values become zero."""
    return np.where(x > 0, x, 0.0)


def largest(x: np.ndarray, pad: int = 0, ceil: bool = False) -> np.ndarray:
    """Max pooling over 3 × 3 locations with stride 2; with `ceil` also over partial windows at the far edges."""
    wide = padded(x, pad, -np.inf)
    sides = []
    for side in wide.shape[1:]:
        count = (side - 3) / 2 + 1
        sides.append(math.ceil(count) if ceil else math.floor(count))
    found = np.zeros((len(x), *sides))
    for row in range(sides[0]):
        for column in range(sides[1]):
            found[:, row, column] = wide[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].max(axis=(1, 2))
    return found


# ------------------------------------------------------------------------------------------------------------ blocks


def basic_block(x: np.ndarray, weights: Weights, name: str, stride: int) -> np.ndarray:
    """He et al., Deep Residual Learning, figure 5, left."""
    found = convolution(x, weights[f"{name}.conv1.weight"], stride, 1)
    found = rectified(normalisation(found, weights, f"{name}.bn1"))
    found = normalisation(convolution(found, weights[f"{name}.conv2.weight"], 1, 1), weights, f"{name}.bn2")
    return rectified(found + shortcut(x, weights, name, stride))


def bottleneck(x: np.ndarray, weights: Weights, name: str, stride: int) -> np.ndarray:
    """The same, right, with the stride on the 3 × 3 convolution."""
    found = rectified(normalisation(convolution(x, weights[f"{name}.conv1.weight"]), weights, f"{name}.bn1"))
    found = convolution(found, weights[f"{name}.conv2.weight"], stride, 1)
    found = rectified(normalisation(found, weights, f"{name}.bn2"))
    found = normalisation(convolution(found, weights[f"{name}.conv3.weight"]), weights, f"{name}.bn3")
    return rectified(found + shortcut(x, weights, name, stride))


def shortcut(x: np.ndarray, weights: Weights, name: str, stride: int) -> np.ndarray:
    """The identity, or a projection where the weights hold one."""
    if f"{name}.downsample.0.weight" not in weights:
        return x
    projected = convolution(x, weights[f"{name}.downsample.0.weight"], stride)
    return normalisation(projected, weights, f"{name}.downsample.1")


def pre_activation(x: np.ndarray, weights: Weights, name: str, stride: int) -> np.ndarray:
    """He et al., Identity Mappings, figure 4 (e), as a bottleneck; a projection sees the rectified input."""
    opened = rectified(normalisation(x, weights, f"{name}.bn1"))
    found = convolution(opened, weights[f"{name}.conv1.weight"])
    found = rectified(normalisation(found, weights, f"{name}.bn2"))
    found = convolution(found, weights[f"{name}.conv2.weight"], stride, 1)
    found = rectified(normalisation(found, weights, f"{name}.bn3"))
    found = convolution(found, weights[f"{name}.conv3.weight"])
    if f"{name}.downsample.weight" in weights:
        return found + convolution(opened, weights[f"{name}.downsample.weight"], stride)
    return found + x


def fire(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """Iandola et al., SqueezeNet, figure 1."""

    def layer(part: str, given: np.ndarray, pad: int = 0) -> np.ndarray:
        weight, bias = weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"]
        return rectified(convolution(given, weight, 1, pad, bias))

    squeezed = layer("squeeze", x)
    return np.concatenate([layer("expand1x1", squeezed), layer("expand3x3", squeezed, 1)])


# ------------------------------------------------------------------------------------------------------------ backbones


DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
          "resnet152": (3, 8, 36, 3)}  # fmt: skip


def resnet(x: np.ndarray, weights: Weights, name: str, skip: int) -> np.ndarray:
    """Deep Residual Learning, Table 1, without the last stages."""
    found = rectified(normalisation(convolution(x, weights["conv1.weight"], 2, 3), weights, "bn1"))
    found = largest(found, pad=1)
    block = basic_block if name in ("resnet18", "resnet34") else bottleneck
    for stage, depth in list(enumerate(DEPTHS[name], start=1))[: 4 - skip]:
        for number in range(depth):
            stride = 2 if number == 0 and stage > 1 else 1
            found = block(found, weights, f"layer{stage}.{number}", stride)
    return found


def resnet50v2(x: np.ndarray, weights: Weights, skip: int) -> np.ndarray:
    """As the published file has it: the input normalised, and the map by what opens the next stage."""
    found = convolution(normalisation(x, weights, "bn0"), weights["conv1.weight"], 2, 3)
    found = largest(rectified(normalisation(found, weights, "bn1")), pad=1)
    for stage, depth in list(enumerate((3, 4, 6, 3), start=1))[: 4 - skip]:
        for number in range(depth):
            stride = 2 if number == 0 and stage > 1 else 1
            found = pre_activation(found, weights, f"layer{stage}.{number}", stride)
    return rectified(normalisation(found, weights, "norm"))


SQUEEZENET = ["conv", "relu", "pool", "fire", "fire", "pool", "fire", "fire", "pool", "fire", "fire", "fire", "fire"]


def squeezenet(x: np.ndarray, weights: Weights, skip: int) -> np.ndarray:
    """SqueezeNet 1.1 by the places of torchvision's `features`; pools round up."""
    found = x
    for place, kind in enumerate(SQUEEZENET[: len(SQUEEZENET) - skip]):
        if kind == "conv":
            found = convolution(found, weights["features.0.weight"], 2, 0, weights["features.0.bias"])
        elif kind == "relu":
            found = rectified(found)
        elif kind == "pool":
            found = largest(found, ceil=True)
        else:
            found = fire(found, weights, f"features.{place}")
    return found


def vgg16(x: np.ndarray, weights: Weights) -> np.ndarray:
    """Simonyan and Zisserman, Table 1, D, without the last pool; torchvision's convolutions stand at these places."""
    found, places = x, [0, 2, "pool", 5, 7, "pool", 10, 12, 14, "pool", 17, 19, 21, "pool", 24, 26, 28]
    for place in places:
        if place == "pool":
            found = np.stack([[[channel[row : row + 2, column : column + 2].max()
                                for column in range(0, found.shape[2] - 1, 2)]
                               for row in range(0, found.shape[1] - 1, 2)] for channel in found])  # fmt: skip
        else:
            layer = f"features.{place}"
            found = rectified(convolution(found, weights[f"{layer}.weight"], 1, 1, weights[f"{layer}.bias"]))
    return found


# ------------------------------------------------------------------------------- names and shapes that are published


def resnet_shapes(name: str, skip: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a backbone in torchvision's files."""
    wide = 1 if name in ("resnet18", "resnet34") else 4
    shapes = {"conv1.weight": (64, 3, 7, 7), **normalisation_shapes("bn1", 64)}
    inside = 64
    for stage, depth in list(enumerate(DEPTHS[name], start=1))[: 4 - skip]:
        width = {1: 64, 2: 128, 3: 256, 4: 512}[stage]
        for number in range(depth):
            block = f"layer{stage}.{number}"
            kernels = [(width, inside, 3), (width, width, 3)]
            if wide == 4:
                kernels = [(width, inside, 1), (width, width, 3), (4 * width, width, 1)]
            for layer, (outputs, inputs, side) in enumerate(kernels, start=1):
                shapes[f"{block}.conv{layer}.weight"] = (outputs, inputs, side, side)
                shapes |= normalisation_shapes(f"{block}.bn{layer}", outputs)
            if inside != wide * width:
                shapes[f"{block}.downsample.0.weight"] = (wide * width, inside, 1, 1)
                shapes |= normalisation_shapes(f"{block}.downsample.1", wide * width)
            inside = wide * width
    return shapes


def normalisation_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a batch normalisation."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (channels,) for part in parts}, f"{name}.num_batches_tracked": ()}


def squeezenet_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of SqueezeNet 1.1 in torchvision's files, without the classifier."""
    shapes: dict[str, tuple[int, ...]] = {"features.0.weight": (64, 3, 3, 3), "features.0.bias": (64,)}
    inside = 64
    for place, squeezed, expanded in [(3, 16, 64), (4, 16, 64), (6, 32, 128), (7, 32, 128),
                                      (9, 48, 192), (10, 48, 192), (11, 64, 256), (12, 64, 256)]:  # fmt: skip
        layers = [("squeeze", squeezed, inside, 1), ("expand1x1", expanded, squeezed, 1)]
        for part, outputs, inputs, side in [*layers, ("expand3x3", expanded, squeezed, 3)]:
            shapes[f"features.{place}.{part}.weight"] = (outputs, inputs, side, side)
            shapes[f"features.{place}.{part}.bias"] = (outputs,)
        inside = 2 * expanded
    return shapes


def vgg16_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of VGG-16 in torchvision's files, without the classifier."""
    shapes: dict[str, tuple[int, ...]] = {}
    inside = 3
    for place, outputs in [(0, 64), (2, 64), (5, 128), (7, 128), (10, 256), (12, 256), (14, 256), (17, 512), (19, 512),
                           (21, 512), (24, 512), (26, 512), (28, 512)]:  # fmt: skip
        shapes |= {f"features.{place}.weight": (outputs, inside, 3, 3), f"features.{place}.bias": (outputs,)}
        inside = outputs
    return shapes


# --------------------------------------------------------------------------------------------------- local networks


def norm_attention(x: np.ndarray) -> np.ndarray:
    """The length of the vector of each location, with 1e-10 under the root."""
    found = np.zeros(x.shape[1:])
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            found[row, column] = math.sqrt(sum(float(value) ** 2 for value in x[:, row, column]) + 1e-10)
    return found


def learned_attention(x: np.ndarray, weights: Weights) -> np.ndarray:
    """Noh et al., DELF: two layers on each location, and log(1 + e^s)."""
    found = np.zeros(x.shape[1:])
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            hidden = weights["attention.0.weight"][:, :, 0, 0] @ x[:, row, column] + weights["attention.0.bias"]
            score = weights["attention.2.weight"][0, :, 0, 0] @ rectified(hidden) + weights["attention.2.bias"][0]
            found[row, column] = math.log(1 + math.exp(float(score)))
    return found


def smoothed(x: np.ndarray, side: int) -> np.ndarray:
    """The mean of the locations that there are in the window around each."""
    reach = side // 2
    found = np.zeros_like(x)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            rows = range(max(0, row - reach), min(x.shape[1], row + reach + 1))
            columns = range(max(0, column - reach), min(x.shape[2], column + reach + 1))
            locations = [x[:, r, c] for r in rows for c in columns]
            found[:, row, column] = sum(locations) / len(locations)
    return found


def reduced(location: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One dot product for each dimension."""
    found = [sum(w * c for w, c in zip(row, location, strict=True)) for row in weight]
    return np.array([value + b for value, b in zip(found, bias, strict=True)])


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector over its length; zeros stay."""
    length = math.sqrt(sum(float(value) ** 2 for value in vector))
    return vector / length if length else vector


def resampled(x: np.ndarray, scale: float) -> np.ndarray:
    """Bilinear, corners not aligned: the centre of a target pixel lies at (i + 0.5) · old / new − 0.5 in the source."""
    height, width = x.shape[1:]
    rows, columns = max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    found = np.zeros((len(x), rows, columns))
    for row in range(rows):
        y, ys = _between((row + 0.5) * height / rows - 0.5, height)
        for column in range(columns):
            z, xs = _between((column + 0.5) * width / columns - 0.5, width)
            upper = (1 - z) * x[:, ys[0], xs[0]] + z * x[:, ys[0], xs[1]]
            lower = (1 - z) * x[:, ys[1], xs[0]] + z * x[:, ys[1], xs[1]]
            found[:, row, column] = (1 - y) * upper + y * lower
    return found


def _between(place: float, count: int) -> tuple[float, tuple[int, int]]:
    """How far a place lies behind the pixel before it, and that pixel and the next; none lies outside."""
    place = min(max(place, 0.0), count - 1.0)
    before = math.floor(place)
    return place - before, (before, min(before + 1, count - 1))


def global_descriptor(maps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """HOW §3.3: descriptors [D, h, w] of every scale, each times its score, summed, over length + 1e-6."""
    total = np.zeros(len(maps[0][0]))
    for descriptors, scores in maps:
        for row in range(scores.shape[0]):
            for column in range(scores.shape[1]):
                total = total + scores[row, column] * descriptors[:, row, column]
    return total / (math.sqrt(float(total @ total)) + 1e-6)


def strongest(
    scales: list[tuple[np.ndarray, np.ndarray, tuple[int, int]]],
    size: tuple[int, int],
    *,
    stride: int,
    offset: int,
    count: int,
    relative: bool,
    least: float | None = None,
) -> list[tuple[np.ndarray, float, float, float, float]]:
    """The strongest locations over all scales: the vector, its score, x, y and the side of the location.

    scales    of each a map [C, h, w], scores [h, w], and width and height of the image at that scale
    size      width and height of the image
    relative  scores are divided by the greatest of all
    """
    found = []
    for number, (locations, scores, (width, height)) in enumerate(scales):
        for row in range(scores.shape[0]):
            for column in range(scores.shape[1]):
                x = (offset + stride * column + 0.5) * size[0] / width - 0.5
                y = (offset + stride * row + 0.5) * size[1] / height - 0.5
                side = stride * math.sqrt(size[0] / width * size[1] / height)
                key = (-scores[row, column], number, row, column)
                found.append((key, locations[:, row, column], scores[row, column], x, y, side))
    greatest = max((entry[2] for entry in found), default=1.0) if relative else 1.0
    kept = sorted(found, key=lambda entry: entry[0])[:count]
    kept = [entry for entry in kept if least is None or entry[2] >= least]
    return [(locations, score / greatest, x, y, side) for _, locations, score, x, y, side in kept]


# --------------------------------------------------------------------------------------------------------- whitening


def whitening(locations: np.ndarray, dim: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean m and P = diag(λ)^(−power/2) Eᵀ of vectors [n, C], first `dim` rows; rows are right up to their sign."""
    count, channels = locations.shape
    mean = sum(locations) / count
    covariance = np.zeros((channels, channels))
    for location in locations:
        covariance += np.outer(location - mean, location - mean) / count
    values, directions = np.linalg.eig((covariance + covariance.T) / 2)
    order = sorted(range(channels), key=lambda number: -values[number].real)[:dim]
    rows = [directions[:, number].real * max(values[number].real, 1e-14) ** (-power / 2) for number in order]
    return mean, np.array(rows)
