"""Slow twins of CVNet-Rerank, with loops in float64, from Lee et al., CVPR 2022, section 4, and its list of layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np


def resized(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation of [C, h, w] with aligned corners."""
    found = np.zeros((len(maps), height, width))
    for y, x in itertools.product(range(height), range(width)):
        at_y = y * (maps.shape[1] - 1) / (height - 1) if height > 1 else 0.0
        at_x = x * (maps.shape[2] - 1) / (width - 1) if width > 1 else 0.0
        low_y, low_x = min(int(at_y), maps.shape[1] - 1), min(int(at_x), maps.shape[2] - 1)
        for next_y, next_x in itertools.product((0, 1), (0, 1)):
            there = min(low_y + next_y, maps.shape[1] - 1), min(low_x + next_x, maps.shape[2] - 1)
            share_y = at_y - low_y if next_y else 1 - (at_y - low_y)
            share_x = at_x - low_x if next_x else 1 - (at_x - low_x)
            found[:, y, x] += share_y * share_x * maps[:, there[0], there[1]]
    return found


def convolved(maps: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """A 2-D convolution of [C, h, w] with kernel [O, C, k, k], padded by k // 2."""
    size = kernel.shape[2]
    rows, columns = (math.ceil(side / stride) for side in maps.shape[1:])
    found = np.zeros((len(kernel), rows, columns))
    for y, x, dy, dx in itertools.product(range(rows), range(columns), range(size), range(size)):
        at_y, at_x = y * stride + dy - size // 2, x * stride + dx - size // 2
        if 0 <= at_y < maps.shape[1] and 0 <= at_x < maps.shape[2]:
            found[:, y, x] += kernel[:, :, dy, dx] @ maps[:, at_y, at_x]
    return found


def pyramid(maps: np.ndarray, kernels: list[np.ndarray]) -> list[np.ndarray]:
    """The levels of [C, h, w]: factors 1/2, 1/√2 and 1, each through its own 3×3 convolution."""
    found = []
    for level, kernel in enumerate(kernels):
        factor = math.sqrt(0.5 ** (len(kernels) - 1 - level))
        sides = [max(1, round(side * factor)) for side in maps.shape[1:]]
        found.append(convolved(resized(maps, *sides), kernel))
    return found


def correlations(query: list[np.ndarray], key: list[np.ndarray]) -> np.ndarray:
    """Cosines of every pair of levels, interpolated on one side and then the other, then negative ones dropped."""
    sides, others = query[-1].shape[1:], key[-1].shape[1:]
    found = []
    for one, other in itertools.product(query, key):
        plain = np.zeros((*one.shape[1:], *other.shape[1:]))
        for p, q in itertools.product(np.ndindex(*one.shape[1:]), np.ndindex(*other.shape[1:])):
            left, right = one[:, p[0], p[1]], other[:, q[0], q[1]]
            plain[p + q] = left @ right / (np.linalg.norm(left) * np.linalg.norm(right) + 1e-8)
        first = resized(plain.reshape(*one.shape[1:], -1).transpose(2, 0, 1), *sides)
        second = first.transpose(1, 2, 0).reshape(-1, *other.shape[1:])
        found.append(np.maximum(resized(second, *others), 0).reshape(*sides, *others))
    return np.stack(found)


def centre_pivot_kernel(over_query: np.ndarray, over_key: np.ndarray) -> np.ndarray:
    """The whole 4-D kernel [O, C, k, k, k, k] of two planes: zero wherever neither side is at its centre."""
    outputs, inputs, size = over_query.shape[:3]
    whole, centre = np.zeros((outputs, inputs, size, size, size, size)), size // 2
    whole[:, :, :, :, centre, centre] += over_query
    whole[:, :, centre, centre] += over_key
    return whole


def convolved4(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """A full 4-D convolution of [C, h, w, H, W] with kernel [O, C, k, k, k, k], padded by k // 2 on all sides."""
    size = kernel.shape[2]
    shape = tuple(math.ceil(side / stride) for side in maps.shape[1:])
    found = np.zeros((len(kernel), *shape))
    for place in np.ndindex(*shape):
        found[(slice(None), *place)] = bias
        for offset in itertools.product(range(size), repeat=4):
            at = tuple(p * stride + o - size // 2 for p, o in zip(place, offset, strict=True))
            if all(0 <= one < side for one, side in zip(at, maps.shape[1:], strict=True)):
                found[(slice(None), *place)] += kernel[(slice(None), slice(None), *offset)] @ maps[(slice(None), *at)]
    return found


def group_normalised(maps: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int = 4) -> np.ndarray:
    """Zero mean and unit variance of each group of channels over all places, then a scale and a shift by channel."""
    found, size = np.zeros_like(maps), len(maps) // groups
    for begin in range(0, len(maps), size):
        part = maps[begin : begin + size]
        found[begin : begin + size] = (part - part.mean()) / math.sqrt(part.var() + 1e-5)
    shape = (-1, *(1 for _ in maps.shape[1:]))
    return found * weight.reshape(shape) + bias.reshape(shape)


def logits(maps: np.ndarray, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The encoder: blocks of 1, 2, 3 and 3 units, the last of the first three with stride 2; mean; two layers."""
    for block, units in enumerate((1, 2, 3, 3)):
        for unit in range(units):
            name = f"blocks.{block}.{unit}."
            kernel = centre_pivot_kernel(*(tensors[f"{name}convolution.{side}.weight"] for side in ("query", "key")))
            bias = sum(tensors[f"{name}convolution.{side}.bias"] for side in ("query", "key"))
            stride = 2 if block < 3 and unit == units - 1 else 1
            maps = convolved4(maps, kernel, np.asarray(bias), stride)
            maps = np.maximum(group_normalised(maps, tensors[f"{name}norm.weight"], tensors[f"{name}norm.bias"]), 0)
    pooled = maps.reshape(len(maps), -1).mean(1)
    hidden = np.maximum(tensors["classifier.0.weight"] @ pooled + tensors["classifier.0.bias"], 0)
    result: np.ndarray = tensors["classifier.2.weight"] @ hidden + tensors["classifier.2.bias"]
    return result
