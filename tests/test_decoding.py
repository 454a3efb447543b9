"""Files that decoders read wrong, half or not at all: deep ones, cut ones, transparent ones, and rarer kinds."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

import naive
from asmk_engine.errors import InputError, StorageError
from asmk_engine.extraction.attempts import Extracted, Failed, Origin, Viewed, Viewer, attempt
from asmk_engine.extraction.workers import WorkerPool
from asmk_engine.extractors import load_extractor
from asmk_engine.images import decoding as images
from asmk_engine.images.cut_files import MISSING_END
from asmk_engine.images.decoding import collected_notes, view_image
from asmk_engine.images.kinds import heif_is_readable, image_kind, looks_like_image
from samples import load_image

GREY = data.camera()
COLOURS = data.astronaut()
TIFF_BLANK = 42113
TRUNCATED = "truncated: the file ends before the image does"


def encoded(image: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(values: np.ndarray, *before: bytes) -> bytes:
    """A PNG of 16 bits a channel: grey, grey with alpha, RGB or RGBA; `before` are chunks in front of the pixels."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows, 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def decoded(folder: Path, content: bytes) -> np.ndarray:
    path = folder / "image"
    path.write_bytes(content)
    return load_image(path)


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(InputError) as caught:
        decoded(folder, content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def nearly(found: np.ndarray, expected: np.ndarray, most: int = 1) -> None:
    expected = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, axis=2)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= most


# ------------------------------------------------------------------------------------------------------ deep files


def widened(values: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(values * ((2**bits - 1) / 255)).astype(np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("photograph", [GREY, COLOURS], ids=["grey", "colour"])
def test_a_photograph_has_the_same_features_at_every_depth(tmp_path: Path, bits: int, photograph: np.ndarray) -> None:
    extractor = load_extractor("rootsift")
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(widened(photograph, bits)))
    expected, found = extractor.extract(photograph), extractor.extract(path)
    assert len(expected) > 300
    near = np.abs(expected.keypoints[:, None, :2] - found.keypoints[None, :, :2]).max(axis=2).min(axis=1) < 0.5
    assert near.mean() > 0.95 and abs(len(found) - len(expected)) < 0.05 * len(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(widened(GREY, 12).astype(np.int16)), GREY),
        (tiff(widened(GREY, 12).astype(np.int16), byteorder=">"), GREY),
        (tiff(widened(GREY, 12).astype(np.int32)), GREY),
        (tiff(widened(GREY, 12), byteorder=">"), GREY),
        (tiff(GREY.astype(np.uint32) << 24), GREY),
        (tiff(GREY.astype(np.uint32) * 16, byteorder=">"), GREY),
        (tiff((GREY / np.float32(255)) * np.float32(1.02)), np.minimum(255, GREY * 1.02)),
        (tiff(GREY + np.float32(0.3)), GREY),
        (tiff(GREY / 255.0), GREY),
        (tiff((COLOURS / 255).astype(np.float32), photometric="rgb"), COLOURS),
        (tiff(widened(COLOURS, 12).astype(np.int16), photometric="rgb"), COLOURS),
        (encoded(widened(GREY, 12), "JPEG2000"), GREY),
    ],
    ids=["s16", "s16 big", "s32", "u16 big", "u32", "u32 big", "1.02", "255.3", "double", "colours", "s16 rgb", "jp2"],
)
def test_numbers_of_every_kind_are_scaled_by_what_they_use(
    tmp_path: Path, content: bytes, expected: np.ndarray
) -> None:
    nearly(decoded(tmp_path, content), expected, 2)


@pytest.mark.parametrize("values", [GREY.astype(np.uint16) * 257, COLOURS.astype(np.uint16) * 257], ids=["grey", "rgb"])
def test_the_full_range_gives_the_bytes_it_always_gave(tmp_path: Path, values: np.ndarray) -> None:
    nearly(decoded(tmp_path, deep_png(values)), values // 257, 0)
    noisy = np.random.default_rng(1).integers(0, 65536, values.shape, dtype=np.uint16)
    expected = np.rint(noisy * (255 / 65535)) if noisy.ndim == 2 else noisy >> 8
    nearly(decoded(tmp_path, deep_png(noisy)), expected, 0)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "TIFF, big-endian", "TIFF, zlib", "TIFF, tiles"])
def test_colours_and_alpha_of_sixteen_bits(tmp_path: Path, bits: int, form: str) -> None:
    alpha = np.full(COLOURS.shape[:2], 65535, np.uint16)
    alpha[:100] = 0
    alpha[100:200] = 32896
    values = np.dstack([widened(COLOURS, bits), alpha])
    options: dict[str, object] = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    options |= {"TIFF, big-endian": {"byteorder": ">"}, "TIFF, tiles": {"tile": (64, 64)}}.get(form, {})
    options |= {"compression": "zlib", "predictor": True} if form == "TIFF, zlib" else {}
    content = deep_png(values) if form == "PNG" else tiff(values, **options)
    opaque = (alpha / 65535)[:, :, None]
    nearly(decoded(tmp_path, content), COLOURS * opaque + 255 * (1 - opaque), 2)


def test_grey_with_alpha_and_transparent_numbers(tmp_path: Path) -> None:
    alpha = np.where(np.arange(512)[:, None] < 100, 0, 4095) * np.ones((1, 512), int)
    expected = np.where(alpha > 0, GREY, 255)
    nearly(decoded(tmp_path, deep_png(np.dstack([widened(GREY, 12), alpha]))), expected)
    values = widened(GREY, 12)
    clear = chunk(b"tRNS", struct.pack(">H", int(values[0, 0])))
    nearly(decoded(tmp_path, deep_png(values, clear)), np.where(values == values[0, 0], 255, GREY))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colours_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    small = COLOURS[:24, :40]
    expected = np.array(naive.upright(small.tolist(), orientation))
    values = widened(small, 16)
    turned = tiff(values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for content in (turned, deep_png(values, chunk(b"eXIf", exif.tobytes()[6:]))):
        nearly(decoded(tmp_path, content), expected)
        view = view_image(tmp_path / "image", 1000)
        assert view.image_size == (expected.shape[1], expected.shape[0])


def test_deep_colours_keep_the_limit_and_the_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    for content in (deep_png(widened(COLOURS, 12)), tiff(COLOURS / 255, photometric="rgb")):
        path.write_bytes(content)
        with monkeypatch.context() as lowered:
            lowered.setattr(images, "MAX_PIXELS", 100_000)
            with pytest.raises(InputError, match=r"0\.2621 megapixels, the limit is 0\.1"):
                load_image(path)
        assert TRUNCATED in refusal(tmp_path, content[: len(content) // 2])
    planes = tiff(widened(COLOURS, 12).transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    assert "separate planes of 16 bits" in refusal(tmp_path, planes)
    grey_alpha = np.dstack([widened(GREY, 12)] * 2)
    refused = refusal(tmp_path, tiff(grey_alpha, photometric="minisblack", extrasamples=["unassalpha"]))
    assert "a TIFF of an unsupported kind" in refused


@pytest.mark.parametrize(
    ("blank", "tag"),
    [
        *[(-9999, None), (-32768, None), (-3.4028234663852886e38, None), (np.nan, "nan"), (np.inf, None)],
        *[(1e20, None), (7777.5, "7777.5"), (-1, "-1")],
    ],
)
def test_marks_of_missing_values_are_black_and_count_for_nothing(tmp_path: Path, blank: float, tag: str | None) -> None:
    values = np.where(np.arange(512)[:, None] < 100, blank, GREY * 16.0).astype(np.float32)
    extra = [(TIFF_BLANK, "s", 0, tag, True)] if tag else []
    nearly(decoded(tmp_path, tiff(values, extratags=extra)), np.where(values == GREY * 16.0, GREY, 0), 2)


@pytest.mark.parametrize("values", [GREY, widened(GREY, 12)], ids=["8 bits", "12 bits"])
def test_the_greatest_number_as_a_mark_is_not_taken_for_light(tmp_path: Path, values: np.ndarray) -> None:
    marked = values.astype(np.uint16)
    marked[:100] = 65535
    nearly(decoded(tmp_path, deep_png(marked))[100:], GREY[100:])
    assert not decoded(tmp_path, deep_png(marked))[:100].any()
    bright = np.maximum(GREY.astype(np.uint16) * 257, 20_000)
    bright[:100] = 65535
    assert (decoded(tmp_path, deep_png(bright))[:100] == 255).all()


def test_hot_pixels_do_not_darken_the_picture(tmp_path: Path) -> None:
    values = widened(GREY, 12)
    values[7, 7] = values[300, 20] = 60_000
    found = decoded(tmp_path, deep_png(values))
    nearly(np.delete(found, [7, 300], axis=0), np.delete(GREY, [7, 300], axis=0))


@pytest.mark.parametrize("form", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("begin", [28_000, -4_000])
def test_a_narrow_band_is_stretched(tmp_path: Path, form: type, begin: int) -> None:
    values = begin + GREY * (2000 / 255)
    found = decoded(tmp_path, tiff(values.astype(form if begin > 0 else np.float32)))[:, :, 0]
    assert found.min() == 0 and found.max() >= 250
    assert np.corrcoef(found.ravel(), GREY.ravel())[0, 1] > 0.999


def test_flat_pictures_stay_flat(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(-1, 2, (64, 64))
    for level in (0, 200, 30_000, 65_000):
        assert np.ptp(decoded(tmp_path, deep_png(np.full((64, 64), level, np.uint16)))) == 0
    assert np.ptp(decoded(tmp_path, deep_png((30_000 + noise).astype(np.uint16)))) <= 2
    assert np.ptp(decoded(tmp_path, tiff(np.full((64, 64), -3.5, np.float32)))) == 0
    assert np.ptp(decoded(tmp_path, tiff((0.5 + noise / 1e4).astype(np.float32)))) <= 4
    assert "holds only nodata values" in refusal(tmp_path, tiff(np.full((9, 9), np.nan, np.float32)))


# ----------------------------------------------------------------------------------------- transparent, other kinds


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.new("RGBA", (9, 9), (200, 10, 10, 0)), "PNG"),
        encoded(Image.new("LA", (9, 9), (200, 0)), "PNG"),
        encoded(Image.new("P", (9, 9), 0), "GIF", transparency=0),
        deep_png(np.dstack([np.full((9, 9, 3), 9000), np.zeros((9, 9))])),
    ],
    ids=["RGBA", "LA", "GIF", "16 bits"],
)
def test_a_wholly_transparent_picture_is_reported(tmp_path: Path, content: bytes) -> None:
    assert "image: wholly transparent; leave it out" in refusal(tmp_path, content)


def test_one_visible_pixel_is_a_picture(tmp_path: Path) -> None:
    image = Image.new("RGBA", (1500, 1500), (0, 0, 0, 0))
    image.putpixel((1499, 1499), (9, 8, 7, 255))
    found = decoded(tmp_path, encoded(image, "PNG"))
    assert found[-1, -1].tolist() == [9, 8, 7] and (found[:-1] == 255).all()


@pytest.mark.parametrize("form", ["GIF", "JPEG2000", "AVIF"])
def test_more_kinds_are_read(tmp_path: Path, form: str) -> None:
    if form == "AVIF" and not heif_is_readable(".avif"):
        pytest.skip("this Pillow reads no AVIF")
    first, second = (Image.fromarray(COLOURS[:64, :64]).quantize(8).convert("RGB"), Image.new("RGB", (64, 64), "red"))
    options = {"GIF": {"save_all": True, "append_images": [second]}, "AVIF": {"quality": 100}}.get(form, {})
    content = encoded(first, form, **options)
    assert image_kind(content[:32]) == form
    assert np.abs(decoded(tmp_path, content) - np.asarray(first, int)).mean() < 4
    assert looks_like_image(tmp_path / "image")
    assert "image: " in refusal(tmp_path, content[: len(content) // 2])


def heic(orientation: int = 1) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(COLOURS[:64, :96])
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95, exif=exif.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_upright_where_its_package_is(tmp_path: Path, orientation: int) -> None:
    content = heic(orientation)
    expected = np.array(naive.upright(COLOURS[:64, :96].tolist(), orientation))
    assert np.abs(decoded(tmp_path, content) - expected).mean() < 5
    assert heif_is_readable(".HEIC") and looks_like_image(tmp_path / "image")
    assert TRUNCATED in refusal(tmp_path, content[: len(content) // 2])


def test_heic_without_its_package_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(images, "pillow_reads_avif", lambda: False)
    cure = r"image; `pip install 'asmk-engine[heif]'` reads them"
    assert refusal(tmp_path, content).endswith(f"HEIC {cure}")
    assert not heif_is_readable(".heic") and not heif_is_readable(".png")
    avif = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(50)
    assert refusal(tmp_path, avif).endswith(f"AVIF {cure}")


def test_what_only_begins_like_an_image_is_none(tmp_path: Path) -> None:
    film = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
    for content in (b"", b"BM is how this text begins, and it goes on", film, b"RIFF\0\0\0\0WAVEfmt ", b"%PDF-1.7"):
        (tmp_path / "a.jpg").write_bytes(content)
        assert not looks_like_image(tmp_path / "a.jpg")
    assert not looks_like_image(tmp_path) and not looks_like_image(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert not looks_like_image(tmp_path / "pipe")
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        assert image_kind(encoded(GREY, form)[:32]) == form


# ------------------------------------------------------------------------------------------------------- cut files

CUTS = {
    "jpeg": (encoded(COLOURS, "JPEG"), 2),
    "half a marker": (encoded(COLOURS, "JPEG"), 1),
    "progressive": (encoded(COLOURS, "JPEG", progressive=True), 2),
    "restart markers": (encoded(COLOURS, "JPEG", restart_marker_rows=1), 2),
    "png": (encoded(COLOURS, "PNG"), 12),
    "png without checksum": (encoded(COLOURS, "PNG"), 16),
    "png of 16 bits": (deep_png(widened(COLOURS, 12)), 20),
    "png without sum": (encoded(COLOURS, "PNG"), 21),
}


def whole(content: bytes) -> np.ndarray:
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return (
        (values[:, :, ::-1] >> 4).astype(np.uint8)
        if values.dtype != np.uint8
        else np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    )


@pytest.mark.parametrize("name", CUTS)
def test_a_file_without_its_end_is_read_with_a_note(tmp_path: Path, name: str) -> None:
    content, missing = CUTS[name]
    with collected_notes() as notes:
        nearly(decoded(tmp_path, content[:-missing]), whole(content), 0)
    assert notes == [MISSING_END]
    with collected_notes() as notes:
        decoded(tmp_path, content)
    assert notes == []


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_file_without_pixels_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    content, _ = CUTS[name]
    assert TRUNCATED in refusal(tmp_path, content[: int(len(content) * kept)])


def cuts_between(content: bytes, marks: list[bytes]) -> list[int]:
    return [at for at in range(700, len(content) - 2) if content[at : at + 2] in marks]


def test_a_cut_where_a_scan_or_an_interval_ends_is_no_whole_picture(tmp_path: Path) -> None:
    progressive, restarts = CUTS["progressive"][0], CUTS["restart markers"][0]
    scans = cuts_between(progressive, [b"\xff\xda"])
    intervals = cuts_between(restarts, [b"\xff" + bytes([0xD0 + n]) for n in range(8)])
    assert len(scans) > 5 and len(intervals) > 30
    for content, places in ((progressive, scans[1:]), (restarts, intervals[::7] + intervals[-1:])):
        for at in places:
            for cut in (at, at + 2):
                assert TRUNCATED in refusal(tmp_path, content[:cut]), (places, at, cut, len(content))


def test_a_cut_file_is_also_seen_small(tmp_path: Path) -> None:
    content = encoded(np.kron(COLOURS, np.ones((4, 4, 1), np.uint8)), "JPEG")
    (tmp_path / "whole.jpg").write_bytes(content)
    (tmp_path / "cut.jpg").write_bytes(content[:-2])
    (tmp_path / "short.jpg").write_bytes(content[:-300])
    expected = view_image(tmp_path / "whole.jpg", 500)
    np.testing.assert_array_equal(view_image(tmp_path / "cut.jpg", 500).pixels, expected.pixels)
    with pytest.raises(InputError, match=TRUNCATED):
        view_image(tmp_path / "short.jpg", 500)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_cut_tiff_is_called_so(tmp_path: Path, compression: str) -> None:
    content = encoded(COLOURS, "TIFF", compression=compression)
    for kept in (12, len(content) // 2, len(content) - 200):
        assert TRUNCATED in refusal(tmp_path, content[:kept])
        assert TRUNCATED in refusal(tmp_path, content[:-1])


def test_a_tiff_whose_strips_are_all_there_is_read(tmp_path: Path) -> None:
    small = COLOURS[:64, :64]
    content = encoded(small, "TIFF", compression="tiff_lzw")
    tags = Image.open(io.BytesIO(content)).tag_v2
    (start,), (length,) = tags[273], tags[279]
    entry = content.rindex(struct.pack("<HH", 273, 4)) + 8
    moved = content[:entry] + struct.pack("<L", len(content)) + content[entry + 4 :] + content[start : start + length]
    with collected_notes() as notes:
        nearly(decoded(tmp_path, moved), small, 0)
        assert notes == []
        nearly(decoded(tmp_path, moved[:-1]), small, 0)  # only the code that says that no more codes follow
    assert notes == [MISSING_END]
    assert TRUNCATED in refusal(tmp_path, moved[:-9])
    pages = tiff(np.stack([COLOURS, COLOURS[::-1]]), photometric="rgb")
    nearly(decoded(tmp_path, pages[: len(pages) * 3 // 4]), COLOURS, 0)


def test_a_broken_file_with_its_end_is_not_called_whole(tmp_path: Path) -> None:
    content = bytearray(CUTS["png"][0])
    content[len(content) // 2] ^= 0xFF
    assert "damaged or truncated image data" in refusal(tmp_path, bytes(content))


def test_the_note_reaches_the_outcome_through_workers_too(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(CUTS["jpeg"][0][:-2])
    (tmp_path / "whole.jpg").write_bytes(CUTS["jpeg"][0])
    extractor = load_extractor("rootsift")
    for maker, kind in ((extractor, Extracted), (Viewer(300), Viewed)):
        alone = attempt(maker, path)
        assert isinstance(alone, kind) and alone.note == MISSING_END
        with WorkerPool(maker.origin, 1, 60) as pool:
            cut, fine = pool.attempt_all([path, tmp_path / "whole.jpg"])
        assert isinstance(cut, kind) and cut.note == MISSING_END
        assert isinstance(fine, kind) and fine.note == ""


# ------------------------------------------------------------------------------------------- memory and permissions

MEASURE = """
import re, sys
from pathlib import Path
from asmk_engine.images.decoding import view_image
def peak():  # not ru_maxrss, which begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
view_image(sys.argv[1], 1 << 30)
before = peak()
pixels = view_image(sys.argv[2], 1 << 30).pixels
print((peak() - before) / (pixels.size / 3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures in the units of Linux")
@pytest.mark.parametrize(("kind", "buffer"), [("RGB", 4), ("RGBA", 4), ("P", 1), ("I;16", 2), ("turned", 4)])
def test_decoding_takes_six_bytes_a_pixel_beyond_the_decoder(tmp_path: Path, kind: str, buffer: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    image = Image.new("RGB" if kind == "turned" else kind, (6000, 4000), 90)
    image.paste(1, (0, 0, 3000, 3000))
    for name, made in (("small.png", image.crop((2990, 2990, 3010, 3010))), ("large.png", image)):
        made.putalpha(200) if kind == "RGBA" else None
        made.save(tmp_path / name, compress_level=1, exif=exif)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small.png"), str(tmp_path / "large.png")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert 3 <= float(done.stdout) < buffer + 5.5


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("function", ["os.stat", "builtins.open"])
def test_what_keeps_a_file_shut_fails_that_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, function: str
) -> None:
    path = tmp_path / "shut" / "a.png"
    path.parent.mkdir()
    path.write_bytes(encoded(GREY, "PNG"))
    module, name = function.split(".")
    real = getattr(sys.modules[module], name)

    def refuse(asked: object, *arguments: object, **options: object) -> object:
        if str(asked) == str(path):
            raise error
        return real(asked, *arguments, **options)

    monkeypatch.setattr(function, refuse)
    with pytest.raises(StorageError, match=rf"a\.png: cannot be read: {error.strerror}; check its permissions"):
        load_image(path)
    assert attempt(Viewer(100), path) == Failed(f"cannot be read: {error.strerror}; check its permissions")


def test_a_disk_that_fails_while_it_is_read_is_not_called_a_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(GREY, "PNG"))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(StorageError, match=r"a\.png: cannot be read: Input/output error"):
        load_image(path)
    assert isinstance(attempt(Viewer(100), Path("nul\0.png")), Failed)
    assert Origin("asmk_engine.extraction.attempts:Viewer", {"max_side": 9}).make() == Viewer(9)
