"""`asmk-engine index` with regions, on small drawn pictures: index, info, check, query, add, merge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.features import FeatureSet
from asmk_engine.pipeline import index_images
from asmk_engine.regions.options import RegionOptions


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(commands, [str(word) for word in words])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done.output if code != 1 else str(done.exception)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn pictures in a folder, and a fifth beside it that shows a part of the first in other surroundings."""
    folder = tmp_path_factory.mktemp("regions")
    rng = np.random.default_rng(0)
    for number in range(4):
        save(folder / "photos" / f"{number}.png", drawn(rng))
    view = drawn(rng)
    view[40:110, 50:130] = np.asarray(Image.open(folder / "photos" / "0.png"))[30:100, 20:100]
    save(folder / "view.png", view)
    run("extract", folder / "photos", "-o", folder / "photos.features", "--extractor", "rootsift", "-q")
    run("build-codebook", folder / "photos.features", "-o", folder / "words.h5", "--words", 16, "-q")
    return folder


def drawn(rng: np.random.Generator) -> np.ndarray:
    picture = rng.integers(0, 256, (15, 20, 3)).repeat(10, 0).repeat(10, 1)
    return np.clip(picture + rng.integers(-20, 20, picture.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("mode", ["aggregate", "separate"])
def test_an_index_with_a_grid_goes_on_as_it_began(photos: Path, tmp_path: Path, mode: str) -> None:
    index = tmp_path / "photos.index"
    features = FeatureSet.open(photos / "photos.features")
    three, regions = features.selected(features.names[:3]), RegionOptions(mode, 3)
    index_images(three, index, codebook=photos / "words.h5", regions=regions)
    assert f"regions            {mode}: a grid of 3 levels, " in run("info", index)
    run("index", photos / "photos.features", "-o", index, "-q")
    known = json.loads(run("info", index, "--json"))
    assert known["images"] == 4 and known["regions"]["levels"] == 3
    assert known["regions"]["entries"] == 4 if mode == "aggregate" else known["regions"]["entries"] > 4
    assert "0.png" in run("query", index, photos / "view.png", "--top", 1)
    run("merge", index, "-q")
    run("check", index)
    assert "0.png" in run("query", index, photos / "view.png", "--top", 1)
    out = run("index", photos / "photos.features", "-o", index, "--regions", mode, code=1)
    assert f"has regions ({mode}, a grid of 3), not regions ({mode}, a grid of 2); leave --regions out" in out
    out = run("neighbours", index, code=1)
    assert "an index of regions scores queries only" in out


def test_boxes_from_a_table(photos: Path, tmp_path: Path) -> None:
    boxes, index = tmp_path / "boxes.csv", tmp_path / "photos.index"
    boxes.write_text("image,x1,y1,x2,y2,score\n0.png,20,30,100,100,0.9\n1.png,0,0,9,9,0.2\nother.png,0,0,9,9,1\n")
    asked = ("index", photos / "photos.features", "-o", index)
    more = ("--codebook", photos / "words.h5")
    out = run(*asked, "--regions", "separate", "--boxes", boxes, "--box-score", 0.5, *more)
    assert "of 4 images 2 have no boxes, only the whole image: '2.png', '3.png'" in out
    assert "boxes of 1 image that are not in this run: 'other.png'" in out
    known = json.loads(run("info", index, "--json"))["regions"]
    assert known == {"mode": "separate", "levels": None, "least_score": 0.5, "attention": None, "entries": 5}
    assert "given boxes with a score of 0.5 or more" in run("info", index)
    assert "0.png" in run("query", index, photos / "view.png", "--top", 1)
    out = run(*asked, code=1)
    assert "its regions are boxes that are given with the images; add --boxes FILE" in out
    run(*asked, "--boxes", boxes, "-q")
    run(*asked, "--boxes", boxes, "--replace", "-q")
    assert "inverted" in run(*asked, "--boxes", wrong(tmp_path), code=1)


def test_regions_of_attention(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "photos.index"
    asked = ("index", photos / "photos.features", "-o", index, "--codebook", photos / "words.h5", "-q")
    run(*asked, "--regions", "separate", "--region-attention", 0.5)
    assert "separate: attention of 0.5 or more of its range, separate entries" in run("info", index)
    assert json.loads(run("info", index, "--json"))["regions"]["entries"] > 4
    assert "0.png" in run("query", index, photos / "view.png", "--top", 1)
    run("check", index)


def wrong(folder: Path) -> Path:
    path = folder / "wrong.csv"
    path.write_text("image,x1,y1,x2,y2\n0.png,5,5,1,9\n")
    return path


def test_python_and_the_command_write_the_same(photos: Path, tmp_path: Path) -> None:
    features, codebook = photos / "photos.features", photos / "words.h5"
    run("index", features, "-o", tmp_path / "a.index", "--codebook", codebook, "--regions", "separate", "-q")
    index_images(features, tmp_path / "b.index", codebook=codebook, regions=RegionOptions("separate"))
    one, other = (tmp_path / name / "segment-000001.safetensors" for name in ("a.index", "b.index"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--region-grid", "3"), "need --regions", 2),
        (("--box-score", "3"), "need --regions", 2),
        (("--regions", "separate", "--box-score", "3"), "--box-score needs --boxes", 2),
        (("--regions", "separate", "--region-grid", "3", "--boxes", "x"), "regions are of one kind", 2),
        (("--regions", "both"), "'both' is not one of", 2),
        (("--regions", "separate", "--boxes", "none.csv"), "none.csv: no such file", 1),
        (("--boxes", "BOXES"), "has no regions from boxes; add --regions", 1),
        (
            ("--regions", "separate", "--extractor", "rootsift,how-efficientnet-lite0"),
            "several kinds of features has",
            1,
        ),
    ],
)
def test_options_that_have_no_effect_are_refused(
    photos: Path, tmp_path: Path, options: tuple[str, ...], message: str, code: int
) -> None:
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\n")
    words = [str(tmp_path / "boxes.csv") if word == "BOXES" else word for word in options]
    assert message in " ".join(
        run("index", photos / "photos.features", "-o", tmp_path / "i", *words, code=code).split()
    )
    assert not (tmp_path / "i").exists()
