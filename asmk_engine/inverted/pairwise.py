"""Scores of images against images, from their signatures in memory: the same kernel as a search, without an index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine import threads
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.inverted.search import Query, SelectiveMatch
from asmk_engine.inverted.signatures import Signature, code_width, sign


def similarity(one: Signature, other: Signature, match: SelectiveMatch | None = None) -> float:
    """Compute the ASMK similarity of two images (Tolias et al., ECCV 2020, section 3).

    Parameters
    ----------
    one, other : Signature
        Signatures made with one codebook, such as by `Searcher.sign`.
    match : SelectiveMatch, optional
        The selectivity function, by default that of the paper.

    Returns
    -------
    float
        From 0 to 1: what a search with one finds for the other; 1 for equal signatures, 0 if no word is common.

    Raises
    ------
    InputError
        If `match` uses IDF, which two images do not define.
    MismatchError
        If the signatures are of different codebooks, or the number of bits of their codes is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from asmk_engine import Signature, similarity
    >>> one = Signature(np.array([3, 7], np.uint32), np.array([[1], [2]], np.uint64), 64)
    >>> round(similarity(one, one), 6)
    1.0
    """
    if match is not None and match.idf:
        raise InputError("idf weights words by the images of a collection, which two images are not; use `scores`")
    return float(scores([one], [other], match=match)[0, 0])


def scores(
    queries: Iterable[Query],
    images: Iterable[Query],
    codebook: Codebook | None = None,
    match: SelectiveMatch | None = None,
    *,
    multiple_assignment: int = 5,
) -> np.ndarray:
    """Compute the ASMK score of every query with every image, as a search of an index of these images does.

    Parameters
    ----------
    queries, images : iterable of Features or Signature
        The images of the rows and of the columns. Features are signed with the codebook.
    codebook : Codebook, optional
        Needed if there are features.
    match : SelectiveMatch, optional
        The selectivity function, by default that of the paper; its IDF is counted over `images`.
    multiple_assignment : int, default 5
        Words per descriptor of queries that are features; images have one word per descriptor.

    Returns
    -------
    ndarray of shape (q, n), float64

    Raises
    ------
    InputError
        If there are features but no codebook, or `multiple_assignment` is less than 1.
    MismatchError
        If signatures are not of one codebook, or the number of bits of their codes is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from asmk_engine import Codebook, Features, scores
    >>> arrays = np.random.default_rng(0).normal(size=(4, 50, 16))
    >>> images = [Features.from_descriptors(array) for array in arrays]
    >>> scores(images[:2], images, Codebook.train(arrays, words=2)).shape
    (2, 4)
    """
    if multiple_assignment < 1:
        raise InputError(f"multiple_assignment is {multiple_assignment}; give 1 or more (the paper uses 5)")
    match = match or SelectiveMatch()
    asked, listed = _signed(queries, codebook, multiple_assignment), _signed(images, codebook, 1)
    dim = _common_dim([*asked, *listed], codebook)
    if not (asked and listed and dim):
        return np.zeros((len(asked), len(listed)))
    postings = _Postings.of(listed, match, code_width(dim))
    table = match.table(dim, code_width(dim))
    return np.array([postings.score(signature, table) for signature in asked])


def _signed(images: Iterable[Query], codebook: Codebook | None, multiple_assignment: int) -> list[Signature]:
    def signed(image: Query) -> Signature:
        if isinstance(image, Signature):
            return image
        if not isinstance(image, Features):
            raise InputError(f"found a {type(image).__name__}; expected Features or a Signature for every image")
        if codebook is None:
            raise InputError("an image is given as features; give the codebook that signs them")
        return sign(image, codebook, min(multiple_assignment, codebook.words))

    return threads.run(signed, images, threads.available_threads())


def _common_dim(signatures: Sequence[Signature], codebook: Codebook | None) -> int:
    """Return the number of bits of the codes of all signatures; 0 if all are empty."""
    filled = [signature for signature in signatures if len(signature)]
    found = {signature.dim for signature in filled}
    if 0 in found and codebook is None:
        raise MismatchError("a signature does not say the number of bits of its codes; make it with dim=, or give the "
                            "codebook it was made with")  # fmt: skip
    dims = (found - {0}) | ({codebook.dim} if codebook else set())
    if len(dims) > 1:
        raise MismatchError(f"signatures have codes of {sorted(dims)} bits; compare those of one codebook")
    dim = max(dims, default=0)
    words = codebook.words if codebook else None
    for signature in filled:
        if signature.codes.shape != (len(signature), code_width(dim)) or (words and signature.words[-1] >= words):
            raise MismatchError(
                f"a signature has codes {signature.codes.shape} and words up to {signature.words[-1]}; expected "
                f"[m, {code_width(dim)}]{f' and words below {words}' if words else ''}: was it made with another "
                "codebook?"
            )
    return dim


@dataclass(frozen=True)
class _Postings:
    """The postings of some images, sorted by word: distinct words [w], their weights and first postings, and norms."""

    words: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    images: np.ndarray
    codes: np.ndarray
    norms: np.ndarray

    @classmethod
    def of(cls, signatures: Sequence[Signature], match: SelectiveMatch, width: int) -> _Postings:
        filled = [signature for signature in signatures if len(signature)]
        numbers = np.repeat(np.arange(len(signatures)), [len(signature) for signature in signatures])
        every = np.concatenate([np.empty(0, np.int64), *(signature.words.astype(np.int64) for signature in filled)])
        order = np.argsort(every, kind="stable")
        words, lengths = np.unique(every, return_counts=True)
        weights = np.log(len(signatures) / lengths) ** 2 if match.idf else np.ones(len(words))
        norms = np.bincount(numbers, weights[np.searchsorted(words, every)], minlength=len(signatures))
        codes = np.concatenate([np.empty((0, width), np.uint64), *(signature.codes for signature in filled)])[order]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return cls(words, weights, starts, numbers[order], codes, np.sqrt(norms))

    def score(self, query: Signature, table: np.ndarray) -> np.ndarray:
        """Return the score of every image, [n] float64; `table` has sigma of every Hamming distance."""
        out = np.zeros(len(self.norms))
        places = np.searchsorted(self.words, query.words)
        known = np.zeros(len(query), bool)
        known[places < len(self.words)] = True
        known[known] = self.words[places[known]] == query.words[known]
        places = places[known]
        own = np.ones(len(query))  # the weight of a word that no image has, as in an index
        own[known] = self.weights[places]
        norms = np.sqrt(own.sum()) * self.norms
        counts = self.starts[places + 1] - self.starts[places]
        rows = np.repeat(self.starts[places + 1] - np.cumsum(counts), counts) + np.arange(int(counts.sum()))
        codes = np.repeat(query.codes[known], counts, axis=0)
        distances = np.bitwise_count(self.codes[rows] ^ codes).sum(axis=1, dtype=np.int64)
        values = np.repeat(own[known], counts) * table[distances]
        raw = np.bincount(self.images[rows], values, minlength=len(out))
        return np.divide(raw, norms, out=out, where=norms > 0)
