"""Re-ranking by the Reranking Transformer (RRT): the logit of a pair alone decides."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from asmk_engine.errors import AsmkWarning, InputError
from asmk_engine.images.boxes import Box
from asmk_engine.networks.reranking.image_tokens import ImageTokens, ScaleUnit, image_tokens
from asmk_engine.reranking.described import AnyFeatures, Kinds, PairImages, filled
from asmk_engine.reranking.ranking import PairReranking

if TYPE_CHECKING:
    from asmk_engine.networks.reranking.transformer_pairs import PairTransformer


@dataclass(frozen=True)
class TransformerScorer:
    """Scores pairs by a re-ranking transformer; see `PairScorer`.

    network  the transformer
    images   where features are found
    kinds    which of them are local and global; raises InputError unless there are both
    unit     how scales of features in pixels become scale numbers
    """

    network: PairTransformer
    images: PairImages
    kinds: Kinds
    unit: ScaleUnit = field(default_factory=ScaleUnit)

    def __post_init__(self) -> None:
        if self.kinds.local is None or self.kinds.whole is None:
            lacks = "local features" if self.kinds.local is None else "global descriptors"
            raise InputError(
                f"the index has no {lacks}; rrt needs both: make an index of two kinds, such as "
                "`asmk-engine index --extractor how-r50-,gem-resnet50`"
            )

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        """Return the logits [n] float64.

        An image that cannot be compared has the least of the others, with a warning. For a query without a global
        descriptor, which is warned of too, all are 0, so that the search alone decides.
        """
        found = self.images.query(query, box)
        try:
            one = self._tokens(found)
        except InputError as error:
            warnings.warn(f"{query}: is not compared: {error}", AsmkWarning, stacklevel=2)
            return np.zeros(len(candidates))
        others = self.images.candidates(candidates, self._tokens)
        logits = iter(self.network.logits(one, [other for other in others if other is not None]).tolist())
        return filled([None if other is None else next(logits) for other in others])

    def _tokens(self, found: AnyFeatures) -> ImageTokens:
        most = self.network.network.options.features
        return image_tokens(self.kinds.whole_of(found), self.kinds.local_of(found), self.unit, most)


def by_logits(images: int = 100) -> PairReranking:
    """Return the ranking rule of the paper: by the logits alone, whatever the scores of the search are."""
    return PairReranking(images, weight=1.0, base_weight=0.0)
