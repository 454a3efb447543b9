"""Hamming distances between all codes of one set and all of another, as shares of a number of bits."""

import numpy as np
from numba import types
from numba.extending import intrinsic

from asmk_engine.kernels import kernel

_CODES = "Array(uint32, 2, 'C', readonly=True)"


@intrinsic
def _bits_set(typing_context, word):
    """How many bits of a 64-bit word are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@kernel(f"void({_CODES}, {_CODES}, float32, float32[:, ::1])")
def hamming_table(codes, others, bits, out):
    """The bits in which every code differs from every other one, counted and divided by `bits` in single precision.

    codes [n, W] uint32, others [m, W] uint32; out [n, m] float32
    """
    for row in range(codes.shape[0]):
        for column in range(others.shape[0]):
            count = np.uint64(0)
            for place in range(codes.shape[1]):
                count += _bits_set(np.uint64(codes[row, place] ^ others[column, place]))
            out[row, column] = np.float32(count) / bits
