"""Convert decoder output to upright RGB bytes, in bands of rows, so that a large image is not copied twice.

Values of more than 8 bits are scaled from the range that the data use, since 16-bit files hold 8, 10, 12 or 14 bits as
often as 16. Memory beyond the decoder's own buffer is the result, 3 bytes a pixel, and a few bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Rows = tuple[int, int, int, int]
"""x1, y1, x2, y2 of whole rows of pixels, as Pillow expects."""
Turn = tuple[bool, bool, bool]
"""How stored pixels become upright: whether to transpose, then to reverse the rows, then the columns."""
UPRIGHT: Turn = (False, False, False)
TURNS: dict[int, Turn] = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""The turn of each EXIF orientation. `ImageOps.exif_transpose` would hold the image twice, and takes no arrays."""

_BAND_PIXELS = 1 << 20
_SAMPLE_PIXELS = 1 << 22
_HOT_SHARE = 1e-5  # of integers: defective pixels are this rare, highlights of a photograph are not
_TAIL_SHARE = 1e-3  # of floats, which overshoot where images were sharpened or resampled
_TOLERANCE = 0.03
_LOW_SENTINELS = (-9999.0, -32768.0, -2147483648.0)
_HIGH_SENTINELS = (32767.0, 65535.0, 2147483647.0, 4294967295.0)
_BEYOND_DATA = 1e20
_TRANSPARENT = "wholly transparent; leave it out or save it without transparency"
_BITS, _SAMPLE_FORMAT, _GDAL_NODATA = 258, 339, 42113  # tags of a TIFF


class UnusableImageError(ValueError):
    """The image was decoded, but is not usable; the message is a reason with its cure, without the path."""


def rgb_of_image(image: Image.Image, turn: Turn) -> np.ndarray:
    """Convert a loaded image of any mode to upright [H, W, 3] uint8, RGB; transparent parts become white.

    Raises UnusableImageError if all of it is transparent or nodata.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _rgb_of_grey(image, turn)
    if _has_alpha(image) and not any(_alpha_top(image.crop(rows)) for rows in _rows(_whole(image))):
        raise UnusableImageError(_TRANSPARENT)
    return _painted(_whole(image), turn, lambda rows: _ordinary(image.crop(rows)))


def rgb_of_values(
    values: np.ndarray, turn: Turn, *, alpha: bool = False, premultiplied: bool = False, nodata: tuple[float, ...] = ()
) -> np.ndarray:
    """Convert decoded values [h, w], or [h, w, 3 or 4] in BGRA order, to upright [H, W, 3] uint8, RGB.

    All channels are scaled by one range. A fourth channel is used only with `alpha`; `premultiplied` means that the
    colours were multiplied by it. Raises UnusableImageError as `rgb_of_image` does.
    """
    box = (0, 0, values.shape[1], values.shape[0])
    sample = _thinned(values, box[2:])
    if values.ndim == 2:
        scale = _scale_of(sample.ravel(), nodata)
        return _painted(box, turn, lambda rows: scale.to_bytes(_cut(values, rows))[:, :, None])
    if not (alpha and values.shape[2] == 4):
        scale = _scale_of(sample[:, :, :3].ravel(), nodata)
        return _painted(box, turn, lambda rows: _colours(_cut(values, rows), scale))
    top = values[:, :, 3].max()
    if not top > 0:
        raise UnusableImageError(_TRANSPARENT)
    seen = sample[sample[:, :, 3] > 0][:, :3]
    scale = _scale_of(seen.ravel() if seen.size else values[values[:, :, 3] > 0][:, :3].ravel(), nodata)
    opacity = _opacity(top, scale)
    mode = "RGBa" if premultiplied else "RGBA"
    return _painted(box, turn, lambda rows: _composed(_cut(values, rows), scale, opacity, mode))


# ------------------------------------------------------------------------------------------------------------ bands


def _whole(image: Image.Image) -> Rows:
    return (0, 0, *image.size)


def _rows(whole: Rows) -> Iterator[Rows]:
    """Yield boxes of whole rows, about a megapixel each."""
    _, _, width, height = whole
    step = max(1, _BAND_PIXELS // width)
    return ((0, top, width, min(height, top + step)) for top in range(0, height, step))


def _painted(whole: Rows, turn: Turn, band: Callable[[Rows], np.ndarray]) -> np.ndarray:
    """Write the output of `band` for each box of rows to its position in the upright image."""
    _, _, width, height = whole
    transposed, rows, columns = turn
    upright = np.empty((width, height, 3) if transposed else (height, width, 3), np.uint8)
    stored = upright[:: -1 if rows else 1, :: -1 if columns else 1]
    stored = stored.transpose(1, 0, 2) if transposed else stored
    for box in _rows(whole):
        stored[box[1] : box[3]] = band(box)
    return upright


def _cut(values: np.ndarray, rows: Rows) -> np.ndarray:
    return values[rows[1] : rows[3]]


def _has_alpha(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")


def _alpha_top(band: Image.Image) -> float:
    (_, top) = band.convert("RGBA").getchannel("A").getextrema()
    return float(top) if isinstance(top, int | float) else 1.0


def _ordinary(band: Image.Image) -> np.ndarray:
    """Convert rows of 8 bits per channel to RGB, transparent parts on white."""
    if _has_alpha(band):
        white = Image.new("RGBA", band.size, "white")
        white.alpha_composite(band.convert("RGBA"))
        band = white
    return np.asarray(band.convert("RGB"))


# ------------------------------------------------------------------------------------------------ more than 8 bits


@dataclass(frozen=True)
class _ByteScale:
    """A scale from numbers to bytes: `low` to `low + full` fill 0..255; numbers outside are clipped.

    nodata       values that mean "no value here"; they become 0, as do NaN and values beyond any sensor
    transparent  the transparent value of a grey PNG; it becomes white
    """

    low: float
    full: float
    nodata: tuple[float, ...] = ()
    transparent: float | None = None

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Convert numbers of any shape to uint8."""
        empty = _is_nodata(values, self.nodata)
        scaled = (np.where(empty, self.low, values).astype(np.float64) - self.low) * 255 / self.full
        found = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        found[empty] = 0
        if self.transparent is not None:
            found[values == self.transparent] = 255
        return found


def _scale_of(sample: np.ndarray, nodata: tuple[float, ...], transparent: float | None = None) -> _ByteScale:
    """Return the scale for numbers with the sample `sample` [n]. Raises UnusableImageError if all are nodata."""
    unseen = nodata if transparent is None else (*nodata, transparent)
    sample = sample[~_is_nodata(sample, (*unseen, *_LOW_SENTINELS))]
    high_sentinels = _high_sentinels(sample)
    sample = sample[~_is_nodata(sample, high_sentinels)]
    if not sample.size:
        raise UnusableImageError("holds only nodata values; leave it out")
    low, full = _range_of(sample)
    return _ByteScale(low, full, (*nodata, *_LOW_SENTINELS, *high_sentinels), transparent)


def _range_of(sample: np.ndarray) -> tuple[float, float]:
    """Return the start of the range that the data use, and its length, which is never 0.

    Data that start near 0 fill the next power of two. Others, below 0 or in a narrow band far from it, are stretched,
    but noise in a flat image is not amplified to the whole range.
    """
    whole = sample.dtype.kind in "iu"
    low, high = _edges(sample, _HOT_SHARE if whole else _TAIL_SHARE)
    size = max(abs(low), abs(high))
    if low < -_TOLERANCE * size or 0 < (high - low) * 4 < high:
        return low, max(high - low, size / 16, 255.0 if whole else 1e-30)
    if whole:
        return 0.0, float((1 << max(8, int(high).bit_length())) - 1)
    return 0.0, _full_of_fractions(high)


def _full_of_fractions(high: float) -> float:
    """Return the power of two that floats up to `high` fill, overshoot aside; from 256 on, minus 1 as for bytes."""
    if high < 1e-30:
        return 1.0
    full = 2.0 ** math.ceil(math.log2(high / (1 + _TOLERANCE)))
    return full - 1 if full >= 256 else full


def _edges(sample: np.ndarray, share: float) -> tuple[float, float]:
    """Return the minimum and maximum after dropping `share` of the numbers at either end."""
    left_out = int(sample.size * share)
    places = (left_out, sample.size - 1 - left_out)
    ordered = np.partition(sample, places)
    return float(ordered[places[0]]), float(ordered[places[1]])


def _high_sentinels(sample: np.ndarray) -> tuple[float, ...]:
    """Return the maximum of a type as nodata if many pixels have it and all others are far below, unlike highlights."""
    if not sample.size or float(top := sample.max()) not in _HIGH_SENTINELS:
        return ()
    others = sample[sample != top]
    many = sample.size - others.size > sample.size * _HOT_SHARE
    return (float(top),) if many and others.size and float(others.max()) * 4 < float(top) else ()


def _is_nodata(values: np.ndarray, numbers: tuple[float, ...]) -> np.ndarray:
    empty = np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        empty = ~(np.abs(values) < _BEYOND_DATA)  # comparisons with NaN are false
        numbers = tuple(float(values.dtype.type(number)) for number in numbers if abs(number) < _BEYOND_DATA)
    for number in numbers:
        empty |= values == number
    return empty


# -------------------------------------------------------------------------------------------------------- grey


def _rgb_of_grey(image: Image.Image, turn: Turn) -> np.ndarray:
    unsigned, whole = _is_unsigned(image), _whole(image)

    def numbers(rows: Rows) -> np.ndarray:
        found = np.asarray(image.crop(rows))
        return found.view(np.uint32) if unsigned else found

    sample = np.concatenate([_thinned(numbers(rows), image.size).ravel() for rows in _rows(whole)])
    clear = image.info.get("transparency")
    scale = _scale_of(sample, nodata_of(tags_of(image)), float(clear) if isinstance(clear, int) else None)
    return _painted(whole, turn, lambda rows: scale.to_bytes(numbers(rows))[:, :, None])


def _is_unsigned(image: Image.Image) -> bool:
    """Return whether an image has unsigned 32-bit numbers, which Pillow treats as signed."""
    tags = tags_of(image)
    return image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,)


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF by their numbers; empty for other kinds."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


def nodata_of(tags: Mapping[int, Any]) -> tuple[float, ...]:
    """Return the "no value here" number in the tags of a GDAL TIFF, if there is one."""
    try:
        return (float(str(tags[_GDAL_NODATA]).strip(" \0")),)
    except (KeyError, ValueError):
        return ()


def _thinned(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return all pixels of a small image, else a grid with an odd step: sensors have patterns of even period."""
    step = math.isqrt(math.ceil(size[0] * size[1] / _SAMPLE_PIXELS) - 1) + 1
    step += step % 2 == 0
    return values[::step, ::step]


# ------------------------------------------------------------------------------------------------------- colour


def _colours(band: np.ndarray, scale: _ByteScale) -> np.ndarray:
    """Convert rows in BGRA to RGB bytes: the upper 8 of the bits in use, as Pillow does with the upper 8 of 16."""
    colours = band[:, :, 2::-1]
    if band.dtype.kind != "u" or scale.low:
        return scale.to_bytes(colours)
    found = (np.minimum(colours, int(scale.full)) >> (int(scale.full).bit_length() - 8)).astype(np.uint8)
    found[_is_nodata(colours, scale.nodata)] = 0
    return found


def _opacity(top: float, scale: _ByteScale) -> float:
    """Return the alpha value of an opaque pixel: at least the range of the colours."""
    whole = float((1 << max(8, int(top).bit_length())) - 1)
    return float(top) if top <= 1 else max(whole, scale.full)


def _composed(band: np.ndarray, scale: _ByteScale, opacity: float, mode: str) -> np.ndarray:
    alpha = np.floor(np.clip(band[:, :, 3] * (256 / (opacity + (opacity > 1))), 0, 255)).astype(np.uint8)
    pixels = np.ascontiguousarray(np.dstack([_colours(band, scale), alpha]))
    return _ordinary(Image.frombuffer(mode, (band.shape[1], band.shape[0]), pixels, "raw", mode, 0, 1))
