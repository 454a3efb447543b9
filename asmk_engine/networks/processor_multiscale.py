"""Extraction of the strongest locations of an image over many scales, without torch; the twin of `multiscale`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from asmk_engine.networks.local_options import NORM_SQUARED_FLOOR, LocalOptions
from asmk_engine.networks.locations import SCALES, LocalDescriptors, places, scaled_sides
from asmk_engine.networks.processor import ProcessorNetwork


def describe_on_processor(
    network: ProcessorNetwork, pixels: np.ndarray, scales: Sequence[float] = SCALES, count: int = 1000
) -> LocalDescriptors:
    """Return the `count` strongest locations of an image over all scales, as `multiscale.describe` does.

    pixels  [H, W, 3] uint8, RGB

    Only the locations that are kept are smoothed and reduced.
    """
    whole, normalised = pixels.shape[:2], normalised_pixels(pixels, network.options)
    maps, scores, where = [], [], []
    for scale in scales:
        sides = scaled_sides(whole, scale, network.options.side_multiple)
        found = network.map(_resampled(normalised, sides))
        maps.append(found.copy())
        scores.append(np.sqrt(np.einsum("hwc,hwc->hw", found, found) + np.float32(NORM_SQUARED_FLOOR)).reshape(-1))
        where.append(places(network.plan, found.shape[:2], sides, whole))
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")[:count]
    locations = _smoothed(maps, order, network.options.smoothing)
    found_places, largest = np.concatenate(where)[order], every.max(initial=0.0)
    kept = every[order] / largest if largest else every[order]
    return LocalDescriptors(network.reduce(locations), kept, found_places[:, :2], found_places[:, 2])


def normalised_pixels(pixels: np.ndarray, options: LocalOptions) -> np.ndarray:
    """Return (pixels / 255 - mean) / std of [H, W, 3] uint8, float32."""
    found = np.divide(pixels, np.float32(255), dtype=np.float32)
    found -= np.array(options.mean, np.float32)
    found /= np.array(options.std, np.float32)
    return found


def _resampled(normalised: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    if sides == normalised.shape[:2]:
        return normalised
    return cv2.resize(normalised, sides[::-1], interpolation=cv2.INTER_LINEAR)


def _smoothed(maps: list[np.ndarray], order: np.ndarray, side: int) -> np.ndarray:
    """Return the average of the side × side locations around each location of `order`, without those outside: [n, C].

    maps   [h, w, C] of each scale
    order  numbers of locations, counted through all maps, row by row
    """
    begins = np.cumsum([0, *(one.shape[0] * one.shape[1] for one in maps)])
    result = np.empty((len(order), maps[0].shape[2]), np.float32)
    for number, one in enumerate(maps):
        mine = np.flatnonzero((order >= begins[number]) & (order < begins[number + 1]))
        rows, columns = np.divmod(order[mine] - begins[number], one.shape[1])
        result[mine] = _averages(one, rows, columns, side // 2)
    return result


def _averages(one: np.ndarray, rows: np.ndarray, columns: np.ndarray, reach: int) -> np.ndarray:
    """Return the averages around locations of one map; most are not at its edge, so all of their window counts."""
    height, width, channels = one.shape
    inner = (rows >= reach) & (rows < height - reach) & (columns >= reach) & (columns < width - reach)
    result = np.empty((len(rows), channels), np.float32)
    result[inner] = _inner_averages(one, rows[inner], columns[inner], reach)
    result[~inner] = _edge_averages(one, rows[~inner], columns[~inner], reach)
    return result


def _inner_averages(one: np.ndarray, rows: np.ndarray, columns: np.ndarray, reach: int) -> np.ndarray:
    height, width, channels = one.shape
    locations, centres = one.reshape(height * width, channels), rows * width + columns
    total, part = (np.zeros((len(rows), channels), np.float32) for _ in range(2))
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            np.take(locations, centres + (down * width + right), axis=0, out=part, mode="clip")  # `raise` would copy
            total += part
    total /= np.float32((2 * reach + 1) ** 2)
    return total


def _edge_averages(one: np.ndarray, rows: np.ndarray, columns: np.ndarray, reach: int) -> np.ndarray:
    height, width, channels = one.shape
    total, counted = np.zeros((len(rows), channels), np.float32), np.zeros((len(rows), 1), np.float32)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            y, x = rows + down, columns + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            total[inside] += one[y[inside], x[inside]]
            counted[inside] += 1
    return total / counted
