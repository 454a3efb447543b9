"""From files to upright pixels and back to the coordinates of the original."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import naive
from asmk_engine.errors import InputError, NotFoundError, StorageError
from asmk_engine.escape import escape_name
from asmk_engine.images import decoding
from asmk_engine.images.boxes import check_box
from asmk_engine.images.decoding import View, view_image
from asmk_engine.images.listing import find_images
from samples import load_image

RNG = np.random.default_rng(5)


def picture(height: int = 24, width: int = 36) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / 40
    return np.stack([127 + 100 * np.sin(x + shift) * np.cos(y) for shift in range(3)], axis=2).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def stored(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        stored(folder / name, b"")


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --------------------------------------------------------------------------------------------------------- find


def test_a_folder_is_searched_to_the_bottom_in_byte_order(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.JPG", "a/z.png", "a/y/x.tiff", "a.webp", "B.bmp", "c.jpeg", "d.tif", "é.jpg", "notes.txt", "e.mov"
    )
    touch(tmp_path, ".hidden.jpg", ".thumbnails/t.jpg", "a/.t/t.jpg")
    found = find_images(tmp_path)
    names = [image.name for image in found.images]
    assert names == ["B.bmp", "a.webp", "a/y/x.tiff", "a/z.png", "b.JPG", "c.jpeg", "d.tif", "é.jpg"]
    assert [image.path for image in found.images] == [Path(found.root) / name for name in names]
    assert found.failures == {}


@pytest.mark.parametrize(
    "name", ["two words.jpg", "new\nline.jpg", "-o.jpg", "#1.jpg", "日本.jpg", "100%.jpg", "'\".jpg"]
)
def test_strange_names_are_kept(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"sub/{name}")
    assert [image.name for image in find_images(tmp_path).images] == [f"sub/{name}"]
    assert [image.name for image in find_images(tmp_path / "sub" / name).images] == [name]


def test_a_name_that_is_not_unicode_is_reported_in_a_form_that_can_be_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.jpg")
    try:
        touch(tmp_path, name, "good.jpg")
    except OSError:
        pytest.skip("this file system allows Unicode names only")
    found = find_images(tmp_path)
    assert [image.name for image in found.images] == ["good.jpg"]
    assert found.failures == {escape_name(name): "the name is not valid Unicode; rename the file"}
    next(iter(found.failures)).encode()


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "photos/up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/self.jpg").symlink_to("self.jpg")
    assert [image.name for image in find_images(tmp_path / "photos").images] == ["a.jpg", "more/b.jpg", "self.jpg"]


def test_an_empty_folder_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    touch(tmp_path, "readme.md", ".hidden.jpg")
    with pytest.raises(InputError, match=r"no images found; expected files ending in \.jpg \.jpeg .*holds 1 \.md$"):
        find_images(tmp_path)


def test_what_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder or file"):
        find_images([tmp_path / "none"])
    with pytest.raises(InputError, match="no images given"):
        find_images([])


def test_a_list_names_images_relative_to_itself(tmp_path: Path) -> None:
    lines = [
        "photos/b.jpg",
        "",
        "./photos//a.jpg",
        "#1.jpg",
        " leading space.jpg",
        "photos/../c.jpg",
        "gone.jpg",
        "photos/b.jpg",
    ]
    stored(tmp_path / "list.txt", b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = find_images(tmp_path / "list.txt")
    assert [image.name for image in found.images] == [
        "photos/b.jpg",
        "photos/a.jpg",
        "#1.jpg",
        " leading space.jpg",
        "c.jpg",
        "gone.jpg",
    ]
    assert found.root == str(tmp_path)
    assert all(image.path == tmp_path / image.name for image in found.images)


def test_a_list_must_not_climb_out_of_its_folder(tmp_path: Path) -> None:
    stored(tmp_path / "lists/list.txt", b"../secret.jpg\na.jpg\nbad\xff.jpg\nnul\0.jpg\n")
    found = find_images(tmp_path / "lists/list.txt")
    assert [image.name for image in found.images] == ["a.jpg"]
    assert "absolute path" in found.failures["../secret.jpg"]
    assert sorted(found.failures) == ["../secret.jpg", "bad%ED%B3%BF.jpg", "nul%00.jpg"]


def test_absolute_lines_below_the_list_are_relative_names(tmp_path: Path) -> None:
    stored(tmp_path / "list.txt", f"{tmp_path}/photos/a.jpg\nb.jpg\n".encode())
    found = find_images(tmp_path / "list.txt")
    assert [image.name for image in found.images] == ["photos/a.jpg", "b.jpg"]
    assert found.root == str(tmp_path)


def test_absolute_lines_elsewhere_make_all_names_absolute(tmp_path: Path) -> None:
    stored(tmp_path / "lists/list.txt", f"{tmp_path}/photos/a.jpg\nb.jpg\n".encode())
    found = find_images(tmp_path / "lists/list.txt")
    anchor = Path(tmp_path.anchor)
    assert [anchor / image.name for image in found.images] == [tmp_path / "photos/a.jpg", tmp_path / "lists/b.jpg"]
    assert found.root == str(anchor)
    assert not any(image.name.startswith("/") for image in found.images)


def test_a_list_of_nothing_is_refused(tmp_path: Path) -> None:
    stored(tmp_path / "list.txt", b"\n  \n")
    with pytest.raises(InputError, match="names no image"):
        find_images(tmp_path / "list.txt")


def test_two_files_of_one_name_are_refused_and_both_named(tmp_path: Path) -> None:
    stored(tmp_path / "one/a.jpg", b"one")
    stored(tmp_path / "two/a.jpg", b"two")
    with pytest.raises(InputError, match=r"one/a\.jpg and .*two/a\.jpg would both be named 'a\.jpg'"):
        find_images([tmp_path / "one", tmp_path / "two"])
    assert len(find_images([tmp_path / "one", tmp_path / "one/a.jpg"]).images) == 1


def test_several_roots_are_no_root(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/b.jpg")
    assert find_images([tmp_path / "one", tmp_path / "two"]).root == ""
    assert find_images([tmp_path / "one/a.jpg", tmp_path / "one"]).root == str(tmp_path / "one")


# -------------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path: Path, form: str, orientation: int) -> None:
    pixels = smooth_picture(24, 40) if form == "JPEG" else picture(24, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    path = stored(tmp_path / "image", encoded(pixels, form, exif=exif, **options))
    expected = np.array(naive.upright(pixels.tolist(), orientation))
    found = load_image(path)
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(int)).max() <= (24 if form == "JPEG" else 0)
    view = view_image(path, 1000)
    assert view.image_size == (expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(view.pixels, found)


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        (Image.new("L", (3, 2), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (3, 2), 1), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (3, 2), (255, 0, 0, 51)), "PNG", (255, 204, 204)),
        (Image.new("RGBA", (3, 2), (200, 100, 0, 255)), "WEBP", (200, 100, 0)),
        (Image.new("RGBA", (3, 2), (0, 0, 0, 128)), "PNG", (127, 127, 127)),
        (Image.new("LA", (3, 2), (0, 51)), "PNG", (204, 204, 204)),
        (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.new("I;16", (3, 2), 257 * 130), "PNG", (130, 130, 130)),
        (Image.new("I;16", (3, 2), 257 * 130), "TIFF", (130, 130, 130)),
        (Image.new("I", (3, 2), 200), "TIFF", (200, 200, 200)),
        (Image.new("I", (3, 2), 257 * 9), "TIFF", (144, 144, 144)),
        (Image.new("F", (3, 2), 0.6), "TIFF", (153, 153, 153)),
        (Image.new("F", (3, 2), 99.0), "TIFF", (197, 197, 197)),
        (Image.new("F", (3, 2), -3.0), "TIFF", (0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path: Path, image: Image.Image, form: str, expected: tuple) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    path = stored(tmp_path / "image", encoded(image, form, **options))
    pixels = load_image(path)
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 3, 3)
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (2, 3, 3)))


def test_adobe_cmyk_jpeg_has_the_colours_of_the_picture(tmp_path: Path) -> None:
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    pixels = load_image(stored(tmp_path / "a.jpg", encoded(image, "JPEG", quality=95)))
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 12


def test_values_beyond_every_range_are_stretched(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-100, 0], [100, np.nan]], np.float32))
    path = stored(tmp_path / "a.tif", encoded(image, "TIFF"))
    np.testing.assert_array_equal(load_image(path)[:, :, 0], [[0, 128], [255, 0]])


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    path = stored(tmp_path / "a.png", encoded(image, "PNG", transparency=0))
    np.testing.assert_array_equal(load_image(path), [[[255, 255, 255], [40, 50, 60]]])


@pytest.mark.parametrize(("form", "options"), [("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("MPO", {})])
def test_of_several_pictures_the_first_is_taken(tmp_path: Path, form: str, options: dict) -> None:
    first, second = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
    path = stored(tmp_path / "a", encoded(first, form, save_all=True, append_images=[second], **options))
    assert np.abs(load_image(path).astype(int) - (250, 0, 0)).max() < 6


def test_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    path = stored(tmp_path / "bomb.png", png(60_000, 60_000))
    begun = time.perf_counter()
    with pytest.raises(InputError, match=r"bomb\.png: 3600 megapixels, the limit is 179"):
        load_image(path)
    assert time.perf_counter() - begun < 0.5


def test_what_exceeds_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 10_000_000)
    path = stored(tmp_path / "a.png", png(4000, 3000))
    with pytest.raises(InputError, match="12 megapixels, the limit is 10;"):
        load_image(path)


def test_warnings_of_pillow_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 36)
    assert load_image(stored(tmp_path / "a.png", encoded(picture(), "PNG"))).shape == (24, 36, 3)
    lzw = encoded(picture(), "TIFF", compression="tiff_lzw")
    with pytest.raises(InputError):
        load_image(stored(tmp_path / "cut.tif", lzw[: len(lzw) // 2]))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_called_so(tmp_path: Path, form: str, kept: float) -> None:
    content = encoded(picture(), form)
    path = stored(tmp_path / "cut.jpg", content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=r"cut\.jpg: truncated: the file ends before the image does"):
        load_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (
            b"Dear diary, this is not a photograph.\n" * 20,
            "not an image of a supported kind; expected JPEG, PNG, WebP, TIFF",
        ),
        (encoded(picture(), "PPM"), "not an image of a supported kind"),
        (encoded(picture(), "WEBP")[:200], "truncated: the file ends before the image does"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "a.jpg: "),
    ],
    ids=["empty", "text", "other kind", "webp", "jpeg head"],
)
def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_image(stored(tmp_path / "a.jpg", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_altered_files_give_an_image_or_an_error(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1_000_000)
    content, rng = encoded(picture(), form), np.random.default_rng(7)
    for _ in range(60):
        altered = bytearray(content)
        for place in rng.integers(0, min(len(altered), 400), 4):
            altered[place] = rng.integers(256)
        try:
            pixels = load_image(stored(tmp_path / "a", bytes(altered)))
        except InputError as error:
            assert str(error).count("\n") == 0
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_unreadable_camera_notes_do_not_spoil_the_picture(tmp_path: Path) -> None:
    content = encoded(smooth_picture(24, 40), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0junk")
    assert load_image(stored(tmp_path / "a.jpg", content)).shape == (24, 40, 3)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder; expected an image file"):
        load_image(tmp_path)
    (tmp_path / "new\nline.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"new%0Aline\.jpg: the file is empty"):
        load_image(tmp_path / "new\nline.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="is a pipe or device"):
        load_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_a_storage_error(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.png", encoded(picture(), "PNG"))
    path.chmod(0)
    with pytest.raises(StorageError, match="cannot be read"):
        load_image(path)


# ------------------------------------------------------------------------------------------------ crop and resize


def test_positions_lead_back_to_the_original() -> None:
    view = View(picture(), (400, 300), (10, 20), (2.5, 2.0))
    points = RNG.uniform(0, 30, (50, 2))
    expected = [[naive.to_original(x, 2.5, 10), naive.to_original(y, 2.0, 20)] for x, y in points]
    np.testing.assert_allclose(view.to_original(points), expected, rtol=1e-6)
    assert view.scale_factor == pytest.approx(5**0.5)


def test_a_shrunken_blob_leads_back_to_its_place() -> None:
    y, x = np.mgrid[:300, :451]
    blob = 250 * np.exp(-((x - 170.25) ** 2 + (y - 111.5) ** 2) / 200)
    view = view_image(blob.astype(np.uint8), 101)
    weights = view.pixels[:, :, 0].astype(float)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    centre = [[(columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()]]
    np.testing.assert_allclose(view.to_original(np.array(centre)), [[170.25, 111.5]], atol=0.1)


def test_images_are_shrunk_and_never_enlarged() -> None:
    small = view_image(picture(50, 100), 40)
    assert small.pixels.shape == (20, 40, 3) and small.factor == (2.5, 2.5)
    same = view_image(picture(50, 100), 100)
    np.testing.assert_array_equal(same.pixels, picture(50, 100))
    assert same.factor == (1.0, 1.0)
    thin = view_image(picture(2, 1000), 100)
    assert thin.pixels.shape == (1, 100, 3) and thin.factor == (10.0, 2.0)


def test_shrinking_by_two_averages_four_pixels() -> None:
    pixels = picture(8, 8)
    small = view_image(pixels, 4).pixels
    expected = pixels.astype(float).reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - expected).max() <= 0.5


def test_a_box_is_cut_first_and_shrunk_like_the_whole() -> None:
    pixels = picture(100, 200)
    view = view_image(pixels, 50, box=(40, 20, 120, 60))
    assert view.pixels.shape == (10, 20, 3)
    assert (view.image_size, view.offset, view.factor) == ((200, 100), (40, 20), (4.0, 4.0))
    np.testing.assert_array_equal(view.pixels, view_image(pixels[20:60, 40:120], 20).pixels)


def test_a_box_is_rounded_to_whole_pixels_and_may_touch_the_edge() -> None:
    assert check_box((10.4, 19.6, 30.5, 40.6), (100, 80)) == (10, 20, 30, 41)
    assert check_box((0, 0, 100, 80), (100, 80)) == (0, 0, 100, 80)
    assert check_box((-0.7, -1, 100.8, 81), (100, 80)) == (0, 0, 100, 80)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((50, 10, 40, 60), "inverted or empty"),
        ((10, 60, 40, 10), "inverted or empty"),
        ((10, 10, 10, 60), "inverted or empty"),
        ((10.1, 10, 10.3, 60), "contains no whole pixel"),
        ((200, 200, 300, 300), "exceeds the image"),
        ((10, 10, 102, 60), "exceeds the image"),
        ((-5, 10, 50, 60), "exceeds the image"),
        ((float("nan"), 0, 5, 5), "not four finite numbers"),
        ((1, 2, 3), "not four finite numbers"),
    ],
)
def test_a_wrong_box_is_refused_with_the_size_of_the_image(tmp_path: Path, box: tuple, message: str) -> None:
    path = stored(tmp_path / "a.png", encoded(picture(80, 100), "PNG"))
    with pytest.raises(InputError, match=rf"{message}; .*a\.png is 100 × 80 pixels"):
        view_image(path, 64, box=box)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5,), (5, 5, 4), (2, 5, 5, 3)])
def test_arrays_that_are_no_image_are_refused(shape: tuple) -> None:
    with pytest.raises(InputError, match=r"expected uint8 \[H, W, 3\]"):
        view_image(np.zeros(shape, np.uint8), 100)
    with pytest.raises(InputError, match="float64"):
        view_image(np.zeros((5, 5, 3)), 100)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_decoded_small_keeps_its_coordinates(tmp_path: Path, orientation: int) -> None:
    pixels = smooth_picture(1536, 2048)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(tmp_path / "a.jpg", encoded(pixels, "JPEG", quality=95, exif=exif))
    quick, whole = view_image(path, 500), view_image(load_image(path), 500)
    assert (quick.image_size, quick.offset, quick.factor) == (whole.image_size, whole.offset, whole.factor)
    assert np.abs(quick.pixels - whole.pixels.astype(int)).mean() < 1.0
    assert (quick.pixels != whole.pixels).any()
    # A shift by a quarter of a pixel of the view would change these pixels more than the two ways of decoding do.
    shifted = np.diff(whole.pixels.astype(float), axis=0) / 4
    assert np.abs(quick.pixels - whole.pixels.astype(int)).mean() < np.abs(shifted).mean()


def test_a_jpeg_of_odd_size_is_decoded_whole(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.jpg", encoded(smooth_picture(1023, 2047), "JPEG"))
    np.testing.assert_array_equal(view_image(path, 500).pixels, view_image(load_image(path), 500).pixels)
