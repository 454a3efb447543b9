"""Several kinds of features from photographs to answers: every command, and the same from Python."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import asmk_engine
from asmk_engine import AsmkWarning, FeatureSet, FusedIndex, FusedSearcher, GlobalIndex, GlobalSearcher, Index, Searcher
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.extractors import registry
from asmk_engine.interop.hloc_pairs import pairs_from_retrieval
from asmk_engine.inverted.geometry_file import ALL_FEATURES
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.pipeline.fused_indexing import default_weights
from asmk_engine.search.query_features import FusedQuerySource
from disks import fast_disk
from naive_fused import fused

MODULE = """
from dataclasses import dataclass

import numpy as np

from asmk_engine.extractors.custom import CustomExtractor


@dataclass(frozen=True)
class Colours(CustomExtractor):
    name = "colours"
    dim = 48
    is_global = True
    max_side: int = 64

    def compute(self, pixels):
        if min(pixels.shape[:2]) < 20:
            raise ValueError("too small for it")
        rows = np.array_split(pixels.astype(float), 4, 0)
        grid = np.array([cell.mean((0, 1)) for row in rows for cell in np.array_split(row, 4, 1)]).ravel() - 127
        return grid / np.linalg.norm(grid)
"""
KINDS = "rootsift,their_colours:Colours"
NAMED = ["rootsift", "their_colours:Colours"]
OPTIONS = ("--extractor", KINDS, "--max-features", 100, "--workers", 0)
OWN = ("--extractor", "their_colours:Colours")
SCENES, VIEWS = 5, 3


def picture(scene: int, view: int) -> Image.Image:
    """A view of a scene: random texture, seen from a little further to the right for each view."""
    rng = np.random.default_rng(scene)
    coarse = Image.fromarray(rng.integers(0, 256, (15, 24, 3), np.uint8))
    whole = coarse.resize((240, 150), Image.Resampling.BICUBIC)
    return whole.crop((12 * view, 3 * view, 180 + 12 * view, 120 + 3 * view))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fused")
    (folder / "photos").mkdir()
    for scene in range(SCENES):
        for view in range(VIEWS):
            picture(scene, view).save(folder / "photos" / f"{scene}-{view}.png")
    picture(2, VIEWS).save(folder / "query.png")
    return folder


@pytest.fixture
def world(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs, a query, and the module of a stranger."""
    fast_disk(monkeypatch)
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name == "their_colours"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "their_colours.py").write_text(MODULE)
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def run(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def fails(error: type[AsmkError], *arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, error), (result.output, result.exception)
    message = str(result.exception)
    assert "\n" not in message
    return message


def answers(*arguments: object) -> dict[str, list[tuple[str, float]]]:
    lines = run("query", *arguments, "--format", "jsonl", *OWN).stdout.splitlines()
    found = {}
    for line in lines:
        content = json.loads(line)
        found[content["query"]] = [(hit["name"], hit["score"]) for hit in content["hits"]]
    return found


def single(folder: Path) -> tuple[Searcher, GlobalSearcher]:
    """A searcher of each kind alone, on indexes that the commands make of the same features and codebook."""
    index = FusedIndex.open("p.index")
    index.encoders["rootsift"].save("book.h5")  # type: ignore[union-attr]
    run("index", "p.rootsift.features", "--codebook", "book.h5", "-o", "a.index")
    run("index", "p.their_colours-Colours.features", "-o", "b.index")
    return Searcher(Index.open(folder / "a.index")), GlobalSearcher(GlobalIndex.open(folder / "b.index"))


def expected(searchers: Sequence[Any], query: Any, weights: Sequence[float], own: str = "") -> list[tuple[str, float]]:
    each = [searcher.search(query, None) for searcher in searchers]
    return fused([{hit.name: hit.score for hit in hits} for hits in each], weights, frozenset([own]))


def close(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted])


def test_from_photographs_to_answers(world: Path) -> None:
    """`query` by file, name, region and for all images gives the twin's fusion of what each kind alone gives."""
    said = run("index", "photos", "-o", "p.index", *OPTIONS).stderr
    assert "p.index: 15 images of rootsift and their_colours:Colours: 15 added" in said
    index = FusedIndex.open("p.index")
    assert index.weights == {"rootsift": 0.5, "their_colours:Colours": 0.5} and index.images == 15
    assert index.snapshot.manifest.commit == 2  # the empty index, and one commit for both kinds
    assert isinstance(asmk_engine.open_index("p.index"), FusedIndex)
    searchers = single(world)
    close(answers("p.index", "query.png", "--top", 99)["query.png"], expected(searchers, "query.png", (0.5, 0.5)))
    assert answers("p.index", "query.png")["query.png"][0][0] == "2-2.png"
    others = {name: expected(searchers, f"photos/{name}", (0.5, 0.5), name) for name in index.names}
    for name, found in answers("p.index", "--all", "--top", 99).items():
        close(found, [pair for pair in others[name] if pair[0] != name])
    close(
        answers("p.index", "1-1.png", "--top", 4)["1-1.png"],
        [one for one in others["1-1.png"] if one[0] != "1-1.png"][:4],
    )
    weighed = answers("p.index", "query.png", "--top", 99, "--kind-weights", "1,3")["query.png"]
    close(weighed, expected(searchers, "query.png", (0.25, 0.75)))
    alone = answers("p.index", "query.png", "--top", 99, "--kind-weights", "1,0")["query.png"]
    assert [name for name, _ in alone] == [hit.name for hit in searchers[0].search("query.png", None)]
    box = (10, 5, 150, 110)
    picture(2, VIEWS).crop(box).save("region.png")
    region = answers("p.index", "query.png", "--box", ",".join(map(str, box)), "--top", 99)["query.png"]
    assert [name for name, _ in region[:3]] == [name for name, _ in answers("p.index", "region.png")["region.png"][:3]]
    own = answers("p.index", "2-0.png", "--box", "10,5,150,110", "--top", 99)["2-0.png"]
    assert "2-0.png" not in dict(own) and own[0][0].startswith("2-")


def test_the_local_kinds_verify_what_all_kinds_found(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    hits = FusedSearcher(FusedIndex.open("p.index")).search("query.png", top=3, rerank=10)
    assert {hit.name[0] for hit in hits} == {"2"}
    for hit in hits:
        (match,) = hit.matches  # the global descriptor has no places
        assert match is not None and match.inliers > 5
        view = int(hit.name[2])
        np.testing.assert_allclose(match.affine[:, 2], [12 * (VIEWS - view), 3 * (VIEWS - view)], atol=3)
    line = run("query", "p.index", "query.png", "--rerank", 10, "--top", 3, "--format", "jsonl", *OWN).stdout
    assert [hit["score"] for hit in json.loads(line)["hits"]] == pytest.approx([hit.score for hit in hits])


def test_geometry_is_kept_of_the_local_kinds(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    assert "keeps no geometry of an image; add --replace" in fails(
        InputError, "index", "photos", "-o", "p.index", "--geometry", 20
    )
    run("index", "photos", "-o", "p.index", "--geometry", 20, "--replace")
    local, whole = json.loads(run("info", "p.index", "--json").stdout)["kinds"]
    assert (local["geometry"]["keeps"], local["geometry"]["images"], whole["geometry"]) == (20, 15, None)
    assert "the strongest 20 of the features of new images; 15 images have it" in run("info", "p.index").stdout
    run("index", "photos", "-o", "q.index", *OPTIONS, "--geometry")
    assert FusedIndex.open("q.index").geometry == ALL_FEATURES
    assert "have no geometry" in fails(
        InputError, "index", "photos", "-o", "g.index", *OWN, "--workers", 0, "--geometry", 20
    )


def test_python_gives_what_the_command_gives(world: Path) -> None:
    made = asmk_engine.index_folder(
        "photos", "q.index", extractor=KINDS, max_features=100, workers=0, kind_weights=[3, 1]
    )
    run("index", "photos", "-o", "p.index", *OPTIONS, "--kind-weights", "3,1")
    assert isinstance(made, FusedIndex) and made.weights == {"rootsift": 0.75, "their_colours:Colours": 0.25}
    for name in ("rootsift", "their_colours-Colours"):
        assert FeatureSet.open(f"q.{name}.features").names == made.names
    hits = FusedSearcher(made).search("query.png", top=5)
    assert [(hit.name, hit.score) for hit in hits] == answers("p.index", "query.png", "--top", 5)["query.png"]
    again = FusedSearcher(asmk_engine.open_index("p.index"))  # type: ignore[arg-type]
    with Image.open("query.png") as opened:
        for photograph in (Path("query.png"), opened, np.asarray(opened)):
            assert again.search(photograph, top=5) == hits
    boxed = again.search("query.png", top=3, box=(10, 5, 150, 110))
    assert [(one.name, one.score) for one in boxed] == answers(
        "p.index", "query.png", "--top", 3, "--box", "10,5,150,110"
    )["query.png"]
    assert again.search(["query.png", "photos/0-0.png"], 5)[0] == hits
    named = again.search_name("0-0.png", 5)
    assert named == again.search("photos/0-0.png", 5) and named[0].name == "0-0.png" and named[0].score > named[1].score
    with pytest.raises(NotFoundError, match="for the indexed image of this name use search_name"):
        again.search("0-0.png")
    with pytest.raises(InputError, match="box"):
        again.search("query.png", box=(500, 500, 600, 600))
    assert again.scores("query.png")[hits[0].name] == hits[0].score
    pairs_from_retrieval(None, "pairs.txt", 2, index=again)
    assert Path("pairs.txt").read_text().splitlines()[0].split() == [
        "0-0.png", next(hit.name for hit in named if hit.name != "0-0.png")
    ]  # fmt: skip


def measured(ground_truth: Path, *more: object) -> tuple[dict[str, Any], dict[str, list[tuple[str, float]]]]:
    """The report of an evaluation, and the rankings that it saved, without the queries themselves."""
    call = ("evaluate", "p.index", "--ground-truth", ground_truth, "--json", "--images", "photos", *OWN, *more)
    report = json.loads(run(*call).stdout)
    assert json.loads(run(*call, "--save-run", "run.jsonl", "--run-format", "jsonl").stdout) == report
    again = json.loads(run("evaluate", "--run", "run.jsonl", "--ground-truth", ground_truth, "--json").stdout)
    assert again == report
    rankings = {}
    for line in Path("run.jsonl").read_text().splitlines():
        content = json.loads(line)
        hits = [(hit["name"], hit["score"]) for hit in content["hits"]]
        rankings[content["query"]] = [hit for hit in hits if hit[0] != content["query"]]
    return report, rankings


def test_an_evaluation_is_the_same_with_the_queries_in_the_index_or_not(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    names = [[f"{scene}-{view}.png" for view in range(VIEWS)] for scene in range(SCENES)]
    queries = [{"query": s[0], "bbox": [5, 5, 170, 110], "easy": [s[1]], "hard": [s[2]], "junk": []} for s in names]
    others = [name for scene in names for name in scene[1:]]
    Path("all.json").write_text(json.dumps({"imlist": [s[0] for s in names] + others, "queries": queries}))
    Path("without.json").write_text(json.dumps({"imlist": others, "queries": queries}))
    report, rankings = measured(Path("all.json"))
    assert report["medium"]["queries"] == SCENES and report["medium"]["mAP"] > 50
    distractors = FusedIndex.create("more.index", FusedIndex.open("p.index").encoders)
    distractors.remember(FusedIndex.open("p.index"))
    (world / "more").mkdir()
    picture(9, 0).save("more/9-0.png")
    run("index", "more", "-o", "more.index", *OPTIONS)
    _, pushed = measured(Path("all.json"), "--distractors", "more.index")
    assert any(name == "distractor1:9-0.png" for name, _ in pushed["1-0.png"])
    run("delete", "p.index", *(scene[0] for scene in names))
    without, left = measured(Path("without.json"))
    assert without["medium"] == report["medium"] and left.keys() == rankings.keys()
    for query, hits in rankings.items():
        kept = [hit for hit in hits if hit[0] in others]
        assert kept == left[query] and kept[0][0][0] == query[0]


def test_the_most_similar_images_vote_with_their_labels(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    rows = [f"{scene}-{view}.png,scene{scene}" for scene in range(SCENES) for view in range(VIEWS)]
    Path("labels.csv").write_text("\n".join(["image,label", *rows]))
    said = run("classify", "p.index", "--all", "--labels", "labels.csv", "--neighbours", 1, *OWN)
    assert "accuracy 100.00 %" in said.stderr
    found = run("classify", "p.index", "query.png", "--labels", "labels.csv", "--kind-weights", "1,1", *OWN).stdout
    assert found.splitlines()[1].endswith("scene2")


def test_later_photographs_are_added_to_all_kinds_in_one_commit(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    before = FusedIndex.open("p.index").snapshot.manifest.commit
    picture(7, 0).save("photos/7-0.png")
    said = run("index", "photos", "-o", "p.index", *OPTIONS).stderr
    assert said.count("1 image extracted") == 2 and "1 added, 0 replaced, 15 already indexed" in said
    index = FusedIndex.open("p.index")
    assert index.snapshot.manifest.commit == before + 1 and "7-0.png" in index
    place = index.snapshot.find("7-0.png")
    assert place is not None and index.snapshot.lacking(place) == (False, False)
    assert "0 added" in run("index", "photos", "-o", "p.index", "--workers", 0).stderr  # the extractors of the index
    assert FusedIndex.open("p.index").snapshot.manifest.commit == before + 1
    whole = asmk_engine.index_folder("photos", "w.index", extractor=KINDS, max_features=100, workers=0)
    assert whole.names == index.names
    # --update, --prune and --prefix, as for one kind
    picture(8, 1).save("photos/7-0.png")
    result = invoke("index", "photos", "-o", "p.index", "--workers", 0)
    assert result.exit_code == 1 and "whose file was replaced by another: '7-0.png'" in str(result.exception)
    said = run("index", "photos", "-o", "p.index", "--update", "--workers", 0).stderr
    assert "0 added, 1 replaced, 15 already indexed" in said
    known = FusedIndex.open("p.index").identity("7-0.png")
    assert known is not None and known.fingerprint == file_fingerprint(Path("photos/7-0.png"))
    assert FusedIndex.open("p.index").snapshot.lacking(FusedIndex.open("p.index").snapshot.find("7-0.png")) == (
        False,
        False,
    )  # type: ignore[arg-type]
    Path("photos/7-0.png").unlink()
    assert "--prune removes 1 of 16 images" in run("index", "photos", "-o", "p.index", "--prune", "--workers", 0).stderr
    assert FusedIndex.open("p.index").images == 15
    assert FeatureSet.open("p.rootsift.features").names == FeatureSet.open("p.their_colours-Colours.features").names
    (world / "card").mkdir()
    picture(6, 0).save("card/0-0.png")
    assert "1 added" in run("index", "card", "-o", "p.index", "--prefix", "card2", "--workers", 0).stderr
    assert FusedIndex.open("p.index").names[-1] == "card2/0-0.png"


def test_an_image_is_kept_with_the_kinds_that_worked(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    picture(3, 0).crop((0, 0, 160, 12)).save("photos/slim.png")
    (world / "photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = run("index", "photos", "-o", "p.index", *OPTIONS).stderr
    assert "1 image kept without their_colours:Colours, which failed on them: 'slim.png'" in said
    assert "skipped 'slim.png': the extractor failed on it (ValueError: too small for it)" in said
    index = FusedIndex.open("p.index")
    assert "slim.png" in index and "broken.png" not in index
    place = index.snapshot.find("slim.png")
    assert place is not None and index.snapshot.lacking(place)[1]
    assert all(
        name != "slim.png" or score >= 0 for name, score in answers("p.index", "query.png", "--top", 99)["query.png"]
    )
    assert "slim.png" in answers("p.index", "slim.png")  # by the kinds that the index has of it
    with pytest.warns(AsmkWarning) as told:
        asmk_engine.index_folder("photos", "p.index", workers=0)
    texts = [str(one.message) for one in told]
    assert any(
        "kept without some kinds of features: 'slim.png': their_colours:Colours: the ext" in text for text in texts
    )
    assert any("could not be read and left out: 'broken.png'" in text for text in texts)
    # The extractor learns it: the next run completes the image.
    picture(3, 0).crop((0, 0, 160, 90)).save("photos/slim.png")
    assert "1 replaced" in run("index", "photos", "-o", "p.index", "--update", "--workers", 0).stderr
    index = FusedIndex.open("p.index")
    assert index.snapshot.lacking(index.snapshot.find("slim.png")) == (False, False)  # type: ignore[arg-type]


def test_an_interrupted_run_goes_on(world: Path) -> None:
    """Stopped after the first kind was extracted: nothing is indexed, and the next run extracts only the second."""

    def stop(stage: str, done: int, total: int) -> None:
        seen.append(stage)
        if seen.count("extract") > 17 and done > 3:
            raise KeyboardInterrupt

    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        asmk_engine.index_folder("photos", "p.index", extractor=KINDS, max_features=100, workers=0, progress=stop)
    assert not Path("p.index").exists() and len(FeatureSet.open("p.rootsift.features")) == 15
    said = run("index", "photos", "-o", "p.index", *OPTIONS).stderr
    assert "p.rootsift.features: 0 images extracted" in said and FusedIndex.open("p.index").images == 15


def test_deleting_merging_checking_repairing_and_describing(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    before = answers("p.index", "query.png", "--top", 99)
    assert "2 images deleted, 13 images left" in run("delete", "p.index", "0-0.png", "0-1.png").stderr
    assert "nothing was deleted" in fails(NotFoundError, "delete", "p.index", "0-0.png")
    assert "1 segment before, 1 now" in run("merge", "p.index").stderr
    left = answers("p.index", "query.png", "--top", 99)
    assert [pair for pair in before["query.png"] if pair[0] not in ("0-0.png", "0-1.png")] == left["query.png"]
    assert "13 images, 5 files" in run("check", "p.index").stdout
    described = json.loads(run("info", "p.index", "--json", "--names").stdout)
    assert described["kind"] == "fused index" and described["images"] == 13 and len(described["names"]) == 13
    assert [kind["name"] for kind in described["kinds"]] == NAMED
    assert described["bytes"] == sum(file.stat().st_size for file in Path("p.index").iterdir())
    shown = run("info", "p.index").stdout
    assert "rootsift, weight 0.5, 13 images" in shown and "48 dimensions, single precision" in shown
    part = next(Path("p.index").glob("segment-*-2.safetensors"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes(data)
    assert invoke("check", "p.index").exit_code == 1 and part.name in invoke("check", "p.index", "--json").stdout
    assert "nothing was changed" in run("repair", "p.index").stdout
    assert "13 images kept without their_colours:Colours" in run("repair", "p.index", "--yes").stdout
    assert run("check", "p.index").exit_code == 0 and FusedIndex.open("p.index").images == 13
    run("index", "photos", "-o", "p.index", "--workers", 0)
    assert answers("p.index", "query.png", "--top", 99) == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--extractor", "rootsift,rootsift"), InputError, "expected different names separated by commas"),
        (("--extractor", "rootsift,"), InputError, "expected different names separated by commas"),
        (("--extractor", "rootsift,nonsense"), InputError, "unknown extractor 'nonsense'"),
        ((*OPTIONS, "--kind-weights", "1"), InputError, "for 2 kinds of features; give one of 0 or more for each"),
        ((*OPTIONS, "--kind-weights", "0,0"), InputError, "not all of them 0"),
        ((*OPTIONS, "--concatenate"), InputError, "--concatenate makes one kind of features of several"),
        ((*OPTIONS, "--exponent", "3"), InputError, "none of the extractors rootsift, their_"),
        ((*OPTIONS, "--weights", "x.pth"), InputError, "x.pth: weights for 0 of the extractors"),
        (("--extractor", "rootsift", "--kind-weights", "1"), InputError, "weights were given for one kind of features"),
        (("--extractor", f"rootsift:scales=2,{OWN[1]}"), InputError, "rootsift has no option 'scales' of its own"),
        (("--extractor", f"rootsift:max-features=no,{OWN[1]}"), InputError, "max_features is 'no'"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_before_any_work(
    world: Path, arguments: tuple[object, ...], error: type[AsmkError], message: str
) -> None:
    assert message in fails(error, "index", "photos", "-o", "p.index", "--workers", 0, *arguments)
    assert not list(world.glob("p.*"))


def test_default_weights() -> None:
    assert default_weights(["rootsift", "their_colours:Colours"]) == [1, 1]
    assert default_weights(["how-efficientnet-lite0", "rootsift"]) == [1, 0.5]
    assert default_weights(["rootsift", "gem", "how"]) == [0.5, 1, 1] and default_weights(["gem", "spoc"]) == [1, 1]


def test_an_option_of_one_kind_alone(world: Path) -> None:
    kinds = f"rootsift:max_features=30:max-side=128, {OWN[1]}:max_side=32"
    run("index", "photos", "-o", "p.index", "--workers", 0, "--extractor", kinds)
    index = FusedIndex.open("p.index")
    assert list(index.weights) == NAMED
    recipes = {name: encoder.recipe.options for name, encoder in index.encoders.items()}
    assert (recipes["rootsift"]["max_features"], recipes["rootsift"]["max_side"]) == (30, 128)
    assert recipes[OWN[1]]["max_side"] == 32
    assert answers("p.index", "query.png", "--top", 3)["query.png"][0][0].startswith("2-")


def test_an_index_keeps_its_kinds(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS, "--kind-weights", "1,3")
    assert FusedIndex.open("p.index").weights["rootsift"] == 0.25
    swapped = ("--extractor", ",".join(reversed(NAMED)), "--max-features", 100, "--workers", 0)
    run("index", "photos", "-o", "p.index", *swapped, "--kind-weights", "3,1")  # in the order of --extractor
    assert FusedIndex.open("p.index").weights["rootsift"] == 0.25
    run("index", "photos", "-o", "p.index", "--kind-weights", "2,2", "--workers", 0)
    assert FusedIndex.open("p.index").weights["rootsift"] == 0.5
    for given in ("rootsift", "rootsift,their_colours:Colours,how"):
        message = fails(MismatchError, "index", "photos", "-o", "p.index", "--extractor", given)
        assert f"its kinds of features are rootsift, their_colours:Colours, not {given}" in message
    run("index", "photos", "-o", "one.index", "--extractor", "rootsift", "--workers", 0)
    assert "has one kind of features, not" in fails(MismatchError, "index", "photos", "-o", "one.index", *OPTIONS)
    assert "leave --kind-weights out" in fails(InputError, "query", "one.index", "query.png", "--kind-weights", "1,1")
    assert "several kinds of features are extracted from images" in fails(
        InputError, "index", "p.rootsift.features", "-o", "p.index"
    )
    assert "an index of several kinds" in fails(FormatError, "augment", "p.index", "-o", "x.index")


def test_the_network_of_a_kind_is_in_the_index(world: Path) -> None:
    """Weights go to the one extractor with a network, and options to those that have them."""
    save_stand_in(Path("net.safetensors"), "gem")
    few = [f"photos/{scene}-{view}.png" for scene in range(3) for view in range(2)]
    options = ("--max-side", 120, "--max-features", 80, "--half", "--workers", 0)
    run("index", *few, "-o", "g.index", "--extractor", "rootsift,gem", "--weights", "net.safetensors", *options)
    index = FusedIndex.open("g.index")
    network = index.kind_network(1)
    assert index.kind_network(0) is None and network is not None and network.parent == Path("g.index")
    recipes = [kind.recipe.options for kind in index.snapshot.encoder.kinds]
    assert recipes[0]["max_features"] == 80 and recipes[0]["max_side"] == recipes[1]["max_side"] == 120
    hits = FusedSearcher(index).search("query.png")
    for place in (*world.glob("g.*.features"), *world.glob("*.safetensors")):  # nothing but the index is left
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert FusedSearcher(FusedIndex.open("g.index")).search("query.png") == hits
    data = bytearray(network.read_bytes())
    data[len(data) // 2] ^= 4
    network.write_bytes(data)
    assert network.name in run("repair", "g.index", "--yes").stdout
    again = FusedIndex.open("g.index")
    assert again.kind_network(1) is None and again.images == index.images and run("check", "g.index").exit_code == 0
    with pytest.raises(NotFoundError, match="which is not on this machine"):
        FusedSearcher(again).search("query.png")


def test_an_index_imports_no_module_that_it_names(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.delitem(sys.modules, "their_colours")
    for command in (("index", "photos", "-o", "p.index", "--workers", 0), ("query", "p.index", "query.png")):
        message = fails(InputError, *command)
        assert "there is no extractor 'colours' here" in message and "their_colours" not in sys.modules
    message = fails(InputError, "index", "photos", "-o", "p.index", "--max-features", 50)
    assert "add --extractor rootsift,their_colours:Colours" in message and "their_colours" not in sys.modules
    run("info", "p.index"), run("check", "p.index"), run("delete", "p.index", "0-0.png"), run("merge", "p.index")
    assert "their_colours" not in sys.modules


def test_a_folder_of_broken_files_makes_no_index(world: Path) -> None:
    (world / "broken").mkdir()
    (world / "broken/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    message = fails(InputError, "index", "broken", "-o", "p.index", *OPTIONS)
    assert message.startswith("none of 1 images could be read: a.png: ") and not Path("p.index").exists()


def test_features_of_one_kind_may_be_given_for_queries(world: Path) -> None:
    run("index", "photos", "-o", "p.index", *OPTIONS)
    index = FusedIndex.open("p.index")
    source = FusedQuerySource(index, features="p.rootsift.features")
    found, is_indexed = source.features("0-0.png")
    assert is_indexed and all(part is not None for part in found.parts)
    shutil.copytree("photos", "others")
    run("extract", "others", "-o", "others.features", "--extractor", "rootsift", "--max-features", 7, "--workers", 0)
    with pytest.raises(MismatchError, match="which is no kind of the index"):
        FusedQuerySource(index, features="others.features")
    shutil.rmtree("p.their_colours-Colours.features")  # extracted again from the photograph
    again = answers("p.index", "0-0.png", "--top", 99)["0-0.png"]
    assert again == answers("p.index", "photos/0-0.png", "--top", 99)["photos/0-0.png"][1:]
