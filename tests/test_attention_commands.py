"""`boxes` and `query --attention` on small drawn pictures: tables that an index reads, sheets, and one-line errors."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
from asmk_engine.pipeline import index_images
from asmk_engine.regions.attention_maps import mask_boxes
from asmk_engine.regions.box_files import read_boxes
from tiny_networks import tiny_composed


def call(*words: object) -> Result:
    return CliRunner().invoke(commands, [str(word) for word in words])


def run(*words: object, code: int = 0) -> str:
    """The output of a command, or the error that ended it."""
    done = call(*words)
    assert done.exit_code == code, done.output + repr(done.exception)
    return done.stdout if code == 0 else str(done.exception) if code == 1 else done.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn photographs, networks of cider and gem-ap, and an index of each."""
    folder = tmp_path_factory.mktemp("attention")
    (folder / "photos").mkdir()
    for number in range(3):
        scene = np.random.default_rng(number).integers(0, 256, (12, 16, 3)).repeat(12, 0).repeat(12, 1)
        Image.fromarray(scene.astype(np.uint8)).save(folder / "photos" / f"{number}.png")
    for name in ("cider", "gem-ap"):
        save_composed_checkpoint(folder / f"{name}.safetensors", tiny_composed(name), {})
        described = ["--extractor", name, "--weights", folder / f"{name}.safetensors", "--workers", 0]
        run("index", folder / "photos", "-o", folder / f"{name}.index", *described, "-q")
    return folder


def described(world: Path, name: str = "cider") -> list[Any]:
    return ["--extractor", name, "--weights", world / f"{name}.safetensors"]


def test_boxes_are_those_of_the_masks_by_the_names_of_an_index(world: Path) -> None:
    table = list(csv.reader(io.StringIO(run("boxes", world / "photos", *described(world), "-q"))))
    assert table[0] == ["image", "x1", "y1", "x2", "y2", "score"]
    extractor: Any = load_extractor("cider", weights=str(world / "cider.safetensors"))
    expected = []
    for number in range(3):
        (one,) = extractor.attention_maps(world / "photos" / f"{number}.png")
        expected += [(f"{number}.png", *box.scored.box, box.scored.score) for box in mask_boxes(one)]
    assert [row[0] for row in table[1:]] == [row[0] for row in expected]
    np.testing.assert_allclose([[float(v) for v in row[1:]] for row in table[1:]], [row[1:] for row in expected])
    report = json.loads(run("boxes", world / "photos", *described(world), "--json", "-q"))
    assert report["extractor"] == "cider" and [one["image"] for one in report["images"]] == ["0.png", "1.png", "2.png"]
    each = [box for one in report["images"] for box in one["boxes"]]
    assert {box["mask"] for box in each} == {1, 2} and len(each) == len(expected)
    assert all(box["threshold"] <= box["score"] <= 1 for box in each)
    second = json.loads(run("boxes", world / "photos", *described(world), "--json", "--mask", 2, "--most", 1, "-q"))
    assert [[box["mask"] for box in one["boxes"]] for one in second["images"]] == [[2]] * 3


def test_an_index_of_regions_reads_the_table(world: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    said = call("boxes", world / "photos", "-o", table, *described(world), "--region-attention", 0.4)
    assert said.exit_code == 0 and "in 3 images" in said.stderr and said.stdout == ""
    assert set(read_boxes(table).by_name) == {"0.png", "1.png", "2.png"}
    sift = ["--extractor", "rootsift"]
    run("extract", world / "photos", "-o", tmp_path / "f.features", *sift, "--workers", 0, "-q")
    run("build-codebook", tmp_path / "f.features", "-o", tmp_path / "words.h5", "--words", 8, "-q")
    index_images(FeatureSet.open(tmp_path / "f.features"), tmp_path / "i.index", codebook=tmp_path / "words.h5")
    more = ["--codebook", tmp_path / "words.h5", "--regions", "aggregate", "--boxes", table]
    out = run("index", tmp_path / "f.features", "-o", tmp_path / "regions.index", *more)
    assert "not in this run" not in out
    features = run("boxes", world / "photos", *sift, "-q").splitlines()
    assert len(features) > 3, "local features have boxes of their strengths"


def test_what_cannot_be_done_is_said_in_one_line(world: Path, tmp_path: Path) -> None:
    photos = world / "photos"
    gem = described(world, "gem-ap")
    assert "no spatial attention" in run("boxes", photos, *gem, code=1)
    assert len(run("boxes", photos, *gem, "--activations", "-q").splitlines()) > 3
    assert "--mask is for cider" in run("boxes", photos, *gem, "--activations", "--mask", 1, code=1)
    assert "exclude each other" in run(
        "boxes", photos, *described(world), "--mask", 1, "--region-attention", 0.5, code=2
    )
    assert "fewer masks" in run("boxes", photos, *described(world), "--mask", 3, code=1)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8no image")
    one = call("boxes", photos / "0.png", tmp_path / "broken.jpg", *described(world), "-q")
    assert one.exit_code == 1 and "broken.jpg" in str(one.exception) and one.stdout.count("0.png") > 0
    assert "broken.jpg" in run("boxes", tmp_path / "broken.jpg", *described(world), "-q", code=1)
    index = world / "gem-ap.index"
    asked = ("query", index, photos / "0.png", "--attention", "-q")
    assert "add --contact-sheet" in run(*asked, code=2)
    assert "no spatial attention" in run(*asked, "--contact-sheet", tmp_path / "a.png", code=1)
    assert not (tmp_path / "a.png").exists()


def test_a_sheet_has_the_attention_of_each_image_below_it(world: Path, tmp_path: Path) -> None:
    asked = ("query", world / "cider.index", world / "photos" / "0.png", "--top", 2, "-q", "--contact-sheet")
    run(*asked, tmp_path / "plain.png")
    run(*asked, tmp_path / "sheet.png", "--attention")
    run(*asked, tmp_path / "part.png", "--attention", "--box", "24,24,120,120")
    plain, sheet, part = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int)
                          for name in ("plain", "sheet", "part"))  # fmt: skip
    assert sheet.shape[0] > plain.shape[0] + 144 and part.shape == sheet.shape
    outside = part[:, 40:232]
    assert (np.abs(outside - outside.mean(2, keepdims=True)).max(2) < 1).mean() > 0.1, "grey outside of the region"
