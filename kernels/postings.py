"""Order postings by image range and word: the counting sort behind an inverted file."""

import numpy as np
from numba import njit

_U4 = "Array(uint32, 1, 'C', readonly=True)"


@njit(f"int64[::1]({_U4}, {_U4}, int64, int64, int64)", nogil=True, cache=True)
def count_lists(words, images, vocabulary, range_bits, ranges):
    """Postings of every (range, word); returns [ranges * vocabulary] int64, words of a range side by side.

    words, images  [P] uint32, the word and the image number of each posting
    range_bits     images `r << range_bits` and following form range r
    """
    counts = np.zeros(ranges * vocabulary, np.int64)
    for p in range(words.shape[0]):
        counts[(np.int64(images[p]) >> range_bits) * vocabulary + words[p]] += 1
    return counts


@njit(f"int64[::1]({_U4}, {_U4}, int64, int64, int64[::1])", nogil=True, cache=True)
def order_postings(words, images, vocabulary, range_bits, starts):
    """Where each posting stands after a stable sort by (range, word); returns [P] int64 source positions.

    starts  [ranges * vocabulary] int64, where each list begins; advanced to where it ends
    """
    order = np.empty(words.shape[0], np.int64)
    for p in range(words.shape[0]):
        cell = (np.int64(images[p]) >> range_bits) * vocabulary + words[p]
        order[starts[cell]] = p
        starts[cell] += 1
    return order
