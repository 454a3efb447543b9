"""Files that users hand over: opened and read with errors that name the path and the cure."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.store import storage_errors


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


def read_file(path: Path, kind: str, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`; InputError for anything else, see `open_file`."""
    with open_file(path, kind) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a regular file: copy {kind} into one and name that")
        if status.st_size > max_bytes:
            raise InputError(f"{path}: {status.st_size} bytes, {kind} has {max_bytes} at most: is it the right file?")
        return file.read(status.st_size)
