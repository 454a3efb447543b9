"""A slow twin of the Reranking Transformer: the whole forward pass in float64, one pair, one head and one token at a
time, from the paper (Tan et al., ICCV 2021, section 3.2; the encoder of Vaswani et al., 2017) and its parameter names.
"""

from __future__ import annotations

import bisect
import math

import numpy as np

Tensors = dict[str, np.ndarray]


def linear(weight: np.ndarray, bias: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.array([sum(w * v for w, v in zip(row, vector, strict=True)) for row in weight]) + bias


def unit(vector: np.ndarray) -> np.ndarray:
    length = math.sqrt(sum(value * value for value in vector))
    return vector / max(length, 1e-12)


def layer_norm(weight: np.ndarray, bias: np.ndarray, vector: np.ndarray) -> np.ndarray:
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    return (vector - mean) / math.sqrt(variance + 1e-5) * weight + bias


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def attended(tensors: Tensors, name: str, tokens: list[np.ndarray], heads: int) -> list[np.ndarray]:
    """Multi-head self-attention: the three projections are stacked in one matrix, query, key, value."""
    dim = len(tokens[0])
    weights = np.split(tensors[f"{name}.in_proj_weight"], 3)
    biases = np.split(tensors[f"{name}.in_proj_bias"], 3)
    queries, keys, values = (
        [linear(weight, bias, token) for token in tokens] for weight, bias in zip(weights, biases, strict=True)
    )
    each, found = dim // heads, []
    for query in queries:
        joined = []
        for head in range(heads):
            part = slice(head * each, (head + 1) * each)
            shares = softmax([float(query[part] @ key[part]) / math.sqrt(each) for key in keys])
            joined.extend(sum(share * value[part] for share, value in zip(shares, values, strict=True)))
        found.append(linear(tensors[f"{name}.out_proj.weight"], tensors[f"{name}.out_proj.bias"], np.array(joined)))
    return found


def encoder_layer(tensors: Tensors, name: str, tokens: list[np.ndarray], heads: int) -> list[np.ndarray]:
    """Post-norm: each sum with what it was before is normalised."""

    def named(part: str) -> tuple[np.ndarray, np.ndarray]:
        return tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"]

    found = []
    for token, change in zip(tokens, attended(tensors, f"{name}.self_attn", tokens, heads), strict=True):
        first = layer_norm(*named("norm1"), token + change)
        inner = [max(0.0, value) for value in linear(*named("linear1"), first)]
        found.append(layer_norm(*named("norm2"), first + linear(*named("linear2"), np.array(inner))))
    return found


def image_tokens(
    tensors: Tensors, whole: np.ndarray, locals_: np.ndarray, scales: list[int], segment: int
) -> list[np.ndarray]:
    """The global descriptor and the local ones of one image; segment 0 for the query, 1 for the other."""
    segments, of_scales = tensors["seg_encoder.weight"], tensors["scale_encoder.weight"]
    mapped = unit(linear(tensors["remap.weight"], tensors["remap.bias"], whole))
    parts = [unit(local) + of_scales[scale] + segments[segment] for local, scale in zip(locals_, scales, strict=True)]
    return [mapped + segments[4 + segment], *parts]


def logit(tensors: Tensors, query: tuple, other: tuple, layers: int, heads: int) -> float:
    """The logit of one pair of images, each its global descriptor, its local ones and their scale numbers."""
    segments = tensors["seg_encoder.weight"]
    tokens = [segments[2], *image_tokens(tensors, *query, 0), segments[3], *image_tokens(tensors, *other, 1)]
    for layer in range(layers):
        tokens = encoder_layer(tensors, f"encoder.layers.{layer}", tokens, heads)
    return float(linear(tensors["classifier.weight"], tensors["classifier.bias"], tokens[0])[0])


def published_scale_number(inverse_scale: float) -> int:
    """The scale number of the code: a float32 scale looked up among seven decimal fractions."""
    known = [0.5, 0.70710677, 1.0, 1.41421354, 2.0, 2.82842708, 4.0]
    return bisect.bisect_right(known, float(np.float32(inverse_scale))) - 1
