"""`evaluate` and `query` with `--reranker gv` and `rrt` on drawn photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.reranking.transformer import RerankingTransformer
from asmk_engine.networks.reranking.transformer_files import save_transformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.pipeline import index_folder
from asmk_engine.search.opening import open_index
from asmk_engine.search.query_features import query_source
from asmk_engine.verification.affine_ransac import ransac_match

SCENES, VIEWS = 4, 3
NAMES = [f"{scene}-{view}.png" for scene in range(SCENES) for view in range(VIEWS)]


def picture(scene, view):
    """A view of a scene: random texture, seen from a little further to the right for each view."""
    coarse = Image.fromarray(np.random.default_rng(scene).integers(0, 256, (15, 24, 3), np.uint8))
    whole = coarse.resize((240, 150), Image.Resampling.BICUBIC)
    return whole.crop((12 * view, 3 * view, 180 + 12 * view, 120 + 3 * view))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Photographs, their index of RootSIFT and GeM, one of GeM alone, a network, and a ground truth."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "photos").mkdir()
    for scene in range(SCENES):
        for view in range(VIEWS):
            picture(scene, view).save(folder / "photos" / f"{scene}-{view}.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = {key: value.numpy() for key, value in build_backbone("squeezenet1_1").state_dict().items()}
        save_transformer(
            folder / "rrt.safetensors",
            RerankingTransformer(TransformerOptions(512, 128, layers=1, heads=2, hidden=8)), {},
        )  # fmt: skip
    np.savez(folder / "squeezenet.npz", **backbone)
    options = {"workers": 0, "max_side": 180}
    index_folder(folder / "photos", folder / "two.index", extractor="rootsift,gem", weights=folder / "squeezenet.npz",
                 max_features=100, **options)  # fmt: skip
    index_folder(folder / "photos", folder / "gem.index", extractor="gem", weights=folder / "squeezenet.npz", **options)
    queries = [
        {"query": f"{scene}-0.png", "bbox": [0, 0, 150, 110], "easy": [f"{scene}-1.png"], "hard": [f"{scene}-2.png"],
         "junk": []}
        for scene in range(SCENES)
    ]  # fmt: skip
    (folder / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    return folder


def run(*arguments):
    return CliRunner().invoke(commands, [*map(str, arguments)])


def hits_of(*arguments):
    result = run(*arguments, "--format", "jsonl", "-q")
    assert result.exit_code == 0, (result.output, result.exception)
    return [hit["name"] for hit in json.loads(result.stdout)["hits"]]


def test_gv_ranks_by_inliers(world):
    source = query_source(open_index(world / "two.index"))
    asked = ("query", world / "two.index", "1-0.png", "--top", 11)
    plain, found = hits_of(*asked), hits_of(*asked, "--reranker", "gv", "--rerank", 6)
    local = {name: source.named(name).parts[0] for name in NAMES}
    inliers = {name: ransac_match(local["1-0.png"], local[name]).inliers for name in plain}
    assert found == [*sorted(plain[:6], key=lambda name: -inliers[name]), *plain[6:]]
    assert set(found[:2]) == {"1-1.png", "1-2.png"} and min(inliers[name] for name in found[:2]) > 10


def test_evaluate_by_both(world):
    given = ("evaluate", world / "two.index", "--ground-truth", world / "gnd.json", "--json", "-q")
    by_gv = run(*given, "--reranker", "gv")
    assert by_gv.exit_code == 0, (by_gv.output, by_gv.exception)
    assert json.loads(by_gv.stdout)["medium"]["mAP"] == pytest.approx(100)
    by_rrt = run(*given, "--reranker", "rrt", "--reranker-weights", world / "rrt.safetensors", "--rerank", 8)
    assert by_rrt.exit_code == 0, (by_rrt.output, by_rrt.exception)
    assert 0 < json.loads(by_rrt.stdout)["medium"]["mAP"] < 100


@pytest.mark.parametrize(
    "index, more, message",
    [
        ("gem.index", ["gv"], "no local features"),
        ("gem.index", ["rrt", "--reranker-weights", "rrt.safetensors"], "no local features; rrt needs both"),
        ("two.index", ["rrt"], "needs the weights"),
        ("two.index", ["gv", "--reranker-weights", "rrt.safetensors"], "gv needs no weights"),
        ("two.index", ["gv", "--reranker-weight", 2], "--reranker-weight is of --reranker cvnet"),
        ("two.index", ["rrt", "--reranker-weights", "squeezenet.npz"], "squeezenet.npz"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(world, monkeypatch, index, more, message):
    monkeypatch.chdir(world)
    result = run("query", index, "0-0.png", "--reranker", *more)
    assert result.exit_code != 0
    assert message in f"{result.output}{result.exception}"
    assert result.exception is None or isinstance(result.exception, AsmkError | SystemExit)


def test_one_file_of_delg_describes_both_kinds(world):
    save_stand_in(world / "delg.safetensors", "delg")
    given = ("--weights", world / "delg.safetensors", "--workers", 0, "--words", 4, "--max-features", 200, "-q")
    made = run("index", world / "photos", "-o", world / "delg.index", "--extractor", "delg,delg-local", *given)
    assert made.exit_code == 0, (made.output, made.exception)
    index = open_index(world / "delg.index")
    assert list(index.weights) == ["delg", "delg-local"]
    assert len({kind.recipe.weights for kind in index.snapshot.encoder.kinds}) == 1
    asked = run("query", world / "delg.index", world / "photos/1-0.png", "--kind-weights", "1,0", "--top", 12,
                "--format", "jsonl", "-q")  # fmt: skip
    scores = {hit["name"]: hit["score"] for hit in json.loads(asked.stdout)["hits"]}
    source = query_source(index)
    vectors = {name: source.named(name).parts[0].descriptors[0].astype(float) for name in NAMES}
    assert scores == pytest.approx({name: float(vectors[name] @ vectors["1-0.png"]) for name in NAMES}, abs=1e-3)
    assert all(len(source.named(name).parts[1]) for name in NAMES)
    given = ("--ground-truth", world / "gnd.json", "--reranker", "gv", "--json", "-q")
    evaluated = run("evaluate", world / "delg.index", *given)
    assert evaluated.exit_code == 0, (evaluated.output, evaluated.exception)


def test_one_file_for_two_networks_is_refused(world):
    for names in ("delg,gem", "delg-local,how", "delg,delg-local,how"):
        given = ("--extractor", names, "--weights", world / "squeezenet.npz", "-q")
        result = run("index", world / "photos", "-o", world / "never.index", *given)
        assert isinstance(result.exception, AsmkError), names
        assert "of the extractors" in str(result.exception) and "or delg,delg-local" in str(result.exception)
    assert not (world / "never.index").exists()
