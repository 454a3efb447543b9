"""The commands on indexes of either kind: the same verbs, the same forms, errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, InputError
from asmk_engine.features import FeatureSet
from asmk_engine.flat import Expansion, GlobalIndex, GlobalSearcher
from asmk_engine.indexes.answers import Hit
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.pipeline.global_indexing import segment_bytes
from asmk_engine.recipes import Recipe
from asmk_engine.search.fusion import fuse
from disks import fast_disk
from global_samples import DIM, RECIPE, global_images, write_global
from samples import random_codebook, random_images, write_features

NAMES = sorted(global_images(20))


def run(*arguments: object) -> tuple[str, str]:
    """Results and messages of a command that works."""
    result = CliRunner().invoke(commands, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout, result.stderr


def fails(*arguments: object) -> str:
    """The one line of the error of a command that does not."""
    result = CliRunner().invoke(commands, list(map(str, arguments)))
    assert isinstance(result.exception, AsmkError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Feature sets of two global recipes and one of local features, and an index of the first and the last."""
    fast_disk(monkeypatch)
    write_global(tmp_path / "gem.features", global_images(20))
    write_global(tmp_path / "spoc.features", global_images(20, 16, seed=2), Recipe("spoc"))
    local = dict(zip(NAMES, random_images(20, DIM).values(), strict=True))
    features = write_features(tmp_path / "local.features", local)
    Index.create(tmp_path / "local.index", random_codebook(8, DIM)).add(features)
    run("index", tmp_path / "gem.features", "-o", tmp_path / "gem.index")
    return tmp_path


def test_the_verbs_work_on_a_global_index(folder: Path) -> None:
    index = folder / "gem.index"
    _, told = run("index", folder / "gem.features", "-o", index, "--pca", 4)
    assert "0 added, 0 replaced, 20 already indexed" in told and "--pca ignored" in told
    assert "20 images left" in run("delete", index, "nobody", "--missing-ok")[1]
    assert "18 images left" in run("delete", index, *NAMES[:2])[1]
    assert "1 segment before, 1 now" in run("merge", index)[1]
    assert "clean" in run("check", index)[0] and "nothing to repair" in run("repair", index)[0]
    assert "2 added" in run("index", folder / "gem.features", "-o", index)[1]
    found = json.loads(run("info", index, "--json")[0])
    assert (found["kind"], found["images"], found["dim"], found["precision"]) == ("global index", 20, DIM, "single")
    assert found["bytes"] == sum(found["bytes_by_part"].values()) == sum(f.stat().st_size for f in index.iterdir())
    shown = run("info", index)[0]
    assert "24 to 24 dimensions, single precision" in shown and "gem p=3.0" in shown
    assert run("info", index, "--names")[0].split("\n")[:-1] == [name.replace(" ", "%20") for name in NAMES]


@pytest.mark.parametrize(("options", "expected"), [
    (["--half"], (24, "half", None, 48)),
    (["--pca", 8, "--whiten"], (8, "single", None, 32)),
    (["--pca", 16, "--pq", 8], (16, "product", 8, 2)),
    (["--pq", 1], (24, "product", 1, 24)),
])  # fmt: skip
def test_an_index_is_made_smaller_as_asked(folder: Path, options: list[object], expected: tuple[object, ...]) -> None:
    write_global(folder / "more.features", global_images(300))
    run("index", folder / "gem.features", "-o", folder / "x.index", "--train-on", folder / "more.features", *options)
    found = json.loads(run("info", folder / "x.index", "--json")[0])
    assert tuple(found[key] for key in ("dim", "precision", "sub_space", "bytes_per_vector")) == expected
    assert "trained" in run("info", folder / "x.index")[0]
    assert run("query", folder / "x.index", NAMES[4])[0].startswith("# image%20004.jpg\n   1  ")


def answers(output: str) -> dict[str, list[tuple[str, float]]]:
    lines = [json.loads(line) for line in output.splitlines()]
    return {line["query"]: [(hit["name"], hit["score"]) for hit in line["hits"]] for line in lines}


def as_told(hits: list[Hit], query: str, top: int) -> list[tuple[str, float]]:
    return [(hit.name, pytest.approx(hit.score, abs=1e-6)) for hit in hits if hit.name != query][:top]


def test_queries_are_answered_as_by_the_searcher(folder: Path) -> None:
    index, features = folder / "gem.index", FeatureSet.open(folder / "gem.features")
    for options, expansion in (([], None), (["--expansion", 3, "--expansion-alpha", 1], Expansion(3, 1.0))):
        searcher = GlobalSearcher(GlobalIndex.open(index), expansion)
        found = answers(run("query", index, *NAMES[3:5], "--format", "jsonl", "--top", 4, *options)[0])
        for name in NAMES[3:5]:
            assert found[name] == as_told(searcher.search(features.read(name), 5), name, 4)
    assert len(answers(run("query", index, "--all", "--format", "jsonl")[0])) == 20
    _, told = run("query", index, NAMES[3], "--idf")
    assert "--idf: ignored" in told


@pytest.mark.parametrize("method", ["scores", "ranks"])
def test_answers_of_two_kinds_are_fused(folder: Path, method: str) -> None:
    name, weight = NAMES[5], 0.25
    one, two = folder / "gem.index", folder / "local.index"
    rankings = [
        GlobalSearcher(GlobalIndex.open(one)).search(FeatureSet.open(folder / "gem.features").read(name), None),
        Searcher(Index.open(two)).search(FeatureSet.open(folder / "local.features").read(name), None),
    ]
    arguments = ["--fusion", method, "--format", "jsonl", "--top", 5]
    expected = as_told(fuse(rankings, method=method, weights=[1 - weight, weight]), name, 5)
    assert answers(run("query", one, name, "--fuse", two, "--fuse-weight", weight, *arguments)[0])[name] == expected
    swapped = answers(run("query", two, name, "--fuse", one, "--fuse-weight", 1 - weight, *arguments)[0])[name]
    assert swapped == expected
    assert run("query", two, name, "--fuse", one, "--expansion", 2)[0] != run("query", two, name, "--fuse", one)[0]


def test_a_global_index_is_evaluated_with_distractors(folder: Path) -> None:
    queries = [{"query": NAMES[0], "bbox": None, "easy": NAMES[1:2], "hard": NAMES[3:4], "junk": []}]
    (folder / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    call = ["evaluate", folder / "gem.index", "--ground-truth", folder / "gnd.json", "--json"]
    assert json.loads(run(*call)[0])["easy"]["mAP"] == 100  # the two are equal
    write_global(folder / "more.features", global_images(30, prefix="far", seed=6))
    run("index", folder / "more.features", "-o", folder / "far.index")
    far = json.loads(run(*call, "--distractors", folder / "far.index", "--expansion", 2)[0])
    assert far["easy"]["mAP"] == 100 and far["hard"]["mAP"] < 100


def test_several_sets_are_one_index(folder: Path) -> None:
    sets = [folder / "gem.features", folder / "spoc.features"]
    call = ["index", *sets, "--concatenate", "--part-weights", "1,2", "-o", folder / "both.index"]
    assert "20 added" in run(*call)[1]
    assert "20 already indexed" in run(*call)[1]
    both = FeatureSet.open(folder / "both.features")
    assert both.dim == DIM + 16 and json.loads(run("info", folder / "both.index", "--json")[0])["input_dim"] == both.dim
    assert answers(run("query", folder / "both.index", NAMES[6], "--format", "jsonl")[0])[NAMES[6]]


def test_the_database_is_augmented(folder: Path) -> None:
    run("augment", folder / "gem.index", "-o", folder / "blended.index", "--neighbours", 3)
    found = json.loads(run("info", folder / "blended.index", "--json")[0])
    assert found["augmentation"] == {"neighbours": 3, "alpha": 3.0} and found["images"] == 20
    assert "neighbours 3" in run("info", folder / "blended.index")[0]
    assert answers(run("query", folder / "blended.index", NAMES[6], "--format", "jsonl")[0])[NAMES[6]]
    assert "augmented" in fails("index", folder / "gem.features", "-o", folder / "blended.index", "--replace")


def test_what_does_not_fit_is_one_line(folder: Path) -> None:
    gem, spoc, local = (folder / f"{kind}.features" for kind in ("gem", "spoc", "local"))
    new, index = folder / "new.index", folder / "gem.index"
    for arguments, message in (
        (["index", spoc, "-o", index], "descriptors of [spoc]"),
        (["index", local, "-o", index], "is for [gem"),
        (["index", gem, "-o", folder / "local.index"], "features of [gem"),
        (["index", local, "-o", new, "--pca", 4], "--pca for local features"),
        (["index", gem, "-o", new, "--codebook", folder / "c.h5"], "c.h5"),
        (["index", gem, "-o", new, "--pq", 8], "20 training descriptors for 256 centroids"),
        (["index", gem, "-o", new, "--pca", 30], "30 dimensions, the descriptors have 24"),
        (["index", gem, "-o", new, "--pca", 4, "--train-on", spoc], "train on descriptors of the same kind"),
        (["index", gem, "-o", new, "--pq", 8, "--half"], "choose one"),
        (["index", gem, "-o", new, "--memory", "100M"], "allows 100 MiB"),
        (["index", gem, spoc, "-o", new], "a feature set must be the only input"),
        (["index", gem, local, "-o", new, "--concatenate"], "many descriptors per image"),
        (["query", folder / "local.index", NAMES[3], "--expansion", 3], "--expansion needs global descriptors"),
        (["query", index, "nobody"], "neither an image of"),
        (["augment", folder / "local.index", "-o", new], "expected a global index"),
        (["augment", index, "-o", index], "not empty"),
        (["evaluate", index, "--ground-truth", folder / "g.json", "--distractors", folder / "local.index"], "g.json"),
    ):
        assert message in fails(*arguments)
        assert not new.exists() or not any(new.iterdir())
    with pytest.raises(InputError, match="needs at least 448M"):
        segment_bytes(1 << 20)
    assert segment_bytes(None) == segment_bytes(8 << 30) > segment_bytes(500 << 20)


def test_a_part_of_a_concatenation_from_elsewhere_says_so(folder: Path) -> None:
    broken = Recipe("concatenation", {"parts": "none"})
    vector = {"a.jpg": next(iter(global_images(1).values()))}
    run("index", write_global(folder / "odd.features", vector, broken).path, "-o", folder / "odd.index")
    image = folder / "photo.png"
    import cv2

    cv2.imwrite(str(image), np.zeros((40, 40, 3), np.uint8))
    assert "features of the queries" in fails("query", folder / "odd.index", image)
    assert RECIPE.is_global
