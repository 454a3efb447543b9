"""Pictures as bytes of files with a limited size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from asmk_engine.errors import InputError
from asmk_engine.images.listing import shown
from asmk_engine.storage.folder import Folder

MOST_BYTES = 420_000
QUALITIES = (90, 84, 76, 66, 54, 40, 25)
BLINK_WIDTHS = (640, 540, 450, 370, 300, 220, 160)
BLINK_COLOURS = 128
BLINK_MILLISECONDS = 600
SUFFIXES = (".jpg", ".jpeg", ".png")


def jpeg_bytes(pixels: np.ndarray, most: int = MOST_BYTES) -> bytes:
    """Return a JPEG of [h, w, 3] uint8 RGB, of the best quality with at most `most` bytes, or else the least one."""
    data = b""
    for quality in QUALITIES:
        file = io.BytesIO()
        # Coloured lines are as sharp as grey ones only without subsampling.
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
        data = file.getvalue()
        if len(data) <= most:
            break
    return data


def blink_bytes(frames: Sequence[np.ndarray], most: int = MOST_BYTES) -> bytes:
    """Return an endless GIF of frames [h, w, 3] uint8 RGB of one size, shrunk until it has at most `most` bytes."""
    data = b""
    palette = Image.fromarray(np.vstack(frames)[::3, ::3].copy()).quantize(BLINK_COLOURS, Image.Quantize.MEDIANCUT)
    for width in BLINK_WIDTHS:
        data = _gif(frames, min(width, frames[0].shape[1]), palette)
        if len(data) <= most:
            break
    return data


def _gif(frames: Sequence[np.ndarray], width: int, palette: Image.Image) -> bytes:
    height, full = frames[0].shape[:2]
    size = width, max(1, round(height * width / full))
    small = [frame if width == full else cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
    file = io.BytesIO()
    pictures[0].save(
        file, "GIF", save_all=True, append_images=pictures[1:], duration=BLINK_MILLISECONDS, loop=0, disposal=1
    )
    return file.getvalue()


def check_picture_name(path: Path) -> None:
    """Raise InputError unless the name of a picture ends in one of SUFFIXES."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{shown(path)}: a picture is a JPEG or PNG file; give a name that ends in .jpg or .png")


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write [h, w, 3] uint8 RGB as JPEG or PNG, by the suffix, atomically; raises InputError and StorageError."""
    check_picture_name(path)
    if path.suffix.lower() == ".png":
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
        data = file.getvalue()
    else:
        data = jpeg_bytes(pixels)
    folder = Folder(path.parent)
    folder.make()
    folder.write(path.name, [data])
    folder.sync()
