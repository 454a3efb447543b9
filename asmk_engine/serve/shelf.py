"""The indexes of a server: each opened once, searched by many threads, and refreshed when another process commits."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError, InputError, NotFoundError
from asmk_engine.extraction.attempts import Origin
from asmk_engine.fused.queries import FusedFeatures, FusedNamedImages
from asmk_engine.indexes.manifest import NAMES
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.search.opening import open_any, plain_searcher, state_of
from asmk_engine.search.query_features import query_source
from asmk_engine.serve.metadata import Metadata
from asmk_engine.serve.name_table import NameTable
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.refusals import Refusal, told

REFRESH_SECONDS = 1.0
Opener = Callable[[Path], tuple[Any, Any]]
"""Opens an index, and returns it with what searches it."""
_LOG = logging.getLogger("uvicorn.error")
KEPT_FEATURES = 256
"""Number of indexed images whose features are kept in memory for further questions."""


class ServedIndex:
    """One index of a server.

    name      what requests call it
    path      its folder
    options   of the server
    metadata  what is known of its images
    opener    opens an index and returns what searches it; by default in this process
    """

    def __init__(
        self, name: str, path: Path, options: ServeOptions, metadata: Metadata, opener: Opener | None = None
    ) -> None:
        self.name, self.path, self.metadata, self._options = name, path, metadata, options
        self._open = functools.partial(_opened, options=options, opener=opener)
        self._opened = self._open(path)
        self._lock, self._refreshing, self._reading = (threading.Lock() for _ in range(3))
        self._making = {what: threading.Lock() for what in ("names", "extractors")}
        self._derived: dict[str, tuple[tuple[str, int], Any]] = {}
        self._features: OrderedDict[tuple[tuple[str, int], str], Any] = OrderedDict()

    @property
    def index(self) -> Any:
        """The opened index."""
        return self._opened[0]

    @property
    def searcher(self) -> Any:
        """What searches it."""
        return self._opened[1]

    @property
    def commit(self) -> int:
        """The number of the commit that is served."""
        number: int = self.index.snapshot.manifest.commit
        return number

    def refresh(self) -> None:
        """Switch to the last commit, or to another index that took its place; raises as the opening of an index."""
        with self._refreshing:
            kind, identity, commit = state_of(self.path)
            known = self.index.snapshot.manifest
            if (kind, identity) != (known.kind, known.identity):
                self._opened = self._open(self.path)
            elif commit != known.commit:
                self.index.refresh()

    @property
    def state(self) -> tuple[str, int]:
        """What tells this commit from every other, also of another index that took this one's place."""
        manifest = self.index.snapshot.manifest
        return manifest.identity, manifest.commit

    def _of_commit(self, what: str, make: Callable[[], Any]) -> Any:
        """Return what was made for the present commit, or make it, while others that need it wait."""
        state = self.state
        with self._making[what]:
            known = self._derived.get(what)
            if known is None or known[0] != state:
                known = state, make()
                self._derived[what] = known
        return known[1]

    @property
    def names(self) -> NameTable:
        """The names of the present commit."""
        table: NameTable = self._of_commit("names", lambda: NameTable(self.index.names, self.metadata.rows))
        return table

    @property
    def source(self) -> NamedImages | FusedNamedImages:
        """What finds features and photographs of indexed images."""
        return self._opened[2]

    @property
    def kinds(self) -> list[str]:
        """The names of the extractors."""
        return [recipe.extractor for recipe in self._all_recipes]

    @property
    def recipes(self) -> tuple[str, ...]:
        """How features are made, in words."""
        return tuple(map(str, self._all_recipes))

    @property
    def verifies(self) -> bool:
        """Whether there are local features, whose places can be compared."""
        return not all(recipe.is_global for recipe in self._all_recipes)

    @property
    def _all_recipes(self) -> list[Any]:
        encoder = self.index.snapshot.encoder
        return [kind.recipe for kind in encoder.kinds] if hasattr(encoder, "kinds") else [self.index.recipe]

    @property
    def extractors(self) -> tuple[list[dict[str, Any]], str]:
        """How a worker makes the extractors, and, if it cannot, why not."""
        found: tuple[list[dict[str, Any]], str] = self._of_commit("extractors", self._find_extractors)
        return found

    def _find_extractors(self) -> tuple[list[dict[str, Any]], str]:
        try:
            made = self.index.extractor
            origins: list[Origin] = [one.origin for one in getattr(made, "extractors", (made,))]
        except AsmkError as error:
            return [], told(error)
        return [{"function": origin.function, "options": origin.options} for origin in origins], ""

    def check_image(self, name: str) -> None:
        """Raise Refusal 404 unless there is an image of this name."""
        if name not in self.index:
            raise Refusal(404, f"{self.name}: no image is named {name[:300]!r}")

    def remembered(self, name: str) -> Any:
        """Return the features of an indexed image from the feature set that the index remembers, None without."""
        self.check_image(name)
        key = self.state, name
        with self._lock:
            if key in self._features:
                self._features.move_to_end(key)
                return self._features[key]
        with self._reading:  # the first one opens the feature set, which takes a while if it is large
            found = self._read(name)
        with self._lock:
            self._features[key] = found
            while len(self._features) > KEPT_FEATURES:
                self._features.popitem(last=False)
        return found

    def _read(self, name: str) -> Any:
        source = self.source
        if isinstance(source, NamedImages):
            return source.of_set(name)
        place, known = self.index.snapshot.find(name), self.index.identity(name)
        lacking = self.index.snapshot.lacking(place)
        parts = [None if lacks else one.of_set(name) for lacks, one in zip(lacking, source.sources, strict=True)]
        if any(part is None and not lacks for part, lacks in zip(parts, lacking, strict=True)):
            return None
        return FusedFeatures(tuple(parts), known.fingerprint if known else 0)

    def photograph(self, name: str) -> Path:
        """Return the path of the photograph of an indexed image.

        Raises Refusal 404 if it is gone, changed, or a link out of the folders of photographs.
        """
        self.check_image(name)
        try:
            path = self.source.image_path(name)
        except AsmkError:
            raise Refusal(
                404, f"the photograph of {name[:300]!r} is gone or was changed since it was indexed"
            ) from None
        if not self._is_inside(path, os.path.abspath):
            raise Refusal(404, f"the photograph of {name[:300]!r} is not in the folders of photographs")
        if not self._options.follow_links and not self._is_inside(path, os.path.realpath):
            raise Refusal(
                404, f"the photograph of {name[:300]!r} is a link to another folder; start with --follow-links"
            )
        return path

    def _is_inside(self, path: Path, resolved: Callable[[Path], str]) -> bool:
        """Return whether a file is in a folder of photographs; `..` in a name, or a link, could lead out of it."""
        parents = {os.path.normcase(one) for one in Path(resolved(path)).parents}
        return any(os.path.normcase(resolved(Path(folder))) in parents for folder in self.source.folders)


class Shelf:
    """All indexes of a server.

    served  in the order in which they were given
    """

    def __init__(self, served: Sequence[ServedIndex]) -> None:
        self.served = {one.name: one for one in served}
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="asmk-refresh", daemon=True)

    def get(self, name: str | None) -> ServedIndex:
        """Return an index by its name, the first without one; raises Refusal 404."""
        if not name:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise Refusal(404, f"no index is named {name[:100]!r}; there are {', '.join(self.served)}")
        return self.served[name]

    def start(self) -> None:
        """Begin to look for commits of other processes."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            for one in self.served.values():
                try:
                    one.refresh()
                except AsmkError:  # it may be moved or restored at this moment: the last commit is served until then
                    self.failures += 1
                except Exception:  # whatever lies there now, the other indexes are looked after
                    self.failures += 1
                    _LOG.exception("%s: cannot be refreshed", one.name)


def open_shelf(paths: Sequence[Path], options: ServeOptions, metadata: Metadata, opener: Opener | None = None) -> Shelf:
    """Open indexes, and those in given folders, by the names of their folders; equal names are numbered.

    Raises NotFoundError if there is no index, and what opening one raises.
    """
    found = [path for given in paths for path in _indexes_in(given)]
    if not found:
        raise InputError("no index was given; give the folder of one, or a folder of several")
    names: dict[str, Path] = {}
    for path in found:
        base = os.path.basename(os.path.realpath(path)).encode(errors="replace").decode()  # bytes that are no UTF-8
        stem = base.removesuffix(".index").removesuffix(".shards") or "index"
        number = next(n for n in range(1, len(found) + 1) if (stem if n == 1 else f"{stem}-{n}") not in names)
        names[stem if number == 1 else f"{stem}-{number}"] = path
    return Shelf([ServedIndex(name, path, options, metadata, opener) for name, path in names.items()])


def _indexes_in(given: Path) -> list[Path]:
    """Return the folder itself if it is an index, else the indexes directly in it."""
    if not given.is_dir():
        raise NotFoundError(f"{given}: no such index; make one with `asmk-engine index PHOTOS -o {given}`")
    if _is_index(given):
        return [given]
    inside = sorted(path for path in given.iterdir() if path.is_dir() and _is_index(path))
    if not inside:
        raise NotFoundError(
            f"{given}: neither an index nor a folder of indexes; give one that `asmk-engine index` made"
        )
    return inside


def _opened(
    path: Path, options: ServeOptions, opener: Opener | None
) -> tuple[Any, Any, NamedImages | FusedNamedImages]:
    """Return an index, what searches it, and what finds features and photographs of its images."""
    index, searcher = opener(path) if opener else _opened_here(path)
    return index, searcher, query_source(index, images_roots=options.images_roots)


def _opened_here(path: Path) -> tuple[Any, Any]:
    index = open_any(path)
    return index, plain_searcher(index)


def _is_index(path: Path) -> bool:
    return any((path / name).exists() for name in NAMES)
