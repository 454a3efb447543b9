"""Slow, obvious twins of training: loss, global vector, mining, from the papers, with loops in float64."""

import math

import numpy as np


def contrastive(anchor: np.ndarray, others: np.ndarray, matches: list[bool], margin: float) -> float:
    """½ y D² + ½ (1 − y) max(0, µ − D)² over the pairs of a tuple, D² = Σ (a − b + 1e-6)²."""
    total = 0.0
    for other, match in zip(others, matches, strict=True):
        squared = 0.0
        for a, b in zip(anchor.tolist(), other.tolist(), strict=True):
            squared += (a - b + 1e-6) ** 2
        distance = math.sqrt(squared)
        total += 0.5 * distance**2 if match else 0.5 * max(0.0, margin - distance) ** 2
    return total


def mine(
    anchors: np.ndarray, anchor_groups: list[int], pool: np.ndarray, pool_groups: list[int], count: int, skip: int = 0
) -> list[list[int]]:
    """Walk down the ranking of each anchor: not its own group, no group twice, the first `skip` skipped."""
    chosen = []
    for anchor, own in zip(anchors.astype(np.float64), anchor_groups, strict=True):
        ranking = sorted(range(len(pool)), key=lambda place: (-float(anchor @ pool[place].astype(np.float64)), place))
        met: set[int] = {own}
        walked = []
        for place in ranking:
            if pool_groups[place] not in met:
                met.add(pool_groups[place])
                walked.append(place)
        chosen.append(walked[skip : skip + count])
    return chosen


def pooled(locations: np.ndarray, scores: np.ndarray, *, learned: bool, unit: bool) -> np.ndarray:
    """Mean of score × location over [h, w, D] if attention is learned, else the mean of locations weighted by score."""
    total, weight = np.zeros(locations.shape[-1]), 0.0
    for y in range(locations.shape[0]):
        for x in range(locations.shape[1]):
            location = locations[y, x].astype(np.float64)
            if unit:
                location = location / max(math.sqrt(float((location**2).sum())), 1e-12)
            total += float(scores[y, x]) * location
            weight += float(scores[y, x])
    return total / scores.size if learned else total / weight


def recoloured(
    pixels: np.ndarray, contrast: float, saturation: float, brightness: float, gains: np.ndarray
) -> np.ndarray:
    """Gains, saturation, contrast, brightness, pixel by pixel; [h, w, 3] float64, neither rounded nor cut."""
    values = np.empty(pixels.shape, np.float64)
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            red, green, blue = (float(v) * float(g) for v, g in zip(pixels[y, x], gains, strict=True))
            grey = 0.299 * red + 0.587 * green + 0.114 * blue
            values[y, x] = [(v - grey) * saturation + grey for v in (red, green, blue)]
    mean = values.mean()
    return (values - mean) * contrast + mean + 255 * brightness


def adam(
    values: np.ndarray,
    gradients: list[np.ndarray],
    rate: float,
    decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> np.ndarray:
    """Values after a step for each gradient: Adam with L2 decay added to the gradient (Kingma and Ba, ICLR 2015)."""
    first, second = np.zeros_like(values), np.zeros_like(values)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + decay * values
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        hat_first, hat_second = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
        values = values - rate * hat_first / (np.sqrt(hat_second) + 1e-8)
    return values
