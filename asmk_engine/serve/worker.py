"""A worker process of the server: it decodes and describes photographs with limited memory, answering in plain values.

What strangers send is decoded nowhere else.
"""

from __future__ import annotations

import contextlib
import io
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from asmk_engine.errors import AsmkError, InputError
from asmk_engine.extraction.attempts import Origin, unforeseen
from asmk_engine.features import Features
from asmk_engine.images.decoding import MAX_PIXELS, view_image
from asmk_engine.images.listing import shown
from asmk_engine.search.turned import UPRIGHT, Turn
from asmk_engine.storage.child_process import serve_parent
from asmk_engine.storage.messages import receive, send

QUALITY = 85
GRACE_SECONDS = 30
Answer = tuple[dict[str, Any], list[np.ndarray]]


def main() -> None:
    """Serve one parent: limit the memory, then answer each order."""
    requests, answers = serve_parent()
    with contextlib.suppress(EOFError, BrokenPipeError):
        limit_memory(int(receive(requests)[0]["memory"]))
        send(answers, {})
        makers = Makers()
        while True:
            order = receive(requests)[0]
            end_after(math.ceil(order["seconds"]) + GRACE_SECONDS)
            send(answers, *answered(order, makers))
            end_after(0)


def limit_memory(size: int) -> None:
    """Let this process have so many bytes of data, where the system can limit them."""
    if sys.platform.startswith("linux"):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        least = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (least, hard))


def end_after(seconds: int) -> None:
    """Let the system end this process after so many seconds, 0 for never: a killed server can end no worker that hangs.

    A server that lives ends it earlier.
    """
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


class Makers:
    """The extractors of this process, each made when it is first needed."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def of(self, order: dict[str, Any]) -> Any:
        """Return the extractor of an order: a function and its options."""
        key = repr(sorted(order.items()))
        if key not in self._made:
            self._made[key] = Origin(order["function"], order["options"]).make()
        return self._made[key]


def answered(order: dict[str, Any], makers: Makers) -> Answer:
    """Return the answer to an order, or a reason of one line."""
    try:
        task: Callable[[dict[str, Any], Makers], Answer] = _TASKS[order["task"]]
        return task(order, makers)
    except AsmkError as error:
        said = " ".join(str(error).split()).removeprefix(f"{shown(Path(order.get('path', '')))}: ")
        return {"reason": said}, []
    except MemoryError:
        return {"reason": "needs more memory than the server allows; send a smaller photograph"}, []
    except Exception as error:
        return {"reason": unforeseen(error).reason}, []


def _prepare(order: dict[str, Any], makers: Makers) -> Answer:
    """Make the extractors now, so that the first photograph need not wait for them, and describe a grey one."""
    for one in order["extractors"]:
        with contextlib.suppress(InputError):
            makers.of(one).extract(np.full((64, 64, 3), 128, np.uint8))
    return {}, []


def _describe(order: dict[str, Any], makers: Makers) -> Answer:
    """Describe a photograph, or a box of it, in each of its turns by each extractor."""
    extractors = [makers.of(one) for one in order["extractors"]]
    path, box = Path(order["path"]), None if order["box"] is None else tuple(order["box"])
    turns = [Turn(int(quarters), bool(mirrored)) for quarters, mirrored in order["turns"]]
    pixels = None if turns == [UPRIGHT] else view_image(path, MAX_PIXELS).pixels
    size: list[int] = []
    found: list[list[bool]] = []
    arrays: list[np.ndarray] = []
    for turn in turns:
        image = path if pixels is None or turn == UPRIGHT else turn.pixels(pixels)
        asked = box if box is None or pixels is None else turn.box(box, (pixels.shape[1], pixels.shape[0]))
        kinds = _of_all_kinds(extractors, image, asked)
        size = size or next(list(map(int, one.image_size)) for one in kinds if one is not None)
        found.append([one is not None for one in kinds])
        for one in kinds:
            arrays += [] if one is None else [one.descriptors, one.keypoints, one.scores]
    return {"size": size, "found": found}, arrays


def _of_all_kinds(extractors: list[Any], image: Any, box: Any) -> list[Features | None]:
    """Return the features of each kind; None where an extractor cannot use the image, unless none can."""
    found: list[Features | None] = []
    errors: list[InputError] = []
    for extractor in extractors:
        try:
            found.append(extractor.extract(image, box))
        except InputError as error:
            found.append(None)
            errors.append(error)
    if len(errors) == len(extractors):
        raise errors[0]
    return found


def _shrink(order: dict[str, Any], makers: Makers) -> Answer:
    """Decode a photograph and return a JPEG whose longer side is at most `side`, or its pixels."""
    view = view_image(Path(order["path"]), int(order["side"]))
    facts = {"size": list(view.image_size)}
    if order.get("raw"):
        return facts, [view.pixels]
    file = io.BytesIO()
    Image.fromarray(view.pixels).save(file, "JPEG", quality=QUALITY)
    return facts, [np.frombuffer(file.getvalue(), np.uint8)]


_TASKS: dict[str, Callable[[dict[str, Any], Makers], Answer]] = {
    "prepare": _prepare,
    "describe": _describe,
    "shrink": _shrink,
}
