"""A folder in which the levels of photographs are kept in 8 bits, one file for each.

The name of a file is made of the content of the photograph, the weights of the network and the side to which the
photograph was shrunk, so that levels of other weights or of a changed photograph are never taken.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

KIND = "asmk-engine levels of a photograph"


class LevelCache:
    """The folder of levels; it is made when the first are kept.

    network   sha256 of the network file
    settings  what else the levels depend on, as text
    """

    def __init__(self, path: Path, network: str, settings: str) -> None:
        self.path, self._made_of = path, f"{network} {settings}"
        self.bytes = 0

    def _name(self, fingerprint: int) -> str:
        key = hashlib.sha256(f"{self._made_of} {fingerprint}".encode()).hexdigest()
        return f"{key[:32]}.safetensors"

    def read(self, fingerprint: int) -> list[np.ndarray] | None:
        """Return the codes [h, w, D] int8 of each level of a photograph; None if they are not kept, or damaged.

        fingerprint  of the content of the photograph
        """
        name = self._name(fingerprint)
        if not (self.path / name).is_file():
            return None
        with contextlib.suppress(DamagedError, NotFoundError):  # what is damaged is extracted and written again
            file = map_arrays(Folder(self.path), name)
            file.verify()
            count = int(file.metadata.get("levels", 0)) if file.metadata.get("kind") == KIND else 0
            codes = [file.take(f"level{number}", "|u1", None, None, None).view(np.int8) for number in range(count)]
            self.bytes += sum(code.nbytes for code in codes)
            return codes or None
        return None

    def write(self, fingerprint: int, codes: Sequence[np.ndarray]) -> None:
        """Keep the codes of a photograph; raises StorageError."""
        folder = Folder(self.path)
        folder.make()
        arrays = {f"level{number}": code.view(np.uint8) for number, code in enumerate(codes)}
        write_arrays(folder, self._name(fingerprint), arrays, {"kind": KIND, "levels": str(len(codes))})
        self.bytes += sum(code.nbytes for code in codes)
