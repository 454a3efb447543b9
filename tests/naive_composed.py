"""Slow twins of the composed networks' heads, in float64, one location or channel at a time, written from the papers.

Maps are [C, h, w] of one image. `w` has the tensors of a head, `o` its switches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from naive_global import gem, over_norm
from naive_networks import normalisation, rectified

Weights = dict[str, np.ndarray]
Map = np.ndarray
Vector = np.ndarray
LAYER_EPSILON = 1e-5


# ------------------------------------------------------------------------------------------------------------ layers


def inner(one: Sequence[float], other: Sequence[float]) -> float:
    """Σ aᵢ bᵢ."""
    return math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def linear(vector: Vector, w: Weights, name: str) -> Vector:
    """W v + b, one output at a time; W may be that of a 1×1 convolution."""
    weight = w[f"{name}.weight"].reshape(len(w[f"{name}.weight"]), -1)
    bias = w.get(f"{name}.bias", np.zeros(len(weight)))
    return np.array([inner(row, vector) + bias[number] for number, row in enumerate(weight)])


def everywhere(x: Map, function: Any) -> Map:
    """The map of function(vector at a location), location by location."""
    _, height, width = x.shape
    found = [[function(x[:, row, column]) for column in range(width)] for row in range(height)]
    return np.array(found).transpose(2, 0, 1)


def locations(x: Map) -> list[Vector]:
    """The vectors of all locations, row by row."""
    return [x[:, row, column] for row in range(x.shape[1]) for column in range(x.shape[2])]


def map_of(vectors: Sequence[Vector], like: Map) -> Map:
    """The map whose locations, row by row, are these."""
    found = np.zeros((len(vectors[0]), *like.shape[1:]))
    for number, vector in enumerate(vectors):
        found[:, number // like.shape[2], number % like.shape[2]] = vector
    return found


def convolution(x: Map, w: Weights, name: str, dilation: int = 1, groups: int = 1) -> Map:
    """A convolution of stride 1 that keeps the size: what lies outside the map counts as zero."""
    weight = w[f"{name}.weight"]
    outputs, inputs, side, _ = weight.shape
    bias = w.get(f"{name}.bias", np.zeros(outputs))
    found = np.zeros((outputs, *x.shape[1:]))
    for output in range(outputs):
        first = output // (outputs // groups) * inputs
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                total = bias[output]
                for i in range(side):
                    for j in range(side):
                        y, z = row + (i - side // 2) * dilation, column + (j - side // 2) * dilation
                        if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                            total += float(weight[output, :, i, j] @ x[first : first + inputs, y, z])
                found[output, row, column] = total
    return found


def normed_vector(vector: Vector, w: Weights, name: str) -> Vector:
    """Batch normalisation of one vector by the running statistics."""
    return normalisation(vector[:, None, None], w, name)[:, 0, 0]


def layer_norm(vector: Vector, w: Weights, name: str) -> Vector:
    """Each value less the mean, over the standard deviation, of the vector itself."""
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    scaled = (vector - mean) / math.sqrt(variance + LAYER_EPSILON)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def softmax(values: Sequence[float]) -> list[float]:
    raised = [math.exp(value - max(values)) for value in values]
    return [value / sum(raised) for value in raised]


def mixture(shares: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    """Σ share · vector."""
    total = np.zeros(len(vectors[0]))
    for share, vector in zip(shares, vectors, strict=True):
        total = total + share * vector
    return total


def attended(query: Vector, keys: Sequence[Vector], values: Sequence[Vector], scale: float) -> Vector:
    """The values mixed by the softmax of the products of their keys with the query."""
    return mixture(softmax([scale * inner(query, key) for key in keys]), values)


def averages(x: Map) -> Vector:
    return np.array([sum(channel.flat) / channel.size for channel in x])


def unit(vector: Vector) -> Vector:
    return vector / math.sqrt(inner(vector, vector))


def along_channels(vector: Vector, w: Weights, name: str) -> Vector:
    """A convolution along the channels, zeros beyond the first and the last."""
    kernel = w[f"{name}.weight"][0, 0]
    half, found = len(kernel) // 2, []
    for place in range(len(vector)):
        inside = [(step, place + step - half) for step in range(len(kernel)) if 0 <= place + step - half < len(vector)]
        found.append(sum(kernel[step] * vector[there] for step, there in inside))
    return np.array(found)


def pooled(x: Map, w: Weights, name: str = "pool") -> Vector:
    return gem(x, float(w[f"{name}.exponent"][0]) if f"{name}.exponent" in w else 3.0)


def within(w: Weights, name: str) -> Weights:
    """The tensors of a part, by their names within it."""
    return {key[len(name) + 1 :]: value for key, value in w.items() if key.startswith(f"{name}.")}


def conv_norm_relu(x: Map, w: Weights, name: str, dilation: int = 1, groups: int = 1) -> Map:
    """The convolution `name.0`, the normalisation `name.1`, ReLU."""
    return rectified(normalisation(convolution(x, w, f"{name}.0", dilation, groups), w, f"{name}.1"))


# ------------------------------------------------------------------------------------------------------------- SOLAR


def second_order(x: Map, w: Weights) -> Map:
    """Ng et al., §3.1: x + v(softmax(f(x)ᵀ g(x) / √m) h(x))."""

    def similar(vector: Vector, name: str) -> Vector:
        return rectified(normed_vector(linear(vector, w, f"{name}.0"), w, f"{name}.1"))

    keys = [similar(vector, "key") for vector in locations(x)]
    values = [linear(vector, w, "value") for vector in locations(x)]
    found = []
    for vector in locations(x):
        query = similar(vector, "query")
        found.append(vector + linear(attended(query, keys, values, 1 / math.sqrt(len(query))), w, "output"))
    return map_of(found, x)


def solar_middle(map4: Map, w: Weights, o: Any) -> Map:
    return second_order(map4, within(w, "attention4")) if o.attention4 else map4


def solar(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    found = second_order(map5, within(w, "attention5")) if o.attention5 else map5
    return linear(over_norm(pooled(found, w)), w, "whitening")


# -------------------------------------------------------------------------------------------------- DOLG, GeM and FC


def pyramid(x: Map, w: Weights, dilations: Sequence[int], normed: bool) -> Map:
    """The average of the map everywhere, a 1×1 and several dilated convolutions, next to each other, then a 1×1."""
    average = averages(x)[:, None, None]
    names = [("branches.0", 1), *((f"branches.{number + 1}", rate) for number, rate in enumerate(dilations))]
    if normed:
        parts = [conv_norm_relu(average, w, "average"), *(conv_norm_relu(x, w, name, rate) for name, rate in names)]
    else:
        parts = [rectified(convolution(average, w, "average.0"))]
        parts += [convolution(x, w, name, rate) for name, rate in names]
    parts[0] = np.tile(parts[0], (1, *x.shape[1:]))
    joint = np.concatenate(parts)
    return conv_norm_relu(joint, w, "joint") if normed else rectified(convolution(joint, w, "joint.0"))


def dolg(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    """Yang et al., §3: every local vector is projected on the global one, and what is left is averaged."""
    whole = linear(pooled(map5, w), w, "reduction")
    found = pyramid(map4, within(w, "local.pyramid"), o.dilations, False) if o.pyramid else map4
    left = []
    for vector in locations(found):
        local = normed_vector(linear(vector, w, "local.convolution"), w, "local.norm")
        score = softplus(linear(rectified(local), w, "local.attention")[0])
        local = unit(local) * score
        left.append(local - inner(local, whole) / inner(whole, whole) * whole)
    return linear(np.concatenate([whole, mixture([1 / len(left)] * len(left), left)]), w, "fusion")


def gem_and_linear(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    return linear(pooled(map5, w), w, "whitening")


def delg_local(map4: Map, w: Weights) -> tuple[Map, np.ndarray, Map, Vector]:
    """Cao, Araujo and Sim, §3.3: codes, scores, reconstruction, and the mean that the attention is trained with."""
    codes, scores, rebuilt, weighted = [], [], [], []
    for vector in locations(map4):
        codes.append(linear(vector, w, "local_branch.encoder"))
        rebuilt.append(rectified(linear(codes[-1], w, "local_branch.decoder")))
        hidden = linear(rebuilt[-1], w, "local_branch.attention.0.0")
        hidden = rectified(normed_vector(hidden, w, "local_branch.attention.0.1"))
        scores.append(softplus(linear(hidden, w, "local_branch.attention.1")[0]))
        weighted.append(unit(vector) * scores[-1])
    mean = mixture([1 / len(weighted)] * len(weighted), weighted)
    return map_of(codes, map4), np.reshape(scores, map4.shape[1:]), map_of(rebuilt, map4), mean


# -------------------------------------------------------------------------------------------------------- AGeM, GLAM


def strengthened(x: Map, w: Weights) -> Map:
    """(1 + mask) ⊙ x, by Wang et al., CVPR 2017, §3.2."""
    hidden = conv_norm_relu(conv_norm_relu(x, w, "mask.0"), w, "mask.1")
    mask = convolution(hidden, w, "mask.2")
    found = np.zeros_like(x)
    for channel in range(len(x)):
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                value = sigmoid(mask[channel if len(mask) > 1 else 0, row, column])
                found[channel, row, column] = (1 + value) * x[channel, row, column]
    return found


def agem_middle(map4: Map, w: Weights, o: Any) -> Map:
    return strengthened(map4, within(w, "attention4")) if o.attention4 else map4


def agem(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    return pooled(strengthened(map5, within(w, "attention5")) if o.attention5 else map5, w)


def glam_local(x: Map, w: Weights) -> Map:
    """Song, Han and Avrithis, §3.1 and §3.2: A ⊙ F + F, first with weights of channels, then of places."""
    weights = [sigmoid(value) for value in along_channels(averages(x), w, "channels")]
    found = np.stack([channel * weights[number] + channel for number, channel in enumerate(x)])
    narrow = convolution(x, w, "narrow")
    around = [convolution(narrow, w, f"around.{number}", number + 1) for number in range(3)]
    places = convolution(np.concatenate([narrow, *around]), w, "places")[0]
    return found * places + found


def glam_global(x: Map, w: Weights) -> Map:
    """§3.3 and §3.4: F ⊙ (mixture of channels), then G ⊙ F + F with G a mixture of places."""
    queries, keys = ([sigmoid(v) for v in along_channels(averages(x), w, f"channel_{one}")] for one in ("query", "key"))
    channels = [channel.reshape(-1) for channel in x]
    mixed = [mixture(softmax([query * key for key in keys]), channels).reshape(x.shape[1:]) for query in queries]
    found = np.stack([channel * one for channel, one in zip(x, mixed, strict=True)])
    each = locations(x)
    places = [linear(vector, w, "key") for vector in each], [linear(vector, w, "value") for vector in each]
    weights = [linear(attended(linear(vector, w, "query"), *places, 1.0), w, "output") for vector in each]
    return found * map_of(weights, x) + found


def glam(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    parts = [map5]
    parts += [glam_local(map5, within(w, "local"))] if o.use_local else []
    parts += [glam_global(map5, within(w, "whole"))] if o.use_global else []
    shares = softmax(list(w["weights"]))
    return linear(pooled(sum(share * part for share, part in zip(shares, parts, strict=True)), w), w, "reduction")


# ------------------------------------------------------------------------------------------------------------- Token


def multihead(queries: list[Vector], others: list[Vector], w: Weights, heads: int) -> list[Vector]:
    """Attention of each part of the vectors on its own, the parts put together again, and a linear layer."""
    keys, values = ([linear(vector, w, name) for vector in others] for name in ("key", "value"))
    found = []
    for vector in queries:
        query, parts, width = linear(vector, w, "query"), [], len(vector) // heads
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            theirs = [key[part] for key in keys], [value[part] for value in values]
            parts.append(attended(query[part], *theirs, 1 / math.sqrt(width)))
        found.append(linear(np.concatenate(parts), w, "output"))
    return found


def sums(one: list[Vector], other: list[Vector]) -> list[Vector]:
    return [a + b for a, b in zip(one, other, strict=True)]


def gelu(vector: Vector) -> Vector:
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in vector])


def token(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    """Wu et al., §3: the locations are shared out among the queries, and the tokens refined."""
    x = [normed_vector(linear(vector, w, "reduction.0"), w, "reduction.1") for vector in locations(map5)]
    for number in range(o.encoders):
        part = within(w, f"encoders.{number}")
        x = sums(x, multihead(x, x, within(part, "attention"), o.attention_heads))
        x = sums(x, [linear(normed_vector(vector, part, "norm"), part, "linear") for vector in x])
    shares = [softmax([inner(query, vector) for query in w["queries"][0]]) for vector in x]
    tokens = [mixture([share[number] for share in shares], x) for number in range(o.tokens)]
    tokens = [layer_norm(linear(vector, w, "tokens.0"), w, "tokens.1") for vector in tokens]
    for number in range(o.decoders):
        part = within(w, f"decoders.{number}")
        normed = [layer_norm(vector, part, "cross_norm") for vector in tokens]
        tokens = sums(tokens, multihead(normed, x, within(part, "cross_attention"), o.attention_heads))
        hidden = [gelu(linear(vector, part, "perceptron.0")) for vector in tokens]
        tokens = sums(tokens, [linear(vector, part, "perceptron.3") for vector in hidden])
        normed = [layer_norm(vector, part, "self_norm") for vector in tokens]
        tokens = sums(tokens, multihead(normed, normed, within(part, "self_attention"), o.attention_heads))
    return normed_vector(linear(np.concatenate(tokens), w, "fusion.0"), w, "fusion.1")


# -------------------------------------------------------------------------------------------------------------- DPLG


def receptive_fields(x: Map, w: Weights, o: Any) -> Map:
    """Hu and Bors, §3.2: branches of two convolutions, and GeM of the whole map at every location."""
    parts = []
    for number, dilation in enumerate(o.dilations):
        name, found = f"branches.{number}", x
        for step, rate in ((0, 1), (1, dilation)):
            layer = f"{name}.{step}"
            plain = rectified(convolution(found, w, f"{layer}.0", rate))
            found = conv_norm_relu(found, w, layer, rate) if o.normalised else plain
        parts.append(found)
    whole = linear(gem(x), w, "pooled")
    parts.append(np.tile(whole[:, None, None], (1, *x.shape[1:])))
    return convolution(np.concatenate(parts), w, "joint")


def dplg(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    """§3.1 and §3.3; Table 2 without one of the two parts, or without both."""
    whole = gem(map5)
    if not (o.fields or o.dot_product):
        return linear(whole, w, "fusion")
    whole = linear(whole, w, "reduction")
    refined = receptive_fields(map4, within(w, "fields"), o) if o.fields else convolution(map4, w, "fields")
    if o.dot_product:
        keys, values = (locations(convolution(refined, w, f"dot_product.{name}")) for name in ("key", "value"))
        query = linear(whole, w, "dot_product.query")
        return linear(whole + attended(query, keys, values, 1 / math.sqrt(len(whole))), w, "fusion")
    return linear(whole + gem(refined), w, "fusion")


# ------------------------------------------------------------------------------------------------------------- CiDeR


def enhanced(x: Map, w: Weights, kind: str) -> Map:
    """fe of Song et al., §5.1, by the papers that it names."""
    if kind == "eca":
        weights = [sigmoid(value) for value in along_channels(averages(x), w, "channels")]
    elif kind == "se":
        weights = [sigmoid(value) for value in linear(rectified(linear(averages(x), w, "squeeze")), w, "excitation")]
    elif kind == "gather-excite":
        weights = [sigmoid(value) for value in averages(x)]
    elif kind == "non-local":
        keys, values = ([linear(vector, w, name) for vector in locations(x)] for name in ("key", "value"))
        mixed = [attended(linear(vector, w, "query"), keys, values, 1.0) for vector in locations(x)]
        return x + map_of([normed_vector(linear(vector, w, "output.0"), w, "output.1") for vector in mixed], x)
    else:
        return x
    return np.stack([channel * weight for channel, weight in zip(x, weights, strict=True)])


def selective(x: Map, w: Weights, groups: int) -> Map:
    """Li et al., CVPR 2019, §3.1: split, fuse, select."""
    parts = [conv_norm_relu(x, w, f"branches.{number}", number + 1, groups) for number in range(2)]
    squeezed = averages(parts[0] + parts[1])[:, None, None]
    hidden = conv_norm_relu(squeezed, w, "squeeze")[:, 0, 0]
    votes = [linear(hidden, w, f"shares.{number}") for number in range(2)]
    found = np.zeros_like(x)
    for channel in range(len(x)):
        one, other = softmax([votes[0][channel], votes[1][channel]])
        found[channel] = one * parts[0][channel] + other * parts[1][channel]
    return found


def localised(x: Map, w: Weights, thresholds: Sequence[float], background: float, product: bool) -> Map:
    """Equations 1 to 5: every mask for itself, then the convex combination."""
    raw = np.array([softplus(linear(vector, w, "attention")[0]) for vector in locations(x)])
    least, most = min(raw), max(raw)
    attention = [(value - least) / (most - least) if most > least else 1.0 for value in raw]
    weights = [softplus(value) for value in w["weights"]]
    total = np.zeros_like(x)
    for weight, threshold in zip(weights, thresholds, strict=True):
        mask = [background if value < threshold else value if product else 1.0 for value in attention]
        total += weight * map_of([vector * mask[n] for n, vector in enumerate(locations(x))], x)
    return total / sum(weights)


def background_of(o: Any) -> float:
    """The expectation of the clipped noise by summation over a fine grid, or the fixed value."""
    if not o.background_random:
        return min(1.0, max(0.0, o.background_mean))
    grid = np.linspace(-10, 10, 400_001)
    density = np.exp(-(grid**2) / 2)
    values = np.clip(o.background_mean + o.background_spread * grid, 0, 1)
    return float((values * density).sum() / density.sum())


def cider(map4: Map, map5: Map, w: Weights, o: Any) -> Vector:
    found = enhanced(map5, within(w, "enhancement"), o.enhancement)
    if o.context == "sk":
        found = selective(found, within(w, "context"), math.gcd(32, len(found)))
    elif o.context == "aspp":
        found = pyramid(found, within(w, "context"), (6, 12, 18), True)
    if o.localisation:
        thresholds = o.thresholds or [(i + 1) / (o.masks + 1) for i in range(o.masks)]
        product = o.gradient == "product"
        found = localised(found, within(w, "localisation"), thresholds, background_of(o), product)
    vector = pooled(found, w) if o.pooling == "gem" else averages(found)
    vector = linear(vector, w, "whitening") if o.whitening else vector
    return normed_vector(vector, w, "norm") if o.final_norm else vector
