"""Images encoded for an index: the signature, and the geometry if it is kept, from one assignment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.inverted.geometry_file import PackedGeometry, pack
from asmk_engine.inverted.signatures import Signature, make_signature, sign_many
from asmk_engine.threads import available_threads, stream
from asmk_engine.verification.geometry import geometry_of

Encoded = tuple[str, Signature, PackedGeometry | None]


def encode_many(images: Iterable[tuple[str, Features]], codebook: Codebook, most: int | None) -> Iterator[Encoded]:
    """Yield name, signature and geometry of a stream of images, in order, with a few images in memory at a time.

    most  number of the strongest features of an image whose geometry is kept; None keeps none
    """
    if most is None:
        return ((name, signature, None) for name, signature in sign_many(images, codebook))
    kept = most

    def encoded(image: tuple[str, Features]) -> Encoded:
        name, features = image
        projected = codebook.project(features.descriptors)
        words = codebook.assign_projected(projected, 1)
        geometry = geometry_of(features.strongest(kept), projected[:kept], words[:kept], codebook)
        return name, make_signature(projected, words, codebook), pack(geometry, codebook.words)

    return stream(encoded, images, available_threads() if codebook.assignment == "graph" else 1)  # as `sign_many`
