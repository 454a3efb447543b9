"""Codebooks of visual words: sampling, whitening, k-means, assignment."""

from asmk_engine.codebooks.codebook import Codebook
from asmk_engine.codebooks.kmeans import Round
from asmk_engine.codebooks.training import choose_words

__all__ = ["Codebook", "Round", "choose_words"]
