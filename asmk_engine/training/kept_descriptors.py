"""The descriptors of all images of a training, each described once; a run that was killed describes the rest.

Of several processes each describes an equal share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress
from asmk_engine.storage.pieces import PieceFolder, discard
from asmk_engine.training.photographs import describe, load_pixels
from asmk_engine.training.processes import Processes

KIND = "asmk-engine descriptors of a training"
PIECE = 256
"""Images of a piece: what is described again at most."""
_STAGE = "descriptors"


@dataclass(frozen=True)
class KeptDescriptors:
    """Where descriptors are kept until a training is over.

    path     a folder, in which each process has one of its own
    weights  sha256 of the file with which the training starts
    """

    path: Path
    weights: str

    @contextmanager
    def pieces(self, made_of: Mapping[str, Any], processes: Processes) -> Iterator[PieceFolder]:
        """Open the pieces of this process; those of another training are removed.

        made_of  what else the descriptors depend on, as JSON values
        """
        options = json.dumps({**made_of, "weights": self.weights, "processes": processes.count}, sort_keys=True)
        with PieceFolder(self._own(processes), {"kind": KIND, "options": options}) as found:
            yield found

    def discard(self, processes: Processes) -> None:
        """Remove the pieces of this process, and the folder when it is empty."""
        discard(self._own(processes))
        with suppress(OSError):  # another process has not finished, or there is something of the user's
            self.path.rmdir()

    def _own(self, processes: Processes) -> Path:
        return self.path / str(processes.rank)


@dataclass(frozen=True)
class ImageDescriber:
    """Describes the images of a training.

    vector    returns the descriptor [D] of an image, [h, w, 3] uint8
    images    the images
    max_side  larger images are shrunk until their longer side is this many pixels
    device    where processes exchange descriptors
    """

    vector: Callable[[np.ndarray], torch.Tensor]
    images: Sequence[ImageFile]
    max_side: int
    device: torch.device

    def described(self, processes: Processes, pieces: PieceFolder | None, progress: Progress) -> np.ndarray:
        """Return the descriptors [n, D] float32 of all images, in their order.

        pieces  where those of this process are kept; None keeps none
        """
        own, found = processes.split(len(self.images)), []
        for number, begin in enumerate(range(0, len(own), PIECE)):
            some = own[begin : begin + PIECE]
            made = partial(self._piece, some, partial(_moved, progress, begin, len(own)))
            arrays = made() if pieces is None else pieces.piece(_STAGE, number, made)
            found.append(arrays[_STAGE])
            progress(begin + len(some), len(own))
        return processes.joined(np.concatenate(found), len(self.images), self.device)

    def _piece(self, numbers: np.ndarray, progress: Progress) -> dict[str, np.ndarray]:
        loads = [partial(load_pixels, self.images[number], self.max_side) for number in numbers.tolist()]
        return {_STAGE: describe(self.vector, loads, len(loads), progress)}


def _moved(progress: Progress, begin: int, total: int, done: int, _: int) -> None:
    progress(begin + done, total)
