"""The contact sheet: its layout and colours, and its robustness against any photograph and any name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from asmk_engine.errors import InputError, StorageError
from asmk_engine.indexes.answers import Hit
from asmk_engine.pictures import contact_sheet, lettering
from asmk_engine.pictures.attention_maps import laid_over
from asmk_engine.pictures.contact_sheet import write_contact_sheet
from asmk_engine.pictures.lettering import Lettering, draws, letter, shorten, wrap
from asmk_engine.regions.attention_maps import AttentionMap

THUMB = 100
TOP = (
    contact_sheet.MARGIN + 2 * contact_sheet.LINE + contact_sheet.ROW_GAP
)  # of the first row, when nothing is evaluated
STEP = THUMB + contact_sheet.CAPTION + contact_sheet.ROW_GAP  # from row to row, when a photograph is square or upright


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A square photograph, all magenta, larger than a thumbnail."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (200, 200), "#ff00ff").save(path)
    return path


@pytest.fixture
def letters() -> Lettering:
    return letter([])


def hits(path: Path, count: int) -> list[tuple[Path, Hit]]:
    return [(path, Hit(f"views/{number}.jpg", 1 / (number + 1))) for number in range(count)]


def column(place: int) -> int:
    """The left edge of the hit at this place."""
    return contact_sheet.MARGIN + THUMB + contact_sheet.QUERY_GAP + place * (THUMB + contact_sheet.GAP)


def colour(picture: Image.Image, x: int, y: int) -> str:
    red, green, blue = picture.getpixel((x, y))
    return f"#{red:02x}{green:02x}{blue:02x}"


def around(picture: Image.Image, x: int, top: int) -> str:
    """The colour in the middle of the left side of the frame around a thumbnail."""
    return colour(picture, x - 2, top + THUMB // 2)


def draw(path: Path, *arguments: object, **options: object) -> Image.Image:
    write_contact_sheet(path, *arguments, thumb=THUMB, **options)
    return Image.open(path).convert("RGB")


def test_a_row_holds_the_query_and_its_first_hits(tmp_path: Path, photo: Path) -> None:
    picture = draw(tmp_path / "contact_sheet.png", iter([(photo, hits(photo, 9))]), columns=4)
    assert picture.size == (column(4) - contact_sheet.GAP + contact_sheet.MARGIN, TOP + STEP)
    centres = [
        colour(picture, x + THUMB // 2, TOP + THUMB // 2) for x in (contact_sheet.MARGIN, *map(column, range(4)))
    ]
    assert centres == ["#ff00ff"] * 5
    assert around(picture, contact_sheet.MARGIN, TOP) == contact_sheet.QUERY
    assert [around(picture, column(place), TOP) for place in range(4)] == [contact_sheet.PAPER] * 4


def test_frames_tell_right_from_wrong_from_unknown(tmp_path: Path, photo: Path) -> None:
    def correct(query: Path, hit: Hit) -> bool | None:
        assert query == photo
        return {"views/0.jpg": True, "views/1.jpg": False}.get(hit.name)

    picture = draw(tmp_path / "contact_sheet.png", [(photo, hits(photo, 3))], correct=correct)
    top = TOP + contact_sheet.LINE  # below the legend
    assert [around(picture, column(place), top) for place in range(3)] == [
        contact_sheet.RIGHT,
        contact_sheet.WRONG,
        contact_sheet.PAPER,
    ]


def test_a_photograph_that_cannot_be_read_is_a_grey_box_with_the_reason(tmp_path: Path, photo: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no photograph")
    missing = tmp_path / "missing.jpg"
    row = (photo, [(text, Hit("text.jpg", 0.5)), (missing, Hit("missing.jpg", 0.25))])
    picture = draw(tmp_path / "contact_sheet.png", [row])
    for place in range(2):
        box = picture.crop((column(place), TOP, column(place) + THUMB, TOP + THUMB))
        assert box.getpixel((2, 2)) == ImageColor.getrgb(contact_sheet.GREY)
        darkest, _ = box.convert("L").getextrema()
        assert darkest < 180, "the reason is written in the box"


def test_photographs_keep_their_shape_and_stand_on_one_line(tmp_path: Path, photo: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (400, 100), "#00ffff").save(wide)
    picture = draw(tmp_path / "contact_sheet.png", [(photo, [(wide, Hit("wide.png", 0.5))])])
    column_of_pixels = [colour(picture, column(0) + THUMB // 2, TOP + y) for y in range(THUMB)]
    assert column_of_pixels == [contact_sheet.PAPER] * 75 + ["#00ffff"] * 25


def test_a_row_is_as_high_as_its_highest_photograph(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (400, 100), "#00ffff").save(wide)
    picture = draw(tmp_path / "contact_sheet.png", [(wide, hits(wide, 2))])
    assert picture.height == TOP + STEP - 75


def test_small_photographs_are_not_enlarged(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (10, 10), "#00ffff").save(small)
    picture = draw(tmp_path / "contact_sheet.png", [(small, [])])
    assert picture.height == TOP + 10 + contact_sheet.CAPTION + contact_sheet.ROW_GAP


def test_the_region_of_the_query_is_drawn(tmp_path: Path, photo: Path) -> None:
    picture = draw(tmp_path / "contact_sheet.png", [(photo, hits(photo, 1))], box=(40, 60, 120, 160))
    assert colour(picture, contact_sheet.MARGIN + 20, TOP + 50) == contact_sheet.REGION
    assert colour(picture, column(0) + 20, TOP + 50) == "#ff00ff"


def test_further_queries_are_left_out_with_a_note(tmp_path: Path, photo: Path) -> None:
    rows = [(photo, hits(photo, 1))] * 5
    picture = draw(tmp_path / "contact_sheet.png", rows, most_rows=2)
    assert picture.height == TOP + 2 * STEP + contact_sheet.MARGIN
    note = picture.crop((0, TOP + 2 * STEP - 8, picture.width, picture.height)).convert("L")
    assert note.getextrema()[0] < 180


def test_a_query_without_hits_says_so(tmp_path: Path, photo: Path) -> None:
    picture = draw(tmp_path / "contact_sheet.png", [(photo, [])])
    beside = picture.crop((column(0), TOP, picture.width, TOP + THUMB)).convert("L")
    assert beside.getextrema()[0] < 180


@pytest.mark.parametrize("name", ["Straße ü.jpg", "日本/寺.jpg", "a\nb\tc.jpg", "\udcff.jpg", "😀.jpg", "", "ﷺ" * 99])
def test_no_name_can_stop_it(tmp_path: Path, photo: Path, name: str) -> None:
    assert draw(tmp_path / "contact_sheet.png", [(photo, [(photo, Hit(name, 0.5))])]).height == TOP + STEP


def test_other_file_types_and_empty_sheets_are_refused(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(InputError, match=r"sheet\.jpg: a contact sheet is a PNG"):
        write_contact_sheet(tmp_path / "contact_sheet.jpg", [(photo, [])])
    with pytest.raises(InputError, match="no query"):
        write_contact_sheet(tmp_path / "contact_sheet.png", [])


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "contact_sheet.png").mkdir()
    with pytest.raises(StorageError, match=r"sheet\.png"):
        write_contact_sheet(tmp_path / "contact_sheet.png", [(photo, [])])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contact_sheet.png", "photo.png"]


def test_long_names_lose_their_middle(letters: Lettering) -> None:
    name = "holiday/2019/the cathedral seen from the river.jpg"
    assert shorten(letters, name, 10_000) == name
    for width in (60, 100, 160):
        short = shorten(letters, name, width)
        head, tail = short.split("...")
        assert letters.regular.getlength(short) <= width
        assert name.startswith(head) and name.endswith(tail) and abs(len(head) - len(tail)) <= 1
        longer = f"{name[: len(head) + 1]}...{name[len(name) - len(tail) - 1 :]}"
        assert letters.regular.getlength(longer) > width


def test_reasons_are_broken_at_spaces(letters: Lettering) -> None:
    text = "truncated: the file ends before the image does; copy it again from its source"
    lines = wrap(letters, text, 120)
    assert " ".join(lines) == text and len(lines) > 2
    assert all(letters.regular.getlength(line) <= 120 for line in lines)


def test_letters_the_font_lacks_lose_their_accents_or_become_question_marks(
    letters: Lettering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ())
    assert letter(["Çà 日"]) == letters
    assert draws(letters.regular, "a") and not draws(letters.regular, "日")
    assert lettering.drawable(letters, "Çà 日b") == "Ca ?b"


def test_attention_is_below_the_images_that_have_a_map(tmp_path: Path, photo: Path) -> None:
    """The query is searched with a region, so its map is another than that of the same photograph among the hits."""
    values, box = np.array([[0.0, 1.0], [0.0, 0.0]], np.float32), (0, 0, 100, 200)
    whole = AttentionMap("", values, "", (49.5, 49.5), (100.0, 100.0), (0, 0, 200, 200), (200, 200))
    part = replace(whole, box=box)
    maps = {(photo, box): part, (photo, None): whole}
    picture = draw(tmp_path / "a.png", [(photo, hits(photo, 2))], box=box, attention=maps)
    assert picture.height == TOP + STEP + THUMB + contact_sheet.ATTENTION_GAP
    below = TOP + THUMB + contact_sheet.ATTENTION_GAP
    thumbnail = np.full((THUMB, THUMB, 3), (255, 0, 255), np.uint8)
    for x, one in ((contact_sheet.MARGIN, part), (column(0), whole), (column(1), whole)):
        assert colour(picture, x + 70, TOP + 50) == "#ff00ff"
        shown = np.asarray(picture.crop((x, below, x + THUMB, below + THUMB)))
        np.testing.assert_array_equal(shown, laid_over(thumbnail, one))
    alone = draw(tmp_path / "b.png", [(photo, hits(photo, 1))], attention={(photo, box): part})
    assert alone.height == TOP + STEP, "a map of the region is not that of the whole"
