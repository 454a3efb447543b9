"""The reader of pickles: plain values and arrays come back, anything else is refused without being touched."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.errors import DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.storage.pickles.unpickle import parse_plain_pickle, read_plain_pickle

HERE = Path("x.pkl")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gnd"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
plain_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.lists(inner, min_size=4, max_size=5).map(tuple)
        | st.tuples(inner)
    ),
    max_leaves=12,
)


def read(data: bytes) -> Any:
    return parse_plain_pickle(data, HERE)


@given(plain_values, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    found = read(pickle.dumps(value, protocol))
    assert found == value
    assert repr(found) == repr(value)


@given(st.frozensets(scalars), st.sets(st.integers()), st.sampled_from([4, 5]))
def test_sets_come_back(frozen: frozenset[Any], numbers: set[int], protocol: int) -> None:
    assert read(pickle.dumps([frozen, numbers], protocol)) == [frozen, numbers]


ARRAYS = [
    np.arange(6, dtype=np.float32),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(5, dtype=">i4"),
    np.arange(300, dtype=">f8"),
    np.array([True, False]),
    np.array(["ab", "c", "東"]),
    np.array([b"a\x80", b""], dtype="S2"),
    np.zeros((0, 128), np.float16),
    np.array(2.5),
    np.array([1 + 2j], np.complex64),
    np.arange(256, dtype=np.uint8),
    np.arange(10)[::2],
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back(array: np.ndarray, protocol: int) -> None:
    found, again, copy = read(pickle.dumps([array, array, array.copy()], protocol))
    assert type(found) is np.ndarray
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.flags.writeable
    assert again is found
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(copy, array)


@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("ä"), np.bytes_(b"a")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_of_numpy_come_back(value: np.generic, protocol: int) -> None:
    found = read(pickle.dumps(value, protocol))
    assert type(found) is type(value)
    assert found == value


def test_names_of_older_numpy_are_known() -> None:
    data = pickle.dumps([np.arange(3), np.float64(1)], 2).replace(b"numpy._core.", b"numpy.core.")
    found = read(data)
    assert found[0].tolist() == [0, 1, 2]
    assert found[1] == 1


def test_pickles_of_python_2_are_latin_1() -> None:
    assert read(b"(dp0\nS'caf\\xe9 \\\\ \\'\\n'\np1\nL12L\nsI01\nI00\ns.") == {"café \\ '\n": 12, True: False}
    assert read(b"\x80\x02}U\x02a\xe9T\x01\x00\x00\x00bs.") == {"aé": "b"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")
@pytest.mark.parametrize("name", ["gnd_roxford5k.pkl", "gnd_rparis6k.pkl"])
def test_the_published_files_are_read_as_pickle_reads_them(name: str) -> None:
    path = SHARED / name
    assert read_plain_pickle(path) == pickle.loads(path.read_bytes(), encoding="latin1")


class Calls:
    """Pickles into a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), f"{os.system.__module__}.system"),
        (eval, ("open({!r}, 'w')",), "eval"),
        (partial, (print, "{}"), "functools.partial"),
        (np.load, ("{}",), "numpy.load"),
        (getattr, ("{}", "upper"), "getattr"),
        (Path, ("{}",), "pathlib.Path"),
        (bytearray, (10**12,), "bytearray"),
    ],
)
def test_calls_are_refused_without_being_made(
    tmp_path: Path, protocol: int, function: Callable[..., Any], arguments: tuple[Any, ...], name: str
) -> None:
    target = tmp_path / "made"
    filled = [argument.format(target) if isinstance(argument, str) else argument for argument in arguments]
    data = pickle.dumps({"imlist": [Calls(function, *filled)]}, protocol)
    with pytest.raises(FormatError, match=rf"x\.pkl: needs '.*{name}'; only plain values and numpy arrays"):
        read(data)
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"(S'true'\nios\nsystem\n.", "needs 'os.system'"),
        (b"(cos\nsystem\nS'true'\no.", "needs 'os.system'"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "needs 'builtins.eval'"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "needs '__builtin__.eval'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "needs 'os.system'"),
        (b"cnumpy\nndarray.__class__\n.", "needs 'numpy.ndarray.__class__'"),
        (b"cos\nsys\x1b[31mtem\n.", r"needs 'os.sys\\x1b"),
        (b"N)\x81.", "uses classes"),
        (b"N)}\x92.", "uses classes"),
        (b"N(No.", "uses classes"),
        (b"NPid\n.", "uses persistent ids"),
        (b"NQ.", "uses persistent ids"),
        (b"N\x82\x01.", "uses extension codes"),
        (b"N\x97.", "uses buffers outside the file"),
        (b"cnumpy\nndarray\n.", "holds a class or an incomplete array"),
        (b"]cnumpy\ndtype\na.", "holds a class or an incomplete array"),
        (b"}}b.", "sets attributes"),
        (b"}}b.", "sets attributes"),
        (b"# names\n", "not a pickle"),
    ],
)
def test_what_is_not_plain_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)


def array_pickle(
    code: Any = "f4", order: str = "<", shape: Any = (3,), data: Any = bytes(12), fields: Any = None
) -> bytes:
    """A pickle as numpy writes it, with parts of one's own."""
    out = io.BytesIO()
    pickler = pickle._Pickler(out, 4)  # type: ignore[attr-defined]
    out.write(b"cnumpy._core.multiarray\n_reconstruct\n")
    out.write(b"(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01")
    pickler.save(shape)
    out.write(b"cnumpy\ndtype\n(")
    pickler.save(code)
    out.write(b"\x89\x88tR")
    pickler.save((3, order, None, fields, None, -1, -1, 0))
    out.write(b"b\x89")
    pickler.save(data)
    out.write(b"tb.")
    return out.getvalue()


def test_the_array_built_for_these_tests_is_sound() -> None:
    assert read(array_pickle()).tolist() == [0, 0, 0]
    assert pickle.loads(array_pickle()).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"code": "O8"}, FormatError),
        ({"code": "O8", "data": [None] * 3}, FormatError),
        ({"data": [1, 2, 3]}, FormatError),
        ({"code": "V4"}, FormatError),
        ({"code": "M8[ns]"}, FormatError),
        ({"code": "f4,f4"}, FormatError),
        ({"code": ["f4"]}, FormatError),
        ({"fields": {"a": 1}}, FormatError),
        ({"code": "S0", "shape": (10**12,), "data": b""}, FormatError),
        ({"order": "!"}, DamagedError),
        ({"shape": (10**12,)}, DamagedError),
        ({"shape": (2**62, 2)}, DamagedError),
        ({"shape": (2**32, 2**32), "data": b""}, DamagedError),
        ({"shape": (-3,)}, DamagedError),
        ({"shape": (-1, -3)}, DamagedError),
        ({"shape": (3.0,)}, DamagedError),
        ({"shape": (True, 3)}, DamagedError),
        ({"shape": [3]}, DamagedError),
        ({"shape": (1,) * 40 + (3,)}, DamagedError),
        ({"data": bytes(11)}, DamagedError),
        ({"data": 12}, DamagedError),
        ({"code": "U1", "data": b"\xff" * 12}, DamagedError),
        ({"code": "U99999999"}, DamagedError),
    ],
)
def test_arrays_that_lie_are_refused(parts: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^x\.pkl: "):
        read(array_pickle(**parts))


def test_bytes_of_python_2_in_an_array() -> None:
    assert read(array_pickle(code="u1", data="\x01\xc8\x03")).tolist() == [1, 200, 3]


def test_a_truth_value_of_any_byte_is_true() -> None:
    assert read(array_pickle(code="b1", data=b"\x00\x01\x07")).tobytes() == b"\x00\x01\x01"


def test_an_array_of_objects_is_refused() -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(FormatError, match="dtype 'O8'; only"):
            read(pickle.dumps(np.array([None, {}], dtype=object), protocol))
        with pytest.raises(FormatError, match="dtype 'V"):
            read(pickle.dumps(np.zeros(2, [("a", "i4")]), protocol))


NDARRAY, DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n"


def dtype_pickle(code: str, state: Any) -> bytes:
    """One value of a dtype with a state of one's own, as `numpy.dtype.__setstate__` would take it."""
    out = io.BytesIO()
    pickler = pickle._Pickler(out, 4)  # type: ignore[attr-defined]
    out.write(b"cnumpy._core.multiarray\nscalar\n(" + DTYPE + b"(")
    pickler.save(code)
    out.write(b"\x89\x88tR")
    pickler.save(state)
    out.write(b"b")
    pickler.save(b"8 bytes.")
    out.write(b"tR.")
    return out.getvalue()


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 24)}, 8, 1, 0)),  # a field beyond the item
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("f8"), -8)}, 8, 1, 0)),
        ("V8", (3, "|", (np.dtype("f8"), (1 << 20,)), None, None, 8, 1, 0)),  # items of 8 MiB in 8 bytes
        ("f8", (3, "<", None, ("a",), {"a": (np.dtype("f8"), 0)}, -1, -1, 0)),
        ("f8", (3, "<", (np.dtype("f8"), (2,)), None, None, -1, -1, 0)),
        ("f8", (4, "<", None, None, None, -1, -1, 0, {"title": 1})),
        ("f8", (4, "<", None, None, None, -1, -1, 0, ({}, (b"ns", 1, 1, 1)))),
        ("f8", (3, "<")),
        ("f8", {"byteorder": "<"}),
        ("f8", (3, ["<"], None, None, None, -1, -1, 0)),
    ],
)
def test_dtypes_that_lie_are_refused(code: str, state: Any) -> None:
    with pytest.raises((DamagedError, FormatError), match=r"^x\.pkl: "):
        read(dtype_pickle(code, state))


@pytest.mark.parametrize("size", [-8, 0, 1 << 30])
@pytest.mark.parametrize("flags", [0, 63, -1])
def test_what_a_dtype_says_of_its_size_and_of_pointers_is_not_believed(size: int, flags: int) -> None:
    found = read(dtype_pickle("S8", (3, "|", None, None, None, size, 1, flags)))
    assert (type(found), found) == (np.bytes_, b"8 bytes.")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (RECONSTRUCT + b"(" + DTYPE + b"(I0\ntC\x01btR.", DamagedError),  # a subtype that is none
        (RECONSTRUCT + b"(" + RECONSTRUCT + b"(I0\ntC\x01btR.", DamagedError),
        (RECONSTRUCT + b"(NN(I0\ntC\x01btR.", DamagedError),
        (RECONSTRUCT + b"(" + NDARRAY + b"(I99999999999\ntC\x01btR.", FormatError),  # announced, never filled
        (NDARRAY + b"(I99999999999\ntR.", DamagedError),  # an array made by calling its type
        (NDARRAY + b")\x81.", FormatError),
        (RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntC\x01btR}b.", DamagedError),  # a state that is no tuple
        (RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntC\x01btR(I1\n(I3\ntNNNtb.", DamagedError),
        (array_pickle()[:-1] + b"(I1\n(I3\nt" + DTYPE + b"(C\x02f4tR\x89C\x0c" + bytes(12) + b"tb.", FormatError),
        (b"(" + RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntC\x01btRq\x00q\x01" + b"h\x00t.", FormatError),
    ],
)
def test_arrays_that_are_made_otherwise_are_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^x\.pkl: "):
        read(data)


@pytest.mark.parametrize("target", [DTYPE, RECONSTRUCT, NDARRAY, b"c_codecs\nencode\n", b"cbuiltins\nbytes\n"])
@pytest.mark.parametrize("name", ["__defaults__", "__kwdefaults__", "__code__", "__class__", "__dict__", "memo_key"])
def test_the_table_of_names_cannot_be_altered(target: bytes, name: str) -> None:
    """The standard reader would set these on whatever a table of allowed names leads to, for all later files."""
    key = b"\x8c" + bytes([len(name)]) + name.encode()
    for state in (b"}" + key + b"(I1\nI2\ntsb", b"N}" + key + b"(I1\nI2\nts\x86b"):
        with pytest.raises(FormatError, match="sets attributes"):
            read(target + state + b"0N.")
    assert read(array_pickle()).tolist() == [0, 0, 0]


def nested_tuples(depth: int) -> bytes:
    return b")" + b"\x85" * depth


def doubling_lists(times: int) -> bytes:
    """A list of two lists of two lists ...: small here, 2 ** times to walk through."""
    return b"]" + b"q\x000]h\x00ah\x00a" * times


def doubling(opcodes: bytes, times: int) -> bytes:
    """A container made of the one before, taken twice from the memo, `times` over."""
    return b")q\x000" + (opcodes + b"q\x000") * times + b"h\x00"


def keys_of_one_hash(count: int, value: bytes = b"") -> bytes:
    """Multiples of the prime by which Python hashes numbers."""
    numbers = (number * (2**61 - 1) for number in range(1, count))
    return b"".join(b"\x8a\x0a" + number.to_bytes(10, "little") + value for number in numbers)


def tuples_of_one_hash(count: int) -> bytes:
    """Pairs whose second number undoes in Python's hash of tuples what the first one did."""
    prime1, prime2, prime5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
    inverse, modulus, pairs = pow(prime2, -1, 2**64), 2**64, bytearray()
    first = 0
    while count:
        first += 1
        mixed = (prime5 + first * prime2) % modulus
        mixed = ((mixed << 31 | mixed >> 33) % modulus * prime1) % modulus
        second = (1 - mixed) * inverse % modulus
        if second < 2**61 - 1:
            pairs += b"J" + first.to_bytes(4, "little") + b"\x8a\x09" + second.to_bytes(9, "little") + b"\x86"
            count -= 1
    return bytes(pairs)


BOMBS = [
    ("bytes beyond the file", b"\x8e" + struct.pack("<Q", 2**62), "truncated or altered"),
    ("bytearray beyond the file", b"\x96" + struct.pack("<Q", 2**40), "truncated or altered"),
    ("text beyond the file", b"\x8d" + struct.pack("<Q", 2**63), "truncated or altered"),
    ("a negative length", b"T" + struct.pack("<i", -1), "truncated or altered"),
    ("a number of a negative length", b"\x8b" + struct.pack("<i", -5), "truncated or altered"),
    ("tuples as key", b"}" + nested_tuples(300_000) + b"Ns.", "keys"),
    ("tuples in a set", b"\x8f(" + nested_tuples(300_000) + b"\x90.", "keys"),
    ("tuples in tuples", nested_tuples(300_000) + b".", "nested deeper than 100"),
    ("lists in lists", b"]" * 300_000 + b"a" * 299_999 + b".", "nested deeper than 100"),
    ("a list in itself", b"]2a.", "contains itself"),
    ("lists repeated in lists", doubling_lists(60) + b".", "unfolds into far more values"),
    ("deep by way of sharing", b"](" + b"]q\x00h\x00" + b"]h\x00aq\x00h\x00" * 5000 + b"e.", "nested deeper than 100"),
    ("too many digits", b"I" + b"9" * 100_000 + b"\n.", "not a valid pickle"),
    ("tuples repeated in tuples", doubling(b"h\x00h\x00\x86", 60) + b".", "unfolds into far more values"),
    ("dicts repeated in dicts", doubling(b"}(Nh\x00\x88h\x00u", 60) + b".", "unfolds into far more values"),
    ("a key of repeated tuples", b"}" + doubling(b"h\x00h\x00\x86", 60) + b"Ns.", "keys"),
    ("lists filled again and again", b"]q\x000" + b"h\x00(" + b"h\x00" * 500 + b"e.", "contains itself"),
    (
        "keys of one hash",
        b"}(" + keys_of_one_hash(20_000, b"N") + b"u.",
        "too many keys with the same hash",
    ),
    ("a set of one hash", b"\x8f(" + keys_of_one_hash(20_000) + b"\x90.", "too many keys with the same hash"),
    ("a frozenset of one hash", b"(" + keys_of_one_hash(20_000) + b"\x91.", "too many keys with the same hash"),
    ("tuples of one hash", b"(" + tuples_of_one_hash(2_000) + b"\x91.", "too many keys with the same hash"),
    (
        "a number that is never printed",
        b"\x8b" + struct.pack("<i", 5000) + b"\x01" * 5000 + b".",
        "truncated or altered",
    ),
    ("a number beyond the file", b"\x8b" + struct.pack("<i", 2**31 - 1), "truncated or altered"),
    ("a bytearray of half the memory", b"\x96" + struct.pack("<Q", 2**36) + b"a.", "truncated or altered"),
    ("a memo entry in the billions", b"]r\xff\xff\xff\x7f0j\xff\xff\xff\x7f.", None),
    ("a memo entry of text", b"]p99999999999\n0g99999999999\n.", None),
]


@pytest.mark.parametrize(("data", "message"), [bomb[1:] for bomb in BOMBS], ids=[bomb[0] for bomb in BOMBS])
def test_bombs_do_not_go_off(data: bytes, message: str | None) -> None:
    if message is None:
        assert read(data) == []
        return
    with pytest.raises((DamagedError, FormatError), match=message):
        read(data)


def test_copies_of_copies_run_out() -> None:
    text = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000
    start = b"](" + text + b"q\x00" + b"X\x06\x00\x00\x00latin1\x86q\x010" + b"c_codecs\nencode\nq\x020"
    once = start + b"h\x02h\x01Re."
    assert read(once) == [b"a" * 1_000_000]
    with pytest.raises(DamagedError, match="needs more memory than a file of its size can justify"):
        read(start + b"h\x02h\x01R" * 1000 + b"e.")


def test_arrays_of_the_same_bytes_run_out() -> None:
    shared = b"](\x96" + struct.pack("<Q", 1_000_000) + bytes(1_000_000) + b"q\x000" + DTYPE + b"(C\x02u1tRq\x010"
    array = b"cnumpy._core.numeric\n_frombuffer\n(h\x00h\x01(J\x40\x42\x0f\x00tX\x01\x00\x00\x00CtR"
    shared = shared.replace(b"(C\x02u1tR", b"(X\x02\x00\x00\x00u1tR")
    assert [found.nbytes for found in read(shared + array * 2 + b"e.")] == [1_000_000] * 2
    with pytest.raises(DamagedError, match="needs more memory than a file of its size can justify"):
        read(shared + array * 100 + b"e.")


def test_keys_of_like_hash_that_chance_makes_come_back() -> None:
    value = {1.5 * 2.0 ** (61 * power): power for power in range(-16, 17)}
    pairs = {(left, right): None for left in range(-60, 60) for right in range(-60, 60)}
    assert read(pickle.dumps([value, pairs, {-1: 1, -2: 2, True: 3, None: 4, 2**61 - 1: 5, 0: 6}])) == [
        value,
        pairs,
        {-1: 1, -2: 2, True: 3, None: 4, 2**61 - 1: 5, 0: 6},
    ]


SMALL = {
    "imlist": ["a", "bé", "c" * 300],
    "gnd": [{"bbx": [1, 2.5, -3, 70000], "easy": [0, 1], "hard": (), "junk": None}] * 2,
    "array": np.arange(40, dtype=np.float32).reshape(5, 8),
    "names": np.array(["x", "yz"]),
    "flag": np.bool_(True),
    "set": {1, 2},
    "big": 2**80,
    "raw": b"\x00\xff",
}


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_plain, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biufcSU" and isinstance(value.tolist(), object)
    return isinstance(value, type(None) | bool | int | float | str | bytes | bytearray)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_cut_is_damage(protocol: int) -> None:
    data = pickle.dumps({**SMALL, "set": None}, protocol)
    for length in range(len(data)):
        with pytest.raises(DamagedError, match=r"x\.pkl: .*; fetch or write the file again"):
            read(data[:length])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")
def test_every_hundredth_cut_of_a_published_file_is_damage() -> None:
    data = (SHARED / "gnd_roxford5k.pkl").read_bytes()
    for length in [*range(0, 20_000, 100), *range(20_000, len(data), 5_000)]:
        with pytest.raises(DamagedError):
            read(data[:length])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_altered_bytes_give_our_errors_or_plain_values(protocol: int) -> None:
    random = Random(protocol)
    original = pickle.dumps({**SMALL, "set": None}, protocol)
    refused = 0
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        try:
            assert is_plain(read(bytes(data)))
        except (DamagedError, FormatError) as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


LETTERS = set(b"(.0123abcdeghijklopqrstu")
OPCODES = bytes(sorted({code for protocol in PROTOCOLS for code in pickle.dumps(SMALL, protocol)} | LETTERS))


@given(st.lists(st.sampled_from(OPCODES), max_size=60).map(bytes))
def test_any_bytes_give_our_errors_or_plain_values(data: bytes) -> None:
    try:
        assert is_plain(read(b"\x80\x04" + data + b"."))
    except (DamagedError, FormatError) as error:
        assert str(error).startswith("x.pkl: ")


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([1] * 100))
    with pytest.raises(InputError, match="a pickle has at most 10"):
        read_plain_pickle(path, max_bytes=10)
    with pytest.raises(NotFoundError, match=r"b\.pkl: no such file"):
        read_plain_pickle(tmp_path / "b.pkl")
    with pytest.raises(InputError, match="a folder, expected a pickle"):
        read_plain_pickle(tmp_path)
    (tmp_path / "text.pkl").write_text("# names\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"text\.pkl: not a pickle"):
        read_plain_pickle(tmp_path / "text.pkl")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names there")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_plain_pickle(tmp_path / "pipe")
