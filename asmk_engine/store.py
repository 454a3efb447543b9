"""Durable folders: the only module that writes, renames, syncs and removes what must last.

A file is written under a temporary name, synced, and renamed to its final name; it then never changes.
Only a manifest is replaced, atomically, as the last step of a commit. Temporary names end in `.tmp`, so that
whatever a killed writer left behind is recognised and removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import re
import stat
import sys
import zlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from asmk_engine.errors import DamagedError, FormatError, NotFoundError, StorageError

TEMPORARY = ".tmp"
# MADV_POPULATE_READ of Linux 5.14, which Python does not name, and the request to read ahead.
_PRELOADING = [22, mmap.MADV_WILLNEED] if sys.platform == "linux" else []
LOCK = "lock"

_CURES = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may write, or change its permissions",
    errno.EPERM: "choose a folder that you may write, or change its permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and run the same command again",
}


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that names the path, the cause and the cure."""
    try:
        yield
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "nothing that was stored before is changed")
        reason = " ".join(str(error.strerror or error).split())  # HDF5 writes whole paragraphs
        raise StorageError(f"{path}: cannot {doing}: {reason}; {cure}") from error


class Folder:
    """A folder whose files are written once, synced and never changed; every method raises StorageError."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def make(self) -> None:
        """Make the folder and its parents where they are missing, and sync the parent."""
        if self.path.is_dir():
            return
        with storage_errors(self.path, "make the folder"):
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(PermissionError):  # a parent that may be entered but not read cannot be synced
                _sync_folder(self.path.parent)

    def names(self) -> list[str]:
        """Sorted names of the files in the folder; empty when there is no folder."""
        with storage_errors(self.path, "list the folder"):
            return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def temporary(self, name: str) -> Path:
        """Where a file that will be called `name` is written before it is complete."""
        return self.path / f"{name}{TEMPORARY}"

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write, sync and rename a new file; the folder itself still has to be synced."""
        self._write_temporary(name, chunks)
        self.publish(name)

    def _write_temporary(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        temporary = self.temporary(name)
        with storage_errors(self.path / name, "write the file"), _removed_on_error(temporary):
            with open(temporary, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            _sync_file(temporary)

    def create(self, name: str) -> IO[bytes]:
        """Open the temporary file of `name` for writing and reading; `publish` gives it its name."""
        with storage_errors(self.path / name, "write the file"):
            return open(self.temporary(name), "wb+")

    def remove_unfinished(self, name: str) -> None:
        """Remove the temporary file of `name` where it was not published."""
        self.remove(f"{name}{TEMPORARY}")

    def publish(self, name: str) -> None:
        """Sync the finished temporary file of `name` and give it its final name, replacing an older one."""
        temporary = self.temporary(name)
        with storage_errors(self.path / name, "write the file"), _removed_on_error(temporary):
            _sync_file(temporary)
            os.replace(temporary, self.path / name)

    def sync(self) -> None:
        """Make the names in the folder durable."""
        with storage_errors(self.path, "sync the folder"):
            _sync_folder(self.path)

    def remove(self, name: str) -> None:
        """Remove a file if it is there; one that cannot be removed now is left for the next writer."""
        with (
            storage_errors(self.path / name, "remove the file"),
            contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError),
        ):
            (self.path / name).unlink()

    def remove_leftovers(self, ours: re.Pattern[str], keep: Container[str] = ()) -> None:
        """Remove files whose names, without `.tmp`, are of the pattern `ours` and not in `keep`.

        That is what a killed writer left behind; only the holder of the lock may call this.
        """
        for name in self.names():
            if name not in keep and ours.fullmatch(name.removesuffix(TEMPORARY)):
                self.remove(name)

    def content(self, name: str) -> bytes | None:
        """All bytes of a small file, or None when it cannot be read."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def map(self, name: str) -> memoryview:
        """The bytes of a file, mapped read-only; NotFoundError when it is missing."""
        path = self.path / name
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
                raise DamagedError(f"{path}: not a plain file; restore a copy")
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return memoryview(b"")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            raise NotFoundError(f"{path}: no such file") from None
        except OSError as error:
            cure = _CURES.get(error.errno or 0, "check that the file can be read")
            raise StorageError(f"{path}: cannot map the file: {error.strerror or error}; {cure}") from error

    @staticmethod
    def preload(mapped: memoryview) -> None:
        """Read all of what `map` returned into memory and enter it into the tables of this process, where that helps.

        Without it every part is entered when it is first touched, a few pages at a time.
        """
        if isinstance(mapped.obj, mmap.mmap):
            for advice in _PRELOADING:
                with contextlib.suppress(OSError):  # an older kernel knows only the second
                    mapped.obj.madvise(advice)
                    return

    def replace_manifest(self, names: Iterable[str], content: dict[str, Any]) -> None:
        """Commit: replace each copy of the manifest in turn, syncing the folder after each.

        Whenever the machine stops, at least one copy is whole, and it holds this commit or the one before.
        """
        data = encode_manifest(content)
        copies = list(names)
        for name in copies:  # all content is on the disk before the first copy is replaced
            self._write_temporary(name, [data])
        for name in copies:
            self.publish(name)
            self.sync()


def encode_manifest(content: dict[str, Any]) -> bytes:
    """Canonical JSON of `content` with a crc32 of itself under `checksum`."""
    body = _canonical(content)
    return _canonical({**content, "checksum": zlib.crc32(body)}) + b"\n"


def decode_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """What `encode_manifest` wrote; DamagedError when it is cut or altered, FormatError when it is something else."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedError(f"{path}: not readable as JSON: the manifest is cut or altered") from None
    if not isinstance(content, dict) or "kind" not in content:
        raise FormatError(f"{path}: not a manifest of asmk-engine: it names no kind")
    checksum = content.pop("checksum", None)
    if checksum != zlib.crc32(_canonical(content)):
        raise DamagedError(f"{path}: the checksum does not match: the manifest was altered")
    return content


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True).encode()


class WriterLock:
    """The right to write to a folder, held by at most one process; the operating system frees it when we die."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> WriterLock:
        with storage_errors(self._path, "open the lock"):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self._file)
        except OSError as error:
            os.close(self._file)
            self._file = None
            busy = error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
            why = "another process is writing here; wait until it has finished"
            cannot = f"cannot lock the folder: {error.strerror or error}; use a disk that can lock files"
            raise StorageError(f"{self._path.parent}: {why if busy else cannot}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder for syncing; its renames are journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
