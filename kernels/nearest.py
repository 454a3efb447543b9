"""The nearest words by comparing a descriptor with all of them: products and choice in one pass.

A product of matrices writes a number for each descriptor and word, and reading them again takes about as long as the
product. Here the sums of a tile of descriptors and words stay in registers (Goto and van de Geijn, Anatomy of
high-performance matrix multiplication, ACM TOMS 2008), are compared with the last word that each descriptor has kept,
and are hardly ever looked at again.

A distance is summed in the order of its components. It depends on the two vectors only, neither on threads nor on the
descriptors beside it, but in its last bits on whether the processor multiplies and adds in one step.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils, config
from numba.core.cgutils import ir  # type: ignore[attr-defined]
from numba.core.codegen import ll  # type: ignore[attr-defined]
from numba.extending import intrinsic

from asmk_engine.kernels import kernel

PANEL = 32  # words that are laid side by side, component by component
_STRIPE = 16
_F4 = "Array(float32, 2, 'C', readonly=True)"


def _tile_shape():
    """Lanes of a vector, vectors and rows of a tile: as many sums as registers hold, beside words and one component.

    The cache of compiled code is told apart by what Numba compiles for, so that it never holds another shape.
    """
    told = config.CPU_FEATURES
    wide = ll.get_host_cpu_features().get("avx512f") if told is None else "+avx512f" in told.split(",")
    return (16, 2, 12) if wide else (8, 2, 6)


LANES, VECTORS, ROWS = _tile_shape()


def _address(context, builder, array_type, array, place):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


def _lanes_at(builder, base, place):
    """The address of LANES numbers from `place` on."""
    kind = ir.VectorType(ir.FloatType(), LANES)
    return builder.bitcast(builder.gep(base, [place]), kind.as_pointer())


def _repeated(builder, value):
    """A vector of one number."""
    index = ir.IntType(32)
    vector = ir.Constant(ir.VectorType(ir.FloatType(), LANES), ir.Undefined)
    single = builder.insert_element(vector, value, ir.Constant(index, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(index, LANES), None))


def _multiply(builder, rows, panel, columns, dim):
    """Products of ROWS descriptors with the words of some columns of a panel, a list of vectors for each descriptor."""
    word, vector = dim.type, ir.VectorType(ir.FloatType(), LANES)
    kind = ir.FunctionType(vector, [vector] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    zero = ir.Constant(vector, None)
    totals = [[cgutils.alloca_once_value(builder, zero) for _ in columns] for _ in range(ROWS)]
    with cgutils.for_range(builder, dim) as loop:
        begin = builder.mul(loop.index, ir.Constant(word, PANEL))
        words = [builder.load(_lanes_at(builder, panel, builder.add(begin, one)), align=4) for one in columns]
        begin = builder.mul(loop.index, ir.Constant(word, ROWS))
        for row, sums in enumerate(totals):
            component = builder.load(builder.gep(rows, [builder.add(begin, ir.Constant(word, row))]))
            component = _repeated(builder, component)
            for total, one in zip(sums, words, strict=True):
                builder.store(builder.call(multiply_add, [component, one, builder.load(total)]), total)
    return [[builder.load(total) for total in sums] for sums in totals]


def _any(builder, flags, word):
    """1 where a flag of a vector is set, else 0."""
    packed = builder.bitcast(flags, ir.IntType(LANES))
    return builder.zext(builder.icmp_unsigned("!=", packed, ir.Constant(packed.type, 0)), word)


@intrinsic
def _measure(typing_context, rows, row, panel, norms, bounds, bound, dim, out):
    """Squared distances, less that of the descriptor from 0, of ROWS descriptors from a panel of words, into `out`.

    Returns a bit for each descriptor: whether one of them is less than its bound, or there is no bound (NaN).

    rows[row:] and bounds[bound:] are those of the descriptors, times -2; out [ROWS * PANEL]
    """

    def generate(context, builder, signature, arguments):
        addresses = []
        for array, place in ((0, 1), (2, None), (3, None), (4, 5), (7, None)):
            start = ir.Constant(ir.IntType(64), 0) if place is None else arguments[place]
            addresses.append(_address(context, builder, signature.args[array], arguments[array], start))
        rows, panel, norms, bounds, out = addresses
        dim = arguments[6]
        found = cgutils.alloca_once_value(builder, ir.Constant(dim.type, 0))
        for begin in range(0, PANEL, LANES * VECTORS):
            columns = [ir.Constant(dim.type, begin + LANES * i) for i in range(VECTORS)]
            for row, products in enumerate(_multiply(builder, rows, panel, columns, dim)):
                limit = _repeated(builder, builder.load(builder.gep(bounds, [ir.Constant(dim.type, row)])))
                for column, product in zip(columns, products, strict=True):
                    distance = builder.fadd(product, builder.load(_lanes_at(builder, norms, column), align=4))
                    place = builder.add(column, ir.Constant(dim.type, row * PANEL))
                    builder.store(distance, _lanes_at(builder, out, place), align=4)
                    flag = _any(builder, builder.fcmp_unordered("<", distance, limit), dim.type)
                    flag = builder.shl(flag, ir.Constant(dim.type, row))
                    builder.store(builder.or_(builder.load(found), flag), found)
        return builder.load(found)

    kinds = (rows, types.int64, panel, norms, bounds, types.int64, types.int64, out)
    return types.int64(*kinds), generate


@njit(nogil=True)
def _lay_out_rows(descriptors):
    """Descriptors times -2, ROWS of them side by side, component by component; zeros after the last."""
    n, dim = descriptors.shape
    laid_out = np.zeros((n + ROWS - 1) // ROWS * ROWS * dim, np.float32)
    for row in range(n):
        begin = row // ROWS * ROWS * dim + row % ROWS
        for d in range(dim):
            laid_out[begin + d * ROWS] = np.float32(-2.0) * descriptors[row, d]
    return laid_out


@njit(nogil=True)
def _lay_out_words(centroids, first, last, panel, norms):
    """Words side by side, component by component, and their squared norms; zeros after the last."""
    dim = centroids.shape[1]
    if last - first < PANEL:
        panel[:] = np.float32(0.0)
    for begin in range(0, dim, _STRIPE):  # so few at a time that the lines they are written to stay in the cache
        for word in range(first, last):
            for d in range(begin, min(begin + _STRIPE, dim)):
                panel[d * PANEL + word - first] = centroids[word, d]
    norms[:] = np.float32(0.0)
    for d in range(dim):
        for column in range(PANEL):
            norms[column] += panel[d * PANEL + column] * panel[d * PANEL + column]


@njit(nogil=True)
def _keep(measured, begin, first, last, kept, words, distances):
    """Put the words first to last, measured from `begin` on, among the `kept` nearest; returns how many there are."""
    k = words.shape[0]
    for word in range(first, last):
        value = measured[begin + word - first]
        if kept == k and not value < distances[k - 1]:
            continue
        place = kept if kept < k else k - 1
        while place > 0 and distances[place - 1] > value:
            distances[place] = distances[place - 1]
            words[place] = words[place - 1]
            place -= 1
        distances[place] = value
        words[place] = word
        if kept < k:
            kept += 1
    return kept


@kernel(f"void({_F4}, {_F4}, int64, int64, int32[:, ::1], float32[:, ::1])")
def nearest(descriptors, centroids, first, last, words, distances):
    """The k nearest of the words first to last for every descriptor, nearest first, the lower word first among equals.

    descriptors [n, D] float32, centroids [K, D] float32, 1 <= k <= last - first
    words       [n, k] int32, out
    distances   [n, k] float32, out: squared distances from the descriptor, less its own squared norm
    """
    n, dim = descriptors.shape
    k = words.shape[1]
    laid_out = _lay_out_rows(descriptors)
    blocks = (n + ROWS - 1) // ROWS
    bounds = np.full(blocks * ROWS, -np.inf, np.float32)
    bounds[:n] = np.nan
    kept = np.zeros(n, np.int64)
    panel, norms = np.empty(dim * PANEL, np.float32), np.empty(PANEL, np.float32)
    measured = np.empty(ROWS * PANEL, np.float32)
    for begin in range(first, last, PANEL):
        end = min(begin + PANEL, last)
        _lay_out_words(centroids, begin, end, panel, norms)
        for block in range(blocks):
            row = block * ROWS
            found = _measure(laid_out, row * dim, panel, norms, bounds, row, dim, measured)
            place = 0
            while found:
                if found & 1 and row < n:
                    kept[row] = _keep(measured, place, begin, end, kept[row], words[row], distances[row])
                    if kept[row] == k:
                        bounds[row] = distances[row, k - 1]
                found >>= 1
                row += 1
                place += PANEL
