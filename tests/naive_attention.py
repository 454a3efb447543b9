"""Slow twins of what networks attend to and of the boxes of masks, in float64 and plain loops, from the papers.

Maps are [C, h, w] of one image; `early` is map 4 before the layers between the two maps. `w` has the tensors of a head,
`o` its switches.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import naive_composed as naive
from naive_composed import Map, Vector, Weights, linear, locations, softmax, softplus, within
from naive_networks import rectified


def laid_out(values: list[float], like: Map) -> np.ndarray:
    return np.reshape(values, like.shape[1:])


def gathered(queries: list[Vector], keys: list[Vector], scale: float) -> list[float]:
    """What each key gets of all queries, each of which has as much to give as there are keys, over their number."""
    got = [0.0] * len(keys)
    for query in queries:
        for place, share in enumerate(softmax([scale * naive.inner(query, key) for key in keys])):
            got[place] += share * len(keys) / len(queries)
    return got


def solar(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """Ng et al., ECCV 2020, §3.1: softmax(f(x)ᵀ g(x) / √m), summed over the locations that ask."""
    found = []
    for name, x in (("attention5", map5), ("attention4", early)):
        if getattr(o, name):
            part = within(w, name)
            asked = [
                [
                    rectified(naive.normed_vector(linear(one, part, f"{kind}.0"), part, f"{kind}.1"))
                    for one in locations(x)
                ]
                for kind in ("query", "key")
            ]
            found.append(laid_out(gathered(*asked, 1 / math.sqrt(len(asked[0][0]))), x))
    return found


def agem(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """The mean mask of a location, from (1 + mask) ⊙ x divided by x, which must not be zero."""
    found = []
    for name, x in (("attention5", map5), ("attention4", early)):
        if getattr(o, name):
            part, hidden = within(w, name), x
            for layer in ("mask.0", "mask.1"):
                hidden = naive.conv_norm_relu(hidden, part, layer)
            mask = naive.convolution(hidden, part, "mask.2")
            found.append(laid_out([sum(map(naive.sigmoid, one)) / len(one) for one in locations(mask)], x))
    return found


def glam(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """Song, Han and Avrithis, §3.2: the map of places; §3.4: what each place gets."""
    found = []
    if o.use_local:
        part = within(w, "local")
        narrow = naive.convolution(map5, part, "narrow")
        around = [naive.convolution(narrow, part, f"around.{step}", step + 1) for step in range(3)]
        found.append(naive.convolution(np.concatenate([narrow, *around]), part, "places")[0])
    if o.use_global:
        part = within(w, "whole")
        asked = [[linear(one, part, kind) for one in locations(map5)] for kind in ("query", "key")]
        found.append(laid_out(gathered(*asked, 1.0), map5))
    return found


def dolg(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """Yang et al., §3: the softplus attention, and the length of each local vector less its projection."""
    whole = linear(naive.pooled(map5, w), w, "reduction")
    x = naive.pyramid(map4, within(w, "local.pyramid"), o.dilations, False) if o.pyramid else map4
    scores, lengths = [], []
    for one in locations(x):
        local = naive.normed_vector(linear(one, w, "local.convolution"), w, "local.norm")
        scores.append(softplus(linear(rectified(local), w, "local.attention")[0]))
        local = scores[-1] * naive.unit(local)
        rest = local - naive.inner(local, whole) / naive.inner(whole, whole) * whole
        lengths.append(math.sqrt(naive.inner(rest, rest)))
    return [laid_out(scores, map4), laid_out(lengths, map4)]


def delg(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    return [naive.delg_local(map4, w)[1]]


def dplg(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """Hu and Bors, §3.3: softmax(X_Q X_Kᵀ / √D) of the one query."""
    if not o.dot_product:
        return []
    whole = linear(naive.gem(map5), w, "reduction")
    refined = naive.receptive_fields(map4, within(w, "fields"), o) if o.fields else naive.convolution(map4, w, "fields")
    keys = locations(naive.convolution(refined, w, "dot_product.key"))
    return [laid_out(gathered([linear(whole, w, "dot_product.query")], keys, 1 / math.sqrt(len(whole))), map4)]


def token(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """Wu et al., §3: the shares of the tokens; before them the cross-attention of all decoders, parts and tokens."""
    x = [naive.normed_vector(linear(one, w, "reduction.0"), w, "reduction.1") for one in locations(map5)]
    for number in range(o.encoders):
        part = within(w, f"encoders.{number}")
        x = naive.sums(x, naive.multihead(x, x, within(part, "attention"), o.attention_heads))
        x = naive.sums(x, [linear(naive.normed_vector(one, part, "norm"), part, "linear") for one in x])
    shares = [softmax([naive.inner(query, one) for query in w["queries"][0]]) for one in x]
    each = [[share[number] for share in shares] for number in range(o.tokens)]
    tokens = [linear(naive.mixture(one, x), w, "tokens.0") for one in each]
    tokens = [naive.layer_norm(one, w, "tokens.1") for one in tokens]
    total, width = [0.0] * len(x), o.width // o.attention_heads
    for number in range(o.decoders):
        part = within(w, f"decoders.{number}")
        normed = [naive.layer_norm(one, part, "cross_norm") for one in tokens]
        cross = within(part, "cross_attention")
        queries, keys = [linear(one, cross, "query") for one in normed], [linear(one, cross, "key") for one in x]
        for head in range(o.attention_heads):
            cut = slice(head * width, (head + 1) * width)
            got = gathered([one[cut] for one in queries], [one[cut] for one in keys], 1 / math.sqrt(width))
            total = [a + b / o.attention_heads / o.decoders for a, b in zip(total, got, strict=True)]
        tokens = naive.sums(tokens, naive.multihead(normed, x, cross, o.attention_heads))
        hidden = [naive.gelu(linear(one, part, "perceptron.0")) for one in tokens]
        tokens = naive.sums(tokens, [linear(one, part, "perceptron.3") for one in hidden])
        normed = [naive.layer_norm(one, part, "self_norm") for one in tokens]
        tokens = naive.sums(tokens, naive.multihead(normed, normed, within(part, "self_attention"), o.attention_heads))
    found = [laid_out(total, map5)] if o.decoders else []
    return found + [laid_out(one, map5) for one in each]


def cider(early: Map, map4: Map, map5: Map, w: Weights, o: Any) -> list[np.ndarray]:
    """Song et al., CVPR 2024, eq. 1 and 2."""
    if not o.localisation:
        return []
    x = naive.enhanced(map5, within(w, "enhancement"), o.enhancement)
    if o.context == "sk":
        x = naive.selective(x, within(w, "context"), math.gcd(32, len(x)))
    elif o.context == "aspp":
        x = naive.pyramid(x, within(w, "context"), (6, 12, 18), True)
    raw = [softplus(linear(one, w, "localisation.attention")[0]) for one in locations(x)]
    least, most = min(raw), max(raw)
    return [laid_out([(value - least) / (most - least) if most > least else 1.0 for value in raw], map5)]


# ------------------------------------------------------------------------------------------------------------- boxes


def flooded(mask: list[list[bool]]) -> list[list[tuple[int, int]]]:
    """The connected places of a mask, by filling from one to its eight neighbours, in the order of rows."""
    seen: set[tuple[int, int]] = set()
    found = []
    for row, line in enumerate(mask):
        for column, value in enumerate(line):
            if not value or (row, column) in seen:
                continue
            part, waiting = [], [(row, column)]
            seen.add((row, column))
            while waiting:
                y, x = waiting.pop()
                part.append((y, x))
                for near in [(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]:
                    inside = 0 <= near[0] < len(mask) and 0 <= near[1] < len(line)
                    if inside and mask[near[0]][near[1]] and near not in seen:
                        seen.add(near)
                        waiting.append(near)
            found.append(part)
    return found


def boxes_of_masks(
    values: list[list[float]],
    thresholds: list[float],
    first: tuple[float, float],
    step: tuple[float, float],
    described: tuple[int, int, int, int],
) -> list[tuple[tuple[float, float, float, float], float, int]]:
    """Box, confidence and number of the mask for each component of each mask, the largest component first.

    first, step  the centre of the first location and the distances, the centre of the first pixel being (0, 0)
    described    the part of the photograph; the outermost locations reach to its ends
    """
    least, most = min(map(min, values)), max(map(max, values))
    attention = [[(v - least) / (most - least) if most > least else 1.0 for v in line] for line in values]
    count, found = (len(values[0]), len(values)), []
    for number, threshold in enumerate(thresholds, start=1):
        parts = flooded([[value >= threshold for value in line] for line in attention])
        for part in sorted(parts, key=len, reverse=True):
            ends = []
            for axis, places in enumerate(([x for _, x in part], [y for y, _ in part])):
                low, high = described[axis], described[axis + 2]
                begin = first[axis] + 0.5 + step[axis] * (min(places) - 0.5) if min(places) > 0 else low
                end = first[axis] + 0.5 + step[axis] * (max(places) + 0.5) if max(places) < count[axis] - 1 else high
                ends.append((max(low, min(high, begin)), max(low, min(high, end))))
            confidence = sum(attention[y][x] for y, x in part) / len(part)
            box = (ends[0][0], ends[1][0], ends[0][1], ends[1][1])
            if box[0] < box[2] and box[1] < box[3]:
                found.append((box, confidence, number))
    return found
