"""What joins two images: the same photograph, re-encoded, resized, cropped or mirrored, or another view of one thing.

Two files of one photograph agree in nearly all features of the part that both show, each where one map puts it. Other
views share fewer features, or their places disagree by the depth of the scene. The limits were chosen on copies made of
photographs and on pairs of views, see docs/groups.md.
"""

from __future__ import annotations

import numpy as np

COPY, CROP, MIRRORED, VIEW = "copy", "crop", "mirrored", "view"
KINDS = (COPY, CROP, MIRRORED, VIEW)
"""copy: the whole photograph; crop: a part of it; mirrored: either of them, mirrored; view: another photograph."""
SAME_SHARE = 0.5
"""Least share of the features in the common part that two files of one photograph have in common."""
SAME_RESIDUAL = 0.004
"""Largest residual of them, in units of the longer side."""
WHOLE = 0.95
"""Share of both frames from which two files show the whole of one photograph."""


def is_same_photograph(rows: np.ndarray) -> np.ndarray:
    """Return for rows [n] of EVIDENCE whether the two images are files of one photograph, [n] bool."""
    found: np.ndarray = (rows["share"] >= SAME_SHARE) & (rows["residual"] <= SAME_RESIDUAL)
    return found


def kinds_of(rows: np.ndarray) -> list[str]:
    """Return for rows [n] of EVIDENCE the kind of each, one of KINDS."""
    same, whole = is_same_photograph(rows), rows["common"].min(1, initial=1.0) >= WHOLE
    kinds = np.where(same, np.where(rows["mirrored"] > 0, MIRRORED, np.where(whole, COPY, CROP)), VIEW)
    found: list[str] = kinds.tolist()
    return found
