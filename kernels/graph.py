"""Nearest words through a graph of centroids: build it, search it.

The search is the best-first beam search on a navigable neighbour graph (Malkov and Yashunin, TPAMI 2020, algorithm 2).
Instead of upper layers it looks at all of a few hundred entries. Steps through the graph compare 8-bit copies of query
and centroids, which fit into the second and third level of the cache and whose distances are exact integers; the words
that remain are ordered by their true distance. The graph is thinned by the relative neighbourhood rule of the same
paper (algorithm 4).

Queries are independent of each other, so the words of a query depend neither on threads nor on the queries beside it.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.cgutils import ir  # type: ignore[attr-defined]
from numba.extending import intrinsic

BLOCK = 32  # components that are compared at a time: a copy's row is padded with zeros to a multiple
LARGEST = 127
TRUE_FACTOR = 2  # so many words are ordered by true distance for each that is wanted,
TRUE_LEAST = 12  # but no fewer than these: an 8-bit distance rarely errs by more places
_F4 = "Array(float32, 2, 'C', readonly=True)"
_S1 = "Array(int8, 2, 'C', readonly=True)"
_I4 = "Array(int32, 2, 'C', readonly=True)"
_E4 = "Array(int32, 1, 'C', readonly=True)"
_I8 = "Array(int64, 1, 'C', readonly=True)"
_LINE = 64  # bytes of a cache line
# A key of the beam holds, from the top: the distance, the word, and a bit that says whether its neighbours were seen.
_FAR_SHIFT = np.int64(32)
_WORD_SHIFT = np.int64(1)
_WORD_MASK = np.int64(0x7FFFFFFF)


def _pointer(context, builder, array_type, array, place):
    """The address of an element of an array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


def _vector(bits, lanes):
    return ir.VectorType(ir.IntType(bits), lanes)


def _every_other(begin):
    return ir.Constant(_vector(32, BLOCK // 2), [ir.Constant(ir.IntType(32), lane) for lane in range(begin, BLOCK, 2)])


@intrinsic
def _distance(typing_context, one, first, codes, second, width):
    """Squared distance of one.flat[first:first + width], int8 or int16, to codes.flat[second:second + width], int8."""

    def generate(context, builder, signature, arguments):
        one, first, codes, second, width = arguments
        bases = [
            _pointer(context, builder, signature.args[0], one, first),
            _pointer(context, builder, signature.args[2], codes, second),
        ]
        wide, sums = _vector(32, BLOCK), _vector(32, BLOCK // 2)
        total = cgutils.alloca_once_value(builder, ir.Constant(sums, None))
        zero, step = (ir.Constant(width.type, value) for value in (0, BLOCK))
        with cgutils.for_range_slice(builder, zero, width, step) as (place, _):
            left, right = (_load_wide(builder, base, place) for base in bases)
            difference = builder.sext(builder.sub(left, right), wide)
            squares = builder.mul(difference, difference)  # with the sum of pairs one instruction, where there is one
            pairs = [builder.shuffle_vector(squares, ir.Constant(wide, ir.Undefined), _every_other(i)) for i in (0, 1)]
            builder.store(builder.add(builder.load(total), builder.add(*pairs)), total)
        kind = ir.FunctionType(ir.IntType(32), [sums])
        name = f"llvm.vector.reduce.add.v{BLOCK // 2}i32"
        reduced = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [builder.load(total)])
        return builder.zext(reduced, ir.IntType(64))

    return types.int64(one, types.int64, codes, types.int64, types.int64), generate


def _load_wide(builder, base, place):
    """A block of components, widened to 16 bits."""
    bits = base.type.pointee.width
    source = builder.bitcast(builder.gep(base, [place]), _vector(bits, BLOCK).as_pointer())
    loaded = builder.load(source, align=1)
    return loaded if bits == 16 else builder.sext(loaded, _vector(16, BLOCK))


@intrinsic
def _prefetch(typing_context, array, place):
    """Ask for the memory of an element of an array; any address is allowed."""

    def generate(context, builder, signature, arguments):
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *arguments), ir.IntType(8).as_pointer())
        flags = [ir.Constant(ir.IntType(32), value) for value in (0, 3, 1)]  # read, keep close, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@njit(f"void({_F4}, Array(float32, 1, 'C', readonly=True), float32, int8[:, ::1])", nogil=True, cache=True)
def quantise(vectors, centre, scale, out):
    """8-bit copies: (vector - centre) * scale, rounded and clipped, then zeros.

    vectors [n, D] float32, centre [D] float32; out [n, W] int8, W >= D and a multiple of BLOCK
    """
    for row in range(vectors.shape[0]):
        for d in range(vectors.shape[1]):
            value = np.rint((vectors[row, d] - centre[d]) * scale)
            out[row, d] = np.int8(min(max(value, np.float32(-LARGEST)), np.float32(LARGEST)))
        for d in range(vectors.shape[1], out.shape[1]):
            out[row, d] = 0


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _true_distance(one, other):
    total = np.float32(0.0)
    for d in range(one.shape[0]):
        difference = one[d] - other[d]
        total += difference * difference
    return total


@njit(nogil=True)
def _word(key):
    return (key >> _WORD_SHIFT) & _WORD_MASK


@njit(nogil=True)
def _insert(keys, size, room, key):
    """Put a key into the `size` increasing keys, of which `room` are kept; returns its place."""
    place = size if size < room else room - 1
    while place > 0 and keys[place - 1] > key:
        keys[place] = keys[place - 1]
        place -= 1
    keys[place] = key
    return place


@njit(nogil=True)
def _look_around(neighbours, node, codes, visited, fresh):
    """Collect the neighbours of a word that were not visited, and ask for their copies; returns how many."""
    found = 0
    for i in range(neighbours.shape[1]):
        word = np.int64(neighbours[node, i])
        if word < 0:
            break
        if word < codes.shape[0]:
            _prefetch(codes, word * codes.shape[1])
            _prefetch(codes, word * codes.shape[1] + _LINE)
            fresh[found] = word
            bit = np.uint8(1 << (word & 7))
            found += (visited[word >> 3] & bit) == 0
            visited[word >> 3] |= bit
    return found


@njit(nogil=True)
def _order(query, centroids, keys, size, distances):
    """Replace the first `size` keys by their words, in the order of their true distances."""
    for i in range(size):
        _prefetch(centroids, _word(keys[i]) * centroids.shape[1])
    for i in range(size):
        word = _word(keys[i])
        distance = _true_distance(query, centroids[word])
        place = i
        while place > 0 and (
            distances[place - 1] > distance or (distances[place - 1] == distance and keys[place - 1] > word)
        ):
            distances[place] = distances[place - 1]
            keys[place] = keys[place - 1]
            place -= 1
        distances[place] = distance
        keys[place] = word


@njit(f"void({_F4}, {_S1}, {_F4}, {_S1}, {_I4}, {_E4}, int64, int32[:, ::1])", nogil=True, cache=True)
def search(queries, query_codes, centroids, codes, neighbours, entries, beam, words):
    """The nearest words of every query that the graph leads to, nearest first, the lower word first among equals.

    queries [n, D] float32, query_codes [n, W] int8; centroids [K, D] float32, codes [K, W] int8, K < 2**31
    neighbours  [K, R] int32, -1 ends a row; entries [E] int32: where the search begins
    beam        how many words are kept in view; at least 1
    words       [n, k] int32, out; -1 where fewer than k words were reached, as can be in a damaged graph
    Numbers in neighbours and entries that are no words are passed over; nothing outside the arrays is read.
    """
    count, width = codes.shape
    wanted = words.shape[1]
    room = max(beam, wanted)
    keys = np.empty(room, np.int64)
    distances = np.empty(room, np.float32)
    fresh = np.empty(max(neighbours.shape[1], entries.shape[0]) + 1, np.int64)
    visited = np.empty((count >> 3) + 1, np.uint8)
    query = np.empty(width, np.int16)
    for row in range(queries.shape[0]):
        for d in range(width):
            query[d] = query_codes[row, d]
        visited[:] = 0
        size = 0
        cursor = 0
        found = 0
        for e in range(entries.shape[0]):
            word = np.int64(entries[e])
            if word >= 0 and word < count:
                bit = np.uint8(1 << (word & 7))
                fresh[found] = word
                found += (visited[word >> 3] & bit) == 0
                visited[word >> 3] |= bit
        while True:
            for i in range(found):
                far = _distance(query, 0, codes, fresh[i] * width, width)
                fresh[i] = (far << _FAR_SHIFT) | (fresh[i] << _WORD_SHIFT)
            for i in range(found):
                if size < room or fresh[i] < keys[size - 1]:
                    place = _insert(keys, size, room, fresh[i])
                    size += size < room
                    cursor = min(cursor, place)
            while cursor < size and keys[cursor] & 1:
                cursor += 1
            if cursor == size:
                break
            node = _word(keys[cursor])
            keys[cursor] |= 1
            if cursor + 1 < size:
                following = _word(keys[cursor + 1]) * neighbours.shape[1]
                _prefetch(neighbours, following)
                _prefetch(neighbours, following + 16)
            found = _look_around(neighbours, node, codes, visited, fresh)
        kept = min(size, max(TRUE_FACTOR * wanted, TRUE_LEAST))
        _order(queries[row], centroids, keys, kept, distances)
        for i in range(wanted):
            words[row, i] = keys[i] if i < kept else -1


@njit(f"void({_S1}, int64, int64, {_I8}, {_E4}, float64, int32[:, ::1])", nogil=True, cache=True)
def thin(codes, first, last, starts, candidates, slack, neighbours):
    """Choose the neighbours of words first to last from their candidates, nearest first.

    A candidate is passed over when a neighbour chosen before is nearer to it, by the factor `slack`, than the word is.

    codes       [K, W] int8
    starts      [K + 1] int64, candidates [starts[K]] int32: those of a word; itself, doubles and non-words are dropped
    slack       at least 1, on squared distances: larger keeps more
    neighbours  [K, R] int32, rows first to last are written, -1 after the last neighbour
    """
    count, width = codes.shape
    degree = neighbours.shape[1]
    most = np.int64(1)
    for node in range(first, last):
        most = max(most, starts[node + 1] - starts[node])
    keys = np.empty(most, np.int64)
    for node in range(first, last):
        size = 0
        for i in range(starts[node], starts[node + 1]):
            word = np.int64(candidates[i])
            if word >= 0 and word < count and word != node:
                key = (_distance(codes, node * width, codes, word * width, width) << _FAR_SHIFT) | (word << _WORD_SHIFT)
                _insert(keys, size, most, key)
                size += 1
        chosen = 0
        previous = np.int64(-1)
        for i in range(size):
            word = _word(keys[i])
            if chosen == degree:
                break
            if word == previous:
                continue
            previous = word
            far = np.float64(keys[i] >> _FAR_SHIFT)
            kept = True
            for j in range(chosen):
                between = _distance(codes, np.int64(neighbours[node, j]) * width, codes, word * width, width)
                if slack * np.float64(between) < far:
                    kept = False
                    break
            if kept:
                neighbours[node, chosen] = word
                chosen += 1
        neighbours[node, chosen:] = -1


@njit(f"int64({_I4}, int64, uint8[::1], int32[::1])", nogil=True, cache=True)
def reach(neighbours, start, reached, queue):
    """Mark every word that can be reached from `start` through words not marked before; returns how many.

    neighbours [K, R] int32, reached [K] uint8, queue [K] int32 (scratch)
    """
    if reached[start]:
        return 0
    reached[start] = 1
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        node = queue[head]
        head += 1
        for i in range(neighbours.shape[1]):
            word = neighbours[node, i]
            if word < 0:
                break
            if word < neighbours.shape[0] and not reached[word]:
                reached[word] = 1
                queue[tail] = word
                tail += 1
    return tail
