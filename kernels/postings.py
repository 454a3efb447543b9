"""Sort postings by image range and word: the counting sort that builds an inverted file."""

import numpy as np

from asmk_engine.kernels import kernel

_U4 = "Array(uint32, 1, 'C', readonly=True)"
_I8 = "Array(int64, 1, 'C', readonly=True)"
_CODES = "Array(uint64, 2, 'C', readonly=True)"


@kernel(f"int64[::1]({_U4}, {_U4}, int64, int64, int64)")
def count_lists(words, images, vocabulary, range_bits, ranges):
    """Count the postings of every (range, word); returns [ranges * vocabulary] int64, words of a range adjacent.

    words, images  [P] uint32, the word and the image number of each posting
    range_bits     range r starts at image `r << range_bits`
    """
    counts = np.zeros(ranges * vocabulary, np.int64)
    for p in range(words.shape[0]):
        counts[(np.int64(images[p]) >> range_bits) * vocabulary + words[p]] += 1
    return counts


@kernel(f"int64[::1]({_U4}, {_U4}, int64, int64, int64[::1])")
def order_postings(words, images, vocabulary, range_bits, starts):
    """Sort postings stably by (range, word); returns [P] int64, the source row of each sorted posting.

    starts  [ranges * vocabulary] int64, the begin of each list; advanced to its end
    """
    order = np.empty(words.shape[0], np.int64)
    for p in range(words.shape[0]):
        cell = (np.int64(images[p]) >> range_bits) * vocabulary + words[p]
        order[starts[cell]] = p
        starts[cell] += 1
    return order


@kernel(f"void({_I8}, {_U4}, {_CODES}, int64, uint32[::1], uint64[:, ::1])")
def gather(order, images, codes, range_bits, out_numbers, out_codes):
    """Copy postings in sorted order: image numbers within the range, and codes.

    order        [n] int64, rows of `images` [P] uint32 and `codes` [P, W] uint64
    out_numbers  [n] uint32, out
    out_codes    [n, W] uint64, out
    """
    inside = np.uint32((1 << range_bits) - 1)
    for i in range(order.shape[0]):
        row = order[i]
        out_numbers[i] = images[row] & inside
        for column in range(codes.shape[1]):
            out_codes[i, column] = codes[row, column]
