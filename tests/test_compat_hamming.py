"""The drop-in's packed codes and formulas: what the compiled module of the original gives, for any number of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.compat import functional, hamming
from asmk_engine.compat.codebook import Codebook
from asmk_engine.compat.kernel import ASMKKernel
from asmk_engine.errors import InputError, MismatchError


def packed(row: list[float], threshold: float = 0) -> list[int]:
    """Bit by bit: 32 components to a word, the first one its most significant bit, zeros after the last one."""
    words = []
    for begin in range(0, len(row), 32):
        word = 0
        for place in range(32):
            component = row[begin + place] if begin + place < len(row) else float("-inf")
            word = 2 * word + (1 if component > threshold else 0)
        words.append(word)
    return words


def differing(one: list[int], other: list[int]) -> int:
    return sum(bin(a ^ b).count("1") for a, b in zip(one, other, strict=True))


def random_rows(rows: int, dim: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(-3, 4, (rows, dim))
    return (drawn / 2).astype(np.float32)  # zeros among them


@given(st.integers(0, 6), st.integers(0, 140), st.sampled_from([0, 1, -1, 0.25]), st.integers(0, 2**32))
def test_components_are_packed_bit_by_bit(rows: int, dim: int, threshold: float, seed: int) -> None:
    values = random_rows(rows, dim, seed)
    found = hamming.binarize_and_pack_2D(values, threshold)
    assert found.dtype == np.uint32 and found.shape == (rows, -(-dim // 32))
    assert found.tolist() == [packed(row, threshold) for row in values.tolist()]
    for row in values:
        one = hamming.binarize_and_pack(row, threshold)
        assert one.dtype == np.uint32 and one.tolist() == packed(row.tolist(), threshold)


def test_the_order_of_the_bits() -> None:
    """By hand: component 0 is the highest bit of the first word; one that is 0 gives 0."""
    assert hamming.binarize_and_pack(np.array([1, 0, 1], np.float32)).tolist() == [0xA0000000]
    row = np.zeros(40, np.float32)
    row[[31, 32, 39]] = 1
    assert hamming.binarize_and_pack(row).tolist() == [0x00000001, 0x81000000]
    assert hamming.binarize_and_pack_2D(np.array([[np.nan, -0.0, np.inf]], np.float32)).tolist() == [[0x20000000]]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 140), st.booleans(), st.integers(0, 2**32))
def test_distances_are_counted_bit_by_bit(n: int, m: int, dim: int, by_dimension: bool, seed: int) -> None:
    one, other = random_rows(n, dim, seed), random_rows(m, dim, seed + 1)
    codes, others = hamming.binarize_and_pack_2D(one), hamming.binarize_and_pack_2D(other)
    bits = dim if by_dimension else 32 * -(-dim // 32)
    expected = [
        [np.float32(differing(packed(a), packed(b))) / np.float32(bits) for b in other.tolist()] for a in one.tolist()
    ]
    found = hamming.hamming_cdist_packed(codes, others, dim if by_dimension else 0)
    assert found.dtype == np.float32 and found.shape == (n, m)
    np.testing.assert_array_equal(found, np.array(expected, np.float32).reshape(n, m))
    for a, row in zip(codes, found.tolist(), strict=True):
        for b, distance in zip(others, row, strict=True):
            assert hamming.hamming_dist_packed(a, b, *([dim] if by_dimension else [])) == distance
    if by_dimension:
        unequal = ((one > 0)[:, None] != (other > 0)).mean(axis=2)
        np.testing.assert_allclose(found, unequal, rtol=1e-6)


def test_many_codes_of_many_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "_TASK", 1000)  # several tasks
    rng = np.random.default_rng(0)
    codes, others = (rng.integers(0, 1 << 32, (count, 32), dtype=np.uint32) for count in (37, 50))
    expected = np.bitwise_count(codes[:, None] ^ others).sum(axis=2) / np.float32(1024)
    np.testing.assert_array_equal(hamming.hamming_cdist_packed(codes, others), expected.astype(np.float32))


def test_any_layout_and_nothing_of_the_caller_is_changed() -> None:
    values = random_rows(9, 70, 0)
    values.flags.writeable = False
    expected = hamming.binarize_and_pack_2D(values)
    for same in (np.asfortranarray(values), values.astype(np.float64), values.astype(np.float16)):
        np.testing.assert_array_equal(hamming.binarize_and_pack_2D(same), expected)
    np.testing.assert_array_equal(hamming.binarize_and_pack(np.repeat(values[0], 2)[::2]), expected[0])
    codes = np.asfortranarray(expected)
    codes.flags.writeable = False
    np.testing.assert_array_equal(
        hamming.hamming_cdist_packed(codes, codes[::2]), hamming.hamming_cdist_packed(expected, expected[::2].copy())
    )
    assert np.isnan(hamming.hamming_dist_packed(expected[0, :0], expected[1, :0]))


F4, U4 = np.zeros((2, 40), np.float32), np.zeros((2, 2), np.uint32)
WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: hamming.binarize_and_pack(F4), InputError, r"float32 \(2, 40\); expected .*\[D\]"),
    (lambda: hamming.binarize_and_pack_2D(F4[0]), InputError, r"shape \[n, D\]"),
    (lambda: hamming.binarize_and_pack_2D(F4.astype(int)), InputError, "expected floating point"),
    (lambda: hamming.binarize_and_pack(F4[0], "0"), InputError, "threshold is '0'"),
    (lambda: hamming.binarize_and_pack(F4[0], float("nan")), InputError, "threshold is nan"),
    (lambda: hamming.hamming_dist_packed(U4[0], U4[0, :1]), MismatchError, "2 and of 1 words"),
    (lambda: hamming.hamming_cdist_packed(U4, U4[:, :1]), MismatchError, "2 and of 1 words"),
    (lambda: hamming.hamming_cdist_packed(U4, F4), InputError, "expected uint32"),
    (lambda: hamming.hamming_cdist_packed(U4[0], U4), InputError, r"expected uint32 of shape \[n, W\]"),
    (lambda: hamming.hamming_dist_packed(U4[0], U4[0].astype(np.int64)), InputError, "codes are int64"),
    (lambda: hamming.hamming_dist_packed(U4[0], U4[0], True), InputError, "normalization is True"),
]


@pytest.mark.parametrize(("call", "kind", "message"), WRONG)
def test_what_cannot_be_packed_or_compared(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_formulas() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], np.float32)
    found = functional.normalize_vec_l2(vectors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found[0]), 5 / (5 + 1e-6), atol=1e-7)
    images, values = functional.asmk_kernel(
        np.array([0.5, 0.25, 0.2, -1.0]), np.array([7, 8, 9, 10]), alpha=3.0, similarity_threshold=0.25
    )
    assert images.tolist() == [7, 8] and values.tolist() == [0.125, 0.015625]
    nothing = functional.asmk_kernel(np.empty(0), np.empty(0, int), alpha=3.0, similarity_threshold=0.0)
    assert [len(part) for part in nothing] == [0, 0]


@pytest.mark.parametrize("dim", [7, 32, 40, 128])
@pytest.mark.parametrize("binary", [True, False, "bin", "nobin"])
def test_the_kernel_compares_one_vector_with_a_list(dim: int, binary: Any) -> None:
    """Called as the inverted file of the original calls it: a vector of a query, and a list with its image ids."""
    rng = np.random.default_rng(dim)
    codebook = Codebook(None, size=1)
    codebook.centroids = np.zeros((1, dim), np.float32)
    kernel = ASMKKernel(codebook, binary=binary)
    values = rng.normal(size=(6, dim)).astype(np.float32)
    is_binary = binary in (True, "bin")
    vectors = hamming.binarize_and_pack_2D(values) if is_binary else functional.normalize_vec_l2(values)
    images, found = kernel.similarity(vectors[0], vectors, np.arange(10, 16), alpha=2.0, similarity_threshold=0.05)
    signs = np.where(values > 0, 1.0, -1.0)
    similarities = signs @ signs[0] / dim if is_binary else vectors @ vectors[0]
    kept = [image for image, similarity in enumerate(similarities) if similarity >= 0.05]
    assert images.tolist() == [10 + image for image in kept] and 10 in images
    np.testing.assert_allclose(found, similarities[kept] ** 2, rtol=1e-5)
    again = ASMKKernel.initialize_from_state(kernel.state_dict(), codebook)
    assert (again.binary, again.state_dict()) == (kernel.binary, kernel.state_dict())


def test_states_that_are_no_kernel() -> None:
    codebook = Codebook(None, size=1)
    for state in (
        {"type": "IVF", "params": {"binary": True}},
        {"type": "ASMKKernel"},
        None,
        {"type": "ASMKKernel", "params": {}},
    ):
        with pytest.raises(InputError, match="expected the state of an ASMKKernel"):
            ASMKKernel.initialize_from_state(state, codebook)  # type: ignore[arg-type]
    for wrong in ("yes", 1, None, ["bin"]):
        with pytest.raises(InputError, match="binary is"):
            ASMKKernel(codebook, binary=wrong)  # type: ignore[arg-type]
