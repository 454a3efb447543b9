"""`query --explain`, `match` and `attention`: what the commands write, and the one line where they cannot."""

from __future__ import annotations

import errno
import html.parser
import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import skimage_pairs
from asmk_engine import index_folder
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError
from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
from asmk_engine.pictures.encoding import MOST_BYTES
from asmk_engine.pictures.strokes import OUTLINE
from asmk_engine.storage import system
from skimage_pairs import halved, write
from test_cli import fails
from tiny_networks import tiny_checkpoint, tiny_composed

ASTRONAUT, TURNED, COFFEE = map(halved, (skimage_pairs.astronaut(), skimage_pairs.turned(), skimage_pairs.coffee()))
AWKWARD = "<b>&'\" é 100%"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, one in a folder with an awkward name, and their index with geometry."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "photos" / AWKWARD / "turned.png", TURNED)
    write(folder / "photos" / "astronaut.png", ASTRONAUT)
    write(folder / "photos" / "coffee.png", COFFEE)
    index_folder(folder / "photos", folder / "i.index", codebook="rootsift", geometry="all", workers=0)
    write(folder / "query.png", ASTRONAUT[20:, 30:])
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "world")
    return tmp_path / "world"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [*map(str, arguments)])


def succeeds(*arguments: object) -> str:
    """The output of a command that succeeds."""
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments: object) -> str:
    """The one line of an expected error."""
    result = call(*arguments)
    assert isinstance(result.exception, AsmkError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def outlined(path: Path) -> int:
    """How many pixels have the colour of the outlines."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.abs(pixels - OUTLINE) < 40).all(-1).sum())


class Page(html.parser.HTMLParser):
    """The pictures, the links and the text of a page; refuses scripts and unbalanced tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "b", "iframe") and not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(unquote(dict(attrs)["src"] or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_hit_has_its_pictures_and_the_page_lists_them(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "why"
    printed = succeeds("query", made / "i.index", made / "query.png", "coffee.png", "--top", 2, "--explain", out)
    assert printed.count("\n") >= 4
    found = files(out)
    assert found[-1] == "query/02-b-e-100-turned.jpg" and {path.split("/")[0] for path in found[:-1]} >= {"coffee"}
    assert [path for path in found if path.startswith("query/")] == [
        "query/01-astronaut-blink.gif",
        "query/01-astronaut-warped.jpg",
        "query/01-astronaut.jpg",
        "query/02-b-e-100-turned-blink.gif",
        "query/02-b-e-100-turned-warped.jpg",
        "query/02-b-e-100-turned.jpg",
    ]
    for name in found:
        assert (out / name).stat().st_size <= MOST_BYTES
        if name.endswith(("jpg", "gif")):
            with Image.open(out / name) as picture:
                assert picture.width <= 1000
                assert getattr(picture, "n_frames", 1) == (2 if name.endswith("gif") else 1)
    assert outlined(out / "query/01-astronaut.jpg") > 300 and outlined(out / "query/01-astronaut-warped.jpg") > 100
    page = Page(out / "index.html")
    assert sorted(page.pictures) == sorted(name for name in found if name != "index.html")
    assert f"{AWKWARD}/turned.png" in page.text and "inliers of" in page.text and str(made / "query.png") in page.text


def test_the_numbers_are_those_of_reranking_and_features_come_on_request(made: Path, tmp_path: Path) -> None:
    query = ["query", made / "i.index", made / "query.png", "--format", "jsonl"]
    plain = json.loads(succeeds(*query, "--rerank", 50))
    assert json.loads(succeeds(*query, "--explain", tmp_path / "why")) == plain
    explained = json.loads(succeeds(*query, "--explain-json"))
    for hit, known in zip(explained["hits"], plain["hits"], strict=True):
        features = hit["matches"][0].pop("features")
        assert hit == known and len(features) == known["matches"][0]["inliers"]
        for entry in features:
            assert set(entry) == {"word", "similarity", "weight", "query", "image"}
            assert len(entry["query"]) == len(entry["image"]) == 3 and 0.2 <= entry["similarity"] <= 1
    first = json.loads(succeeds(*query, "--explain-json", "--rerank", 1))["hits"]
    assert "matches" in first[0] and all("matches" not in hit for hit in first[1:])


def test_hits_behind_those_that_were_verified_say_so(made: Path, tmp_path: Path) -> None:
    succeeds("query", made / "i.index", made / "query.png", "--rerank", 1, "--explain", tmp_path / "why")
    page = Page(tmp_path / "why/index.html")
    assert "not verified" in page.text
    assert "query/01-astronaut-blink.gif" in page.pictures and len(page.pictures) == 5


def test_equal_names_never_share_a_file_and_none_leaves_the_folder(world: Path) -> None:
    for name in ("a/q.png", "b/q.png", "b/Q.jpg"):
        write(world / name, ASTRONAUT[9:, 9:])
    queries = [world / name for name in ("a/q.png", "b/q.png", "b/Q.jpg")]
    succeeds("query", world / "i.index", *queries, "--top", 1, "--explain", world / "out" / "why")
    folders = sorted(path.name for path in (world / "out/why").iterdir())
    assert folders == ["Q-3", "index.html", "q", "q-2"]
    assert [path.name for path in (world / "out").iterdir()] == ["why"]
    assert len(Page(world / "out/why/index.html").pictures) == 9


def test_photographs_that_are_gone_or_changed_are_named_and_the_numbers_come(world: Path) -> None:
    (world / "photos/astronaut.png").unlink()
    write(world / "photos" / AWKWARD / "turned.png", COFFEE)
    query = ["query", world / "i.index", world / "query.png", "--top", 2, "--images", world / "photos"]
    before = succeeds(*query, "--rerank", 50)
    assert succeeds(*query, "--explain", world / "why") == before
    assert [name for name in files(world / "why") if "query" in name] == [
        "query/01-astronaut.jpg",
        "query/02-b-e-100-turned.jpg",
    ]
    page = Page(world / "why/index.html")
    assert page.text.count("The photograph cannot be shown") == 2 and "not the photograph that was indexed" in page.text
    assert page.text.count("inliers of") == 2
    assert outlined(world / "why/query/01-astronaut.jpg") > 300, "the outlines are drawn without the photograph"


def test_a_query_without_hits_and_a_turned_one(world: Path, tmp_path: Path) -> None:
    write(world / "grey.png", np.full((100, 100, 3), 128, np.uint8))
    succeeds("query", world / "i.index", world / "grey.png", "--explain", tmp_path / "none")
    assert "Nothing in common" in Page(tmp_path / "none/index.html").text
    write(world / "side.png", np.rot90(ASTRONAUT).copy())
    succeeds("query", world / "i.index", world / "side.png", "--rotations", "--top", 1, "--explain", tmp_path / "turn")
    page = Page(tmp_path / "turn/index.html")
    assert "the query was turned: 90" in page.text and len(page.pictures) == 3


def test_a_full_disk_costs_the_pictures_only_and_is_said_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write_file = tmp_path / "why", system.write
    left = [150_000]

    def limited(file: int, at: int, data: bytes | memoryview) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_file(file, at, data)

    monkeypatch.setattr(system, "write", limited)
    result = call("query", made / "i.index", "astronaut.png", "coffee.png", "--explain", out, "--format", "jsonl")
    assert len(result.stdout.splitlines()) == 2, "every answer is printed"
    told = str(result.exception)
    assert isinstance(result.exception, AsmkError) and "free some space" in told and str(out) in told
    assert not [name for name in files(out) if name.endswith((".tmp", ".html"))]
    for name in files(out):
        with Image.open(out / name) as picture:
            picture.load()


def test_what_excludes_each_other_is_refused(made: Path, tmp_path: Path) -> None:
    query = ["query", made / "i.index", "coffee.png"]
    for options, text in (
        (["--explain", tmp_path / "a", "--fuse", made / "i.index"], "--explain and --fuse exclude each other"),
        (["--explain", tmp_path / "a", "--diffusion"], "--explain and --diffusion exclude each other"),
        (["--explain-json"], "--explain-json needs --format jsonl"),
    ):
        result = call(*query, *options)
        assert result.exit_code == 2 and text in result.output
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refused(*query, "--explain", tmp_path / "file")


def test_contact_sheets_outline_what_was_verified(made: Path, tmp_path: Path) -> None:
    query = ["query", made / "i.index", made / "query.png", "--top", 1, "--contact-sheet"]
    succeeds(*query, tmp_path / "plain.png")
    succeeds(*query, tmp_path / "verified.png", "--rerank", 5)
    assert outlined(tmp_path / "verified.png") > outlined(tmp_path / "plain.png") + 200


def test_two_photographs_compare_as_a_search_does(made: Path, tmp_path: Path) -> None:
    photos = made / "photos"
    found = json.loads(succeeds("match", made / "query.png", photos / "astronaut.png", "--format", "json"))
    asked = json.loads(succeeds("query", made / "i.index", made / "query.png", "--format", "jsonl"))
    scores = {hit["name"]: hit["score"] for hit in asked["hits"]}
    assert found["similarity"] == pytest.approx(scores["astronaut.png"], abs=2e-6)
    verified = json.loads(
        succeeds("query", made / "i.index", made / "query.png", "--format", "jsonl", "--explain-json")
    )
    match = next(hit["matches"][0] for hit in verified["hits"] if hit["name"] == "astronaut.png")
    assert found["match"]["inliers"] == match["inliers"]
    assert np.abs(np.subtract(found["match"]["affine"], match["affine"])).max() < 0.1, "an index rounds places"
    assert found["common_words"] <= min(found["words"]) and not found["match"]["is_copy"]
    table = succeeds("match", made / "query.png", photos / "astronaut.png", "-o", tmp_path / "a.png")
    assert f"inliers     {match['inliers']} at" in table and outlined(tmp_path / "a.png") > 300
    copy = succeeds("match", photos / "coffee.png", photos / "coffee.png", "--codebook", "rootsift")
    assert "copy        yes" in copy
    white, grey = (np.full((99, 99, 3), level, np.uint8) for level in (255, 128))
    empty = write(tmp_path / "white.png", white)
    for other in (photos / "coffee.png", write(tmp_path / "grey.png", grey)):
        printed = succeeds("match", other, empty, "-o", tmp_path / "b.jpg")
        assert "nothing in common" in printed and "similarity  0.000000" in printed


def test_global_descriptors_have_a_cosine_and_no_places(made: Path, tmp_path: Path) -> None:
    network = tmp_path / "tiny.safetensors"
    tiny_checkpoint(network)
    pair = [made / "query.png", made / "photos/astronaut.png"]
    described = ["--extractor", "how-global", "--weights", network]
    result = call("match", *pair, *described)
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stdout.splitlines()[1].startswith("cosine      0.9") and "no places" in result.stderr
    assert set(json.loads(succeeds("match", *pair, *described, "--format", "json"))) == {
        "query", "image", "extractor", "similarity", "features"
    }  # fmt: skip
    assert "no places" in refused("match", *pair, *described, "-o", tmp_path / "a.jpg")
    assert not (tmp_path / "a.jpg").exists()


def test_attention_is_drawn(made: Path, tmp_path: Path) -> None:
    succeeds("attention", made / "photos/coffee.png", "-o", tmp_path / "a.png", "--features", 20)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * 16 + 3 * 480 + 2 * 12, picture.height)
        colours = len(np.unique(np.asarray(picture.crop((508, 60, 988, 340))).reshape(-1, 3), axis=0))
    assert colours > 1000
    grey = write(tmp_path / "grey.png", np.full((99, 99, 3), 128, np.uint8))
    assert "no feature was found" in call("attention", grey, "-o", tmp_path / "b.jpg").stderr


def test_the_attention_of_networks_of_global_descriptors_is_drawn(made: Path, tmp_path: Path) -> None:
    photo, files_of = made / "photos/coffee.png", {}
    for name in ("cider", "gem-ap"):
        files_of[name] = tmp_path / f"{name}.safetensors"
        save_composed_checkpoint(files_of[name], tiny_composed(name), {})
    tiny_checkpoint(tmp_path / "how.safetensors")
    cider, gem = (["--extractor", name, "--weights", files_of[name]] for name in files_of)
    succeeds("attention", photo, "-o", tmp_path / "a.png", *cider)
    how = ["--extractor", "how-global", "--weights", tmp_path / "how.safetensors"]
    succeeds("attention", photo, "-o", tmp_path / "b.png", *how)
    assert "no spatial attention" in refused("attention", photo, "-o", tmp_path / "c.png", *gem)
    assert not (tmp_path / "c.png").exists()
    succeeds("attention", photo, "-o", tmp_path / "c.png", *gem, "--activations")
    succeeds("attention", photo, "-o", tmp_path / "d.png", *gem, "--activations", "--region-attention", 0.3)
    assert outlined(tmp_path / "d.png") > outlined(tmp_path / "c.png") + 1000, "the mask has boxes"
    assert outlined(tmp_path / "a.png") > outlined(tmp_path / "b.png") + 1000, "so have those of cider"
    assert "leave --activations out" in refused("attention", photo, "-o", tmp_path / "e.png", "--activations",
                                                "--extractor", "rootsift")  # fmt: skip


def test_errors_are_one_line(made: Path, tmp_path: Path) -> None:
    photo, broken = made / "query.png", tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    (tmp_path / "file").write_text("in the way")
    assert "no such file" in refused("match", photo, tmp_path / "gone.jpg")
    assert "broken.jpg" in refused("match", broken, photo)
    assert "ends in .jpg or .png" in refused("match", photo, photo, "-o", tmp_path / "a.gif")
    assert str(tmp_path / "file") in refused("match", photo, photo, "-o", tmp_path / "file/a.jpg")
    assert "has to be whitened" in refused("match", photo, photo, "--extractor", "how-squeezenet")
    assert "no such codebook" in refused("match", photo, photo, "--codebook", tmp_path / "gone")
    assert "learned from features of" in refused("match", photo, photo, "--codebook", "rootsift",
                                                 "--contrast-threshold", 0.5)  # fmt: skip
    assert "no such file" in refused("attention", tmp_path / "gone.jpg", "-o", tmp_path / "a.jpg")
    assert "unknown extractor" in refused("attention", photo, "-o", tmp_path / "a.jpg", "--extractor", "eyes")
    assert "gone.jpg: no such file" in fails("match", photo, tmp_path / "gone.jpg")
    assert files(tmp_path) == ["broken.jpg", "file"]
