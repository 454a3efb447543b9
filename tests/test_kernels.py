"""Every kernel against its slow twin, on empty, single, boundary and random input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from asmk_engine.kernels import aggregate, cluster, elias_fano, match, names, postings

KNOWN = np.zeros(64, np.uint32), np.ones(64, np.uint8)  # digests that are not asked for
UNIVERSES = [1, 2, 3, 63, 64, 65, 1000, 65_535, 65_536]


def encode(lists: list[list[int]], universe: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts = np.array([len(numbers) for numbers in lists], np.int64)
    posting_starts = np.concatenate([[0], np.cumsum(counts)])
    id_starts = elias_fano.list_starts(counts, universe)
    ids = np.zeros(int(id_starts[-1]) + elias_fano.PADDING, np.uint8)
    numbers = np.array([number for one in lists for number in one], np.uint32)
    elias_fano.encode(numbers, posting_starts, id_starts, universe, ids)
    return posting_starts, id_starts, ids


@st.composite
def increasing_lists(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    universe = draw(st.sampled_from(UNIVERSES))
    numbers = st.lists(st.integers(0, universe - 1), unique=True, max_size=80).map(sorted)
    return universe, draw(st.lists(numbers, max_size=5))


@given(increasing_lists())
def test_elias_fano_writes_the_bytes_of_its_twin_and_reads_them_back(case: tuple[int, list[list[int]]]) -> None:
    universe, lists = case
    posting_starts, id_starts, ids = encode(lists, universe)
    assert bytes(ids[: id_starts[-1]]) == b"".join(naive.elias_fano(numbers, universe) for numbers in lists)
    out = np.zeros(int(posting_starts[-1]), np.uint32)
    assert elias_fano.decode(ids, posting_starts, id_starts, universe, out) == -1
    assert out.tolist() == [number for numbers in lists for number in numbers]


@pytest.mark.parametrize("universe", UNIVERSES)
def test_elias_fano_of_every_number_and_of_the_last_alone(universe: int) -> None:
    for numbers in (list(range(universe)), [universe - 1], [0]):
        posting_starts, id_starts, ids = encode([numbers], universe)
        out = np.zeros(len(numbers), np.uint32)
        assert elias_fano.decode(ids, posting_starts, id_starts, universe, out) == -1
        assert out.tolist() == numbers


@given(st.data())
@settings(max_examples=300)
def test_hostile_lists_never_leave_their_arrays(data: st.DataObject) -> None:
    """Random bytes and tables: a number of a damaged list or increasing numbers in range, never a crash."""
    universe = data.draw(st.sampled_from(UNIVERSES))
    edge = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 40)
    ids = np.frombuffer(data.draw(st.binary(min_size=64, max_size=200)), np.uint8)
    posting_starts = np.array([data.draw(edge), data.draw(edge)])
    id_starts = np.array([data.draw(edge), data.draw(edge)])
    out = np.zeros(20, np.uint32)
    status = elias_fano.decode(ids, posting_starts, id_starts, universe, out)
    first, last = posting_starts.tolist()
    if status == -1:
        numbers = out[first:last].tolist()
        assert numbers == sorted(set(numbers)) and all(number < universe for number in numbers)
    codes, scores = np.zeros((20, 2), np.uint64), np.zeros(-(-universe // 256) * 256)
    lists, weights = np.zeros(1, np.int64), np.ones(1)
    query, table = np.zeros((1, 2), np.uint64), np.ones(129)
    matched = match.match(lists, query, weights, posting_starts, id_starts, ids, codes, *KNOWN, table, universe, scores)
    if status == -1 and last > first and last <= 20:
        assert matched == -1 and np.flatnonzero(scores).tolist() == out[first:last].tolist()


@pytest.mark.parametrize("universe", [1, 200, 257, 63_489, 64_001, 65_280, 65_281, 65_536])
@pytest.mark.parametrize("count", [1, 2, 40, 200])
def test_high_parts_beyond_the_range_are_refused_or_stay_inside(universe: int, count: int) -> None:
    """The last bits of the list and of its neighbour set: the largest high parts that bytes can say."""
    count = min(count, universe)
    posting_starts, id_starts, ids = encode([list(range(count))], universe)
    high_begin = (count * elias_fano.low_bits(count, universe) + 7) >> 3
    bits = np.zeros(8 * (len(ids) - high_begin), np.uint8)
    region = count + ((universe - 1) >> elias_fano.low_bits(count, universe)) + 1
    rng = np.random.default_rng(0)
    for end in (region, region - 1, len(bits)):
        for spread in (0, 3, 9):
            bits[:] = 0
            places = end - 1 - np.arange(count) - rng.integers(0, spread + 1)
            bits[np.unique(places[places >= 0])] = 1
            damaged = ids.copy()
            damaged[high_begin:] = np.packbits(bits, bitorder="little")
            damaged[:high_begin] = 255
            guarded = np.zeros(-(-universe // 256) * 256 + 70_000)
            scores = guarded[: -(-universe // 256) * 256]
            codes, query = np.zeros((count, 2), np.uint64), np.zeros((1, 2), np.uint64)
            lists, table = np.zeros(1, np.int64), np.ones(129)
            tables = np.ones(1), posting_starts, id_starts, damaged
            match.match(lists, query, *tables, codes, *KNOWN, table, universe, scores)
            assert not guarded[len(scores) :].any()


@given(
    st.integers(0, 12),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([1, 5, 63, 64, 65, 128]),
    st.integers(0, 2**32),
)
def test_aggregate_and_binarise_equal_their_twins(count: int, k: int, words: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, words)
    centroids = rng.normal(size=(words, dim)).astype(np.float32)
    descriptors = rng.normal(size=(count, dim)).astype(np.float32)
    descriptors[: count // 3] = centroids[0]  # a residual of exactly zero
    assigned = np.array([rng.permutation(words)[:k] for _ in range(count)], np.int32).reshape(count, k)
    out_words, out_sums = np.empty(count * k, np.int32), np.empty((count * k, dim), np.float32)
    found = aggregate.aggregate(descriptors, assigned, centroids, out_words, out_sums)
    expected = naive.aggregate(descriptors, assigned, centroids)
    assert out_words[:found].tolist() == sorted(expected)
    codes = np.empty((found, (dim + 63) // 64), np.uint64)
    rows, none = np.arange(found, dtype=np.int32), np.zeros(found, np.int32)
    aggregate.residual_codes(out_sums[:found], np.zeros((1, dim), np.float32), rows, none, codes)
    bits = np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little")
    for row, word in enumerate(sorted(expected)):
        assert out_sums[row].tolist() == [float(value) for value in expected[word]]
        assert bits[row, :dim].tolist() == naive.binarise(expected[word])
        assert not bits[row, dim:].any()
    own_words, own_codes = np.empty(count * k, np.uint32), np.empty((count * k, codes.shape[1]), np.uint64)
    assert aggregate.aggregate_codes(descriptors, assigned, centroids, own_words, own_codes) == found
    assert own_words[:found].tolist() == sorted(expected)
    assert own_codes[:found].tolist() == codes.tolist()
    each = np.empty((count * k, codes.shape[1]), np.uint64)
    rows = np.repeat(np.arange(count, dtype=np.int32), k)
    aggregate.residual_codes(descriptors, centroids, rows, assigned.reshape(-1), each)
    bits = np.unpackbits(each.view(np.uint8), axis=1, bitorder="little")
    for row, descriptor, word in zip(bits, rows, assigned.reshape(-1), strict=True):
        assert row[:dim].tolist() == naive.binarise(descriptors[descriptor] - centroids[word])
        assert not row[dim:].any()


@pytest.mark.parametrize("words", [255, 256, 257, 65_536, 65_537])
def test_aggregating_into_the_words_of_a_large_codebook(words: int) -> None:
    rng = np.random.default_rng(words)
    centroids, descriptors = (rng.normal(size=(count, 2)).astype(np.float32) for count in (words, 60))
    assigned = rng.integers(0, words, (60, 2), dtype=np.int32)
    assigned[:10, 0], assigned[10:20, 1] = words - 1, assigned[0, 1]
    expected = naive.aggregate(descriptors, assigned, centroids)
    out_words, out_codes = np.empty(120, np.uint32), np.empty((120, 1), np.uint64)
    assert aggregate.aggregate_codes(descriptors, assigned, centroids, out_words, out_codes) == len(expected)
    assert out_words[: len(expected)].tolist() == sorted(expected)
    bits = [naive.binarise(expected[word]) for word in sorted(expected)]
    assert out_codes[: len(expected), 0].tolist() == [first + 2 * second for first, second in bits]


@given(st.integers(1, 40), st.integers(1, 200), st.sampled_from([1, 2, 3, 4, 16]), st.integers(0, 2**32))
def test_match_equals_its_twin(query_words: int, universe: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, universe + 1, 30)
    lists = [sorted(rng.choice(universe, size, replace=False).tolist()) for size in sizes]
    posting_starts, id_starts, ids = encode(lists, universe)
    codes = rng.integers(0, 2**64, (int(posting_starts[-1]), width), dtype=np.uint64)
    query = rng.integers(0, 2**64, (query_words, width), dtype=np.uint64)
    chosen = rng.integers(-1, len(lists), query_words)
    table, weights = rng.normal(size=64 * width + 1), rng.normal(size=query_words)
    scores = np.zeros(-(-universe // 256) * 256)
    status = match.match(chosen, query, weights, posting_starts, id_starts, ids, codes, *KNOWN, table, universe, scores)
    assert status == -1
    expected = np.zeros(len(scores))
    for q, j in enumerate(chosen):
        for place, image in enumerate(lists[j] if j >= 0 else []):
            differing = sum(
                int(a ^ b).bit_count() for a, b in zip(codes[posting_starts[j] + place], query[q], strict=True)
            )
            expected[image] += weights[q] * table[differing]
    np.testing.assert_array_equal(scores, expected)


def test_match_compares_each_list_with_its_digest_once() -> None:
    rng = np.random.default_rng(0)
    lists = [sorted(rng.choice(1000, size, replace=False).tolist()) for size in (1, 7, 40, 300)]
    posting_starts, id_starts, ids = encode(lists, 1000)
    codes = rng.integers(0, 2**64, (int(posting_starts[-1]), 2), dtype=np.uint64)
    digests, seen = np.empty(4, np.uint32), np.zeros(4, np.uint8)
    match.digest_lists(posting_starts, id_starts, ids, codes, digests)
    tables = np.ones(1), posting_starts, id_starts, ids

    def read(j: int) -> int:
        query, scores = codes[:1].copy(), np.zeros(1024)
        return match.match(np.array([j]), query, *tables, codes, digests, seen, np.ones(129), 1000, scores)

    digests[2] ^= 1
    assert [read(j) for j in range(4)] == [-1, -1, 2, -1] and seen.tolist() == [1, 1, 0, 1]
    codes[posting_starts[3]] ^= np.uint64(1)
    assert read(3) == -1  # compared before
    codes[posting_starts[1]] ^= np.uint64(1)
    seen[1] = 0
    assert read(1) == 1


@given(st.integers(0, 2**32), st.integers(1, 90), st.sampled_from([1, 2, 3, 16]))
def test_a_digest_is_that_of_its_twin_and_notices_any_bit(seed: int, count: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, (count + 2, width), dtype=np.uint64)
    if seed % 3 == 0:
        codes[:] = 0
    ids = rng.integers(0, 256, int(rng.integers(1, 40)) + 64).astype(np.uint8)
    posting_starts, id_starts = np.array([1, 1 + count]), np.array([0, len(ids) - 64])

    def digest() -> int:
        out = np.empty(1, np.uint32)
        match.digest_lists(posting_starts, id_starts, ids, codes, out)
        return int(out[0])

    whole = digest()
    assert whole == naive.list_digest(codes[1 : 1 + count], ids[: len(ids) - 64])
    outside = codes[0, 0], codes[-1, 0], ids[-64]
    codes[0, 0], codes[-1, 0], ids[-64] = 1, 2, 3
    assert digest() == whole
    codes[0, 0], codes[-1, 0], ids[-64] = outside
    row, column, bit = rng.integers(1, 1 + count), rng.integers(0, width), np.uint64(rng.integers(0, 64))
    codes[row, column] ^= np.uint64(1) << bit
    assert digest() != whole
    codes[row, column] ^= np.uint64(1) << bit
    ids[rng.integers(0, len(ids) - 64)] ^= np.uint8(1 << rng.integers(0, 8))
    assert digest() != whole


def test_a_digest_notices_exchanged_pages_and_a_list_of_zeros() -> None:
    codes = np.random.default_rng(0).integers(0, 2**64, (2048, 2), dtype=np.uint64)
    ids = np.zeros(80, np.uint8)
    found = set()
    for first, second in ((0, 0), (0, 256), (256, 512), (1, 2), (16, 32)):  # rows; 256 of them are 4 KiB
        changed = codes.copy()
        changed[first : first + 256], changed[second : second + 256] = (
            codes[second : second + 256].copy(), codes[first : first + 256].copy()
        )  # fmt: skip
        out = np.empty(1, np.uint32)
        match.digest_lists(np.array([0, 2048]), np.array([0, 16]), ids, changed, out)
        found.add(int(out[0]))
    for count in (1, 2, 31, 32, 33):
        out = np.empty(1, np.uint32)
        match.digest_lists(np.array([0, count]), np.array([0, 16]), ids, np.zeros((count, 2), np.uint64), out)
        found.add(int(out[0]))
    assert len(found) == 10


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_find_lists_equals_a_dictionary(present: set[int], wanted: set[int]) -> None:
    places = {word: place for place, word in enumerate(sorted(present))}
    out = np.empty(len(wanted), np.int64)
    match.find_lists(np.array(sorted(present), np.uint32), np.array(sorted(wanted), np.uint32), out)
    assert out.tolist() == [places.get(word, -1) for word in sorted(wanted)]


def joined(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    return np.frombuffer(b"".join(texts), np.uint8), offsets


TEXTS = st.lists(st.binary(max_size=3) | st.sampled_from([b"a", b"ab", b"\xff", b"\x00", b"\x00\x00"]), max_size=12)


@given(TEXTS.map(lambda texts: list(dict.fromkeys(texts))), TEXTS)
def test_find_names_equals_a_dictionary(present: list[bytes], wanted: list[bytes]) -> None:
    order = np.array(sorted(range(len(present)), key=present.__getitem__), np.uint32)
    out = np.empty(len(wanted), np.int64)
    assert names.find_names(*joined(present), order, *joined(wanted), out) == -1
    places = {text: place for place, text in enumerate(present)}
    assert out.tolist() == [places.get(text, -1) for text in wanted]


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 9), min_size=4, max_size=4), TEXTS)
def test_hostile_names_are_refused_or_stay_inside(offsets: list[int], wanted: list[bytes]) -> None:
    guarded = np.frombuffer(b"abcdef" + bytes(100), np.uint8)
    order, out = np.array([2, 0, 7][: 1 + offsets[0] % 3], np.uint32), np.empty(len(wanted), np.int64)
    tables = guarded[:6], np.array(offsets[: len(order) + 1], np.int64), order
    place = names.find_names(*tables, *joined(wanted), out)
    found = out[out >= 0] if place < 0 else out[:0]
    for number in found.tolist():
        begin, end = offsets[number : number + 2]
        assert 0 <= begin <= end <= 6 and bytes(guarded[begin:end]) in wanted
    assert place < len(order)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 300)), max_size=60))
def test_postings_are_ordered_as_a_stable_sort_would(pairs: list[tuple[int, int]]) -> None:
    words, images = (np.array([pair[i] for pair in pairs], np.uint32) for i in (0, 1))
    counts = postings.count_lists(words, images, 7, 6, 5)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    order = postings.order_postings(words, images, 7, 6, starts.copy())
    assert order.tolist() == sorted(range(len(pairs)), key=lambda p: (pairs[p][1] >> 6, pairs[p][0]))
    codes = np.arange(2 * len(pairs), dtype=np.uint64).reshape(-1, 2)
    out_numbers, out_codes = np.empty(len(pairs), np.uint32), np.empty((len(pairs), 2), np.uint64)
    postings.gather(order, images, codes, 6, out_numbers, out_codes)
    assert out_numbers.tolist() == [pairs[p][1] % 64 for p in order]
    assert out_codes.tolist() == [[2 * p, 2 * p + 1] for p in order.tolist()]


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 2**32))
def test_smallest_prefers_the_lower_column_among_equals(columns: int, k: int, seed: int) -> None:
    k = min(k, columns)
    values = np.random.default_rng(seed).integers(0, 4, (5, columns)).astype(np.float32)
    out_columns, out_values = np.empty((5, k), np.int32), np.empty((5, k), np.float32)
    cluster.smallest(values, k, out_columns, out_values)
    assert out_columns.tolist() == np.argsort(values, axis=1, kind="stable")[:, :k].tolist()
