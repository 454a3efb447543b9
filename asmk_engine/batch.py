"""The signatures in hand that will become a segment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asmk_engine.segment_writer import Contents
from asmk_engine.signatures import Signature


@dataclass
class Batch:
    """Named signatures, `width` 64-bit words to a code."""

    width: int
    names: list[str] = field(default_factory=list)
    fingerprints: list[int] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    postings: int = 0

    def append(self, name: str, fingerprint: int, signature: Signature) -> None:
        """Take one image."""
        self.names.append(name)
        self.fingerprints.append(fingerprint)
        self.signatures.append(signature)
        self.postings += len(signature)

    def contents(self) -> Contents:
        """Everything taken, images numbered in order."""
        counts = [len(signature) for signature in self.signatures]
        return Contents(
            [name.encode() for name in self.names],
            np.array(self.fingerprints, np.uint64),
            np.concatenate([signature.words for signature in self.signatures]),
            np.repeat(np.arange(len(counts), dtype=np.uint32), counts),
            np.concatenate([signature.codes for signature in self.signatures]).reshape(-1, self.width),
        )
