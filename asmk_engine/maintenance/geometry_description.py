"""Description of the geometry in an index: how many features it keeps, of how many images, in how many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asmk_engine.indexes.manifest import Manifest
from asmk_engine.inverted.geometry_file import ALL_FEATURES
from asmk_engine.inverted.segment import Segment


def describe_geometry(manifest: Manifest, segments: Sequence[Segment]) -> dict[str, Any] | None:
    """Describe the geometry of an index, as JSON values; None if there is none and none is kept.

    keeps               number of features kept of each image that is added, `all`, or None
    images              number of images that have geometry, of those that are not deleted
    images_without      number of the others, which were added without it
    features_per_image  of the images on disk that have geometry
    bytes_per_image     likewise: bytes of the files of geometry
    """
    tables = [segment.geometry for segment in segments if segment.geometry is not None]
    if manifest.geometry is None and not tables:
        return None
    live = sum(segment.live for segment in segments)
    has = sum(
        int(np.count_nonzero(segment.geometry.kept[segment.live_numbers()])) for segment in segments if segment.geometry
    )
    stored = sum(int(np.count_nonzero(table.kept)) for table in tables)
    features, size = (sum(each) for each in ([len(t.features) for t in tables], [t.file.size for t in tables]))
    return {
        "keeps": "all" if manifest.geometry == ALL_FEATURES else manifest.geometry,
        "images": has,
        "images_without": live - has,
        "features_per_image": features / stored if stored else None,
        "bytes_per_image": size / stored if stored else None,
    }
