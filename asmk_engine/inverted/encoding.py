"""Images encoded for an index: the signatures, and the geometry if it is kept, from one assignment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.inverted.geometry_file import PackedGeometry, pack
from asmk_engine.inverted.regional import Regional, signatures_of
from asmk_engine.inverted.signatures import assigned, make_signature, sign_many
from asmk_engine.threads import available_threads, stream
from asmk_engine.verification.geometry import geometry_of

Encoded = tuple[str, Regional, PackedGeometry | None]
BoxesOf = Callable[[str, Features], Sequence[Box]]
"""Returns the regions of an image by its name and its features."""


def encode_many(
    images: Iterable[tuple[str, Features]],
    codebook: Codebook,
    most: int | None,
    mode: str | None = None,
    boxes_of: BoxesOf | None = None,
) -> Iterator[Encoded]:
    """Yield name, signatures and geometry of a stream of images, in order, with a few images in memory at a time.

    most      number of the strongest features of an image whose geometry is kept; None keeps none
    mode      as `RegionOptions.mode`; None without regions
    boxes_of  the regions of an image, with a mode
    """
    if most is None and mode is None:
        return ((name, [signature], None) for name, signature in sign_many(images, codebook))

    def encoded(image: tuple[str, Features]) -> Encoded:
        name, features = image
        known = assigned(features, codebook, 1)
        if mode is None or boxes_of is None:
            signatures: Regional = [make_signature(known.projected, known.words, codebook)]
        else:
            signatures = signatures_of(known, boxes_of(name, features) if len(features) else (), codebook, mode)
        if most is None:
            return name, signatures, None
        geometry = geometry_of(features.strongest(most), known.projected[:most], known.words[:most], codebook)
        return name, signatures, pack(geometry, codebook.words)

    return stream(encoded, images, available_threads() if codebook.assignment == "graph" else 1)  # as `sign_many`
