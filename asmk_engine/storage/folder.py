"""Durable folders: the only module that writes, renames, syncs and removes durable files.

A file is written under a temporary name, synced, and renamed to its final name; it then never changes.
Only a manifest is replaced, atomically, as the last step of a commit. Temporary names end in `.tmp`, so that the next
writer recognises and removes what a killed writer left behind. The calls to the operating system are in `system`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import zlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from asmk_engine.errors import AsmkError, DamagedError, FormatError, NotFoundError, StorageError
from asmk_engine.storage import system

TEMPORARY = ".tmp"
LOCK = "lock"
_HDF5_CAUSE = re.compile(r"\berrno = ([1-9]\d*)\b")

_CURES = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose a disk that supports large files",
    errno.EROFS: "choose a writable folder",
    errno.EACCES: "choose a folder with write permission, or change its permissions",
    errno.EPERM: "choose a folder with write permission, or change its permissions",
    errno.ENOLCK: "use a disk that supports file locks",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and run the same command again",
}


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError that names the path, the cause and the cure.

    Errors of the system that HDF5 reports are included: OSError while it writes, RuntimeError when it closes a file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number, reason = _cause(error)
        if number is None and not isinstance(error, OSError):
            raise
        cure = _CURES.get(number or 0, "previously stored data is unchanged")
        raise StorageError(f"{path}: cannot {doing}: {reason}; {cure}") from error


def _cause(error: OSError | RuntimeError) -> tuple[int | None, str]:
    """Return the errno and one-line message of a system error; HDF5's long text is reduced to the system's message."""
    found = _HDF5_CAUSE.search(str(error))
    if found:
        return int(found[1]), os.strerror(int(found[1]))
    words = error.strerror if isinstance(error, OSError) else None
    return getattr(error, "errno", None), " ".join(str(words or error).split())


class Folder:
    """A folder whose files are written once, synced and never changed; every method may raise StorageError."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def make(self) -> None:
        """Create the folder and missing parents, each made durable in its parent."""
        missing = [path for path in (self.path, *self.path.parents) if not path.is_dir()]
        with storage_errors(self.path, "make the folder"):
            for path in reversed(missing):
                system.make_folder(path)
            for path in missing or [self.path]:  # an existing one may not be durable yet
                with contextlib.suppress(PermissionError):  # an unreadable parent cannot be synced
                    system.sync_folder(path.parent)

    def names(self) -> list[str]:
        """Return the sorted names of the files in the folder; empty if the folder does not exist."""
        with storage_errors(self.path, "list the folder"):
            return sorted(system.names(self.path)) if self.path.is_dir() else []

    def temporary(self, name: str) -> Path:
        """Return the path where the file `name` is written until it is complete."""
        return self.path / f"{name}{TEMPORARY}"

    def write(self, name: str, chunks: Iterable[bytes | memoryview], what: str = "the file") -> None:
        """Write, sync and rename a new file, called `what` in errors; the folder itself must still be synced."""
        self._write_temporary(name, chunks, what)
        self.publish(name)

    def _write_temporary(self, name: str, chunks: Iterable[bytes | memoryview], what: str = "the file") -> None:
        temporary = self.temporary(name)
        with storage_errors(self.path / name, f"write {what}"), _removed_on_error(temporary):
            file, end = system.create(temporary), 0
            try:
                for chunk in chunks:
                    system.write(file, end, chunk)
                    end += memoryview(chunk).nbytes
            finally:
                system.close(file)
            system.sync_file(temporary)

    def create(self, name: str) -> IO[bytes]:
        """Open the temporary file of `name` for writing and reading; `publish` gives it its final name."""
        with storage_errors(self.path / name, "write the file"):
            return system.create(self.temporary(name))

    def remove_unfinished(self, name: str) -> None:
        """Remove the temporary file of `name` if it was not published."""
        self.remove(f"{name}{TEMPORARY}")

    def publish(self, name: str) -> None:
        """Sync the finished temporary file of `name` and rename it to its final name, replacing an older file."""
        temporary = self.temporary(name)
        with storage_errors(self.path / name, "write the file"), _removed_on_error(temporary):
            system.sync_file(temporary)
            system.replace(temporary, self.path / name)

    def sync(self) -> None:
        """Make the names in the folder durable."""
        with storage_errors(self.path, "sync the folder"):
            system.sync_folder(self.path)

    def remove(self, name: str) -> None:
        """Remove a file if it exists; one that cannot be removed now is left to the next writer."""
        with (
            storage_errors(self.path / name, "remove the file"),
            contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError),
        ):
            system.remove(self.path / name)

    def move(self, name: str, target: Folder) -> None:
        """Move a file to another folder on the same disk; both folders must still be synced."""
        with storage_errors(self.path / name, f"move the file to {target.path}"):
            system.replace(self.path / name, target.path / name)

    def remove_leftovers(self, ours: re.Pattern[str], keep: Container[str] = ()) -> None:
        """Remove files whose names, without `.tmp`, match the pattern `ours` and are not in `keep`.

        These are the leftovers of a killed writer; only the holder of the lock may call this.
        """
        for name in self.names():
            if name not in keep and ours.fullmatch(name.removesuffix(TEMPORARY)):
                self.remove(name)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        with storage_errors(self.path / name, "read the size"):
            return system.size(self.path / name)

    def content(self, name: str) -> bytes | None:
        """Return all bytes of a small file, or None if it cannot be read."""
        try:
            return bytes(self.map(name))
        except AsmkError:
            return None

    def map(self, name: str) -> memoryview:
        """Map a file read-only. Raises NotFoundError if it is missing, DamagedError if it is not a regular file."""
        path = self.path / name
        try:
            data = system.map_file(path)
        except FileNotFoundError:
            raise NotFoundError(f"{path}: no such file") from None
        except OSError as error:
            cure = _CURES.get(error.errno or 0, "check that the file can be read")
            raise StorageError(f"{path}: cannot map the file: {error.strerror or error}; {cure}") from error
        if data is None:
            raise DamagedError(f"{path}: not a regular file; restore a copy")
        return data

    def replace_manifest(self, names: Iterable[str], content: dict[str, Any]) -> None:
        """Commit: replace each copy of the manifest in turn and sync the folder after each.

        If the machine stops at any point, at least one copy is complete and holds this commit or the previous one.
        """
        data = encode_manifest(content)
        copies = list(names)
        for name in copies:  # all content must be on disk before the first copy is replaced
            self._write_temporary(name, [data])
        for name in copies:
            self.publish(name)
            self.sync()


def encode_manifest(content: dict[str, Any]) -> bytes:
    """Return the canonical JSON of `content`, with its crc32 under `checksum`."""
    body = _canonical(content)
    return _canonical({**content, "checksum": zlib.crc32(body)}) + b"\n"


def decode_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """Return the content that `encode_manifest` encoded.

    Raises DamagedError if `data` is truncated or altered, FormatError if it is something else.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedError(f"{path}: not readable as JSON: the manifest is truncated or altered") from None
    if not isinstance(content, dict) or "kind" not in content:
        raise FormatError(f"{path}: not a manifest of asmk-engine: it has no kind")
    checksum = content.pop("checksum", None)
    if checksum != zlib.crc32(_canonical(content)):
        raise DamagedError(f"{path}: the checksum does not match: the manifest was altered")
    return content


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True).encode()


class WriterLock:
    """An exclusive lock for writing to a folder; the operating system releases it when the process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> WriterLock:
        with storage_errors(self._path, "lock the folder"):
            self._file = system.lock(self._path)
        if self._file is None:
            raise StorageError(f"{self._path.parent}: another process is writing here; wait until it has finished")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            system.unlock(self._file)
            self._file = None


class LockedFolder:
    """A folder to which one process writes for as long as this is open; it is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self._folder, self._lock = Folder(path), WriterLock(path)

    def _open(self) -> None:
        """Read or tidy what is in the folder, which is locked already."""

    def __enter__(self) -> Self:
        self._folder.make()
        self._lock.__enter__()
        try:
            self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            system.remove(path)
        raise
