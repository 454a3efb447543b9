"""Codebooks of visual words: sampling, whitening, k-means, assignment."""

from asmk_engine.codebooks.codebook import Codebook, choose_words
from asmk_engine.codebooks.kmeans import Round

__all__ = ["Codebook", "Round", "choose_words"]
