"""Where an image comes from: the folder that its name is relative to, and what was put before its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Root:
    """A folder of photographs, and the beginning that the names of its images were given.

    folder  in full, links resolved; empty where nobody knows, as for features of another program
    prefix  what stands before each path below the folder, such as `card2/`; mostly empty
    """

    folder: str
    prefix: str = ""

    @classmethod
    def of(cls, folder: Path | str, prefix: str = "") -> Root:
        """The root of a folder as somebody wrote it."""
        return cls(os.path.realpath(folder), prefix)

    @property
    def is_known(self) -> bool:
        """Whether it says where the image is."""
        return bool(self.folder)

    def file(self, name: str) -> Path | None:
        """Where the image of this name is, whether it is there or not; None for an unknown root or another prefix."""
        if not self.folder or not name.startswith(self.prefix):
            return None
        return Path(self.folder) / name[len(self.prefix) :]

    def name(self, file: Path) -> str | None:
        """The name of the image in this file; None for an unknown root or one that it does not lie below."""
        if not self.folder or not file.is_relative_to(self.folder):
            return None
        return self.prefix + file.relative_to(self.folder).as_posix()


UNKNOWN = Root("")


def listed_roots(counts: Mapping[Root, int]) -> list[dict[str, object]]:
    """Roots and how many images came from each, in JSON values."""
    return [{"folder": root.folder, "prefix": root.prefix, "images": count} for root, count in counts.items()]


def is_other(known: Root, found: Root, name: str) -> bool:
    """Whether an image of other content is another photograph, as far as anybody can tell, not a changed one."""
    if known.is_known != found.is_known:
        return True
    return known.is_known and known.file(name) != found.file(name)


class Absence:
    """Which files are gone; each folder on the way is looked at once.

    A file is not proven gone when anything on the way could not be looked at, or when a link on the way leads nowhere,
    as to a disk that is not mounted. A folder that is empty now, as a mount point is, leaves doubt.
    """

    def __init__(self) -> None:
        self._folders: dict[tuple[Path, Path], str] = {}

    def of(self, path: Path, root: Path) -> str:
        """`gone`, `doubtful`, or empty for a file below a root that is there, or of which nobody can tell."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            is_below = path != root and path.is_relative_to(root)
            return self._above(path.parent, root) if is_below and not os.path.islink(path) else ""
        except (OSError, ValueError):
            pass
        return ""

    def _above(self, folder: Path, root: Path) -> str:
        """What the nearest thing above a missing file that exists says of it."""
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
