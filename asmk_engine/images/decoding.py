"""Decode images upright, crop and resize them, and map coordinates back to the original.

The centre of the first pixel is (0, 0), so pixel x of a shrunken image is at (x + 0.5) * factor - 0.5 in the original.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from asmk_engine.errors import AsmkError, InputError, NotFoundError, StorageError
from asmk_engine.images.boxes import Box, Size, check_box
from asmk_engine.images.cut_files import MISSING_END, completed, lacks_end, tiff_tags
from asmk_engine.images.deep_files import deep_colour_of, rgb_of_deep_colour, rgb_of_rare_tiff, tiff_size
from asmk_engine.images.kinds import HEAD_BYTES, KINDS_READ, image_kind, pillow_reads_avif
from asmk_engine.images.listing import PathLike, shown
from asmk_engine.images.pixels import TURNS, UPRIGHT, UnusableImageError, rgb_of_image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")
"""The formats that every installation reads, by Pillow's names; AVIF and HEIC need optional decoders."""
MAX_PIXELS = 178_956_970
"""The largest image that is decoded, 179 megapixels: the limit of Pillow itself."""


@dataclass(frozen=True)
class View:
    """The part of an image that an extractor processes, at the processed size.

    pixels      [h, w, 3] uint8, RGB, upright
    image_size  width and height of the upright original
    offset      x and y of the first pixel of the part, in pixels of the original
    factor      pixels of the original per pixel of the view, in x and in y; at least 1
    """

    pixels: np.ndarray
    image_size: Size
    offset: tuple[int, int]
    factor: tuple[float, float]

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """Convert positions [n, 2] in the view to float32 positions in the upright original."""
        found = (np.asarray(points, np.float64) + 0.5) * self.factor - 0.5 + self.offset
        return found.astype(np.float32)

    @property
    def scale_factor(self) -> float:
        """Pixels of the original per pixel of the view, for lengths: the geometric mean over x and y."""
        return math.sqrt(self.factor[0] * self.factor[1])


def view_image(image: PathLike | np.ndarray, max_side: int, box: Box | None = None, *, lanczos: bool = False) -> View:
    """Return the view of an image file, or of [H, W, 3] or [H, W] uint8 pixels, for an extractor.

    The image is shrunk until no side exceeds `max_side`, never enlarged. A box is cut out first and then shrunk by the
    factor of the whole image, as in HOW (Tolias et al., ECCV 2020): objects keep the size they have in the database.

    The first frame of an animation, or page of a file, is used. Transparent parts become white, nodata values black.
    Values of more than 8 bits are scaled from the range that they use: the fewest bits that hold them, or, if they do
    not start near 0, from the minimum to the maximum. A truncated file counts as complete if all its pixels are there;
    `collected_notes` reports it.

    lanczos  shrink with a Lanczos filter, as the HOW code does, instead of averaging areas
    Raises InputError for a box that is inverted, empty or outside, and for a file that is no image, truncated, damaged,
    wholly transparent, or larger than MAX_PIXELS; NotFoundError; StorageError.
    """
    where = "the image" if isinstance(image, np.ndarray) else shown(image)
    if isinstance(image, np.ndarray):
        pixels, size = _check_pixels(image), (image.shape[1], image.shape[0])
    else:
        pixels, size = _decode(Path(image), None if box else max_side)
    x1, y1, x2, y2 = check_box(box, size, where) if box else (0, 0, *size)
    pixels = pixels[y1:y2, x1:x2] if box else pixels
    scale = min(1.0, max_side / max(size))
    width, height = _scaled(x2 - x1, scale), _scaled(y2 - y1, scale)
    shrunk = (_by_lanczos if lanczos else _resized)(pixels, (width, height))
    return View(shrunk, size, (x1, y1), ((x2 - x1) / width, (y2 - y1) / height))


def pixels_of_image(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image of Pillow as those of a file: upright [H, W, 3] uint8, RGB.

    Transparent parts become white; of a deep image, what Pillow keeps is used. Raises InputError for an image that
    cannot be decoded, is wholly transparent, or is larger than MAX_PIXELS.
    """
    if image.width * image.height > MAX_PIXELS:
        raise _too_large("the image", image.width * image.height)
    try:
        with _QUIET:
            image.load()
            return rgb_of_image(image, TURNS.get(_orientation(image), UPRIGHT))
    except UnusableImageError as error:
        raise InputError(f"the image: {error}") from None
    except Exception as error:  # it may be of a damaged file, or closed
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"the image cannot be decoded ({reason}); open it again from a complete file") from None


def _check_pixels(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        found = f"{image.dtype} {image.shape}"
        raise InputError(f"the image is an array of {found}; expected uint8 [H, W, 3], RGB, or [H, W], not empty")
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return np.ascontiguousarray(pixels)
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)


def _by_lanczos(pixels: np.ndarray, size: Size) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))


# ---------------------------------------------------------------------------------------------------------- notes

_NOTES: ContextVar[list[str] | None] = ContextVar("_NOTES", default=None)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Collect the notes about usable but unusual images that are decoded inside the block, in this thread."""
    notes: list[str] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def _note(text: str) -> None:
    notes = _NOTES.get()
    if notes is not None and text not in notes:
        notes.append(text)


# --------------------------------------------------------------------------------------------------------- decoding


@dataclass(frozen=True)
class _DecodingRequest:
    """A file to decode, and how.

    path      as given by the user, for messages
    kind      the kind that the first bytes announce, see `image_kind`
    max_side  the longer side that decoding need not exceed, or None for the whole image
    """

    path: Path
    kind: str | None
    max_side: int | None


def _decode(path: Path, max_side: int | None) -> tuple[np.ndarray, Size]:
    """Return upright pixels, and the size of the upright original.

    With `max_side` the pixels may be reduced by a whole factor of both sides, if the longer side keeps `max_side`.
    """
    with _opened(path) as file, _QUIET:
        request = _DecodingRequest(path, _kind_of(file, path), max_side)
        try:
            return _decode_tolerantly(file, request)
        except AsmkError:
            raise
        except UnusableImageError as error:
            raise InputError(f"{shown(path)}: {error}") from None
        except Exception as error:  # decoders of hostile data may raise anything: KeyError, struct.error
            raise _unreadable(file, request, error) from None


def _kind_of(file: BinaryIO, path: Path) -> str | None:
    try:
        return image_kind(file.read(HEAD_BYTES))
    except OSError as error:
        raise _unread(path, error) from None


def _decode_tolerantly(file: BinaryIO, request: _DecodingRequest) -> tuple[np.ndarray, Size]:
    """Decode a file, even a truncated one that contains all its pixels."""
    try:
        image = _opened_image(file, request)
    except UnidentifiedImageError:
        if request.kind != "TIFF" or lacks_end(file, request.kind):
            raise
        return _decode_rare_tiff(file, request)
    if request.kind == "PNG" and lacks_end(file, request.kind):  # Pillow accepts some of them silently
        failure: Exception = OSError("truncated")
    else:
        try:
            return _decode_image(file, image, request)
        except (MemoryError, UnusableImageError):
            raise
        except Exception as error:  # raised below unless the file can be completed
            failure = error
    content = completed(file, request.kind)
    if content is None:
        raise failure
    whole = io.BytesIO(content)
    found = _decode_image(whole, _opened_image(whole, request), request)
    _note(MISSING_END)
    return found


def _opened_image(file: BinaryIO, request: _DecodingRequest) -> Image.Image:
    """Open the image: read its header and check its size."""
    file.seek(0)
    formats = _heif_formats(request) if request.kind in ("HEIC", "AVIF") else FORMATS
    image = Image.open(file, formats=formats)
    _refuse_large(image.size, request)
    return image


def _heif_formats(request: _DecodingRequest) -> tuple[str, ...]:
    """Return Pillow's name of the kind after registering a decoder. Raises InputError if no decoder is installed."""
    if request.kind == "AVIF" and pillow_reads_avif():
        return ("AVIF",)
    try:
        import pillow_heif
    except ImportError:
        cure = "`pip install 'asmk-engine[heif]'` reads them"
        raise InputError(f"{shown(request.path)}: {request.kind} image; {cure}") from None
    pillow_heif.register_heif_opener()
    if request.kind == "HEIC":
        return ("HEIF",)
    if not hasattr(pillow_heif, "register_avif_opener"):  # newer versions leave AVIF to Pillow
        raise InputError(f"{shown(request.path)}: AVIF image; `pip install --upgrade Pillow` reads them")
    pillow_heif.register_avif_opener()
    return ("AVIF",)


def _decode_image(file: BinaryIO, image: Image.Image, request: _DecodingRequest) -> tuple[np.ndarray, Size]:
    width, height = image.size
    if request.max_side is not None and request.kind == "JPEG":
        _reduce(image, request.max_side)
    deep = deep_colour_of(image, file)
    image.load()
    turn = TURNS.get(_orientation(image), UPRIGHT)
    size = (height, width) if turn[0] else (width, height)
    if deep is not None:
        Image.Image.close(image)  # Pillow, which keeps only 8 bits, found no error; the file stays open
        pixels = rgb_of_deep_colour(file, deep, turn)
        if pixels is not None:
            return pixels, size
        image = _opened_image(file, request)
    return rgb_of_image(image, turn), size


def _decode_rare_tiff(file: BinaryIO, request: _DecodingRequest) -> tuple[np.ndarray, Size]:
    """Decode a TIFF whose number type only OpenCV supports, not Pillow."""
    tags = tiff_tags(file)
    _refuse_large(tiff_size(tags), request)
    pixels = rgb_of_rare_tiff(file, tags)
    if pixels is None:
        raise UnusableImageError("a TIFF of an unsupported kind; save it as PNG or as TIFF of 8 or 16 bits")
    return pixels, (pixels.shape[1], pixels.shape[0])


def _opened(path: Path) -> BinaryIO:
    """Open the file for reading; a pipe or device is refused, because it could block forever."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have such a name
        raise NotFoundError(f"{shown(path)}: no such file; check the path") from None
    except OSError as error:
        raise _unread(path, error) from None
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
    raise InputError(f"{shown(path)}: is {kind}; expected an image file")


def _refuse_large(size: Size, request: _DecodingRequest) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(shown(request.path), size[0] * size[1])


def _too_large(where: str, pixels: int) -> InputError:
    found, limit = f"{pixels / 1e6:.4g} megapixels", f"{MAX_PIXELS / 1e6:.4g}"
    return InputError(f"{where}: {found}, the limit is {limit}; make the image smaller")


def _unreadable(file: BinaryIO, request: _DecodingRequest, error: Exception) -> AsmkError:
    """Return the error for a file that was opened but not decoded."""
    text = " ".join(str(error).split())[:150]
    if isinstance(error, Image.DecompressionBombError):
        count = re.search(r"(\d+) pixels", text)
        return _too_large(shown(request.path), int(count[1]) if count else MAX_PIXELS)
    if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not the decoder
        return _unread(request.path, error)
    if isinstance(error, MemoryError):
        reason = "not enough memory to decode it; make the image smaller or use fewer workers"
    elif os.fstat(file.fileno()).st_size == 0:
        reason = "the file is empty; copy it again from its source"
    elif "truncated" in text.lower() or _ends_early(file, request.kind):
        reason = "truncated: the file ends before the image does; copy it again from its source"
    elif isinstance(error, UnidentifiedImageError) and request.kind not in ("HEIC", "AVIF"):
        reason = f"not an image of a supported kind; expected {KINDS_READ}"
    else:
        reason = f"damaged or truncated image data ({text or type(error).__name__}); copy it again from its source"
    return InputError(f"{shown(request.path)}: {reason}")


def _ends_early(file: BinaryIO, kind: str | None) -> bool:
    """Return whether the file is truncated, as far as a damaged structure shows it."""
    try:
        return lacks_end(file, kind)
    except Exception:  # as for pixels: a hostile file may raise anything
        return False


def _unread(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{shown(path)}: cannot be read: {error.strerror or error}; check its permissions")


def _reduce(image: Image.Image, max_side: int) -> None:
    """Let the JPEG decoder shrink during decoding, 3 times as fast, but only by factors that keep coordinates exact."""
    width, height = image.size
    for factor in (8, 4, 2):
        if width % factor == height % factor == 0 and max(width, height) // factor >= max_side:
            image.draft(None, (width // factor, height // factor))
            return


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, if EXIF data are unreadable: the pixels themselves may be fine."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except MemoryError:
        raise
    except Exception:  # Pillow's EXIF readers raise nearly anything; the pixels are decoded separately
        return 1


class _QuietPillow:
    """Suppresses warnings of Pillow while any thread is inside; the last thread out restores the filters."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Reset to no thread inside."""
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_QUIET = _QuietPillow()

if hasattr(os, "register_at_fork"):  # a thread of the parent may be inside
    os.register_at_fork(after_in_child=_QUIET.start_over)
