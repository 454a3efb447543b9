"""The names of the images in a sparse model of COLMAP (github.com/colmap/colmap, `scripts/python/read_write_model.py`).

`images.bin`, little-endian: a count (8 bytes); then for every image its number (4), pose (7 doubles) and camera (4),
its name up to a zero byte, a count of points (8) and 24 bytes for each. `images.txt`: for every image a line that ends
in its name, the tenth column, and a line of points.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from asmk_engine.errors import DamagedError, FormatError, NotFoundError
from asmk_engine.storage.user_files import open_file

_BEFORE_NAME = 4 + 7 * 8 + 4
_POINT = 8 + 8 + 8
_COLUMNS = 10  # of an image in the text form, the name being the last
_CURE = "copy the model again, or let COLMAP write it again"


def model_images(folder: Path | str) -> list[str]:
    """The names of a model's images, in the order in which it is stored.

    Parameters
    ----------
    folder : pathlib.Path or str
        That of `images.bin`, which is read, or of `images.txt`.

    Returns
    -------
    list of str

    Raises
    ------
    NotFoundError
        Where there is neither file.
    FormatError
        For a text file that is something else.
    DamagedError
        For a file that ends too early, claims too much, or holds a name that is not UTF-8.
    """
    binary, text = Path(folder) / "images.bin", Path(folder) / "images.txt"
    if binary.is_file():
        return _decoded(_binary_names(binary), binary)
    if text.is_file():
        return _decoded(_text_names(text), text)
    raise NotFoundError(f"{folder}: holds no images.bin and no images.txt; expected the folder of a model of COLMAP")


def _decoded(names: Iterator[bytes], path: Path) -> list[str]:
    try:
        return [name.decode() for name in names]
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path}: the name {error.object!r} is not UTF-8; {_CURE}") from None


def _binary_names(path: Path) -> Iterator[bytes]:
    with open_file(path, "the images of a model of COLMAP") as file:
        if not path.stat().st_size:
            raise DamagedError(f"{path}: empty; {_CURE}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = 8
            for number in range(int.from_bytes(content[:8], "little")):
                begin = place + _BEFORE_NAME
                end = content.find(b"\0", begin)
                points = int.from_bytes(content[end + 1 : end + 9], "little")
                place = end + 9 + points * _POINT
                if not begin <= end < len(content) - 8 or place > len(content):
                    raise DamagedError(f"{path}: ends inside image {number + 1}; {_CURE}")
                yield content[begin:end]


def _text_names(path: Path) -> Iterator[bytes]:
    with open_file(path, "the images of a model of COLMAP") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or line.startswith(b"#"):
                continue
            columns = line.split(maxsplit=_COLUMNS - 1)
            if len(columns) != _COLUMNS:
                raise FormatError(
                    f"{path}: line {number}: {len(columns)} columns, expected the 10 of an image; {_CURE}"
                )
            yield columns[-1].rstrip()
            next(file, None)  # its points
