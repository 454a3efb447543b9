"""Score the images of one range against a query: the inner loop of the selective match kernel.

For every query word and every posting of that word, with h the Hamming distance of the two codes, weight * table[h] is
added to the score of the image; table[h] is sigma(1 - 2 h / D) (Tolias et al., ECCV 2020, section 3). See elias_fano.py
for the layout of the lists.

A list is read in three short passes over buffers that stay in the L1 cache: image numbers, distances, scores. The first
two are vectorised with LLVM's generic vector operations, which every processor can run. The last two prefetch the codes
of the next list.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.cgutils import ir  # type: ignore[attr-defined]
from numba.extending import intrinsic

from asmk_engine.kernels import kernel

PADDING = 64  # bytes after the last list, so that a reader may load a whole vector
BUCKET = 256  # images with the same high part in a list with 8 low bits
_I8 = "Array(int64, 1, 'C', readonly=True)"
_F8 = "Array(float64, 1, 'C', readonly=True)"
_U4 = "Array(uint32, 1, 'C', readonly=True)"
_U1 = "Array(uint8, 1, 'C', readonly=True)"
_U8 = "Array(uint64, 2, 'C', readonly=True)"
_CODES = 8
_BITS = 8
_LINE = 64  # bytes of a cache line
_DIGEST_LANES = 32
_KEY = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio, odd
_LANE_KEYS = (np.arange(1, _DIGEST_LANES + 1, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)) ^ _KEY
_LOW_HALF = np.uint64(0xFFFFFFFF)


def _pointer(context, builder, array_type, array, place):
    """Return the address of an array element."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


def _vector(bits, lanes):
    return ir.VectorType(ir.IntType(bits), lanes)


def _constants(kind, values):
    return ir.Constant(kind, [ir.Constant(kind.element, value) for value in values])


def _spread(builder, kind, scalars):
    """Build a vector that repeats a few scalars cyclically."""
    empty, i32 = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    filled = empty
    for lane, scalar in enumerate(scalars):
        filled = builder.insert_element(filled, scalar, ir.Constant(i32, lane))
    turns = [lane % len(scalars) for lane in range(kind.count)]
    return builder.shuffle_vector(filled, empty, _constants(_vector(32, kind.count), turns))


def _call(builder, name, result, arguments):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def _load(typing_context, array, position):
    """Load the 64-bit word at byte `position`, aligned or not."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def _ones(typing_context, word):
    """Count the set bits of a 64-bit word."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def _trailing_zeros(typing_context, word):
    """Return the position of the lowest set bit of a non-zero 64-bit word."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@intrinsic
def _expand(typing_context, parts, byte, base, ids, begin, out, place):
    """Decode the set bits of a byte of high bits: parts[byte] + base + ids[begin:begin + 8], modulo 2**16.

    Writes out[place:place + 8] uint16, of which only the first are valid, one per set bit.
    """

    def generate(context, builder, signature, arguments):
        parts, byte, base, ids, begin, out, place = arguments
        narrow, wide = _vector(8, _BITS), _vector(16, _BITS)
        row = builder.shl(byte, ir.Constant(byte.type, 3))
        part = _pointer(context, builder, signature.args[0], parts, row)
        high = builder.load(builder.bitcast(part, wide.as_pointer()), align=2)
        source = _pointer(context, builder, signature.args[3], ids, begin)
        low = builder.zext(builder.load(builder.bitcast(source, narrow.as_pointer()), align=1), wide)
        spread = _spread(builder, wide, [builder.trunc(base, ir.IntType(16))])
        target = builder.bitcast(_pointer(context, builder, signature.args[5], out, place), wide.as_pointer())
        builder.store(builder.add(builder.add(high, spread), low), target, align=1)
        return context.get_dummy_value()

    return types.void(parts, types.int64, types.int64, ids, types.int64, out, types.int64), generate


def _distances_of(width):
    """Make an intrinsic for codes of `width` 64-bit words: vector types must be known when it is compiled."""

    @intrinsic
    def distances(typing_context, codes, row, query, q, out, place):
        """Write the Hamming distances of codes[row:row + 8] to query[q] to out[place:place + 8] uint16."""

        def generate(context, builder, signature, arguments):
            codes, row, query, q, out, place = arguments
            words, each = _vector(64, _CODES * width), _vector(64, _CODES)
            stride = ir.Constant(row.type, width)
            one = _pointer(context, builder, signature.args[2], query, builder.mul(q, stride))
            parts = [builder.load(builder.gep(one, [ir.Constant(row.type, w)])) for w in range(width)]
            first = _pointer(context, builder, signature.args[0], codes, builder.mul(row, stride))
            loaded = builder.load(builder.bitcast(first, words.as_pointer()), align=8)
            differing = builder.xor(loaded, _spread(builder, words, parts))
            counts = _call(builder, f"llvm.ctpop.v{_CODES * width}i64", words, [differing])
            total = ir.Constant(each, None)
            for w in range(width):
                lanes = _constants(_vector(32, _CODES), range(w, _CODES * width, width))
                total = builder.add(total, builder.shuffle_vector(counts, ir.Constant(words, ir.Undefined), lanes))
            narrow = _vector(16, _CODES)
            target = builder.bitcast(_pointer(context, builder, signature.args[4], out, place), narrow.as_pointer())
            builder.store(builder.trunc(total, narrow), target, align=1)
            return context.get_dummy_value()

        return types.void(codes, types.int64, query, types.int64, out, types.int64), generate

    return distances


_distances_64, _distances_128, _distances_256 = (_distances_of(width) for width in (1, 2, 4))


@intrinsic
def _prefetch(typing_context, array, place):
    """Prefetch an element of a flat array; any address is allowed."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        flags = [ir.Constant(ir.IntType(32), value) for value in (0, 3, 1)]  # read, keep close, data
        operands = [builder.bitcast(pointer, ir.IntType(8).as_pointer()), *flags]
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), operands)
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _parts_of_bytes():
    """Tabulate per byte what each set bit adds to an image number, (bit - set bits below it) << 8, and its popcount."""
    parts, counts = np.zeros((1 << _BITS, _BITS), np.uint16), np.zeros(1 << _BITS, np.uint8)
    for byte in range(1 << _BITS):
        bits = [bit for bit in range(_BITS) if byte >> bit & 1]
        parts[byte, : len(bits)] = [(bit - before) << 8 for before, bit in enumerate(bits)]
        counts[byte] = len(bits)
    return parts, counts


_PARTS, _COUNTS = _parts_of_bytes()


@kernel(f"void({_U4}, {_U4}, int64[::1])")
def find_lists(list_words, words, out):
    """Find the position of each of the increasing `words` in the increasing `list_words`, -1 if absent.

    list_words [L] uint32, words [q] uint32, out [q] int64
    """
    low = 0
    for i in range(words.shape[0]):
        high = list_words.shape[0]
        if low < high and words[i] >= list_words[low]:
            # Strictly increasing integers: the word is here if none is skipped in between, and never later.
            latest = low + np.int64(words[i] - list_words[low])
            if latest < high:
                if list_words[latest] == words[i]:
                    low = latest
                high = latest
        while low < high:
            middle = (low + high) >> 1
            if list_words[middle] < words[i]:
                low = middle + 1
            else:
                high = middle
        found = low < list_words.shape[0] and list_words[low] == words[i]
        out[i] = low if found else -1


@njit(nogil=True)
def _read_numbers(ids, begin, size, count, low, universe, numbers):
    """Decode the image numbers of one list; returns whether the list is valid. `numbers` holds at least count + 8."""
    low_bytes = (count * low + 7) >> 3
    high_begin, high_bytes = begin + low_bytes, size - low_bytes
    place, i = np.int64(0), np.int64(0)
    if low == 8:
        high_bits = count + ((universe - 1) >> 8) + 1
        whole_bytes = high_bits >> 3
        while i < count and place < whole_bytes:
            byte = np.int64(ids[high_begin + place])
            _expand(_PARTS, byte, (8 * place - i) << 8, ids, begin + i, numbers, i)
            i += np.int64(_COUNTS[byte])
            place += 1
        if i < count:  # masked: stray bits after the last would make a high part wrap around
            byte = np.int64(ids[high_begin + place]) & ((1 << (high_bits & 7)) - 1)
            _expand(_PARTS, byte, (8 * place - i) << 8, ids, begin + i, numbers, i)
            i += np.int64(_COUNTS[byte])
        return i >= count and np.int64(numbers[count - 1]) >> 8 <= (universe - 1) >> 8
    mask = (np.uint64(1) << np.uint64(low)) - np.uint64(1)
    word = _load(ids, high_begin)
    for i in range(count):
        while word == np.uint64(0):
            place += 8
            if place >= high_bytes:
                return False
            word = _load(ids, high_begin + place)
        high = 8 * place + np.int64(_trailing_zeros(word)) - i
        word &= word - np.uint64(1)
        lows = (_load(ids, begin + ((i * low) >> 3)) >> np.uint64((i * low) & 7)) & mask
        number = (high << low) | np.int64(lows)
        if number >= universe:
            return False
        numbers[i] = number
    return True


@njit(nogil=True)
def _read_distances(codes, first, count, query_codes, q, distances, ahead):
    """Compute the Hamming distances of the codes of one list to query word q; prefetches every second line at `ahead`.

    The other lines are prefetched while the scores are scattered, so that memory is busy in both passes.
    """
    k = np.int64(0)
    if codes.shape[1] == 2:
        while k + _CODES <= count:
            _prefetch(codes, (ahead + k) * codes.shape[1])
            _distances_128(codes, first + k, query_codes, q, distances, k)
            k += _CODES
    elif codes.shape[1] == 1:
        while k + _CODES <= count:
            _prefetch(codes, (ahead + k) * codes.shape[1])
            _distances_64(codes, first + k, query_codes, q, distances, k)
            k += _CODES
    elif codes.shape[1] == 4:
        while k + _CODES <= count:
            _prefetch(codes, (ahead + k) * codes.shape[1])
            _distances_256(codes, first + k, query_codes, q, distances, k)
            k += _CODES
    while k < count:
        distance = np.uint64(0)
        for column in range(codes.shape[1]):
            distance += _ones(codes[first + k, column] ^ query_codes[q, column])
        distances[k] = distance
        k += 1


@njit(nogil=True)
def _digest(codes, first, count, ids, begin, size, lanes):
    """Compute a 32-bit digest of the codes and image numbers of one list; `lanes` [32] uint64 is scratch.

    Every 64-bit word is added to one of 32 lanes, together with the product of its halves after adding a key that
    depends on the position, so that altered, moved or swapped words are detected (the scheme of UMAC's NH).
    """
    words = codes.reshape(-1)
    place, end = np.uint64(first) * np.uint64(codes.shape[1]), np.uint64(first + count) * np.uint64(codes.shape[1])
    key = _KEY
    for lane in range(_DIGEST_LANES):
        lanes[lane] = np.uint64(count)
    while place + np.uint64(_DIGEST_LANES) <= end:
        for lane in range(_DIGEST_LANES):
            word = words[place + np.uint64(lane)]
            mixed = word + key + _LANE_KEYS[lane]
            lanes[lane] += word + (mixed & _LOW_HALF) * (mixed >> np.uint64(32))
        place += np.uint64(_DIGEST_LANES)
        key += _KEY
    lane = 0
    while place < end:
        mixed = words[place] + key + _LANE_KEYS[lane]
        lanes[lane] += words[place] + (mixed & _LOW_HALF) * (mixed >> np.uint64(32))
        place += np.uint64(1)
        lane += 1
    total = np.uint64(size)
    for lane in range(_DIGEST_LANES):
        total = (total ^ lanes[lane]) * _KEY
        total ^= total >> np.uint64(29)
    for byte in range(0, size, 8):  # the last word may extend into the next list or the padding: masked
        word = _load(ids, begin + byte)
        if size - byte < 8:
            word &= (np.uint64(1) << np.uint64(8 * (size - byte))) - np.uint64(1)
        total = (total ^ word) * _KEY
        total ^= total >> np.uint64(29)
    return np.uint32(total >> np.uint64(32))


@kernel(f"void({_I8}, {_I8}, {_U1}, {_U8}, uint32[::1])")
def digest_lists(posting_starts, id_starts, ids, codes, out):
    """Compute the digest of each list, with which `match` detects an altered list when it first reads it.

    posting_starts, id_starts [L + 1] int64: the lists in codes [P, W] uint64 and ids uint8 with PADDING; out [L] uint32
    """
    lanes = np.empty(_DIGEST_LANES, np.uint64)
    for j in range(out.shape[0]):
        count, size = posting_starts[j + 1] - posting_starts[j], id_starts[j + 1] - id_starts[j]
        out[j] = _digest(codes, posting_starts[j], count, ids, id_starts[j], size, lanes)


@kernel(f"int64({_I8}, {_U8}, {_F8}, {_I8}, {_I8}, {_U1}, {_U8}, {_U4}, uint8[::1], {_F8}, int64, float64[::1])")
def match(lists, query_codes, weights, posting_starts, id_starts, ids, codes, digests, seen, table, universe, scores):
    """Add the contributions of the postings of the query's words to the scores of the images of a range.

    lists           [q] int64, the list of each query word, -1 for none
    query_codes     [q, W] uint64, weights [q] float64
    posting_starts  [L + 1] int64, id_starts [L + 1] int64, ids uint8 with PADDING, codes [P, W] uint64: the segment
    digests         [L] uint32, from `digest_lists`
    seen            [L] uint8, in and out: not 0 for a list that was already compared with its digest
    table           [64 W + 1] float64, the contribution of each Hamming distance
    universe        images of the range, at most 65 536
    scores          [universe rounded up to BUCKET] float64, added to in the order of the query words
    returns         -1, or the number of the first damaged list; never reads or writes outside the arrays
    """
    numbers = np.empty(universe + _BITS, np.uint16)
    distances = np.empty(universe + _CODES, np.uint16)
    lanes = np.empty(_DIGEST_LANES, np.uint64)
    worth = table.copy()
    weight = np.float64(1.0)
    for q in range(lists.shape[0]):
        j = lists[q]
        if j < 0:
            continue
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        begin = id_starts[j]
        if count <= 0 or count > universe or first < 0 or first > codes.shape[0] - count:
            return j
        low = np.int64(8)
        while (count << (low + 1)) <= universe:
            low += 1
        size = ((count * low + 7) >> 3) + ((count + ((universe - 1) >> low) + 8) >> 3)
        if begin < 0 or begin > ids.shape[0] - size - PADDING or id_starts[j + 1] - begin != size:
            return j
        if seen[j] == 0:
            if _digest(codes, first, count, ids, begin, size, lanes) != digests[j]:
                return j
            seen[j] = 1
        if not _read_numbers(ids, begin, size, count, low, universe, numbers):
            return j
        following = lists[q + 1] if q + 1 < lists.shape[0] and lists[q + 1] >= 0 else j
        later = lists[q + 2] if q + 2 < lists.shape[0] and lists[q + 2] >= 0 else j
        _prefetch(posting_starts, later)
        _prefetch(id_starts, later)
        for line in range(0, size, _LINE):  # the next list is assumed to be of similar size
            _prefetch(ids, id_starts[following] + line)
        ahead = posting_starts[following]
        _read_distances(codes, first, count, query_codes, q, distances, ahead)
        if weights[q] != weight:
            weight = weights[q]
            for d in range(table.shape[0]):
                worth[d] = weight * table[d]
        last = np.uint64(count)
        k = np.uint64(0)
        while k + np.uint64(8) <= last:
            _prefetch(codes, (ahead + np.int64(k) + 4) * codes.shape[1])
            scores[numbers[k]] += worth[distances[k]]
            scores[numbers[k + np.uint64(1)]] += worth[distances[k + np.uint64(1)]]
            scores[numbers[k + np.uint64(2)]] += worth[distances[k + np.uint64(2)]]
            scores[numbers[k + np.uint64(3)]] += worth[distances[k + np.uint64(3)]]
            scores[numbers[k + np.uint64(4)]] += worth[distances[k + np.uint64(4)]]
            scores[numbers[k + np.uint64(5)]] += worth[distances[k + np.uint64(5)]]
            scores[numbers[k + np.uint64(6)]] += worth[distances[k + np.uint64(6)]]
            scores[numbers[k + np.uint64(7)]] += worth[distances[k + np.uint64(7)]]
            k += np.uint64(8)
        while k < last:
            scores[numbers[k]] += worth[distances[k]]
            k += np.uint64(1)
    return -1
