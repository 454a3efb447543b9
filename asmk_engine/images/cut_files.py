"""Truncated image files: how to detect them, and which of them still contain all their pixels."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin

MISSING_END = "the end of the file is missing; all its pixels are there"

_END_OF_IMAGE = b"\xff\xd9"
_JUNK = (b"\0", b"\xaa", b"\x55")
_JUNK_BYTES = 4096
# JPEG decoders stop at a marker; at the end of an interval they look for the next restart marker, and skip what seems
# lost if one of the two markers after it comes first: hence both kinds of junk, and two markers to start with.
_JPEG_ENDS = (
    _END_OF_IMAGE,
    *(junk * _JUNK_BYTES + _END_OF_IMAGE for junk in _JUNK),
    *(
        b"".join(b"\xff%c" % (0xD0 + (first + n) % 8) + b"\xaa" * 16 for n in range(512)) + _END_OF_IMAGE
        for first in (0, 4)
    ),
)
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_PNG_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_PIECES = ((273, 279), (324, 325))  # offsets and byte counts of strips, and of tiles


def lacks_end(file: BinaryIO, kind: str | None) -> bool:
    """Return whether an image file ends before its structure says; False for kinds without such information."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if kind == "PNG":
        return not _ends_with(file, _PNG_END) and all(name != b"IEND" for name, _ in _chunks(file.read()))
    if kind == "JPEG":
        return all(marker != _END_OF_IMAGE[1] for marker, _ in _segments(file.read()))
    if kind == "TIFF":
        return _tiff_bytes(file) > size
    if kind == "WEBP":
        return int.from_bytes(file.read(8)[4:], "little") + 8 > size
    return kind in ("JPEG2000", "AVIF", "HEIC") and _boxes_end(file, size) > size


def completed(file: BinaryIO, kind: str | None) -> bytes | None:
    """Return a truncated file with an end that decoders accept; None if pixels are missing, or nothing is.

    A PNG is complete if its data inflate to all its rows. A JPEG or TIFF is complete if it decodes to the same pixels
    whatever is appended: then the existing bytes determine all pixels.
    """
    if kind not in ("JPEG", "PNG", "TIFF") or not lacks_end(file, kind):
        return None
    needed = _tiff_bytes(file) if kind == "TIFF" else 0
    file.seek(0)
    content = file.read()
    try:
        if kind == "PNG":
            return _completed_png(content)
        if kind == "TIFF":
            missing = min(needed - len(content), len(content))
            return _determined(content, "TIFF", [(junk * missing) for junk in _JUNK])
        content = content.removesuffix(b"\xff")  # half a marker, which appended junk would turn into another one
        return _determined(content, "JPEG", _JPEG_ENDS) if _all_scans_started(content) else None
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, IndexError, KeyError):  # raised by decoders
        return None


def tiff_tags(file: BinaryIO) -> Mapping[int, Any]:
    """Return the readable tags of the first image in a TIFF by their numbers."""
    file.seek(0)
    head = file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if head[2:3] == b"\x2b" else b""))
    file.seek(directory.next)
    directory.load(file)
    tags: Mapping[int, Any] = directory
    return tags


def _ends_with(file: BinaryIO, end: bytes) -> bool:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - len(end)))
    found = file.read()
    file.seek(0)
    return found == end


def _determined(content: bytes, form: str, ends: tuple[bytes, ...] | list[bytes]) -> bytes | None:
    """Return the content with the first of the ends if it decodes to the same pixels with all of them, else None."""
    pictures = set()
    for end in ends:
        image = Image.open(io.BytesIO(content + end), formats=(form,))
        pictures.add(hashlib.blake2b(image.tobytes()).digest())
        if len(pictures) > 1:
            return None
    return content + ends[0]


# ------------------------------------------------------------------------------------------------------------ JPEG


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of each segment of the first image, including its end; entropy-coded data are skipped."""
    at = 2
    while (found := _MARKER.search(content, at)) is not None:
        marker, at = found[1][0], found.end()
        length = 0 if marker in (0x01, 0xD8, _END_OF_IMAGE[1]) else int.from_bytes(content[at : at + 2], "big")
        yield marker, content[at + 2 : at + length]
        at += length
        if marker == _END_OF_IMAGE[1]:
            return


def _all_scans_started(content: bytes) -> bool:
    """Return whether the scans that complete the coefficients of every component are finished or started.

    A cut between two scans leaves no trace: the file decodes to the same coarse pixels whatever is appended.
    """
    missing: dict[int, list[int]] = {}
    progressive = False
    for marker, body in _segments(content):
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            missing = {component: [14] * 64 for component in body[6 : 6 + 3 * body[5] : 3]}
        elif marker == _START_OF_SCAN:
            count = 1 + 2 * body[0]
            first, last, bits = body[count : count + 3] if progressive else (0, 63, 0)
            for component in body[1:count:2]:
                missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    return bool(missing) and not any(any(bits) for bits in missing.values())


# ------------------------------------------------------------------------------------------------------------- PNG


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of each chunk; the last one may be truncated."""
    at = 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def _completed_png(content: bytes) -> bytes | None:
    chunks = list(_chunks(content))
    needed = _png_bytes(chunks[0][1])
    rows = zlib.decompressobj().decompress(b"".join(data for name, data in chunks if name == b"IDAT"), needed)
    if len(rows) < needed:
        return None
    before = [_chunk(name, data) for name, data in chunks[: [name for name, _ in chunks].index(b"IDAT")]]
    return content[:8] + b"".join(before) + _chunk(b"IDAT", zlib.compress(rows, 1)) + _PNG_END


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_bytes(header: bytes) -> int:
    """Return the number of bytes the rows of a PNG inflate to: one byte for each row's filter, then its pixels."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    pixel = bits * _PNG_CHANNELS[colour]
    return sum(rows * (1 + -(-columns * pixel // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


# ------------------------------------------------------------------------------------------------ TIFF and others


def _tiff_bytes(file: BinaryIO) -> int:
    """Return the minimum length of a TIFF with its first directory, the values it points to, and its pixel data."""
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    number, entry = struct.Struct(order + ("Q" if big else "H")), struct.Struct(order + ("HHQQ" if big else "HHLL"))
    if len(head) < 16:
        return 17
    (start,) = struct.unpack_from(order + ("Q" if big else "L"), head, 8 if big else 4)
    file.seek(min(start, 1 << 62))
    count = file.read(number.size)
    end: int = start + number.size
    if len(count) < number.size:
        return end
    length = entry.size * int(number.unpack(count)[0])
    entries = file.read(min(length, 1 << 20))
    if len(entries) < length:
        return end + length
    inside = 8 if big else 4
    values = [_values_end(kind, many, place, inside) for _, kind, many, place in entry.iter_unpack(entries)]
    return max(end + length, *values, *(_pieces_end(tiff_tags(file), *names) for names in _TIFF_PIECES))


def _values_end(kind: int, count: int, place: int, inside: int) -> int:
    """Return where the values of a tag end if they do not fit inside its entry, else 0."""
    length = _TIFF_SIZES.get(kind, 0) * count
    return place + length if length > inside else 0


def _pieces_end(tags: Mapping[int, Any], offsets: int, counts: int) -> int:
    starts, lengths = tags.get(offsets, ()), tags.get(counts, ())
    return max((start + length for start, length in zip(starts, lengths, strict=False)), default=0)


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Return the end of the last box that starts in the file; JPEG 2000 and HEIF files consist of boxes."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or head.startswith(b"\xff\x4f"):  # 0: up to the end of the file; 0xff4f: a bare codestream
            return at
        at += length
    return at
