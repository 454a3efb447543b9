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
    with pytest.raises(FormatError, match=rf"x\.pkl: asks for '.*{name}'; only plain values and numpy arrays"):
        read(data)
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"(S'true'\nios\nsystem\n.", "asks for 'os.system'"),
        (b"(cos\nsystem\nS'true'\no.", "asks for 'os.system'"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "asks for 'builtins.eval'"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "asks for '__builtin__.eval'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for 'os.system'"),
        (b"cnumpy\nndarray.__class__\n.", "asks for 'numpy.ndarray.__class__'"),
        (b"cos\nsys\x1b[31mtem\n.", r"asks for 'os.sys\\x1b"),
        (b"N)\x81.", "uses classes"),
        (b"N)}\x92.", "uses classes"),
        (b"N(No.", "uses classes"),
        (b"NPid\n.", "uses persistent ids"),
        (b"NQ.", "uses persistent ids"),
        (b"N\x82\x01.", "uses extension codes"),
        (b"N\x97.", "uses buffers outside of the file"),
        (b"cnumpy\nndarray\n.", "holds a class or an unfinished array"),
        (b"]cnumpy\ndtype\na.", "holds a class or an unfinished array"),
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


def nested_tuples(depth: int) -> bytes:
    return b")" + b"\x85" * depth


def doubling_lists(times: int) -> bytes:
    """A list of two lists of two lists ...: small here, 2 ** times to walk through."""
    return b"]" + b"q\x000]h\x00ah\x00a" * times


BOMBS = [
    ("bytes beyond the file", b"\x8e" + struct.pack("<Q", 2**62), "cut or altered"),
    ("bytearray beyond the file", b"\x96" + struct.pack("<Q", 2**40), "cut or altered"),
    ("text beyond the file", b"\x8d" + struct.pack("<Q", 2**63), "cut or altered"),
    ("a negative length", b"T" + struct.pack("<i", -1), "cut or altered"),
    ("a number of a negative length", b"\x8b" + struct.pack("<i", -5), "cut or altered"),
    ("tuples as key", b"}" + nested_tuples(300_000) + b"Ns.", "keys"),
    ("tuples in a set", b"\x8f(" + nested_tuples(300_000) + b"\x90.", "keys"),
    ("tuples in tuples", nested_tuples(300_000) + b".", "nested deeper than 100"),
    ("lists in lists", b"]" * 300_000 + b"a" * 299_999 + b".", "nested deeper than 100"),
    ("a list in itself", b"]2a.", "contains itself"),
    ("lists repeated in lists", doubling_lists(60) + b".", "unfolds into far more values"),
    ("deep by way of sharing", b"](" + b"]q\x00h\x00" + b"]h\x00aq\x00h\x00" * 5000 + b"e.", "nested deeper than 100"),
    ("too many digits", b"I" + b"9" * 100_000 + b"\n.", "not a sound pickle"),
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
    with pytest.raises(DamagedError, match="asks for more memory than a file of its size can need"):
        read(start + b"h\x02h\x01R" * 1000 + b"e.")


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
    with pytest.raises(InputError, match="a pickle has 10 at most"):
        read_plain_pickle(path, max_bytes=10)
    with pytest.raises(NotFoundError, match=r"b\.pkl: no such file"):
        read_plain_pickle(tmp_path / "b.pkl")
    with pytest.raises(InputError, match="a folder, where a pickle was expected"):
        read_plain_pickle(tmp_path)
    (tmp_path / "text.pkl").write_text("# names\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"text\.pkl: not a pickle"):
        read_plain_pickle(tmp_path / "text.pkl")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names there")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_plain_pickle(tmp_path / "pipe")
