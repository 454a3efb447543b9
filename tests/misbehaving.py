"""An extractor whose images are text files that specify how the process that reads them fails."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.extraction.attempts import Origin, Viewer
from asmk_engine.features import Features
from asmk_engine.images.listing import shown
from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class Scripted:
    """Returns as many features as the file says, or does what it says instead."""

    seed: int = 0
    delay: float = 0.0
    refuse: bool = False

    def __post_init__(self) -> None:
        if self.refuse:
            raise InputError("this extractor refuses to be made")

    @property
    def recipe(self) -> Recipe:
        return Recipe("scripted", {"seed": self.seed})

    @property
    def dim(self) -> int:
        return 4

    @property
    def origin(self) -> Origin:
        return Origin("misbehaving:Scripted", {"seed": self.seed, "delay": self.delay})

    def extract(self, image, box=None) -> Features:
        time.sleep(self.delay)
        word, *rest = Path(image).read_text().split()
        if word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "orphaned":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1000)
        elif word == "exit":
            os._exit(3)
        elif word == "hang":
            time.sleep(1000)
        elif word == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        elif word == "bug":
            raise ZeroDivisionError("one\nby none")
        elif word == "broken":
            raise InputError(f"{shown(image)}: broken, says the file")
        elif word == "chatter":
            print("noise on standard output", flush=True)
            os.write(1, b"more noise\n")
        elif word == "threads":
            rest = [str(cv2.getNumThreads())]
        count = int(rest[0]) if rest else 3
        rng = np.random.default_rng([self.seed, count])
        value = np.nan if word == "nan" else 1.0
        descriptors = rng.random((count, 4)).astype(np.float16) * np.float16(value)
        return Features(descriptors, rng.random((count, 3), np.float32), np.ones(count, np.float32), (640, 480))


@dataclass(frozen=True)
class Batched(Scripted):
    """Describes photographs in batches, as on a GPU; the features tell how many were in the batch."""

    device: str = "auto"

    @property
    def origin(self) -> Origin:
        return Origin("misbehaving:Batched", {"device": self.device})

    @property
    def viewer(self) -> Viewer:
        return Viewer(32)

    @property
    def batch_size(self) -> int:
        return 4

    def describe(self, views) -> list[Features]:
        rows = [np.array([[view.pixels.mean(), len(views), 0, 0]], np.float16) for view in views]
        places, scores = np.ones((1, 3), np.float32), np.ones(1, np.float32)
        return [Features(row, places, scores, view.image_size) for row, view in zip(rows, views, strict=True)]


@dataclass(frozen=True)
class Unmakeable(Scripted):
    """Can be made here, but not in a worker."""

    @property
    def origin(self) -> Origin:
        return Origin("misbehaving:Scripted", {"refuse": True})


@dataclass(frozen=True)
class Missing(Scripted):
    """Its workers end before they are ready."""

    @property
    def origin(self) -> Origin:
        return Origin("misbehaving:end_process", {})


def end_process() -> None:
    os._exit(5)


def tell_token() -> None:
    raise InputError(f"the token is {os.environ.get('ASMK_ENGINE_TOKEN')!r}")


def tell_mask() -> None:
    raise InputError(f"SIGINT is blocked: {signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])}")
