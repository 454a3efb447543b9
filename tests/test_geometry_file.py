"""The geometry of an image, rounded and packed, and the file that holds it: accuracy, damage, hostile content."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
import pytest

from asmk_engine.errors import AsmkError, DamagedError
from asmk_engine.features import Features
from asmk_engine.indexes.manifest import read_manifest
from asmk_engine.inverted.geometry_file import (
    GeometryTable,
    map_geometry,
    pack,
    row_type,
)
from asmk_engine.inverted.geometry_writer import merge_geometry
from asmk_engine.inverted.index import Index
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.geometry import ImageGeometry, image_geometry
from disks import fast_disk
from geometry_samples import CODEBOOK, DIM, WORDS, made, photographs
from naive_geometry_file import naive_rows, naive_scale, naive_size


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.mark.parametrize(("dim", "vocabulary"), [(24, 8), (64, 65536), (65, 65537), (128, 70000)])
def test_rows_are_those_of_the_twin(dim: int, vocabulary: int) -> None:
    rng = np.random.default_rng(dim)
    given = [photographs(20, seed=dim), photographs(20, seed=dim + 1, angles=True), photographs(3, features=0)]
    for number, features in enumerate([image for images in given for image in images.values()]):
        words = rng.integers(0, vocabulary, len(features)).tolist()
        codes = [int(rng.integers(0, 2**62)) % (1 << dim) for _ in words]
        order = sorted(range(len(words)), key=words.__getitem__)
        width = (dim + 63) // 64
        bits = [[code >> 64 * column & (1 << 64) - 1 for column in range(width)] for code in codes]
        places = np.full((len(words), 4), np.nan, np.float32)
        places[:, : features.keypoints.shape[1]] = features.keypoints
        geometry = ImageGeometry(
            np.array([words[i] for i in order], np.uint32),
            np.array([bits[i] for i in order], np.uint64).reshape(-1, width),
            np.array(order, np.int32), places, features.image_size, dim,
        )  # fmt: skip
        packed = pack(geometry, vocabulary)
        expected = naive_rows(features, words, codes, dim, vocabulary)
        assert packed.rows.tobytes() == b"".join(expected) and packed.size == naive_size(features), number
        angles = len(words) > 0 and features.keypoints.shape[1] == 4
        assert packed.rows.shape == (len(words), row_type(dim, vocabulary, angles=angles).itemsize)


@pytest.mark.parametrize("size", [(640, 480), (0, 0)])
def test_what_is_out_of_bounds_is_moved_to_them(size: tuple[int, int]) -> None:
    values = [-1e30, -7.0, -0.5, 0.0, 479.5, 1e6, 1e30, np.inf, -np.inf, np.nan]
    scales = [np.nan, -1.0, 0.0, 1 / 64, 0.02, 1e-30, 0.13, 7000.0, 1e9, np.inf]
    descriptors = np.random.default_rng(0).normal(size=(10, DIM)).astype(np.float32)
    keypoints = np.array([values, values[::-1], scales], np.float32).T
    features = Features(descriptors, keypoints, np.ones(10, np.float32), size)
    packed = pack(image_geometry(features, CODEBOOK), WORDS)
    rows = packed.rows.reshape(-1).view(row_type(DIM, WORDS))
    order = image_geometry(features, CODEBOOK).features
    numbers = dict(zip(order.tolist(), rows["scale"].tolist(), strict=True))
    assert [numbers[i] for i in range(10)] == [0, 0, 0, 0, 1, 0, naive_scale(0.13), naive_scale(7000.0), 255, 255]
    steps = dict(zip(order.tolist(), rows["place"][:, 0].tolist(), strict=True))
    if size == (640, 480):
        assert packed.size == size and [steps[i] for i in (0, 1, 2, 5, 6, 7, 8)] == [0, 0, 0, *[65535] * 3, 0]
    else:
        assert packed.size == ((1 << 32) - 1, (1 << 32) - 1) and steps[7] == 65535 and steps[9] == 0


def mapped(path: Path, images: int = 3) -> GeometryTable:
    folder = Folder(path.parent)
    return GeometryTable(map_arrays(folder, path.name), images, WORDS, DIM)


def read_all(table: GeometryTable) -> list[object]:
    return [
        (geometry.words.tolist(), geometry.codes.tolist(), geometry.places.tolist(), geometry.image_size)
        for geometry in map(table.image, range(table.images))
    ]


def small_file(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file of three images, and its arrays."""
    images = {name: image for name, image in photographs(9, seed=3).items() if len(image) > 3}
    index = made(folder / "index", dict(list(images.items())[:3]))
    entry = index.snapshot.manifest.segments[0].geometry
    assert entry is not None
    path = index.path / entry.name
    arrays = {name: array.copy() for name, array in map_arrays(Folder(index.path), entry.name).arrays.items()}
    del arrays["checksums"]
    return path, arrays


def _words(arrays: dict[str, np.ndarray]) -> np.ndarray:
    words: np.ndarray = arrays["features"].reshape(-1).view(row_type(DIM, WORDS))["word"]
    return words


HOSTILE = {
    "starts fall": lambda a: a["starts"].__setitem__(1, a["starts"][2] + 1),
    "starts are negative": lambda a: a["starts"].__setitem__(1, -(1 << 62)),
    "starts are beyond the end": lambda a: a["starts"].__setitem__(1, 1 << 62),
    "starts begin late": lambda a: a["starts"].__setitem__(0, 1),
    "starts end early": lambda a: a["starts"].__setitem__(3, 1),
    "starts are too few": lambda a: a.__setitem__("starts", a["starts"][:-1]),
    "starts are of another type": lambda a: a.__setitem__("starts", a["starts"].astype(np.int32)),
    "a size is half known": lambda a: a["sizes"].__setitem__((1, 0), 0),
    "features without a size": lambda a: a["sizes"].__setitem__(1, 0),
    "sizes are too many": lambda a: a.__setitem__("sizes", np.ones((4, 2), np.uint32)),
    "a digest is another": lambda a: a["digests"].__setitem__(2, a["digests"][2] ^ 1),
    "digests are missing": lambda a: a.pop("digests"),
    "a row is altered": lambda a: a["features"].__setitem__((-1, 0), a["features"][-1, 0] ^ 1),
    "rows are too short": lambda a: a.__setitem__("features", a["features"][:, :-1]),
    "rows are of two words too many": lambda a: a.__setitem__("features", np.repeat(a["features"], 2, 1)),
    "features are of another type": lambda a: a.__setitem__("features", a["features"].astype(np.uint16)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_whose_arrays_contradict_each_other_is_refused(tmp_path: Path, what: str) -> None:
    """With valid checksums, as a program could write it: an error that names the file, and no read out of bounds."""
    _, arrays = small_file(tmp_path)
    HOSTILE[what](arrays)
    write_arrays(Folder(tmp_path), "geometry-000009.safetensors", arrays, {})
    with pytest.raises(DamagedError, match="geometry-000009") as caught:
        read_all(mapped(tmp_path / "geometry-000009.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["too large", "falling"])
def test_words_that_no_codebook_gives_are_refused(tmp_path: Path, wrong: str) -> None:
    _, arrays = small_file(tmp_path)
    begin, end = arrays["starts"][1:3].tolist()
    _words(arrays)[end - 1] = WORDS if wrong == "too large" else 0
    if wrong == "falling":
        _words(arrays)[begin] = WORDS - 1
    arrays["digests"][1] = zlib.crc32(arrays["features"][begin:end].tobytes())
    write_arrays(Folder(tmp_path), "geometry-000009.safetensors", arrays, {})
    table = mapped(tmp_path / "geometry-000009.safetensors")
    assert len(table.image(0)) and len(table.image(2))
    with pytest.raises(DamagedError, match="the words of image 1"):
        table.image(1)


def test_angles_are_read_where_a_file_has_them(tmp_path: Path) -> None:
    path, arrays = small_file(tmp_path)
    angles = np.arange(len(arrays["features"]), dtype=np.uint8)[:, None] * np.uint8(5)
    turned = {**arrays, "features": np.concatenate([arrays["features"], angles], 1)}
    spans = zip(arrays["starts"][:-1].tolist(), arrays["starts"][1:].tolist(), strict=True)
    turned["digests"] = np.array([zlib.crc32(turned["features"][a:b].tobytes()) for a, b in spans], np.uint32)
    write_arrays(Folder(tmp_path), "turned.safetensors", turned, {})
    plain, table = mapped(path), mapped(tmp_path / "turned.safetensors")
    for number in range(3):
        one, other = plain.image(number), table.image(number)
        numbers = angles[int(arrays["starts"][number]) :][: len(one), 0]
        expected = np.where(numbers > 0, (numbers - 1.0) * (2 * np.pi / 255), np.nan)
        assert np.allclose(other.places[:, 3], expected, atol=1e-6, equal_nan=True)
        assert np.isnan(one.places[:, 3]).all() and np.array_equal(one.places[:, :3], other.places[:, :3])
    without = Index.open(path.parent).snapshot.segments[0].with_prefix(b"")
    segments = [without, without.with_prefix(b""), without.with_prefix(b"")]
    for segment, geometry in zip(segments, (None, plain, table), strict=True):
        segment.geometry = geometry
    name = "segment-000001.safetensors"
    entry = merge_geometry(Folder(tmp_path), name, [segments[2], without, segments[1], segments[2]])
    assert entry is not None
    joined = map_geometry(Folder(tmp_path), entry, 12, WORDS, DIM)
    pieces = [read_all(joined)[3 * i : 3 * i + 3] for i in range(4)]
    assert repr(pieces[0]) == repr(pieces[3]) == repr(read_all(table)) and not joined.kept[3:6].any()
    assert repr(pieces[2]) == repr(read_all(plain))


@pytest.mark.parametrize("block", [128, 1 << 20])
def test_a_flipped_byte_or_a_cut_is_refused_or_harmless(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", block)
    path, _ = small_file(tmp_path)
    entry = read_manifest(Folder(path.parent)).segments[0].geometry
    assert entry is not None
    whole, folder = path.read_bytes(), Folder(path.parent)
    expected, refused, rng = read_all(map_geometry(folder, entry, 3, WORDS, DIM)), 0, random.Random(block)
    places = rng.sample(range(len(whole)), 300)
    altered = [whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :] for place in places]
    for data in [*altered, *(whole[:place] for place in places[:60])]:
        path.write_bytes(data)
        try:
            assert read_all(map_geometry(folder, entry, 3, WORDS, DIM)) == expected
        except AsmkError as error:
            refused += 1
            assert isinstance(error, DamagedError) and "\n" not in str(error)
    assert refused > 300


def test_a_bit_beyond_the_last_is_found(tmp_path: Path) -> None:
    path, arrays = small_file(tmp_path)
    arrays["features"].reshape(-1).view(row_type(DIM, WORDS))["code"][0] |= np.uint64(1 << DIM)
    arrays["digests"][0] = zlib.crc32(arrays["features"][: int(arrays["starts"][1])].tobytes())
    write_arrays(Folder(tmp_path), "geometry-000009.safetensors", arrays, {})
    assert [*mapped(tmp_path / "geometry-000009.safetensors").problems()] == [
        f"a code of image 0 has a bit beyond the last of {DIM}"
    ]
    assert not [*mapped(path).problems()]
