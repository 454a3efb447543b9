"""Pictures of matches: what is drawn where, whatever the photographs are, and how large the files are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from asmk_engine import Features, load_extractor
from asmk_engine.codebooks.shipped import open_vocabulary
from asmk_engine.errors import InputError, StorageError
from asmk_engine.pictures import match_picture
from asmk_engine.pictures.attention import attention_map, draw_attention
from asmk_engine.pictures.encoding import MOST_BYTES, blink_bytes, jpeg_bytes, write_picture
from asmk_engine.pictures.file_names import LONGEST, UnusedNames, file_stem
from asmk_engine.pictures.match_picture import Caption, draw_match, match_line
from asmk_engine.pictures.overlay import overlay
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.pictures.strokes import CASING, OUTLINE, draw_outline, scale_colours
from asmk_engine.verification.geometry import image_geometry
from asmk_engine.verification.match import Match, match
from skimage_pairs import TURNED, astronaut, coffee, turned

CAPTION = Caption("query.png", "image.png", ("score", 0.5))


@pytest.fixture(scope="module")
def found() -> Match:
    """The match of the astronaut with its turned version."""
    extractor, book = load_extractor("rootsift"), open_vocabulary("rootsift")
    one, other = (extractor.extract(pixels) for pixels in (astronaut(), turned()))
    return match(image_geometry(one, book, 5), image_geometry(other, book))


def photograph(pixels: np.ndarray) -> ShownPhotograph:
    return ShownPhotograph(pixels, (pixels.shape[1], pixels.shape[0]))


def near(pixels: np.ndarray, colour: tuple[int, int, int], slack: int = 40) -> np.ndarray:
    """Where pixels have about this colour."""
    return (np.abs(pixels.astype(int) - colour) <= slack).all(-1)


def test_the_match_says_which_word_and_scale_each_feature_has(found: Match) -> None:
    extractor, book = load_extractor("rootsift"), open_vocabulary("rootsift")
    one, other = (extractor.extract(pixels) for pixels in (astronaut(), turned()))
    assigned = book.assign(one.descriptors, 5), book.assign(other.descriptors)[:, 0]
    assert found.inliers > 100 and np.abs(found.affine - TURNED).max() < 4
    for row, entry in enumerate(found.contributions()):
        first, second = found.query_features[row], found.features[row]
        assert entry["word"] == assigned[1][second] and entry["word"] in assigned[0][first]
        assert entry["query"] == pytest.approx(one.keypoints[first, :3].tolist(), abs=0.06)
        assert entry["image"] == pytest.approx(other.keypoints[second, :3].tolist(), abs=0.06)
        assert entry["weight"] == pytest.approx(entry["similarity"] ** 3, abs=1e-3)


def test_the_common_word_of_features_with_several_words() -> None:
    """Both have several words: the word of the nearest codes among those in common."""
    rng = np.random.default_rng(0)
    book = open_vocabulary("rootsift")
    descriptors = rng.random((30, 128)).astype(np.float32)
    points = np.column_stack([rng.random((30, 2)) * 500, np.full(30, 9.0)]).astype(np.float32)
    one = Features.from_descriptors(descriptors, points, image_size=(500, 500))
    nearby = np.abs(descriptors + 0.02 * rng.normal(size=descriptors.shape).astype(np.float32))
    other = replace(one, descriptors=nearby)
    left, right = image_geometry(one, book, 3), image_geometry(other, book, 3)
    result = match(left, right)
    assert result.inliers > 5
    for row, word in enumerate(result.words.tolist()):
        first, second = result.query_features[row], result.features[row]
        distances = {
            int(left.words[i]): int(np.bitwise_count(left.codes[i] ^ right.codes[j]).sum())
            for i in np.flatnonzero(left.features == first)
            for j in np.flatnonzero(right.features == second)
            if left.words[i] == right.words[j]
        }
        assert distances[word] == min(distances.values())
        assert result.similarities[row] == pytest.approx(1 - 2 * distances[word] / book.dim)


def test_features_are_joined_and_regions_outlined(found: Match) -> None:
    picture = draw_match(photograph(astronaut()), photograph(turned()), found, CAPTION)
    assert picture.shape[1] == match_picture.WIDTH and picture.dtype == np.uint8
    room = (match_picture.WIDTH - 2 * match_picture.MARGIN - match_picture.GAP) // 2
    factor, top = room / 512, match_picture.MARGIN + match_picture.LINE
    for left, outline in (
        (match_picture.MARGIN, found.query_outline),
        (match_picture.MARGIN + room + match_picture.GAP, found.outline),
    ):
        for (x1, y1), (x2, y2) in zip(outline, [*outline[1:], outline[0]], strict=True):
            x, y = ((a + b + 1) / 2 * factor - 0.5 for a, b in ((x1, x2), (y1, y2)))
            around = picture[round(top + y) - 2 : round(top + y) + 3, round(left + x) - 2 : round(left + x) + 3]
            assert near(around, OUTLINE).any() or near(around, tuple(scale_colours(np.ones(1))[0]), 90).any()
    gap = picture[top : top + room, match_picture.MARGIN + room : match_picture.MARGIN + room + match_picture.GAP]
    assert (gap.min(-1) < 160).any(), "lines cross the gap"
    foot = picture[-(match_picture.MARGIN + 2 * match_picture.LINE) :]
    assert near(foot, tuple(scale_colours(np.ones(1))[0]), 10).any() and near(foot, OUTLINE, 10).any()


def test_the_scale_is_lighter_the_greater_the_weight() -> None:
    colours = scale_colours(np.linspace(0, 1, 50))
    lightness = cv2.cvtColor(colours[None], cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all() and lightness[-1] - lightness[0] > 120
    assert scale_colours(np.zeros(0)).shape == (0, 3)
    assert scale_colours(np.array([np.nan, -1, 0])).tolist() == [colours[0].tolist()] * 3


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_an_outline_is_legible_on_any_ground(ground: int) -> None:
    canvas = np.full((60, 60, 3), ground, np.uint8)
    draw_outline(canvas, [(10, 10), (50, 10), (50, 50), (10, 50)])
    assert near(canvas[30], OUTLINE, 10).any() and near(canvas[30], CASING, 50).any()
    draw_outline(canvas, [(30, 30)])
    assert near(canvas[30, 30], OUTLINE, 10)
    draw_outline(canvas, [])


def test_lost_photographs_are_said_in_their_place_and_the_numbers_come(found: Match) -> None:
    lost = ShownPhotograph.missing("the photograph of 'image.png' is not in any folder recorded in the index")
    whole = draw_match(photograph(astronaut()), photograph(turned()), found, CAPTION)
    picture = draw_match(photograph(astronaut()), lost, found, CAPTION)
    assert picture.shape == whole.shape, "the size of the photograph is known from the match"
    assert near(picture, (0xE4, 0xE4, 0xE4), 3).sum() > 50_000 and near(picture[:200, 520:], OUTLINE).any()
    assert overlay(photograph(astronaut()), lost, found) is None
    both = draw_match(lost, lost, None, CAPTION)
    assert near(both, (0xE4, 0xE4, 0xE4), 3).sum() > 100_000


def test_a_file_of_another_size_is_not_the_photograph(tmp_path: Path) -> None:
    Image.fromarray(coffee()).save(tmp_path / "a.png")
    assert ShownPhotograph.open(tmp_path / "a.png", (600, 400)).pixels is not None
    other = ShownPhotograph.open(tmp_path / "a.png", (512, 512))
    assert other.pixels is None and "600 x 400" in other.reason and other.size == (512, 512)
    gone = ShownPhotograph.open(tmp_path / "b.png", (0, 0))
    assert gone.pixels is None and gone.reason == "no such file; check the path"


def test_numbers_in_words(found: Match) -> None:
    nothing = replace(
        found, pairs=0, query_points=found.query_points[:0], points=found.points[:0], weights=found.weights[:0]
    )
    assert match_line(found).startswith(f"{found.inliers} inliers of {found.pairs} pairs")
    assert match_line(nothing) == "no feature in common"
    assert match_line(replace(nothing, pairs=3)) == "3 pairs of similar features, of which no map explains any"
    assert match_line(None) == "not verified"
    assert draw_match(photograph(coffee()), photograph(turned()), nothing, CAPTION).shape[1] == match_picture.WIDTH


def test_the_image_lies_where_the_map_puts_it(found: Match) -> None:
    laid = overlay(photograph(astronaut()), photograph(turned()), found)
    assert laid is not None and laid.query.shape == laid.moved.shape
    inside = laid.covered > 0.99
    assert inside.mean() > 0.5
    core = cv2.erode(inside.astype(np.uint8), np.ones((25, 25))) > 0
    differences = np.abs(laid.query.astype(int) - laid.moved)[core].mean()
    assert differences < 12, "the image moved back shows the same as the query"
    shifted = np.abs(laid.query.astype(int) - np.roll(laid.moved, 20, 1))[core].mean()
    assert differences < shifted / 2
    blended = laid.blend()
    assert blended.shape == laid.query.shape and near(blended, OUTLINE, 30).any()
    middle = (laid.query.astype(int) + laid.moved) // 2
    untouched = core & ~cv2.dilate(
        (np.abs(blended - middle.astype(int)).max(-1) > 30).astype(np.uint8), np.ones((9, 9))
    ).astype(bool)
    assert untouched.mean() > 0.3 and np.abs(blended.astype(int) - middle)[untouched].max() <= 30


def test_a_small_region_is_shown_enlarged() -> None:
    """Ten features in a corner of a query of 2000 pixels."""
    points = np.array([[50 + 10 * n, 60 + 10 * (n % 3)] for n in range(10)], np.float32)
    numbers, ones = np.arange(10, dtype=np.int32), np.ones(10)
    scales = np.full(10, 5, np.float32)
    small = Match(
        10, 10.0, 10.0, 5, 5.0, np.array([[1.0, 0, 0], [0, 1, 0]]), points, points, numbers, numbers, ones, ones,
        numbers.astype(np.uint32), scales, scales, (2000, 1000), (2000, 1000), False,
    )  # fmt: skip
    plain = np.zeros((1000, 2000, 3), np.uint8)
    laid = overlay(photograph(plain), photograph(plain), small)
    assert laid is not None and laid.query.shape == (400, 800, 3)
    width = laid.outline[:, 0].max() - laid.outline[:, 0].min()
    assert width == pytest.approx(90 * 800 / (0.4 * 2000))


def test_a_blinking_picture_has_both_frames_and_is_small(found: Match) -> None:
    laid = overlay(photograph(astronaut()), photograph(turned()), found)
    assert laid is not None
    picture = Image.open(io.BytesIO(blink_bytes(laid.frames("query", "moved"))))
    frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(picture)]
    assert len(frames) == 2 and picture.info["duration"] == 600 and picture.info["loop"] == 0
    assert np.abs(frames[0] - frames[1]).mean() > 5


def test_files_are_small_whatever_they_show() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3)).astype(np.uint8)
    assert len(jpeg_bytes(noise[:, :500])) <= MOST_BYTES
    assert len(blink_bytes([noise, noise[::-1].copy()])) <= MOST_BYTES


def test_pictures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    for name, kind in (("a/b.jpg", "JPEG"), ("c.PNG", "PNG")):
        write_picture(tmp_path / name, coffee())
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind
    with pytest.raises(InputError, match=r"a\.gif: a picture is a JPEG or PNG file"):
        write_picture(tmp_path / "a.gif", coffee())
    (tmp_path / "d.jpg").mkdir()
    with pytest.raises(StorageError, match=r"d\.jpg"):
        write_picture(tmp_path / "d.jpg", coffee())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c.PNG", "d.jpg"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("eiffel/01.jpg", "eiffel-01"),
        ("../../etc/passwd", "etc-passwd"),
        ("/", "image"),
        ("..", "image"),
        ("é à.JPEG", "e-a"),
        ("日本/寺.jpg", "image"),
        ("CON.png", "image-CON"),
        ("a\0b\nc<script>.jpg", "a-b-c-script"),
        ("x" * 300 + "end.jpg", "x" * (LONGEST - 3) + "end"),
        ("\udcff.jpg", "image"),
    ],
)
def test_names_of_files_are_safe(name: str, stem: str) -> None:
    assert file_stem(name) == stem


def test_names_of_files_are_never_given_twice() -> None:
    names = UnusedNames()
    given = [names.take(stem) for stem in ("a", "A", "a-2", "a", "a-2", "b")]
    assert given == ["a", "A-2", "a-2-2", "a-3", "a-2-3", "b"]
    assert len({name.lower() for name in given}) == len(given)


def naive_attention(features: Features, size: tuple[int, int]) -> np.ndarray:
    """The strongest of all features at each place, from the formula, without a limited reach."""
    width, height = size
    found = np.zeros((height, width))
    fx, fy = width / features.image_size[0], height / features.image_size[1]
    for row in range(height):
        for column in range(width):
            for (x, y, scale), strength in zip(features.keypoints.tolist(), features.scores.tolist(), strict=True):
                distance = (column - ((x + 0.5) * fx - 0.5)) ** 2 + (row - ((y + 0.5) * fy - 0.5)) ** 2
                sigma = max(scale * (fx * fy) ** 0.5 / 2, 0.5)
                found[row, column] = max(found[row, column], strength * np.exp(-distance / (2 * sigma**2)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_the_strongest_feature_that_is_seen_at_each_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.random((9, 2)) * (300, 200), rng.uniform(0, 80, 9)]).astype(np.float32)
    features = Features.from_descriptors(rng.random((9, 4)), points, rng.random(9), (300, 200))
    found = attention_map(features, (30, 20))
    assert np.abs(found - naive_attention(features, (30, 20))).max() < np.exp(-4.5) + 1e-6
    assert not attention_map(features.strongest(0), (30, 20)).any()


def test_the_strongest_features_are_circles_on_the_photograph() -> None:
    grey = np.full((200, 300, 3), 128, np.uint8)
    points = np.array([[150, 100, 60], [40, 40, 20]], np.float32)
    features = Features.from_descriptors(np.eye(2), points, np.array([1.0, 0.5]), (300, 200))
    picture = draw_attention(photograph(grey), features, "a.png", "rootsift", 1)
    panels = picture[35 : 35 + 320, 16:].astype(int)
    heat, circles = panels[:, 492 : 492 + 480], panels[:, 984 : 984 + 480]
    centre, far = heat[160, 240], heat[300, 20]
    assert centre.sum() > far.sum() + 100, "light where a feature is, dark where none is"
    radius = round(30 * 480 / 300)
    assert near(circles[160, 240 + radius - 2 : 240 + radius + 3], tuple(scale_colours(np.ones(1))[0]), 60).any()
    assert (circles[60:70, 60:70] == 128).all(), "only the strongest is drawn"
    outlined = draw_attention(photograph(grey), features, "a.png", "rootsift", 1, 0.25)
    changed = (outlined.astype(int) != picture).any(axis=2)
    assert changed[:, :496].any() and not changed[:, 496:].any(), "boxes are on the photograph"
    empty = draw_attention(photograph(grey), features.strongest(0), "a.png", "rootsift", 5, 0.25)
    assert empty.shape == picture.shape
