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


UNKNOWN = Root("")


def listed_roots(counts: Mapping[Root, int]) -> list[dict[str, object]]:
    """Roots and how many images came from each, in JSON values."""
    return [{"folder": root.folder, "prefix": root.prefix, "images": count} for root, count in counts.items()]


def is_elsewhere(known: Root, found: Root, name: str) -> bool:
    """Whether an image is to be remembered below the root where it was found, since it is no longer where it was."""
    if not found.is_known or known == found:
        return False
    file = known.file(name)
    return file is None or not os.path.lexists(file)


def is_other(known: Root, found: Root, name: str) -> bool:
    """Whether an image of other content is another photograph, as far as anybody can tell, not a changed one."""
    if known.is_known != found.is_known:
        return True
    return known.is_known and known.file(name) != found.file(name)


def is_gone(path: Path, root: Path, *, trusting: bool = False) -> bool:
    """Whether a file below a folder is provably not there any more.

    Not when anything on the way could not be looked at, or when a link on the way leads nowhere, as to a disk that is
    not mounted. A folder that is empty now, as a mount point is, proves something only to the `trusting`.
    """
    try:
        os.stat(path)
        return False
    except (FileNotFoundError, NotADirectoryError):
        return path.is_relative_to(root) and _is_proven(path, root, trusting)
    except (OSError, ValueError):
        return False


def _is_proven(path: Path, root: Path, trusting: bool) -> bool:
    """Whether the nearest thing above a missing file that exists is a folder in use, so that the file must be gone."""
    for place in (path, *path.parents):
        try:
            mode = os.lstat(place).st_mode
            if place == path:
                return not stat.S_ISLNK(mode)
            return not stat.S_ISDIR(os.stat(place).st_mode) or bool(os.listdir(place)) or trusting
        except (FileNotFoundError, NotADirectoryError):
            if place == root or os.path.islink(place):
                return False
        except OSError:
            return False
    return False
