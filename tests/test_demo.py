"""The demo: its photographs, their views, its ground truth, and the whole way through the command line."""

import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from asmk_engine import demo
from asmk_engine.cli.demo import _environment
from asmk_engine.demo import QueryViews
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.images.listing import ImageFile, find_images
from samples import load_image


def pattern(seed: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """A picture of many overlapping discs and bars, which no other seed shows, [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    for _ in range(size[0] * size[1] // 100):
        colour = rng.integers(0, 256, 3).tolist()
        x, y, width, height = (int(value) for value in rng.integers(0, (*size, 20, 20)))
        if rng.random() < 0.5:
            cv2.circle(pixels, (x, y), width // 2 + 1, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(pixels, (x, y), (x + width, y + height), colour, -1)
    return cv2.GaussianBlur(pixels, (0, 0), 0.8)


def save(folder: Path, *names: str, size: tuple[int, int] = (160, 120)) -> list[ImageFile]:
    """Different photographs under these names."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pattern(seed, size)).save(folder / name)
    return [ImageFile(name, folder / name) for name in names]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_scikit_image_brings_the_photographs(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    photos = demo.bundled_photos()
    assert {photo.name for photo in photos} <= set(demo.BUNDLED) and len(photos) >= 12
    placed = demo.place_photos(photos, tmp_path, link=False)
    assert find_images([tmp_path]).images == sorted(placed, key=lambda photo: photo.name)
    assert all(min(load_image(photo.path).shape[:2]) >= demo.SMALLEST_SIDE for photo in placed)


def test_without_scikit_image_the_cure_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="not installed; run python -m pip install 'scikit-image"):
        demo.bundled_photos()
    hollow = ModuleSpec("skimage", None, is_package=True)
    hollow.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: hollow)
    with pytest.raises(DependencyError, match=r"holds 0 of the \d+ photographs.*pip install"):
        demo.bundled_photos()


def test_views_are_graded_and_named_after_their_photograph(tmp_path: Path) -> None:
    photos = save(tmp_path, "b.png", "sub/a.png")
    reported: list[tuple[int, int]] = []
    queries = demo.make_views(photos, tmp_path, 5, progress=lambda *counts: reported.append(counts))
    easy, hard = [f"views/a/{k}.jpg" for k in (1, 2, 3)], [f"views/a/{k}.jpg" for k in (4, 5)]
    assert queries[1] == QueryViews("sub/a.png", tuple(easy), tuple(hard))
    assert set(queries[0].answers + queries[1].answers) == contents(tmp_path).keys() - {"b.png", "sub/a.png"}
    assert reported[-1] == (2, 2)


def test_views_depend_on_the_photograph_its_name_and_the_seed_alone(tmp_path: Path) -> None:
    photos = save(tmp_path, "a.png", "b.png")
    for folder, asked, seed in (("one", photos, 3), ("two", photos[1:], 3), ("three", photos[1:], 4)):
        demo.make_views(asked, tmp_path / folder, 3, seed)
    one, two, three = (contents(tmp_path / folder) for folder in ("one", "two", "three"))
    assert two == {name: data for name, data in one.items() if name.startswith("views/b/")}
    assert all(three[name] != data for name, data in two.items())


def test_views_that_are_there_already_are_not_written_again(tmp_path: Path) -> None:
    photos = save(tmp_path, "a.png")
    demo.make_views(photos, tmp_path, 2)
    view = tmp_path / "views/a/1.jpg"
    os.utime(view, (0, 0))
    demo.make_views(photos, tmp_path, 2)
    assert view.stat().st_mtime == 0
    view.write_bytes(b"cut")
    demo.make_views(photos, tmp_path, 2)
    assert load_image(view).ndim == 3


def test_photographs_of_one_stem_get_views_of_their_own(tmp_path: Path) -> None:
    photos = save(tmp_path, "a.png", "A.jpg", "views/a.png")
    queries = demo.make_views(photos, tmp_path, 1, below=demo.free_name(photos))
    assert [query.easy for query in queries] == [("views-2/a/1.jpg",), ("views-2/A-2/1.jpg",), ("views-2/a-3/1.jpg",)]


def test_without_severity_a_view_is_the_photograph() -> None:
    pixels = cv2.GaussianBlur(pattern(0), (0, 0), 3)
    data = demo.encode_view(pixels, 0.0, np.random.default_rng(0))
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert seen.shape == pixels.shape
    assert np.abs(seen.astype(int) - pixels).mean() < 2
    shifted = np.abs(seen.astype(int) - np.roll(pixels, 1, axis=1)).mean()
    assert shifted > 2 * np.abs(seen.astype(int) - pixels).mean(), "not a pixel aside"


def test_with_severity_a_view_is_another_picture() -> None:
    pixels = pattern(0)
    for seed in range(5):
        data = demo.encode_view(pixels, 1.0, np.random.default_rng(seed))
        seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        resized = cv2.resize(seen, (pixels.shape[1], pixels.shape[0]))
        assert np.abs(resized.astype(int) - pixels).mean() > 15


@pytest.mark.parametrize("size", [(640, 480), (100, 1000), (64, 64)])
def test_a_view_shows_nothing_from_outside_the_photograph(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for severity in np.linspace(0, 1, 50):
        corners = demo._quadrilateral(*size, severity, rng)
        assert corners.min() >= -0.5 - 1e-6
        assert (corners.max(axis=0) <= np.array(size) - 0.5 + 1e-6).all()
        following = np.roll(corners, -1, axis=0) - corners
        turns = np.cross(np.c_[following, np.zeros(4)], np.c_[np.roll(following, -1, axis=0), np.zeros(4)])[:, 2]
        assert (turns > 0).all(), "the quadrilateral is convex and not mirrored"


def test_queries_are_spread_and_unreadable_photographs_passed_over(tmp_path: Path) -> None:
    photos = save(tmp_path, *(f"{number}.png" for number in range(8)))
    assert [photo.name for photo in demo.choose_queries(photos, 4)] == ["0.png", "2.png", "4.png", "6.png"]
    assert demo.choose_queries(photos, 20) == photos
    (tmp_path / "2.png").write_text("no photograph")
    save(tmp_path, "4.png", size=(200, 20))
    (tmp_path / "6.png").unlink()
    assert [photo.name for photo in demo.choose_queries(photos, 4)] == ["0.png", "3.png", "5.png", "7.png"]
    with pytest.raises(InputError, match="none of 1 photographs"):
        demo.choose_queries(photos[2:3], 4)
    with pytest.raises(InputError, match="none of 0 photographs"):
        demo.choose_queries([], 4)


def test_own_photographs_are_linked_and_followed(tmp_path: Path) -> None:
    photos = save(tmp_path / "own", "a.png", "sub/b ü.png", "broken.png")
    photos[2].path.unlink()
    photos[2].path.symlink_to(tmp_path / "nowhere.png")
    for _ in range(2):
        placed = demo.place_photos(photos, tmp_path / "demo", link=True)
        assert [photo.name for photo in placed] == ["a.png", "sub/b ü.png"]
        assert all(os.path.samefile(one.path, other.path) for one, other in zip(placed, photos, strict=False))
    photos[0].path.unlink()
    save(tmp_path / "own", "a.png", size=(90, 90))
    demo.place_photos(photos, tmp_path / "demo", link=True)
    assert load_image(tmp_path / "demo/a.png").shape == (90, 90, 3)


def test_without_links_photographs_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    photos = save(tmp_path / "own", "a.png")
    demo.place_photos(photos, tmp_path / "demo", link=True)
    copy = tmp_path / "demo/a.png"
    assert copy.read_bytes() == photos[0].path.read_bytes() and not os.path.samefile(copy, photos[0].path)
    os.utime(copy, (4e9, 4e9))
    demo.place_photos(photos, tmp_path / "demo", link=False)
    assert copy.stat().st_mtime == 4e9, "an unchanged photograph is not copied again"
    save(tmp_path / "own", "a.png", size=(90, 90))
    demo.place_photos(photos, tmp_path / "demo", link=False)
    assert load_image(copy).shape == (90, 90, 3)


def test_what_an_earlier_demo_made_is_removed(tmp_path: Path) -> None:
    photos = save(tmp_path, "a.png", "old/b.png")
    demo.make_views(photos[:1], tmp_path, 2)
    assert demo.remove_others(tmp_path, ["a.png", "views/a/2.jpg"]) == 2
    assert contents(tmp_path).keys() == {"a.png", "views/a/2.jpg"}


def test_the_folder_of_a_demo_is_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        demo.claim_folder(tmp_path / "new/demo")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds files that are not from a demo"):
        demo.claim_folder(tmp_path / "foreign")
    with pytest.raises(InputError, match="a file is in the way"):
        demo.claim_folder(tmp_path / "foreign/letter.txt")
    assert contents(tmp_path / "foreign") == {"letter.txt": b"dear"}


def test_the_ground_truth_is_read_as_it_was_meant(tmp_path: Path) -> None:
    queries = [QueryViews("ä b.png", ("v/1.jpg", "v/2.jpg"), ("v/3.jpg",)), QueryViews("motorcycle_left.png", (), ())]
    placed = [ImageFile(name, tmp_path / name) for name in ("ä b.png", "motorcycle_left.png", "motorcycle_right.png")]
    queries = demo.add_second_photos(queries, placed)
    images = [*(photo.name for photo in placed), "v/1.jpg", "v/2.jpg", "v/3.jpg"]
    demo.write_ground_truth(tmp_path / "gnd.json", images, queries)
    ground_truth = read_ground_truth(tmp_path / "gnd.json")
    assert ground_truth.images == tuple(images)
    first, second = ground_truth.queries
    assert (first.name, first.easy, first.hard, first.junk) == ("ä b.png", {"v/1.jpg", "v/2.jpg"}, {"v/3.jpg"}, set())
    assert first.in_database and first.box is None
    assert (second.easy, second.hard) == ({"motorcycle_right.png"}, set())
    assert demo.is_second_photo(placed[2]) and not demo.is_second_photo(placed[1])


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "asmk_engine", "demo", *arguments]
    return subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=300)


def test_the_whole_way_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    save(tmp_path / "own", "-a.png", "b c.png", "views/d.png", "e.png", size=(320, 240))
    (tmp_path / "own/broken.png").write_text("no photograph")
    before = contents(tmp_path / "own")
    done = run_demo(tmp_path, "own", "-o", "out", "--queries", "2")
    assert done.returncode == 0, done.stderr
    commands = [line.split()[2] for line in done.stderr.splitlines() if line.startswith("$ asmk-engine ")]
    assert commands == ["index", "query", "query", "evaluate", "evaluate"]
    assert "$ asmk-engine query out/photos.index --top 5 -- -a.png" in done.stderr
    assert "skipped 'broken.png'" in done.stderr and "out/sheet.png" in done.stderr
    table = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert table["easy"][1] == "100.00" and table["hard"][-1] == "2", "mP@1 and the number of queries"
    assert contents(tmp_path / "own") == before

    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    ground_truth = read_ground_truth(tmp_path / "out/gnd.json")
    assert [answer["query"] for answer in answers] == [query.name for query in ground_truth.queries]
    assert "broken.png" not in ground_truth.images and len(ground_truth.images) == 4 + 2 * 12
    assert all(answer["query"] not in [hit["name"] for hit in answer["hits"]] for answer in answers)
    with Image.open(tmp_path / "out/sheet.png") as picture:
        assert picture.width > 1000

    again = run_demo(tmp_path, "own", "-o", "out", "--queries", "1", "--seed", "1", "--quiet")
    assert (again.returncode, again.stderr) == (0, "")
    assert len(read_ground_truth(tmp_path / "out/gnd.json").images) == 4 + 12
    assert "1" in again.stdout.split()


def test_a_step_that_fails_ends_the_demo_with_its_message(tmp_path: Path) -> None:
    save(tmp_path / "own", "a.png")
    demo.claim_folder(tmp_path / "out")
    (tmp_path / "out/photos.features").write_text("in the way")
    done = run_demo(tmp_path, "own", "-o", "out")
    assert done.returncode == 1
    assert "photos.features" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("The demo ends here: `asmk-engine index` failed.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "-o", "out"], "missing: no such folder or file"),
        (["own", "-o", "own/out"], "must not contain each other"),
        (["own"], "none of 1 photographs can be a query"),
        (["empty"], "no images found"),
    ],
)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/broken.png").write_text("no photograph")
    (tmp_path / "empty").mkdir()
    done = run_demo(tmp_path, *arguments)
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
    assert contents(tmp_path).keys() == {"own/broken.png"}
