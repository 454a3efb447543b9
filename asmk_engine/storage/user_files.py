"""Files that users hand over: opened and read with errors that name the path and the cure."""

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
    """A file open for reading; NotFoundError, InputError (a folder) or StorageError name the `kind` expected there."""
    if path.is_dir():
        raise InputError(f"{path}: a folder, where {kind} was expected: name the file itself")
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file; {kind} was expected there") from None
    except OSError as error:
        with storage_errors(path, "open the file"):
            raise error
    # What fails while the caller works with the open file is none of the errors above.
    with file, storage_errors(path, "read the file"):
        yield file


def first_bytes(path: Path | str, count: int) -> bytes:
    """How a file begins; empty for what is no file or cannot be opened, as whoever goes on to read it will say."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""


def read_file(path: Path, kind: str, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`; InputError for anything else, see `open_file`."""
    # Asked before the file is opened: to open a pipe is to wait for its writer.
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: not a regular file: copy {kind} into one and name that")
    with open_file(path, kind) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise InputError(f"{path}: {size} bytes, {kind} has {max_bytes} at most: is it the right file?")
        return file.read(size)


def file_sha256(path: Path | str) -> str:
    """The sha256 of a file of weights, 64 hexadecimal digits, by which recipes name it; NotFoundError, StorageError."""
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file; weights were expected there")
    with storage_errors(path, "read the file"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
