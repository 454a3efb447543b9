"""Import and export of hloc's files: the values of every array, and every kind of file that must be refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine.cli.interchange import export, import_
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import (
    AsmkError,
    DamagedError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    StorageError,
)
from asmk_engine.features import Features, FeatureSet
from asmk_engine.interop.hloc import export_hloc, import_hloc
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.recipes import Recipe
from asmk_engine.search.query_features import QuerySource
from samples import make_features, random_images, write_features

DIM = 6


def hloc_image(seed: int = 0, count: int = 5, dim: int = DIM, half: bool = False) -> dict[str, np.ndarray]:
    """The arrays hloc's extract_features.py stores for an image."""
    rng = np.random.default_rng(seed)
    dtype = np.float16 if half else np.float32
    return {
        "keypoints": (rng.random((count, 2)) * 300).astype(dtype),
        "descriptors": rng.normal(size=(dim, count)).astype(dtype),
        "scores": rng.random(count).astype(dtype),
        "image_size": np.array([640, 480]),
    }


def write_hloc(path: Path, images: dict[str, dict[str, np.ndarray]]) -> Path:
    """A file as hloc writes it: opened anew for each image, in the latest format."""
    for name, arrays in images.items():
        with h5py.File(path, "a", libver="latest") as file:
            group = file.create_group(name)
            for key, array in arrays.items():
                group.create_dataset(key, data=array)
            if "keypoints" in arrays:
                group["keypoints"].attrs["uncertainty"] = 1.5
    return path


def changed(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """hloc_image with some arrays replaced, or left out where None."""
    return {key: array for key, array in (hloc_image() | changes).items() if array is not None}


def assert_same(found: Features, expected: Features) -> None:
    for key in ("descriptors", "keypoints", "scores"):
        a, b = getattr(found, key), getattr(expected, key)
        assert a.dtype == b.dtype and np.array_equal(a, b), key
    assert found.image_size == expected.image_size


# ------------------------------------------------------------------------------------------ import


def test_a_tiny_file_by_hand(tmp_path: Path) -> None:
    arrays = {
        "keypoints": np.array([[0, 0], [10.5, 20.25], [639.5, 479.5]], np.float32),
        "descriptors": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
        "scores": np.array([0.25, 0.75, 0.5], np.float32),
        "scales": np.array([2, 4, 8], np.float32),
        "image_size": np.array([640, 480]),
        "oris": np.array([90, 180, -90.0]),
        "affine": np.zeros(3),  # what else an extractor stores is passed over
    }
    found = import_hloc(write_hloc(tmp_path / "sift.h5", {"a.jpg": arrays}), tmp_path / "f")
    image = found.read("a.jpg")
    assert image.descriptors.tolist() == [[2, 5], [3, 6], [1, 4]]  # by falling score
    assert image.keypoints[:, :3].tolist() == [[10.5, 20.25, 4], [639.5, 479.5, 8], [0, 0, 2]]
    assert image.keypoints[:, 3].tolist() == pytest.approx([np.pi, -np.pi / 2, np.pi / 2])
    assert image.scores.tolist() == [0.75, 0.5, 0.25]
    assert image.image_size == (640, 480)
    assert found.recipe == Recipe("imported", {"features": "sift", "dim": 2})
    assert found.roots() == ()


def test_equal_and_missing_scores_keep_the_order_of_the_file(tmp_path: Path) -> None:
    ties = np.array([0.5, 0.9, 0.5, 0.9, 0.5], np.float32)
    path = write_hloc(tmp_path / "a.h5", {"ties": changed(scores=ties), "none": changed(scores=None)})
    found = import_hloc(path, tmp_path / "f")
    descriptors = hloc_image()["descriptors"].T
    np.testing.assert_array_equal(found.read("ties").descriptors, descriptors[[1, 3, 0, 2, 4]])
    np.testing.assert_array_equal(found.read("none").descriptors, descriptors)
    assert found.read("none").scores.tolist() == [1] * 5
    assert found.read("none").keypoints[:, 2].tolist() == [1] * 5


def test_nested_and_strange_names(tmp_path: Path) -> None:
    names = ["z..z", "db/1.jpg", "db/deep/er/1.jpg", "q p/ü\nx.jpg", "scores/keypoints", "%2F", "...", "C:\\x.jpg"]
    images = {name: hloc_image(seed) for seed, name in enumerate(names)}
    found = import_hloc(write_hloc(tmp_path / "a.h5", images), tmp_path / "f")
    assert found.names == sorted(names, key=str.encode)
    for name, arrays in images.items():
        order = np.argsort(-arrays["scores"], kind="stable")
        np.testing.assert_array_equal(found.read(name).descriptors, arrays["descriptors"].T[order])


def test_an_image_whose_name_is_a_folder_of_another(tmp_path: Path) -> None:
    path = write_hloc(
        tmp_path / "a.h5", {"a/b": hloc_image(0), "a/b/c.jpg": hloc_image(1), "a/b/keypoints.jpg": hloc_image(2)}
    )
    assert import_hloc(path, tmp_path / "f").names == ["a/b", "a/b/c.jpg", "a/b/keypoints.jpg"]


def test_a_leading_slash_and_dots_are_dropped_by_hdf5(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {"/abs/a.jpg": hloc_image(), "./b.jpg": hloc_image(1)})
    assert import_hloc(path, tmp_path / "f").names == ["abs/a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("halves", "expected"), [([True, True], np.float16), ([True, False], np.float32), ([False, False], np.float32)]
)
def test_descriptors_stay_float16_where_all_are(tmp_path: Path, halves: list[bool], expected: type) -> None:
    images = {f"{number}.jpg": hloc_image(number, half=half) for number, half in enumerate(halves)}
    found = import_hloc(write_hloc(tmp_path / "a.h5", images), tmp_path / "f")
    for name, arrays in images.items():
        image = found.read(name)
        assert image.descriptors.dtype == expected
        assert image.keypoints.dtype == image.scores.dtype == np.float32
        order = np.argsort(-arrays["scores"].astype(np.float64), kind="stable")
        np.testing.assert_array_equal(image.descriptors, arrays["descriptors"].T[order].astype(expected))


def test_other_numbers_become_float32(tmp_path: Path) -> None:
    raw = np.arange(30, dtype=np.uint8).reshape(DIM, 5)
    arrays = changed(descriptors=raw, keypoints=np.ones((5, 2)), scores=np.arange(5)[::-1].copy())
    image = import_hloc(write_hloc(tmp_path / "a.h5", {"a": arrays}), tmp_path / "f").read("a")
    assert image.descriptors.dtype == np.float32
    np.testing.assert_array_equal(image.descriptors, raw.T)


@pytest.mark.parametrize("shape", [(DIM, 0), (0,)])
def test_an_image_without_features_is_kept(tmp_path: Path, shape: tuple[int, ...]) -> None:
    empty = {"keypoints": np.zeros((0, 2)), "descriptors": np.zeros(shape), "image_size": np.array([8, 9])}
    found = import_hloc(write_hloc(tmp_path / "a.h5", {"e.jpg": empty, "a.jpg": hloc_image(half=True)}), tmp_path / "f")
    assert len(found.read("e.jpg")) == 0 and found.read("e.jpg").image_size == (8, 9)
    assert found.read("a.jpg").descriptors.dtype == np.float16  # an image without descriptors has no say in the type


def test_a_second_import_adds_what_is_new_or_changed(tmp_path: Path) -> None:
    path, output = tmp_path / "a.h5", tmp_path / "f"
    write_hloc(path, {"a": hloc_image(0), "b": hloc_image(1)})
    size = import_hloc(path, output).bytes
    assert import_hloc(path, output).bytes == size
    with h5py.File(path, "a") as file:
        del file["b"]
    write_hloc(path, {"b": hloc_image(7), "c": hloc_image(8)})
    found = import_hloc(path, output)
    assert found.names == ["a", "b", "c"]
    order = np.argsort(-hloc_image(7)["scores"], kind="stable")
    np.testing.assert_array_equal(found.read("b").descriptors, hloc_image(7)["descriptors"].T[order])


def test_another_name_or_dimension_does_not_mix(tmp_path: Path) -> None:
    path, output = write_hloc(tmp_path / "a.h5", {"a": hloc_image()}), tmp_path / "f"
    import_hloc(path, output, name="superpoint")
    with pytest.raises(MismatchError, match="superpoint"):
        import_hloc(path, output, name="disk")
    with pytest.raises(InputError, match="need a name"):
        import_hloc(path, output, name=" ")
    assert FeatureSet.open(output).names == ["a"]


def test_progress_counts_images(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {name: hloc_image() for name in "abc"})
    checked: list[tuple[int, int]] = []
    written: list[tuple[int, int]] = []
    found = import_hloc(
        path, tmp_path / "f", on_check=lambda *at: checked.append(at), on_image=lambda *at: written.append(at)
    )
    assert checked == written == [(1, 3), (2, 3), (3, 3)]
    exported: list[tuple[int, int]] = []
    export_hloc(found, tmp_path / "b.h5", on_image=lambda *at: exported.append(at))
    assert exported == [(1, 3), (2, 3), (3, 3)]


# ------------------------------------------------------------------------------------------ what must be refused

NAN, INFINITE = np.full((5, 2), np.nan), np.full((DIM, 5), np.inf)
BAD_ARRAYS = [
    (changed(descriptors=None), FormatError, "no descriptors"),
    (changed(keypoints=None), FormatError, "no keypoints"),
    (changed(image_size=None), FormatError, "no image_size"),
    ({"global_descriptor": np.ones(9)}, FormatError, "global descriptor"),
    ({"matches0": np.ones(9), "matching_scores0": np.ones(9)}, FormatError, "contains matches0, matching_scores0"),
    (changed(keypoints=NAN), InputError, "NaN or infinite"),
    (changed(descriptors=INFINITE), InputError, "NaN or infinite"),
    (changed(descriptors=np.full((DIM, 5), 1e300)), InputError, "NaN or infinite"),
    (changed(scores=np.full(5, np.nan)), InputError, "NaN or infinite"),
    (changed(scales=np.full(5, np.inf)), InputError, "NaN or infinite"),
    (changed(descriptors=hloc_image()["descriptors"].T), FormatError, r"expected \[D, 5\].*transpose"),
    (changed(descriptors=np.ones((DIM, 4))), FormatError, r"expected \[D, 5\]"),
    (changed(descriptors=np.ones(5)), FormatError, r"expected \[D, 5\]"),
    (changed(descriptors=np.ones((0, 5))), FormatError, r"expected \[D, 5\]"),
    (changed(keypoints=np.ones((5, 4))), FormatError, r"expected \[N, 2\]"),
    (changed(scores=np.ones(4)), FormatError, r"scores are \(4,\)"),
    (changed(scales=np.ones((5, 1))), FormatError, r"scales are \(5, 1\)"),
    (changed(image_size=np.array([640, 480, 3])), FormatError, "image_size"),
    (changed(image_size=np.array([0, 480])), FormatError, "image_size"),
    (changed(image_size=np.array([np.nan, 480])), FormatError, "image_size"),
    (changed(descriptors=np.array(["a"], object)), FormatError, "expected float16 or float32"),
    (changed(keypoints=h5py.Empty("f4")), FormatError, "expected float16 or float32"),
]


@pytest.mark.parametrize(("arrays", "kind", "message"), BAD_ARRAYS)
def test_bad_arrays_are_refused(tmp_path: Path, arrays: dict, kind: type[AsmkError], message: str) -> None:
    path = write_hloc(tmp_path / "a.h5", {"a/good.jpg": hloc_image(), "b/bad.jpg": arrays})
    refuses(path, tmp_path / "f", kind, message, "'b/bad.jpg'")


def refuses(path: Path, output: Path, kind: type[AsmkError], message: str, image: str = "") -> None:
    """The import fails with one line that names the file and the image, and writes nothing."""
    with pytest.raises(kind, match=message) as caught:
        import_hloc(path, output)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) and image in str(caught.value)
    assert not output.exists()


def test_dimensions_that_differ_between_images(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {"a.jpg": hloc_image(), "b.jpg": hloc_image(dim=DIM + 1)})
    refuses(path, tmp_path / "f", MismatchError, r"'b.jpg' has descriptors of 7 dimensions, 'a.jpg' of 6")


Change = Callable[[h5py.File], None]


def link(name: str, target: object) -> Change:
    def change(file: h5py.File) -> None:
        file[name] = target(file) if callable(target) else target

    return change


def empty_group(file: h5py.File) -> None:
    file.create_group("x/stopped.jpg")


def virtual(file: h5py.File) -> None:
    del file["a.jpg/scores"]
    layout = h5py.VirtualLayout((5,), "f4")
    layout[:] = h5py.VirtualSource("/elsewhere.h5", "secret", (5,))
    file["a.jpg"].create_virtual_dataset("scores", layout)


def external(file: h5py.File) -> None:
    del file["a.jpg/scores"]
    file["a.jpg"].create_dataset("scores", (5,), "f4", external=[("/etc/passwd", 0, 20)])


def gigantic(file: h5py.File) -> None:
    del file["a.jpg/descriptors"], file["a.jpg/keypoints"]
    file.create_dataset("a.jpg/descriptors", (128, 1 << 40), "f4", chunks=(128, 64))
    file.create_dataset("a.jpg/keypoints", (1 << 40, 2), "f4", chunks=(64, 2))


def array_as_group(file: h5py.File) -> None:
    del file["a.jpg/keypoints"]
    file["a.jpg/keypoints/x.jpg/keypoints"] = 1


def deep(file: h5py.File) -> None:
    file.create_group("/".join(["folder"] * 700))


HOSTILE = [
    (link("a.jpg/scales", h5py.SoftLink("/a.jpg/scores")), InputError, "'a.jpg/scales' is a soft or external link"),
    (link("b.jpg", h5py.SoftLink("/a.jpg")), InputError, "'b.jpg' is a soft or external link"),
    (link("b.jpg", h5py.SoftLink("/nowhere")), InputError, "soft or external link"),
    (link("b.jpg", h5py.ExternalLink("other.h5", "/a.jpg")), InputError, "'b.jpg' is a soft or external link"),
    (link("a.jpg/loop", lambda file: file["/"]), InputError, "linked more than once"),
    (link("b.jpg", lambda file: file["a.jpg"]), InputError, "linked more than once"),
    (link("../b.jpg/keypoints", 1), InputError, r"has \.\. in its name"),
    (link("keypoints", 1), FormatError, "'keypoints' is not inside an image group"),
    (empty_group, InputError, "'x/stopped.jpg' is empty"),
    (virtual, InputError, "scores: its values are in other files"),
    (external, InputError, "scores: its values are in other files"),
    (gigantic, InputError, "descriptors: claims .* more than"),
    (array_as_group, FormatError, "keypoints is a group"),
    (deep, InputError, "longer than"),
]


@pytest.mark.parametrize(("change", "kind", "message"), HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, change: Change, kind: type[AsmkError], message: str) -> None:
    path = write_hloc(tmp_path / "a.h5", {"a.jpg": hloc_image()})
    with h5py.File(path, "a", libver="latest") as file:
        change(file)
    refuses(path, tmp_path / "f", kind, message)


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {"a.jpg": hloc_image()})
    with h5py.File(path, "a", libver="latest") as file:
        h5py.h5g.create(file.id, b"b\xff.jpg")
    refuses(path, tmp_path / "f", InputError, "not valid Unicode")


def test_files_that_are_no_hloc_file(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.h5", tmp_path / "empty.h5"
    text.write_text("hello")
    refuses(text, tmp_path / "f", FormatError, "not an HDF5 file")
    refuses(tmp_path, tmp_path / "f", FormatError, "not an HDF5 file")
    refuses(tmp_path / "absent.h5", tmp_path / "f", NotFoundError, "no such file")
    h5py.File(empty, "w").close()
    refuses(empty, tmp_path / "f", FormatError, "contains no image")
    part = next(write_features(tmp_path / "own", random_images(3, 4)).path.glob("part-*"))
    refuses(part, tmp_path / "f", FormatError, "already part of a feature set")


def test_a_file_of_images_without_features(tmp_path: Path) -> None:
    empty = {"keypoints": np.zeros((0, 2)), "descriptors": np.zeros((DIM, 0)), "image_size": np.array([8, 9])}
    refuses(write_hloc(tmp_path / "a.h5", {"a": empty}), tmp_path / "f", InputError, "none of its 1 images")


def test_a_file_cut_anywhere_is_refused_or_the_same(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {f"{number}.jpg": hloc_image(number) for number in range(4)})
    data, cut = path.read_bytes(), tmp_path / "cut.h5"
    for length in [*range(0, 60), *range(60, len(data), 97), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises((DamagedError, FormatError), match=r"cut\.h5"):
            import_hloc(cut, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_file_altered_anywhere_raises_no_other_error(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {"a.jpg": hloc_image()})
    data, altered = path.read_bytes(), tmp_path / "altered.h5"
    rng = np.random.default_rng(0)
    for number in range(150):
        place = int(rng.integers(8, len(data)))
        altered.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        try:
            found = import_hloc(altered, tmp_path / f"f{number}")
        except AsmkError as error:
            assert "\n" not in str(error)
        else:
            assert all(np.isfinite(image.descriptors).all() for _, image in found.images())


@pytest.mark.skipif(os.name == "nt", reason="Windows locks files otherwise")
def test_a_file_that_another_program_writes(tmp_path: Path) -> None:
    path = write_hloc(tmp_path / "a.h5", {"a.jpg": hloc_image()})
    code = f"import h5py; f = h5py.File({str(path)!r}, 'a', locking=True); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline().strip() == b"open"
        try:
            refuses(path, tmp_path / "f", StorageError, "another program is writing")
        finally:
            writer.communicate(b"\n")
    assert import_hloc(path, tmp_path / "f").names == ["a.jpg"]


def test_an_unreadable_array_names_its_image(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for key, array in hloc_image(count=64).items():
            file.create_dataset(f"x/a.jpg/{key}", data=array, fletcher32=True, chunks=array.shape)
        place = file["x/a.jpg/descriptors"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 16)
    refuses(path, tmp_path / "f", DamagedError, "damaged", "'x/a.jpg/descriptors'")


# ------------------------------------------------------------------------------------------ export


def test_the_layout_is_that_of_hloc(tmp_path: Path) -> None:
    images = {"db/a.jpg": make_features(np.arange(12).reshape(3, 4)), "b.jpg": make_features(np.ones((2, 4)))}
    recipe = Recipe("rootsift", {"max_side": 320})
    assert export_hloc(write_features(tmp_path / "f", images, recipe=recipe), tmp_path / "out/a.h5") == 2
    with h5py.File(tmp_path / "out/a.h5", "r") as file:
        group = file["db/a.jpg"]
        assert sorted(group) == ["descriptors", "image_size", "keypoints", "scales", "scores"]
        assert group["descriptors"][:].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
        assert group["keypoints"][:].tolist() == [[0, 0], [1, 1], [2, 2]]
        assert group["scales"][:].tolist() == [0, 1, 2]
        assert group["scores"][:].tolist() == [1, 0.75, 0.5]
        assert group["image_size"][:].tolist() == [640, 480]
        assert group["keypoints"].attrs["uncertainty"] == 2.0  # 640 pixels were seen as 320
    assert os.listdir(tmp_path / "out") == ["a.h5"]


def test_uncertainty_is_told_only_where_it_is_known(tmp_path: Path) -> None:
    images = {"a.jpg": make_features(np.ones((2, 4)))}
    for number, (options, expected) in enumerate([({}, None), ({"max_side": 1024}, 1.0), ({"max_side": "big"}, None)]):
        features = write_features(tmp_path / f"f{number}", images, recipe=Recipe("other", options))
        export_hloc(features, tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "r") as file:
            assert file["a.jpg/keypoints"].attrs.get("uncertainty") == expected


@pytest.mark.parametrize("half", [False, True])
def test_there_and_back_is_equal(tmp_path: Path, half: bool) -> None:
    images = random_images(12, DIM)
    assert any(len(image) == 0 for image in images.values())
    first = write_features(tmp_path / "first", images)
    export_hloc(first, tmp_path / "a.h5", half=half)
    second = import_hloc(tmp_path / "a.h5", tmp_path / "second")
    assert second.names == first.names
    for name, expected in first.images():
        if half:
            halved = expected.descriptors.astype(np.float16)
            expected = Features(halved, expected.keypoints, expected.scores, expected.image_size)
        assert_same(second.read(name), expected)


def test_float16_is_exported_as_it_is(tmp_path: Path) -> None:
    source = import_hloc(write_hloc(tmp_path / "a.h5", {"a": hloc_image(half=True)}), tmp_path / "f")
    export_hloc(source, tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "r") as file:
        assert file["a/descriptors"].dtype == np.float16
        assert file["a/keypoints"].dtype == np.float32


def test_half_refuses_what_float16_cannot_hold(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f", {"a.jpg": make_features(np.full((2, 4), 70000.0))})
    with pytest.raises(InputError, match=r"'a\.jpg' has descriptor values beyond 65504"):
        export_hloc(features, tmp_path / "a.h5", half=True)
    assert sorted(os.listdir(tmp_path)) == ["f"]


@pytest.mark.parametrize("name", ["/abs.jpg", "a//b.jpg", "a/./b.jpg", "../b.jpg", "b/"])
def test_names_that_are_no_path_of_a_group(tmp_path: Path, name: str) -> None:
    features = write_features(tmp_path / "f", {name: make_features(np.ones((2, 4)))})
    with pytest.raises(InputError, match="cannot be the path of an HDF5 group") as caught:
        export_hloc(features, tmp_path / "a.h5")
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["x/a.jpg/keypoints", "x/a.jpg/scales/y.jpg"])
def test_names_in_the_way_of_arrays(tmp_path: Path, name: str) -> None:
    images = {"x/a.jpg": make_features(np.ones((2, 4))), name: make_features(np.ones((1, 4)))}
    features = write_features(tmp_path / "f", images)
    with pytest.raises(InputError, match=r"conflicts with the arrays of 'x/a\.jpg'"):
        export_hloc(features, tmp_path / "a.h5")
    alone = write_features(tmp_path / "g", {name: make_features(np.ones((1, 4)))})
    export_hloc(alone, tmp_path / "a.h5")
    assert import_hloc(tmp_path / "a.h5", tmp_path / "h").names == [name]


def test_an_export_replaces_a_file_or_leaves_it_alone(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f", random_images(4, DIM))
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_hloc(features, path, on_image=stop)
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "f"]
    export_hloc(features, path)
    assert len(import_hloc(path, tmp_path / "g")) == 4


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f", random_images(4, DIM))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot make the folder"):
        export_hloc(features, tmp_path / "file" / "a.h5")
    for place in (tmp_path, tmp_path / "f" / "part-000000.h5"):
        with pytest.raises(InputError, match="a new file outside"):
            export_hloc(features, place)
    assert len(FeatureSet.open(tmp_path / "f")) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as only Linux does")
def test_a_full_disk_leaves_the_older_file(tmp_path: Path) -> None:
    write_features(tmp_path / "f", {"a": make_features(np.ones((5000, 64)))})
    (tmp_path / "a.h5").write_bytes(b"old")
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from asmk_engine import FeatureSet
from asmk_engine.errors import StorageError
from asmk_engine.interop.hloc import export_hloc
try:
    export_hloc(FeatureSet.open({str(tmp_path / "f")!r}), {str(tmp_path / "a.h5")!r})
except StorageError as error:
    print(error)
"""
    import asmk_engine

    environment = {**os.environ, "PYTHONPATH": str(Path(asmk_engine.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "cannot write the file" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "a.h5").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "f"]


# ------------------------------------------------------------------------------------------ the whole way


def test_imported_features_are_indexed_and_searched_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {f"{number}.jpg": hloc_image(number, count=60, dim=64) for number in range(8)}
    images["0 again.jpg"] = {key: array.copy() for key, array in images["0.jpg"].items()}
    images["0 again.jpg"]["descriptors"] += 0.01 * rng.normal(size=(64, 60)).astype(np.float32)
    features = import_hloc(write_hloc(tmp_path / "a.h5", images), tmp_path / "f", name="superpoint")
    index = Index.create(tmp_path / "i", Codebook.train(features, 8, backend="torch"))
    index.add(features)
    source = QuerySource(index)
    query, indexed = source.features("0.jpg")
    assert indexed
    assert {hit.name for hit in Searcher(index).search(query, 2)} == {"0.jpg", "0 again.jpg"}
    photograph = tmp_path / "new.jpg"
    photograph.write_bytes(b"any")
    with pytest.raises(InputError, match=r"imported dim=64 .*superpoint.*of the queries: `asmk-engine import`"):
        source.features(str(photograph))
    other = import_hloc(tmp_path / "a.h5", tmp_path / "g", name="disk")
    with pytest.raises(MismatchError, match=r"features=disk.*features=superpoint"):
        index.add(other)


def test_the_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    write_hloc(tmp_path / "in.h5", {"a b.jpg": hloc_image(), "c.jpg": hloc_image(1)})
    arguments = [str(tmp_path / "in.h5"), "-o", str(tmp_path / "f"), "--format", "hloc", "--name", "disk"]
    result = runner.invoke(import_, arguments)
    assert result.exit_code == 0 and result.stdout == ""
    assert result.stderr == f"{tmp_path / 'f'}: 2 images, 10 descriptors of 6 dimensions\n"
    assert FeatureSet.open(tmp_path / "f").recipe == Recipe("imported", {"features": "disk", "dim": DIM})
    result = runner.invoke(export, [str(tmp_path / "f"), "-o", str(tmp_path / "out.h5"), "--half", "-q"])
    assert result.exit_code == 0 and result.output == ""
    with h5py.File(tmp_path / "out.h5", "r") as file:
        assert sorted(file) == ["a b.jpg", "c.jpg"]
        assert file["c.jpg/descriptors"].dtype == np.float16
    result = runner.invoke(import_, [str(tmp_path / "none.h5"), "-o", str(tmp_path / "g")])
    assert isinstance(result.exception, NotFoundError)
    assert runner.invoke(import_, [str(tmp_path / "in.h5"), "-o", "x", "--format", "kapture"]).exit_code == 2
