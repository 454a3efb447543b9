"""The names of an index as folders that can be walked and searched."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AFTER_SLASH = "0"  # the character that follows "/": all names below a folder are between the two


@dataclass(frozen=True)
class FolderListing:
    """What a folder holds, or a search finds.

    folders  names of folders, each with a slash at its end, and the numbers of images below them
    names    names of images
    """

    folders: tuple[tuple[str, int], ...]
    names: tuple[str, ...]

    def page(self, after: str | None, limit: int) -> tuple[tuple[str, ...], str | None]:
        """Return the names that follow `after`, at most `limit`, and the last of them if there are more."""
        begin = 0 if after is None else bisect.bisect_right(self.names, after)
        found = self.names[begin : begin + limit]
        return found, found[-1] if found and begin + limit < len(self.names) else None


class NameTable:
    """The names of a commit.

    names     in the order of their code points, which is that of their bytes
    metadata  values by column, by name
    """

    def __init__(self, names: Sequence[str], metadata: Mapping[str, Mapping[str, str]]) -> None:
        self.names = list(names)
        self._metadata = metadata
        self.listing = functools.lru_cache(16)(self._listing)
        self.found = functools.lru_cache(16)(self._found)

    def span(self, folder: str) -> tuple[int, int]:
        """Return where the names below a folder begin and end; a folder ends in a slash, the top is empty."""
        if not folder:
            return 0, len(self.names)
        return bisect.bisect_left(self.names, folder), bisect.bisect_left(self.names, folder[:-1] + AFTER_SLASH)

    def _listing(self, folder: str) -> FolderListing:
        """Return folders and images directly in a folder."""
        place, end = self.span(folder)
        folders, names = [], []
        while place < end:
            first, slash, _ = self.names[place][len(folder) :].partition("/")
            if slash:
                below = f"{folder}{first}/"
                following = self.span(below)[1]
                folders.append((below, following - place))
                place = following
            else:
                names.append(self.names[place])
                place += 1
        return FolderListing(tuple(folders), tuple(names))

    def _found(self, folder: str, search: str) -> FolderListing:
        """Return the images below a folder whose name or metadata have all words of a search, in any case."""
        words = search.casefold().split()
        first, end = self.span(folder)
        texts = self._texts[first:end]
        places = [first + place for place, text in enumerate(texts) if all(word in text for word in words)]
        return FolderListing((), tuple(self.names[place] for place in places))

    @functools.cached_property
    def _texts(self) -> list[str]:
        """Name and metadata of each image, in which words are looked for."""
        empty: Mapping[str, str] = {}
        known = self._metadata
        if not known:
            return [name.casefold() for name in self.names]
        return ["\n".join([name, *known.get(name, empty).values()]).casefold() for name in self.names]

    def neighbours(self, name: str) -> tuple[str | None, str | None]:
        """Return the names before and after a name in the same folder."""
        folder = name[: name.rfind("/") + 1]
        names = self.listing(folder).names
        place = bisect.bisect_left(names, name)
        return names[place - 1] if place else None, names[place + 1] if place + 1 < len(names) else None
