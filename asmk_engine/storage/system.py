"""What a durable folder asks of the operating system, one function for each request.

Whatever must last goes through these, so that a test can record the requests, refuse any of them, or stop the world
after one. They raise OSError; `folder` turns it into the errors of this package.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
from pathlib import Path
from typing import IO

# MADV_POPULATE_READ of Linux 5.14, which Python does not name, and the request to read ahead.
_PRELOADING = [22, mmap.MADV_WILLNEED] if sys.platform == "linux" else []


def make_folder(path: Path) -> None:
    """Make a folder in an existing one; nothing happens when it is there."""
    path.mkdir(exist_ok=True)


def names(path: Path) -> list[str]:
    """The names in a folder, in no order."""
    return os.listdir(path)


def create(path: Path) -> IO[bytes]:
    """Open a file for writing and reading, empty and unbuffered."""
    return open(path, "wb+", buffering=0)


def write(file: IO[bytes], place: int, data: bytes | memoryview) -> None:
    """Put bytes at a place of an open file."""
    file.seek(place)
    left = memoryview(data)
    while left.nbytes:
        left = left[file.write(left) :]


def resize(file: IO[bytes], size: int) -> None:
    """Cut an open file, or lengthen it by zeros."""
    file.truncate(size)


def close(file: IO[bytes]) -> None:
    """Close a file."""
    file.close()


def sync_file(path: Path) -> None:
    """Make the content of a file durable; a name may be lost until its folder is synced."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":  # Windows cannot open a folder for syncing; its renames are journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(old: Path, new: Path) -> None:
    """Give a file another name, atomically, in place of the file that has it."""
    os.replace(old, new)


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def map_file(path: Path) -> memoryview | None:
    """The bytes of a file, mapped read-only; None for anything but a plain file: a link, a pipe, a folder."""
    if not stat.S_ISREG(os.lstat(path).st_mode):  # a link may lead anywhere, and opening a pipe waits for ever
        return None
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def preload(mapped: memoryview) -> None:
    """Read all that was mapped into memory and enter it into the tables of this process, where the system knows how."""
    if isinstance(mapped.obj, mmap.mmap):
        for advice in _PRELOADING:
            with contextlib.suppress(OSError):  # an older kernel knows only the second
                mapped.obj.madvise(advice)
                return


def lock(path: Path) -> int | None:
    """Open a file and lock it against other processes; the descriptor, or None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK):
            return None
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(descriptor: int) -> None:
    """Free what `lock` locked."""
    os.close(descriptor)
