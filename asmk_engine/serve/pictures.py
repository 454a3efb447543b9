"""Shrunken photographs for the page, made in worker processes and kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from asmk_engine.pictures.encoding import jpeg_bytes
from asmk_engine.pictures.explanation import best_match
from asmk_engine.pictures.match_picture import Caption, draw_match
from asmk_engine.pictures.photographs import MOST_SIDE, ShownPhotograph
from asmk_engine.serve.comparing import Compared
from asmk_engine.serve.processes import WorkerProcesses
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.serve.uploads import Upload

SIDES = (160, 320, 640, 1280)
KEPT_BYTES = 64 << 20


@dataclass(frozen=True)
class ServedPicture:
    """A JPEG, and the width and height of the upright photograph it was made of."""

    data: bytes
    size: tuple[int, int]

    @property
    def tag(self) -> str:
        """What tells it from every other picture, for the cache of a browser."""
        return f'"{blake2b(self.data, digest_size=12).hexdigest()}"'


class Thumbnails:
    """Thumbnails of indexed images and of uploads."""

    def __init__(self, workers: WorkerProcesses) -> None:
        self._workers = workers
        self._kept: OrderedDict[tuple[str, str, int, int], ServedPicture] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def of_image(self, served: ServedIndex, name: str, side: int) -> ServedPicture:
        """Return the thumbnail of an indexed image; raises Refusal."""
        served.check_image(name)
        known = served.index.identity(name)
        return self._of(served.name, name, known.fingerprint if known else 0, side, lambda: served.photograph(name))

    def of_upload(self, upload: Upload, side: int) -> ServedPicture:
        """Return the thumbnail of an upload; raises Refusal."""
        return self._of("", upload.key, 0, side, lambda: upload.path)

    def of_file(self, path: Path, side: int) -> ServedPicture:
        """Make the thumbnail of a file, which is not kept; raises Refusal."""
        content, arrays = self._workers.ask({"task": "shrink", "path": str(path), "side": side})
        return ServedPicture(arrays[0].tobytes(), (int(content["size"][0]), int(content["size"][1])))

    def _of(self, index: str, name: str, fingerprint: int, side: int, path: Callable[[], Path]) -> ServedPicture:
        if side not in SIDES:
            raise Refusal(422, f"size is {side}; give one of {', '.join(map(str, SIDES))}")
        key = index, name, fingerprint, side
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self.of_file(path(), side)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._bytes += len(found.data)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)
        return found

    def compared(self, query: tuple[str, Path], image: tuple[str, Path], compared: Compared) -> bytes:
        """Return a JPEG of two photographs, each a name and a file, side by side with what they have in common."""
        shown = [self._shown(path) for _, path in (query, image)]
        caption = Caption(f"query  {query[0]}", image[0])
        return jpeg_bytes(draw_match(shown[0], shown[1], best_match(compared.hit), caption))

    def _shown(self, path: Path) -> ShownPhotograph:
        content, arrays = self._workers.ask({"task": "shrink", "path": str(path), "side": MOST_SIDE, "raw": True})
        return ShownPhotograph(arrays[0], (int(content["size"][0]), int(content["size"][1])))
