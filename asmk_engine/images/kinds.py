"""Kinds of image files: by suffix, and by first bytes, without a decoder.

This module imports no decoder, because listing folders needs it.
"""

from __future__ import annotations

import importlib.util
import os
import stat

SUFFIXES_READ = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""The suffixes that every installation reads, in lower case."""
HEIF_SUFFIXES = (".heic", ".heif", ".hif", ".avif")
"""The suffixes that are read if an optional decoder is installed, in lower case."""
KINDS_READ = "JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF or HEIC"
"""The supported kinds, for messages."""

HEAD_BYTES = 32
"""The number of first bytes that determine the kind of a file."""
_SIGNATURES = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("JPEG2000", (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))


def looks_like_image(path: str | os.PathLike[str]) -> bool:
    """Return whether a file starts like an image of a known kind; False if it is no file or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could block forever
            return False
        with open(path, "rb") as file:
            return image_kind(file.read(HEAD_BYTES)) is not None
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return False


def image_kind(head: bytes) -> str | None:
    """Return the kind that the first 32 bytes announce: a Pillow format name, or "HEIC"; None for no image."""
    for kind, signatures in _SIGNATURES:
        if head.startswith(signatures):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:  # texts may start with BM too
        return "BMP"
    return _heif_kind(head) if head[4:8] == b"ftyp" else None


def heif_is_readable(suffix: str) -> bool:
    """Return whether this installation reads files with this suffix, one of `HEIF_SUFFIXES`."""
    suffix = suffix.lower()
    if suffix == ".avif" and pillow_reads_avif():
        return True
    return suffix in HEIF_SUFFIXES and importlib.util.find_spec("pillow_heif") is not None


def pillow_reads_avif() -> bool:
    """Return whether the installed Pillow has its AVIF decoder."""
    return importlib.util.find_spec("PIL._avif") is not None


def _heif_kind(head: bytes) -> str | None:
    """Return AVIF, HEIC, or None for videos of the same structure, by the brands of the first box, major one first."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))]
    if not _AVIF_BRANDS.isdisjoint(brands):
        return "AVIF"
    return None if _HEIC_BRANDS.isdisjoint(brands) else "HEIC"
