"""Slow twins of everything about regions, in float64 and plain loops, from the paper and the formats."""

import math


def norm(values):
    return math.sqrt(sum(value * value for value in values))


def residual_sums(descriptors, words, centroids):
    """word → sum of the residuals of the descriptors of a region, each assigned to one word."""
    sums = {}
    for descriptor, word in zip(descriptors, words, strict=True):
        residual = [float(x) - float(c) for x, c in zip(descriptor, centroids[word], strict=True)]
        old = sums.get(int(word), [0.0] * len(residual))
        sums[int(word)] = [a + b for a, b in zip(old, residual, strict=True)]
    return sums


def joined_regions(regions, centroids):
    """word → mean over the regions of its part of the unit vector of all residual sums of each region.

    regions  (descriptors, words) of each region. Words whose mean is no longer than 1e-6 are left out.
    """
    total = {}
    for descriptors, words in regions:
        sums = residual_sums(descriptors, words, centroids)
        length = norm([value for vector in sums.values() for value in vector])
        for word, vector in sums.items():
            for place, value in enumerate(vector):
                mean = total.setdefault(word, [0.0] * len(vector))
                mean[place] += value / max(length, 1e-6) / len(regions)
    kept = {word: vector for word, vector in total.items() if norm(vector) > 1e-6}
    return {word: [value / norm(vector) for value in vector] for word, vector in kept.items()}


def inside(keypoints, box):
    """The rows of places in a box that is widened to whole pixels; pixel 0 is from -0.5 to 0.5."""
    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    return [
        row
        for row, (x, y) in enumerate(keypoints)
        if left <= math.floor(x + 0.5) < right and top <= math.floor(y + 0.5) < bottom
    ]


def regional_score(query, image, alpha=3.0):
    """The score of R-ASMK of two images, word → bits: the sum over common words, which nothing divides."""
    total = 0.0
    for word in sorted(set(query) & set(image)):
        differing = sum(a != b for a, b in zip(query[word], image[word], strict=True))
        similarity = 1 - 2 * differing / len(query[word])
        total += similarity**alpha if similarity > 0 else 0.0
    return total


def components(mask):
    """The connected sets of true places of a mask, rows of (row, column), neighbours sharing a side or a corner."""
    left = {(r, c) for r, line in enumerate(mask) for c, value in enumerate(line) if value}
    found = []
    while left:
        waiting, part = [min(left)], set()
        left.discard(waiting[0])
        while waiting:
            row, column = waiting.pop()
            part.add((row, column))
            around = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= around
            waiting.extend(sorted(around))
        found.append(part)
    return found


def attention_boxes(attention, threshold, size):
    """Boxes with a score of the components of attention ≥ threshold: their extent in pixels, their greatest value."""
    height, width = len(attention), len(attention[0])
    boxes = []
    for part in components([[value >= threshold for value in line] for line in attention]):
        rows, columns = [row for row, _ in part], [column for _, column in part]
        box = (
            min(columns) * size[0] / width,
            min(rows) * size[1] / height,
            (max(columns) + 1) * size[0] / width,
            (max(rows) + 1) * size[1] / height,
        )
        boxes.append((box, sum(attention[row][column] for row, column in part) / len(part)))
    return boxes


def message(boxes):
    """The bytes of the message of protocol buffers of boxes (ymin, xmin, ymax, xmax, score, class)."""
    import struct

    content = b""
    for one in boxes:
        part = b"".join(bytes([number << 3 | 5]) + struct.pack("<f", value) for number, value in enumerate(one[:5], 1))
        part += bytes([6 << 3, one[5]])
        content += bytes([1 << 3 | 2, len(part)]) + part
    return content
