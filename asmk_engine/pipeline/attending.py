"""What an extractor attends to in a photograph, whether it describes it by local features or by one vector."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.extractors import Extractor
from asmk_engine.extractors.concatenation import ConcatenatedExtractor
from asmk_engine.fused.queries import FusedExtractor
from asmk_engine.images.boxes import Box
from asmk_engine.regions.attention_maps import AttentionMap, feature_attention

ATTENTIVE = "agem, cider, crow, delg, dolg, dplg, glam, how-global, solar or token"
"""The extractors of global descriptors whose networks have spatial attention."""


def photograph_attention(
    extractor: Extractor, photograph: Path, box: Box | None = None, *, activations: bool = False
) -> list[AttentionMap]:
    """Return the maps of what an extractor attends to in a photograph or a box of it, the main one first.

    Of local features it is the map of their strengths, and none if there is no feature.

    activations  for a network of global descriptors, the norms of the activations of its backbone instead
    Raises InputError for global descriptors without spatial attention, for `activations` of local features, and as
    `Extractor.extract`.
    """
    if not extractor.recipe.is_global:
        _check_global(extractor, activations)
        found = feature_attention(extractor.extract(photograph, box), box)
        return [] if found is None else [found]
    return _maps_of(extractor, photograph, box, activations)


def check_attention(extractor: Extractor, *, activations: bool = False) -> None:
    """Raise InputError as `photograph_attention` does for every photograph, without one."""
    if extractor.recipe.is_global:
        _maps_of(extractor, np.zeros((64, 64, 3), np.uint8), None, activations)
    _check_global(extractor, activations and not extractor.recipe.is_global)


def _maps_of(extractor: Extractor, image: Path | np.ndarray, box: Box | None, activations: bool) -> list[AttentionMap]:
    compute: Any = getattr(extractor, "attention_maps", None)
    maps: list[AttentionMap] = [] if compute is None else compute(image, box, activations=activations)
    if not maps:
        instead = "" if compute is None else "--activations draws the norms of its activations, or "
        raise InputError(
            f"{extractor.recipe.extractor}: it has no spatial attention, since it pools all places alike; {instead}"
            f"take a network that has some, such as one of {ATTENTIVE}, or local features, such as rootsift"
        )
    return maps


def _check_global(extractor: Extractor, activations: bool) -> None:
    if activations:
        raise InputError(
            f"{extractor.recipe.extractor}: activations are drawn for networks of global descriptors; leave "
            "--activations out, and the strengths of the local features are drawn"
        )


def attentive_extractor(extractor: Extractor | FusedExtractor) -> Extractor:
    """Return the extractor whose attention is shown: of several kinds of features, or parts, the first that has some.

    Raises InputError, that of the first, if none has.
    """
    each: Sequence[Extractor] = (extractor,)  # type: ignore[assignment]
    if isinstance(extractor, FusedExtractor):
        each = extractor.extractors
    elif isinstance(extractor, ConcatenatedExtractor):
        each = extractor.parts
    for one in each:
        with contextlib.suppress(InputError):
            check_attention(one)
            return one
    check_attention(each[0])
    return each[0]
