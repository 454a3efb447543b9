"""A slow twin of the geometry file: rows made and read number by number, from what docs/formats.md says."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.features import Features

LEAST_SCALE = 1 / 64


def naive_rows(features: Features, words: list[int], codes: list[int], dim: int, vocabulary: int) -> list[bytes]:
    """The rows of an image, a feature each, in the order of the words and else of the features.

    words, codes  of each feature, the code as one number of `dim` bits
    """
    width, height = naive_size(features)
    rows = []
    for feature in sorted(range(len(words)), key=lambda feature: words[feature]):
        x, y, scale, *angle = (float(value) for value in features.keypoints[feature])
        steps = [naive_step(place, side) for place, side in ((x, width), (y, height))]
        word = struct.pack("<H" if vocabulary <= 65536 else "<I", words[feature])
        code = codes[feature].to_bytes(8 * math.ceil(dim / 64), "little")
        numbers = [naive_scale(scale), *map(naive_angle, angle)]
        rows.append(code + struct.pack("<HH", *steps) + word + bytes(numbers))
    return rows


def naive_size(features: Features) -> tuple[int, int]:
    """Width and height; where they are unknown, the least that hold the places."""
    if features.image_size[0] > 0 and features.image_size[1] > 0:
        return features.image_size
    sides = []
    for column in (0, 1):
        side = 1
        for place in features.keypoints[:, column].tolist():
            while place > side - 0.5:
                side += 1
        sides.append(side)
    return sides[0], sides[1]


def naive_step(place: float, side: int) -> int:
    """The nearest of 65 536 steps between the edges of an image."""
    return min(max(round((place + 0.5) / side * 65535), 0), 65535)


def naive_scale(scale: float) -> int:
    """0 for an unknown scale, else the number of the nearest of 2 ** -3, 2 ** (-3 + 1/16), ..."""
    if scale <= LEAST_SCALE:
        return 0
    octave = math.log2(scale)
    return min(range(1, 256), key=lambda number: abs(octave - (-3 + (number - 1) / 16)))


def naive_angle(angle: float) -> int:
    """The number of the nearest of 255 directions, the first of which is 1."""
    return 1 + max(range(255), key=lambda step: math.cos(angle - 2 * math.pi * step / 255))


def naive_file(path: Path, dim: int, vocabulary: int) -> list[list[dict[str, Any]]]:
    """The features of each image of a file; compares the digests."""
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:begin])
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            arrays[name] = whole[begin + first : begin + last]
    starts = np.frombuffer(arrays["starts"], "<i8").tolist()
    sizes = np.frombuffer(arrays["sizes"], "<u4").reshape(-1, 2).tolist()
    digests = np.frombuffer(arrays["digests"], "<u4").tolist()
    each = header["features"]["shape"][1]
    images = []
    for number, (width, height) in enumerate(sizes):
        first, last = starts[number] * each, starts[number + 1] * each
        rows = arrays["features"][first:last]
        assert zlib.crc32(rows) == digests[number]
        cut = [rows[row : row + each] for row in range(0, len(rows), each)]
        images.append([_feature(row, width, height, dim, vocabulary) for row in cut])
    return images


def _feature(row: bytes, width: int, height: int, dim: int, vocabulary: int) -> dict[str, Any]:
    codes, word = 8 * math.ceil(dim / 64), 2 if vocabulary <= 65536 else 4
    x, y = struct.unpack("<HH", row[codes : codes + 4])
    number = row[codes + 4 + word]
    return {
        "code": int.from_bytes(row[:codes], "little"),
        "x": x / 65535 * width - 0.5,
        "y": y / 65535 * height - 0.5,
        "word": int.from_bytes(row[codes + 4 : codes + 4 + word], "little"),
        "angle": (row[-1] - 1) / 255 * 2 * math.pi if len(row) > codes + 5 + word and row[-1] else math.nan,
        "scale": 2.0 ** (-3 + (number - 1) / 16) if number else LEAST_SCALE,
    }
