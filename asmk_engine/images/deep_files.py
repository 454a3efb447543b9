"""Colour files with more than 8 bits per channel, of which Pillow keeps only the upper 8 of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from asmk_engine.images.pixels import UPRIGHT, Turn, UnusableImageError, nodata_of, rgb_of_values, tags_of

_SIZE_MARKER = b"\xff\x4f\xff\x51"  # the first two markers of a JPEG 2000 codestream
_SIZE_WITHIN = 1 << 16
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _EXTRA = 256, 257, 258, 262, 277, 284, 338
_GREY_OR_RGB = (1, 2)


@dataclass(frozen=True)
class DeepColour:
    """Properties of a colour file with more than 8 bits per channel, needed to read all bits.

    alpha          whether the last channel is opacity
    premultiplied  whether the colours were multiplied by it
    nodata         values that mean "no value here"
    is_tiff        whether OpenCV turns it upright itself
    """

    alpha: bool
    premultiplied: bool
    nodata: tuple[float, ...]
    is_tiff: bool


def deep_colour_of(image: Image.Image, file: BinaryIO) -> DeepColour | None:
    """Return how to read an opened image that is not loaded yet; None for grey, and for colours of 8 bits.

    Raises UnusableImageError for a TIFF with colours in separate planes, which no decoder reads correctly.
    """
    tags = tags_of(image)
    if image.mode not in ("RGB", "RGBA", "LA") or _bits(image, file, tags) <= 8:
        return None
    if tags and tags.get(_PHOTOMETRIC) not in _GREY_OR_RGB:
        return None
    _refuse_planes(tags)
    alpha = "A" in image.mode or "transparency" in image.info
    return DeepColour(alpha, 1 in tags.get(_EXTRA, ()), nodata_of(tags), bool(tags))


def rgb_of_deep_colour(file: BinaryIO, deep: DeepColour, turn: Turn) -> np.ndarray | None:
    """Return the image as upright [H, W, 3] uint8, RGB; None if OpenCV does not read it with all its bits."""
    file.seek(0)
    values = _decoded(file.read())
    if values is None or values.dtype.itemsize < 2:
        return None
    turn = UPRIGHT if deep.is_tiff else turn
    return rgb_of_values(values, turn, alpha=deep.alpha, premultiplied=deep.premultiplied, nodata=deep.nodata)


def tiff_size(tags: Mapping[int, Any]) -> tuple[int, int]:
    """Return width and height from the tags of a TIFF. Raises KeyError if they are missing."""
    return int(tags[_WIDTH]), int(tags[_HEIGHT])


def rgb_of_rare_tiff(file: BinaryIO, tags: Mapping[int, Any]) -> np.ndarray | None:
    """Read a TIFF whose number type Pillow does not support, such as doubles, as upright RGB; None if OpenCV fails too.

    Raises UnusableImageError as `deep_colour_of` does.
    """
    _refuse_planes(tags)
    file.seek(0)
    values = _decoded(file.read())
    extra = tags.get(_EXTRA, ())
    channels = 1 if values is None or values.ndim == 2 else values.shape[2]
    if values is None or tags.get(_PHOTOMETRIC) not in _GREY_OR_RGB or tags.get(_SAMPLES, 1) != channels:
        return None
    if set(tags.get(_BITS, (1,))) != {values.dtype.itemsize * 8}:  # OpenCV drops bits of some files
        return None
    alpha = bool({1, 2}.intersection(extra))
    return rgb_of_values(values, UPRIGHT, alpha=alpha, premultiplied=1 in extra, nodata=nodata_of(tags))


def _refuse_planes(tags: Mapping[int, Any]) -> None:
    if tags.get(_PLANES, 1) != 1 and tags.get(_SAMPLES, 1) > 1:
        found = f"a TIFF with separate planes of {max(tags.get(_BITS, (0,)))} bits"
        raise UnusableImageError(f"{found}; expected interleaved channels; save it with those, or as PNG")


def _bits(image: Image.Image, file: BinaryIO, tags: Mapping[int, Any]) -> int:
    """Return the bits per channel in the file; 8 for kinds without more."""
    if tags:
        return max(tags.get(_BITS, (1,)))
    if image.format not in ("PNG", "JPEG2000"):
        return 8
    place = file.tell()
    file.seek(0)
    head = file.read(_SIZE_WITHIN)
    file.seek(place)
    if image.format == "PNG":
        return head[24]
    at = head.find(_SIZE_MARKER)
    return (head[at + 42] & 127) + 1 if 0 <= at < len(head) - 42 else 8


def _decoded(content: bytes) -> np.ndarray | None:
    """Decode a PNG, TIFF or JPEG 2000 with all bits, [h, w] or [h, w, c] in BGRA; None if OpenCV cannot.

    A TIFF is returned upright, other kinds as stored.
    """
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # failures get our own messages
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(before)
