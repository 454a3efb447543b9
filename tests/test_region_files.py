"""Files of boxes in all layouts: what is read, and what is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import naive_regions
from asmk_engine.errors import AsmkError, InputError, NotFoundError
from asmk_engine.regions.box_files import read_boxes, write_boxes
from asmk_engine.regions.boxes import ScoredBox
from asmk_engine.regions.detect_to_retrieve import read_box_file

TABLE = "image,x1,y1,x2,y2,score\na.jpg,0,1,20,30,0.5\nb/ä.jpg,1.5,2,3,4,\na.jpg,5,5,6,6,1e-2\n"
BOXES = {
    "a.jpg": [ScoredBox((0, 1, 20, 30), 0.5), ScoredBox((5, 5, 6, 6), 0.01)],
    "b/ä.jpg": [ScoredBox((1.5, 2, 3, 4), 1.0)],
}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_table_is_read_and_written(tmp_path: Path) -> None:
    found = read_boxes(write(tmp_path / "boxes.csv", TABLE))
    assert found.by_name == BOXES and not found.are_shares
    again = read_boxes(write(tmp_path / "again.csv", write_boxes(BOXES)))
    assert again.by_name == BOXES
    bare = "y2,image,x1,y1,x2,class\n4,a,1,2,3,9\n"
    assert read_boxes(write(tmp_path / "bare.csv", "\ufeff" + bare)).by_name == {"a": [ScoredBox((1, 2, 3, 4), 1.0)]}
    assert read_boxes(write(tmp_path / "empty.csv", TABLE.split("\n")[0])).by_name == {}
    assert write_boxes({"a,\n": [ScoredBox((0, 0, 1, 1))]}).splitlines()[0] == "image,x1,y1,x2,y2,score"


def test_coco_is_read(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "none.jpg"}],
        "annotations": [{"image_id": 3, "bbox": [1, 2, 10, 20], "score": 0.25}, {"image_id": 3, "bbox": [0, 0, 1, 1]}],
    }
    found = read_boxes(write(tmp_path / "coco.json", json.dumps(content)))
    assert found.by_name == {"a.jpg": [ScoredBox((1, 2, 11, 22), 0.25), ScoredBox((0, 0, 1, 1), 1.0)], "none.jpg": []}


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_of_detect_to_retrieve_is_read(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (5, 2, 2)), axis=1).reshape(5, 4).astype(np.float32)
    scores = rng.uniform(0, 1, 5).astype(np.float32)
    boxes = [(*map(float, corner), float(score), 1) for corner, score in zip(corners, scores, strict=True)]
    write(tmp_path / "deep" / "one.boxes", naive_regions.message(boxes))
    write(tmp_path / "none.boxes", b"")
    found = read_boxes(tmp_path)
    expected = [ScoredBox((x1, y1, x2, y2), score) for y1, x1, y2, x2, score, _ in boxes]
    assert found.by_name == {"deep/one": expected, "none": []} and found.are_shares
    x1, y1, x2, y2 = expected[0].box
    assert found.of("deep/one.jpg", (200, 100), expected[0].score)[0] == (x1 * 200, y1 * 100, x2 * 200, y2 * 100)
    assert len(found.of("deep/one.jpg", (200, 100), 2.0)) == 0


def test_unknown_fields_of_a_message_are_skipped(tmp_path: Path) -> None:
    known = naive_regions.message([(0.0, 0.25, 0.5, 1.0, 0.75, 1)])
    extra = bytes([2 << 3]) + b"\x96\x01" + bytes([3 << 3 | 1]) + bytes(8) + bytes([4 << 3 | 2, 2]) + b"xy"
    assert read_box_file(write(tmp_path / "x.boxes", extra + known)) == [ScoredBox((0.25, 0.0, 1.0, 0.5), 0.75)]


def test_any_cut_or_altered_message_is_read_or_refused(tmp_path: Path) -> None:
    whole = naive_regions.message([(0.0, 0.25, 0.5, 1.0, 0.75, 1)] * 2)
    rng = np.random.default_rng(0)
    for trial in range(200):
        content = bytearray(whole[: int(rng.integers(0, len(whole) + 1))] if trial % 2 else whole)
        for _ in range(trial % 5):
            if content:
                content[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
        try:
            read_boxes(write(tmp_path / "x.boxes", bytes(content)).parent)
        except AsmkError as error:
            assert "\n" not in str(error) and "x" in str(error)


WRONG = {
    "no-column.csv": ("image,x1,y1,x2\n", "has no column 'y2'; expected the columns image,x1,y1,x2,y2"),
    "empty.csv": ("", "has no column 'image'"),
    "text.csv": ("image,x1,y1,x2,y2\na,1,2,x,4\n", "line 2: 'x' is no number"),
    "short.csv": ("image,x1,y1,x2,y2\na,1,2,3\n", "line 2: None is no number"),
    "nameless.csv": ("image,x1,y1,x2,y2\n,1,2,3,4\n", "line 2: has no name"),
    "inverted.csv": ("image,x1,y1,x2,y2\na,3,2,1,4\n", "'a': box 3,2,1,4 is inverted or empty"),
    "infinite.csv": ("image,x1,y1,x2,y2\na,0,0,inf,4\n", "expected finite numbers"),
    "latin.csv": (b"image,x1\xff", "byte 8 is not UTF-8"),
    "nul.csv": ("image,x1,y1,x2,y2\na,1,2,3,4\0\n", "is no number|line"),
    "broken.json": ("{", "not valid JSON"),
    "deep.json": ('{"a":' * 100_000, "not valid JSON"),
    "images.json": ('{"annotations": []}', "has no list 'images'"),
    "image.json": ('{"images": [{"id": []}], "annotations": []}', "image 0: has no id or no file_name"),
    "number.json": ('{"images": [], "annotations": [3]}', "annotation 0: has no image_id or no bbox"),
    "unknown.json": (
        '{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}',
        "is not among the images",
    ),
    "null.json": ('{"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, null]}]}', "None is no number"),
    "folder/x.txt": ("", "has no file .boxes"),
    "boxes/x.boxes": (b"\x0a\x05\x0d", "byte 2: a field of 5 bytes, but only 1 are left"),
    "group/x.boxes": (b"\x0b", "a field of the unknown type 3"),
    "long/x.boxes": (b"\xff" * 20, "a number of more than 10 bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_file_of_boxes_is_refused(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_boxes(path.parent if "/" in name else path)
    assert "\n" not in str(caught.value) and str(path.parent if "/" in name else path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=re.escape(str(tmp_path / "none.csv"))):
        read_boxes(tmp_path / "none.csv")
