"""Roots of images: the folder that names are relative to, and the prefix of the names."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Root:
    """A folder of images, and the prefix of their names.

    folder  absolute, links resolved; empty if unknown, as for features of another program
    prefix  precedes each path below the folder, such as `card2/`; usually empty
    """

    folder: str
    prefix: str = ""

    @classmethod
    def of(cls, folder: Path | str, prefix: str = "") -> Root:
        """Return the root of a folder as given by a user."""
        return cls(os.path.realpath(folder), prefix)

    @property
    def is_known(self) -> bool:
        """Whether the folder is known."""
        return bool(self.folder)

    def file(self, name: str) -> Path | None:
        """Return the path of the image `name`, whether it exists or not; None for an unknown root or another prefix."""
        if not self.folder or not name.startswith(self.prefix):
            return None
        return Path(self.folder) / name[len(self.prefix) :]

    def name(self, file: Path) -> str | None:
        """Return the name of the image in this file; None for an unknown root or a file that is not below it."""
        if not self.folder or not file.is_relative_to(self.folder):
            return None
        return self.prefix + file.relative_to(self.folder).as_posix()


UNKNOWN = Root("")


def listed_roots(counts: Mapping[Root, int]) -> list[dict[str, object]]:
    """Return roots and their numbers of images as JSON values."""
    return [{"folder": root.folder, "prefix": root.prefix, "images": count} for root, count in counts.items()]


def is_other(known: Root, found: Root, name: str) -> bool:
    """Return whether an image with other content counts as another photograph, not as a changed one."""
    if known.is_known != found.is_known:
        return True
    return known.is_known and known.file(name) != found.file(name)


class Absence:
    """Determines which files are gone; each folder on the path is examined once.

    A file is not provably gone if anything on its path cannot be examined, or if a link on the path is broken, as for
    an unmounted disk. An empty folder, such as an unused mount point, leaves doubt.
    """

    def __init__(self) -> None:
        self._folders: dict[tuple[Path, Path], str] = {}

    def of(self, path: Path, root: Path) -> str:
        """Return `gone`, `doubtful`, or an empty string if a file below a root exists or its state is unknown."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            is_below = path != root and path.is_relative_to(root)
            return self._above(path.parent, root) if is_below and not os.path.islink(path) else ""
        except (OSError, ValueError):
            pass
        return ""

    def _above(self, folder: Path, root: Path) -> str:
        """Return the state of a missing file according to its nearest existing parent."""
        if (folder, root) not in self._folders:
            self._folders[folder, root] = self._look(folder, root)
        return self._folders[folder, root]

    def _look(self, folder: Path, root: Path) -> str:
        try:
            if not stat.S_ISDIR(os.stat(folder).st_mode):
                return "gone"
            with os.scandir(folder) as entries:
                return "gone" if next(entries, None) is not None else "doubtful"
        except (FileNotFoundError, NotADirectoryError):
            is_end = folder == root or os.path.islink(folder)
            return "" if is_end else self._above(folder.parent, root)
        except OSError:
            return ""
