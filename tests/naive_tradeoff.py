"""Slow, obvious twins of the trade-off benchmark: the plan, the Pareto front, and the bytes of a full range."""

import math


def configurations(lists, one_at_a_time):
    """All tuples with one value of each list; or those that differ from the first of each in one place at most."""
    found = [()]
    for values in lists:
        found = [(*begun, value) for begun in found for value in values]
    if one_at_a_time:
        first = tuple(values[0] for values in lists)
        found = [
            configuration
            for configuration in found
            if sum(a != b for a, b in zip(configuration, first, strict=True)) <= 1
        ]
    return set(found)


def front(points):
    """Places of the (bytes, precision) that no other point beats: as few bytes, as precise, and better in one."""

    def beaten(place):
        size, precision = points[place]
        for other, (other_size, other_precision) in enumerate(points):
            as_good = other_size <= size and other_precision >= precision
            better = other_size < size or other_precision > precision
            if as_good and (better or other < place):
                return True
        return False

    return {place for place in range(len(points)) if not beaten(place)}


def list_bytes(count, universe):
    """Bytes of an Elias-Fano list: low bits of all numbers, then one bit a number and one a high part, whole bytes."""
    low = max(8, math.floor(math.log2(universe / count)))
    high_parts = ((universe - 1) >> low) + 1
    return math.ceil(count * low / 8) + math.ceil((count + high_parts) / 8)


def dense_bytes(lengths, images, code_bytes, name_lengths):
    """Bytes of an image where a range of 65 536 images holds each word as often as the `images` at hand."""
    size, total = 65_536, 0.0
    for length in lengths:
        if length:
            count = min(size, max(1, round(length * size / images)))
            total += count * code_bytes + list_bytes(count, size) + 24
    # offsets (one more than images), order, fingerprint, word count
    beside = sum(name_lengths) + 8 * (images + 1) + 4 * images + 8 * images + 4 * images
    return total / size + beside / images
