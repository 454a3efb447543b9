"""Approximate nearest words through a neighbour graph of the centroids: build it, search it.

The search is the best-first beam search on a navigable neighbour graph (Malkov and Yashunin, TPAMI 2020, algorithm 2).
Instead of upper layers it compares a few hundred entry points, then follows the links of two words per step. Steps
compare 8-bit copies of query and centroids, which fit in the L2 and L3 caches and whose distances are exact integers;
the remaining words are ranked by their exact distance. Links are pruned by the relative neighbourhood rule of the same
paper (algorithm 4).

Queries are independent of each other: the words of a query depend neither on threads nor on the other queries.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.cgutils import ir  # type: ignore[attr-defined]
from numba.extending import intrinsic

from asmk_engine.kernels import kernel

BLOCK = 32  # components compared at a time: rows of 8-bit codes are padded with zeros to a multiple of it
LARGEST = 127
USUAL = 128  # the width with a specialised code path
GROUP = 4  # words compared with the query at a time
LANES = 8  # keys of the beam moved at a time
LONGEST = 1024  # most links followed from one word
MARKS = 255  # queries distinguished by the one-byte visited marks before these are cleared
SURE_LEAST = 5  # least rank whose distance decides when the search ends
STEP = 2  # words whose links are followed per step
TRUE_FACTOR = 2  # words reranked by exact distance for each requested word,
TRUE_LEAST = 12  # and the least number: an 8-bit distance is rarely off by more ranks
_F4 = "Array(float32, 2, 'C', readonly=True)"
_S1 = "Array(int8, 2, 'C', readonly=True)"
_I4 = "Array(int32, 2, 'C', readonly=True)"
_E4 = "Array(int32, 1, 'C', readonly=True)"
_I8 = "Array(int64, 1, 'C', readonly=True)"
_LINE = 64  # bytes of a cache line
# A key of the beam holds, from the high bits: the distance, the word, and a bit that is set once the word was expanded.
_FAR_SHIFT = np.int64(32)
_WORD_SHIFT = np.int64(1)
_WORD_MASK = np.int64(0x7FFFFFFF)
FIRST_KEY, LAST_KEY = np.int64(-(2**63)), np.int64(2**63 - 1)


def _pointer(context, builder, array_type, array, place):
    """Return the address of an array element."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


def _vector(bits, lanes):
    return ir.VectorType(ir.IntType(bits), lanes)


def _shuffled(builder, one, other, lanes):
    """Select lanes of two vectors of one type; lanes of the second are numbered after those of the first."""
    places = ir.Constant(_vector(32, len(lanes)), [ir.Constant(ir.IntType(32), lane) for lane in lanes])
    return builder.shuffle_vector(one, other, places)


def _load_wide(builder, base, place):
    """Load a block of components, widened to 16 bits."""
    bits = base.type.pointee.width
    source = builder.bitcast(builder.gep(base, [place]), _vector(bits, BLOCK).as_pointer())
    loaded = builder.load(source, align=1)
    return loaded if bits == 16 else builder.sext(loaded, _vector(16, BLOCK))


def _squares(builder, one, others, width):
    """Return for each of `others` a vector whose lanes sum to its squared distance to `one`; all are addresses."""
    wide, half = _vector(32, BLOCK), _vector(32, BLOCK // 2)
    totals = [cgutils.alloca_once_value(builder, ir.Constant(half, None)) for _ in others]
    zero, step = (ir.Constant(width.type, value) for value in (0, BLOCK))
    with cgutils.for_range_slice(builder, zero, width, step) as (place, _):
        left = _load_wide(builder, one, place)
        for other, total in zip(others, totals, strict=True):
            difference = builder.sext(builder.sub(left, _load_wide(builder, other, place)), wide)
            squares = builder.mul(difference, difference)  # one instruction with the pairwise sum (x86 pmaddwd)
            pairs = [_shuffled(builder, squares, squares, range(i, BLOCK, 2)) for i in (0, 1)]
            builder.store(builder.add(builder.load(total), builder.add(*pairs)), total)
    return [builder.load(total) for total in totals]


def _folded(builder, vectors):
    """Reduce vectors to one, in order: each round joins pairs of them and halves the lanes of each by adding."""
    lanes, group = vectors[0].type.count, vectors[0].type.count
    while len(vectors) > 1:
        places = range(2 * lanes)
        lows, highs = ([i for i in places if (i % group < group // 2) == low] for low in (True, False))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.add(*(_shuffled(builder, *pair, half) for half in (lows, highs))) for pair in pairs]
        group //= 2
    return vectors[0]


@intrinsic
def _distance(typing_context, codes, one, other, width):
    """Compute the squared distance of two rows of codes [K, width] int8."""

    def generate(context, builder, signature, arguments):
        codes, *rows, width = arguments
        bases = [_pointer(context, builder, signature.args[0], codes, builder.mul(row, width)) for row in rows]
        sums = _squares(builder, bases[0], bases[1:], width)
        kind = ir.FunctionType(ir.IntType(32), [sums[0].type])
        name = f"llvm.vector.reduce.add.v{BLOCK // 2}i32"
        return builder.zext(builder.call(cgutils.get_or_insert_function(builder.module, kind, name), sums), width.type)

    return types.int64(codes, types.int64, types.int64, types.int64), generate


@intrinsic
def _measure_group(typing_context, query, codes, width, fresh, place, keys):
    """Write the keys of the words fresh[place:place + 4] for a query [width] int16 to keys[place:place + 4]."""

    def generate(context, builder, signature, arguments):
        query, codes, width, fresh, place, keys = arguments
        source = _pointer(context, builder, signature.args[3], fresh, place)
        words = builder.load(builder.bitcast(source, _vector(32, GROUP).as_pointer()), align=4)
        words = builder.zext(words, _vector(64, GROUP))
        base = _pointer(context, builder, signature.args[1], codes, ir.Constant(width.type, 0))
        rows = [builder.extract_element(words, ir.Constant(ir.IntType(32), lane)) for lane in range(GROUP)]
        bases = [builder.gep(base, [builder.mul(row, width)]) for row in rows]
        one = _pointer(context, builder, signature.args[0], query, ir.Constant(width.type, 0))
        folded = _folded(builder, _squares(builder, one, bases, width))  # four adjacent lanes per word
        while folded.type.count > GROUP:
            pairs = [_shuffled(builder, folded, folded, range(i, folded.type.count, 2)) for i in (0, 1)]
            folded = builder.add(*pairs)
        far = builder.shl(builder.zext(folded, words.type), _filled(words.type, _FAR_SHIFT))
        made = builder.or_(far, builder.shl(words, _filled(words.type, _WORD_SHIFT)))
        target = _pointer(context, builder, signature.args[5], keys, place)
        builder.store(made, builder.bitcast(target, words.type.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(query, codes, types.int64, fresh, types.int64, keys), generate


def _filled(kind, value):
    return ir.Constant(kind, [ir.Constant(kind.element, int(value))] * kind.count)


@intrinsic
def _push_block(typing_context, keys, place, key):
    """Insert a key into 8 sorted keys: each becomes min(its old value, max(its predecessor, the key))."""

    def generate(context, builder, signature, arguments):
        keys, place, key = arguments
        kind = _vector(64, LANES)
        here = _pointer(context, builder, signature.args[0], keys, place)
        below = builder.gep(here, [ir.Constant(place.type, -LANES)])
        here, below = (builder.bitcast(pointer, kind.as_pointer()) for pointer in (here, below))
        old = builder.load(here, align=8)
        # Shuffled instead of an unaligned load: a load that spans two recent stores has to wait for both.
        before = _shuffled(builder, builder.load(below, align=8), old, range(LANES - 1, 2 * LANES - 1))
        undefined = ir.Constant(kind, ir.Undefined)
        filled = builder.insert_element(undefined, key, ir.Constant(ir.IntType(32), 0))
        filled = _shuffled(builder, filled, undefined, [0] * LANES)
        later = builder.select(builder.icmp_signed(">", before, filled), before, filled)
        builder.store(builder.select(builder.icmp_signed("<", old, later), old, later), here, align=8)
        return context.get_dummy_value()

    return types.void(keys, types.int64, types.int64), generate


@intrinsic
def _open_lane(typing_context, keys, place, lane):
    """Return the first lane >= `lane` of keys[place:place + 8] whose lowest bit is 0; 8 when there is none."""

    def generate(context, builder, signature, arguments):
        *source, lane = arguments
        kind, bits = _vector(64, LANES), ir.IntType(64)
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *source), kind.as_pointer())
        ends = builder.and_(builder.load(pointer, align=8), _filled(kind, 1))
        mask = builder.bitcast(builder.icmp_signed("==", ends, ir.Constant(kind, None)), ir.IntType(LANES))
        mask = builder.and_(builder.zext(mask, bits), builder.shl(ir.Constant(bits, -1), lane))
        return builder.cttz(builder.or_(mask, ir.Constant(bits, 1 << LANES)), cgutils.true_bit)

    return types.int64(keys, types.int64, types.int64), generate


@intrinsic
def _prefetch(typing_context, array, place):
    """Prefetch an array element; any address is allowed."""

    def generate(context, builder, signature, arguments):
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *arguments), ir.IntType(8).as_pointer())
        flags = [ir.Constant(ir.IntType(32), value) for value in (0, 3, 1)]  # read, keep close, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@kernel(f"void({_F4}, Array(float32, 1, 'C', readonly=True), float32, int8[:, ::1])")
def quantise(vectors, centre, scale, out):
    """Quantise to 8 bits: (vector - centre) * scale, rounded and clipped, padded with zeros.

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
    """Insert a key into `size` sorted keys, of which `room` are kept; returns its position."""
    place = size if size < room else room - 1
    while place > 0 and keys[place - 1] > key:
        keys[place] = keys[place - 1]
        place -= 1
    keys[place] = key
    return place


@njit(nogil=True)
def _look(listed, begin, end, codes, visited, mark, fresh, found):
    """Append the words listed[begin:end] not yet visited to the `found` fresh ones; returns the new number."""
    count, width = codes.shape
    for i in range(begin, end):
        word = listed[i]
        if 0 <= word < count:
            _prefetch(codes, np.int64(word) * width)
            _prefetch(codes, np.int64(word) * width + _LINE)
            fresh[found] = word
            found += visited[word] != mark
            visited[word] = mark
    return found


@njit(nogil=True)
def _measure(query, codes, fresh, found, near):
    """Compute the keys of the fresh words, in groups; the last group is padded with the first word."""
    width = codes.shape[1]
    for i in range(found, found + GROUP - 1):
        fresh[i] = fresh[0]
    if width == USUAL:  # a constant width compiles to straight-line code
        for i in range(0, found, GROUP):
            _measure_group(query, codes, USUAL, fresh, i, near)
    else:
        for i in range(0, found, GROUP):
            _measure_group(query, codes, width, fresh, i, near)


@njit(nogil=True)
def _next(keys, place, end):
    """Return the first position in [place, end) whose word was not expanded; `end` when there is none."""
    begin = place & -LANES
    lane = _open_lane(keys, begin, place & (LANES - 1))
    while lane == LANES:
        begin += LANES
        if begin >= end:
            return end
        lane = _open_lane(keys, begin, 0)
    return begin + lane


@njit(nogil=True)
def _order(query, centroids, labels, keys, size, distances):
    """Replace the first `size` keys by their labels, sorted by exact distance."""
    for i in range(size):
        keys[i] = labels[_word(keys[i])]
        for d in range(0, centroids.shape[1], 16):
            _prefetch(centroids, keys[i] * centroids.shape[1] + d)
    for i in range(size):
        word = keys[i]
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


@njit(nogil=True)
def _push(keys, near, found):
    """Insert those of the `found` near keys that are less than the last key into the sorted keys."""
    last, kept = keys[-1], 0
    for i in range(found):
        near[kept] = near[i]
        kept += near[i] < last
    for i in range(kept):
        for place in range(keys.shape[0] - LANES, 0, -LANES):
            _push_block(keys, place, near[i])


@njit(nogil=True)
def _walk(query, codes, starts, links, entries, surely, spread, keys, visited, mark, fresh, near):
    """Fill keys[8:] with the nearest words found through the graph, sorted.

    The search ends when all of them are expanded, or when the squared distance of the next exceeds `spread` times that
    of keys[surely].
    """
    end = keys.shape[0]
    keys[:LANES] = FIRST_KEY
    keys[LANES:] = LAST_KEY
    found = _look(entries, 0, entries.shape[0], codes, visited, mark, fresh, 0)
    while True:
        if found:
            _measure(query, codes, fresh, found, near)
            _push(keys, near, found)
        place = _next(keys, LANES, end)
        if place == end or (keys[place] >> _FAR_SHIFT) > spread * (keys[surely] >> _FAR_SHIFT):
            return
        found = 0
        for _ in range(STEP):
            node = _word(keys[place])
            keys[place] |= 1
            begin = max(np.int64(starts[node]), 0)
            stop = min(np.int64(starts[node + 1]), begin + LONGEST, links.shape[0])
            found = _look(links, begin, stop, codes, visited, mark, fresh, found)
            place = _next(keys, place, end)
            if place == end:
                break
        else:
            following = np.int64(starts[_word(keys[place])])
            _prefetch(links, following)
            _prefetch(links, following + _LINE // 4)


_LAID_OUT = f"{_S1}, {_E4}, {_E4}, {_E4}, {_E4}"


@kernel(f"void({_F4}, {_S1}, {_F4}, {_LAID_OUT}, int64, float64, int32[:, ::1])")
def search(queries, query_codes, centroids, codes, labels, starts, links, entries, beam, spread, words):
    """Find the nearest words of every query through the graph, nearest first; ties go to the lower word.

    queries [n, D] float32, query_codes [n, W] int8, centroids [K, D] float32, K < 2**31
    codes, starts, links, entries  [K, W] int8, [K + 1], [L], [E] int32, numbered by position: position p is linked to
            links[starts[p]:starts[p + 1]], of which the first LONGEST are followed; the search starts at `entries`
    labels  [K] int32, the word at each position
    beam    number of candidates kept, at least 1; rounded up to a multiple of 8
    spread  stop at a word whose squared distance exceeds this multiple of that of the last requested word
    words   [n, k] int32, out; -1 where fewer than k words were reached, which is possible in a damaged graph
    Invalid links and entries are skipped; labels must be words. Never reads outside the arrays.
    """
    count, width = codes.shape
    wanted = words.shape[1]
    room = (max(beam, wanted) + LANES - 1) & -LANES
    surely = LANES + max(wanted, SURE_LEAST) - 1
    keys = np.empty(LANES + room, np.int64)
    most = STEP * LONGEST + entries.shape[0] + GROUP
    fresh, near = np.empty(most, np.int32), np.empty(most, np.int64)
    distances = np.empty(room, np.float32)
    visited = np.empty(count, np.uint8)  # the mark of the last query that visited each word
    query = np.empty(width, np.int16)
    for row in range(queries.shape[0]):
        for d in range(width):
            query[d] = query_codes[row, d]
        if row % MARKS == 0:
            visited[:] = 0
        mark = np.uint8(row % MARKS + 1)
        _walk(query, codes, starts, links, entries, surely, spread, keys, visited, mark, fresh, near)
        kept = min(room, max(TRUE_FACTOR * wanted, TRUE_LEAST))
        while kept > 0 and keys[LANES + kept - 1] == LAST_KEY:
            kept -= 1
        _order(queries[row], centroids, labels, keys[LANES:], kept, distances)
        for i in range(wanted):
            words[row, i] = keys[LANES + i] if i < kept else -1


@kernel(f"void({_S1}, int64, int64, {_I8}, {_E4}, float64, int32[:, ::1])")
def thin(codes, first, last, starts, candidates, slack, neighbours):
    """Select the neighbours of the words `first` to `last` (exclusive) from their candidates, nearest first.

    A candidate is skipped when an already selected neighbour is nearer to it, by the factor `slack`, than the word is.

    codes       [K, W] int8
    starts      [K + 1] int64, ranges of `candidates` [starts[K]] int32; the word itself and invalid words are dropped
    slack       at least 1, on squared distances: larger keeps more
    neighbours  [K, R] int32, out: rows `first` to `last`, -1 after the last neighbour
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
                key = (_distance(codes, node, word, width) << _FAR_SHIFT) | (word << _WORD_SHIFT)
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
                between = _distance(codes, np.int64(neighbours[node, j]), word, width)
                if slack * np.float64(between) < far:
                    kept = False
                    break
            if kept:
                neighbours[node, chosen] = word
                chosen += 1
        neighbours[node, chosen:] = -1


@kernel(f"int64({_I4}, int64, uint8[::1], int32[::1])")
def reach(neighbours, start, reached, queue):
    """Mark every word reachable from `start` through unmarked words; returns their number.

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
