"""What joins two images: the same photograph, re-encoded, resized, cropped or mirrored, or another view of one thing.

The pixels decide, where the photographs are at hand: those of two files of one photograph agree once they are aligned,
those of two views do not, by the depth of the scene. Else the features do, with less certainty: two files of one
photograph agree in most features, each where one map puts it. The limits were chosen on copies made of photographs and
on pairs of views, see docs/groups.md.
"""

from __future__ import annotations

import numpy as np

COPY, CROP, MIRRORED, VIEW = "copy", "crop", "mirrored", "view"
KINDS = (COPY, CROP, MIRRORED, VIEW)
"""copy: the whole photograph; crop: a part of it; mirrored: either of them, mirrored; view: another photograph."""
SAME_AGREEMENT = 0.992
"""Least correlation of the aligned pixels of two files of one photograph."""
SAME_SHARE, SAME_RESIDUAL = 0.5, 0.002
"""Least share of common features, and their largest residual, of two files whose pixels are not at hand."""
DOUBTFUL_SHARE = 0.05
"""Share of common features below which two images are not taken for one photograph."""
CROWD_SHARE = 0.3
"""Share of common features from which images crowd each other's nearest images."""
WHOLE = 0.95
"""Share of both frames from which two files show the whole of one photograph."""


def looks_same(rows: np.ndarray) -> np.ndarray:
    """Return for rows [n] of EVIDENCE whether they are of one photograph by pixels, else by features, [n] bool."""
    by_features = (rows["share"] >= SAME_SHARE) & (rows["residual"] <= SAME_RESIDUAL)
    found: np.ndarray = np.where(np.isnan(rows["agreement"]), by_features, rows["agreement"] >= SAME_AGREEMENT)
    return found


def is_same_photograph(rows: np.ndarray) -> np.ndarray:
    """Return for settled rows [n] of EVIDENCE whether the two images are files of one photograph, [n] bool."""
    found: np.ndarray = rows["same"] > 0
    return found


def kinds_of(rows: np.ndarray) -> list[str]:
    """Return for settled rows [n] of EVIDENCE the kind of each, one of KINDS."""
    same, whole = is_same_photograph(rows), rows["common"].min(1, initial=1.0) >= WHOLE
    kinds = np.where(same, np.where(rows["mirrored"] > 0, MIRRORED, np.where(whole, COPY, CROP)), VIEW)
    found: list[str] = kinds.tolist()
    return found
