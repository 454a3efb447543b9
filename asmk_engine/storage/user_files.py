"""Files given by users: open and read them with errors that name the path and the cure."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.storage.folder import storage_errors


@contextlib.contextmanager
def open_file(path: Path, kind: str) -> Iterator[BinaryIO]:
    """Open a file for reading. NotFoundError, InputError (for a folder) and StorageError name the expected `kind`."""
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected {kind}: name the file itself")
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file; expected {kind}") from None
    except OSError as error:
        with storage_errors(path, "open the file"):
            raise error
    # The caller's own errors while the file is open must not be reported as errors of opening it.
    with file, storage_errors(path, "read the file"):
        yield file


def first_bytes(path: Path | str, count: int) -> bytes:
    """Return the first bytes of a file; empty if it is no file or cannot be opened, which its reader will report."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""


def read_file(path: Path, kind: str, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`. Raises InputError otherwise, see `open_file`."""
    # Checked before the file is opened: opening a pipe blocks until it has a writer.
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: not a regular file: copy {kind} into a regular file and name that")
    with open_file(path, kind) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise InputError(f"{path}: {size} bytes, {kind} has at most {max_bytes}: check that it is the right file")
        return file.read(size)


def file_sha256(path: Path | str) -> str:
    """Return the sha256 of a weights file as in recipes, 64 hexadecimal digits. Raises NotFoundError, StorageError."""
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file; expected a file of weights")
    with storage_errors(path, "read the file"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
