"""Slow, obvious twins of the losses of global networks, from the papers, with loops over floats."""

import math


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(dot(vector, vector))
    return [value / length for value in vector]


def squared_distance(one: list[float], other: list[float], added: float = 0.0) -> float:
    return sum((a - b + added) ** 2 for a, b in zip(one, other, strict=True))


def cross_entropy(logits: list[float], label: int, smoothing: float) -> float:
    """−Σ q(c) log p(c), q = (1 − ε) [c = label] + ε / C."""
    total = sum(math.exp(logit) for logit in logits)
    found = 0.0
    for place, logit in enumerate(logits):
        share = (1 - smoothing) * (place == label) + smoothing / len(logits)
        found -= share * math.log(math.exp(logit) / total)
    return found


def with_margin(cosine: float, margin: float) -> float:
    """cos(θ + m), and a line where the angle would exceed π."""
    angle = math.acos(cosine)
    return math.cos(angle + margin) if angle < math.pi - margin else cosine - margin * math.sin(margin)


def arcface(
    vector: list[float], label: int, weights: list[list[float]], scale: float, margin: float, smoothing: float
) -> float:
    cosines = [dot(unit(vector), unit(weight)) for weight in weights]
    logits = [scale * (with_margin(c, margin) if place == label else c) for place, c in enumerate(cosines)]
    return cross_entropy(logits, label, smoothing)


def moved(t: float, targets: list[float], rate: float) -> float:
    """The moving average of the cosines of the right classes."""
    return (1 - rate) * t + rate * sum(targets) / len(targets)


def curricular(target: float, other: float, t: float, margin: float) -> float:
    """The cosine of a wrong class: a hard one, above cos(θ + m) of the right one, times t + cos θ."""
    return other * (t + other) if other > math.cos(math.acos(target) + margin) else other


def curricularface(
    vectors: list[list[float]],
    labels: list[int],
    weights: list[list[float]],
    t: float,
    scale: float,
    margin: float,
    rate: float,
) -> tuple[list[float], float]:
    """The losses of a step, and t after it."""
    rows = [[dot(unit(vector), unit(weight)) for weight in weights] for vector in vectors]
    t = moved(t, [row[label] for row, label in zip(rows, labels, strict=True)], rate)
    losses = []
    for row, label in zip(rows, labels, strict=True):
        logits = [curricular(row[label], cosine, t, margin) for cosine in row]
        logits[label] = with_margin(row[label], margin)
        losses.append(cross_entropy([scale * logit for logit in logits], label, 0.0))
    return losses, t


def triplet(
    anchor: list[float], positive: list[float], negatives: list[list[float]], margin: float, squared: bool
) -> float:
    total = 0.0
    for negative in negatives:
        if squared:
            near, far = squared_distance(anchor, positive), squared_distance(anchor, negative)
        else:
            near, far = (math.sqrt(squared_distance(anchor, other, 1e-6)) for other in (positive, negative))
        total += max(0.0, near - far + margin)
    return total


def second_order(anchor: list[float], positive: list[float], negatives: list[list[float]]) -> float:
    total = 0.0
    for negative in negatives:
        total += (squared_distance(anchor, negative) - squared_distance(positive, negative)) ** 2
    return math.sqrt(total)


def average_precision(vectors: list[list[float]], labels: list[int], query: int, bins: int) -> float:
    """AP of one image among all: similarities fall into the two nearest of `bins` values from 1 to 0."""
    width = 1 / (bins - 1)
    found, positives = [0.0] * bins, [0.0] * bins
    for vector, label in zip(vectors, labels, strict=True):
        similarity = min(max(dot(vectors[query], vector), 0.0), 1.0)
        for place in range(bins):
            share = max(0.0, 1 - abs(similarity - (1 - place * width)) / width)
            found[place] += share
            positives[place] += share * (label == labels[query])
    total, before, right = 0.0, 0.0, 0.0
    for place in range(bins):
        before, right = before + found[place], right + positives[place]
        if positives[place]:
            total += right / before * positives[place]
    return total / sum(positives)


def momentum_contrast(
    vectors: list[list[float]],
    labels: list[int],
    queue: list[tuple[list[float], int]],
    t: float,
    scale: float,
    margin: float,
    rate: float,
) -> tuple[list[float], float]:
    """The losses of a step against a queue of vectors with labels, and t after it."""
    pairs = [
        [dot(vector, key) for key, own in queue if own == label] for vector, label in zip(vectors, labels, strict=True)
    ]
    t = moved(t, [cosine for some in pairs for cosine in some], rate)
    losses = []
    for vector, label, some in zip(vectors, labels, pairs, strict=True):
        negatives = [dot(vector, key) for key, own in queue if own != label]
        found = []
        for positive in some:
            right = math.exp(scale * with_margin(positive, margin))
            wrong = sum(math.exp(scale * curricular(positive, other, t, margin)) for other in negatives)
            found.append(-math.log(right / (right + wrong)))
        losses.append(sum(found) / len(found) if found else 0.0)
    return losses, t
