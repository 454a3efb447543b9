"""The place of the network of a feature set: one file next to it, under its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asmk_engine.errors import MismatchError
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import file_sha256

SUFFIX = ".network.safetensors"


def network_beside(features: Path) -> Path:
    """Return the path of the network of a feature set: photos.network.safetensors for photos.features."""
    whole = features.resolve()
    return whole.with_name(whole.name.removesuffix(".features") + SUFFIX)


@contextmanager
def keeping(place: Path, sha256: str | None) -> Iterator[None]:
    """Return a context in which the network at `place` may be written; that of existing features is restored.

    sha256  sha256 of the network in the recipe of the existing features, or None

    Raises MismatchError on exit if the network of existing features was replaced by another one.
    """
    known = place.is_file() and file_sha256(place) == sha256
    content = place.read_bytes() if known else b""
    yield
    if known and file_sha256(place) != sha256:
        write_whole(place, content)
        raise MismatchError(
            f"{place}: belongs to existing features, but other weights or options were given; "
            "give the same ones, or write the features elsewhere"
        )


def write_whole(place: Path, content: bytes) -> None:
    """Write a file whole or not at all; missing folders are made."""
    folder = Folder(place.parent)
    folder.make()
    folder.write(place.name, [content])
    folder.sync()
