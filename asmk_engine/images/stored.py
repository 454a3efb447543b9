"""Images that are no files of this machine: what a run needs to know of them and to read them."""

from __future__ import annotations

from typing import Protocol


class StoredImage(Protocol):
    """An image that is not a file here, such as an object of object storage."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        ...

    @property
    def mtime(self) -> int:
        """When it was stored, in ns since 1970."""
        ...

    def read(self) -> bytes:
        """Return its content. Raises StorageError if it cannot be read."""
        ...
