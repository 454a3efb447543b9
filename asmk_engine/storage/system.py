"""The operating system calls of durable folders, one function each.

All durable writes use these functions, so that a test can record the calls, make any of them fail, or stop after one.
They raise OSError; `folder` turns it into the errors of this package.
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

# MADV_POPULATE_READ of Linux 5.14, for which Python has no name, and MADV_WILLNEED.
_PRELOADING = [22, mmap.MADV_WILLNEED] if sys.platform == "linux" else []


def make_folder(path: Path) -> None:
    """Create a folder in an existing one, unless it exists."""
    path.mkdir(exist_ok=True)


def names(path: Path) -> list[str]:
    """Return the names in a folder, in arbitrary order."""
    return os.listdir(path)


def create(path: Path) -> IO[bytes]:
    """Open a file for writing and reading, empty and unbuffered."""
    return open(path, "wb+", buffering=0)


def write(file: IO[bytes], place: int, data: bytes | memoryview) -> None:
    """Write bytes at an offset of an open file."""
    file.seek(place)
    left = memoryview(data)
    while left.nbytes:
        left = left[file.write(left) :]


def resize(file: IO[bytes], size: int) -> None:
    """Truncate an open file, or extend it with zeros."""
    file.truncate(size)


def close(file: IO[bytes]) -> None:
    """Close a file."""
    file.close()


def sync_file(path: Path) -> None:
    """Make the content of a file durable; its name may be lost until the folder is synced."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":  # Windows cannot open a folder to sync it; its renames are journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(old: Path, new: Path) -> None:
    """Rename a file atomically, replacing an existing file."""
    os.replace(old, new)


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def size(path: Path) -> int:
    """Return the size of a file in bytes."""
    return path.stat().st_size


def map_file(path: Path) -> memoryview | None:
    """Map a file read-only; return None for anything but a regular file: a link, a pipe, a folder."""
    if not stat.S_ISREG(os.lstat(path).st_mode):  # a link may lead anywhere, and opening a pipe blocks
        return None
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def preload(mapped: memoryview) -> None:
    """Read all mapped bytes into memory and into the page table of this process, if the system supports it."""
    if isinstance(mapped.obj, mmap.mmap):
        for advice in _PRELOADING:
            with contextlib.suppress(OSError):  # an older kernel supports only the second
                mapped.obj.madvise(advice)
                return


def lock(path: Path) -> int | None:
    """Lock a file against other processes; return its descriptor, or None if another process holds the lock."""
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
    """Release the lock of `lock`."""
    os.close(descriptor)
