"""From a folder of photographs to rankings with a network: its file is created, copied to the index, and found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.checkpoints import open_checkpoint
from asmk_engine.storage.user_files import file_sha256

HOW_SQUEEZENET = ("--extractor", "how-squeezenet", "--max-side", 256, "--scales", "1,0.707", "--workers", 0, "-q")
PHOTOGRAPHS = 12


def run(*arguments: object) -> None:
    commands.main([*map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of SqueezeNet 1.1 with its classifier, as torchvision publishes it, but of random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1-00000000.pth"
    classifier = {"classifier.1.weight": torch.zeros(1000, 512, 1, 1), "classifier.1.bias": torch.zeros(1000)}
    torch.save(build_backbone("squeezenet1_1").state_dict() | classifier, path)
    return path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with drawn photographs, and an empty cache of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASMK_ENGINE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(PHOTOGRAPHS):
        coarse = rng.integers(0, 256, (18, 24, 3), np.uint8)
        Image.fromarray(coarse).resize((256, 192), Image.Resampling.BICUBIC).save(f"photos/{number:02d}.png")
    return tmp_path


def test_an_index_answers_new_photographs_when_everything_else_is_gone(
    world: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = shutil.copy(backbone, "backbone.pth")
    run("index", "photos", "-o", "photos.index", "--weights", weights, "--words", 32, *HOW_SQUEEZENET)
    shutil.copy("photos/03.png", "mine.png")
    for gone in ("photos", "photos.features"):
        shutil.rmtree(gone)
    Path("photos.network.safetensors").unlink()
    Path("backbone.pth").unlink()
    Path("photos.index").rename("moved.index")
    capsys.readouterr()
    run("query", "moved.index", "mine.png", "--top", 3, "-q")
    ranked = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert ranked[0][2] == "03.png" and float(ranked[0][1]) > 2 * float(ranked[1][1])


def test_the_network_is_made_once_and_the_second_run_adds_what_is_new(world: Path, backbone: Path) -> None:
    run("index", "photos", "-o", "photos.index", "--weights", backbone, *HOW_SQUEEZENET)
    network = Path("photos.network.safetensors")
    made = network.stat().st_mtime_ns, file_sha256(network)
    recipe = FeatureSet.open("photos.features").recipe
    assert (recipe.extractor, recipe.weights) == ("how", made[1])
    assert file_sha256(Index.open("photos.index").network) == made[1]
    shutil.copy("photos/00.png", "photos/new.png")
    run("index", "photos", "-o", "photos.index", "-q", "--workers", 0)
    run("extract", "photos", "-o", "photos.features", "--weights", backbone, *HOW_SQUEEZENET)
    assert (network.stat().st_mtime_ns, file_sha256(network)) == made
    assert len(Index.open("photos.index")) == PHOTOGRAPHS + 1


def test_descriptors_of_a_network_are_not_projected_again(world: Path, backbone: Path) -> None:
    run("index", "photos", "-o", "photos.index", "--weights", backbone, *HOW_SQUEEZENET)
    codebook = Index.open("photos.index").codebook
    np.testing.assert_array_equal(codebook.projection, np.eye(128))
    assert not codebook.mean.any()
    assert Codebook.train(FeatureSet.open("photos.features"), 4, rounds=1, whitening="pca").mean.any()


def test_whiten_learns_from_photographs_without_an_extension(world: Path, backbone: Path) -> None:
    Path("bare").mkdir()
    for number, path in enumerate(sorted(Path("photos").iterdir())):
        shutil.copy(path, f"bare/{number:032x}")
    options = ("--max-side", 128, "--dim", 16, "-q", "--skip", 9, "--reduction", "post-whitening")
    for photos, output in (("photos", "one.safetensors"), ("bare", "other.safetensors")):
        run("whiten", photos, "--weights", backbone, "-o", output, *options)
    one, other = (open_checkpoint(path)[0] for path in ("one.safetensors", "other.safetensors"))
    assert one.options == other.options and one.options.skip == 9 and one.options.reduction == "post-whitening"
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.parameters(), other.parameters(), strict=True))


def test_whiten_writes_a_network_that_extract_takes(world: Path, backbone: Path) -> None:
    run("whiten", "photos", "--weights", backbone, "-o", "my.safetensors", "--max-side", 128, "--dim", 16, "-q")
    network, origin = open_checkpoint("my.safetensors")
    assert (network.dim, origin["images"], origin["backbone"]) == (16, PHOTOGRAPHS, "squeezenet1_1")
    run("extract", "photos", "-o", "a.features", "--weights", "my.safetensors", "--max-side", 128, "--workers", 0, "-q")
    features = FeatureSet.open("a.features")
    assert features.dim == 16 and features.recipe.weights == file_sha256("my.safetensors")
    assert Path("a.network.safetensors").read_bytes() == Path("my.safetensors").read_bytes()


def test_an_index_of_features_takes_the_network_beside_them_or_says_that_it_has_none(
    world: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("extract", "photos", "-o", "a.features", "--weights", backbone, *HOW_SQUEEZENET)
    run("index", "a.features", "-o", "with.index", "-q")
    assert Index.open("with.index").network is not None
    Path("a.network.safetensors").unlink()
    capsys.readouterr()
    run("index", "a.features", "-o", "without.index")
    assert "the index is created without it" in capsys.readouterr().err
    assert Index.open("without.index").network is None
    with pytest.raises(NotFoundError, match="not on this machine; give its file with --weights"):
        run("query", "without.index", "photos/00.png", "--box", "0,0,90,90")


def test_the_network_of_features_that_are_there_is_not_replaced(world: Path, backbone: Path) -> None:
    run("extract", "photos", "-o", "a.features", "--weights", backbone, *HOW_SQUEEZENET)
    network = Path("a.network.safetensors")
    before = network.read_bytes()
    other = ("--extractor", "how-squeezenet", "--max-side", 128, "--scales", "1,0.707", "--workers", 0, "-q")
    with pytest.raises(MismatchError, match="belongs to existing features"):
        run("extract", "photos", "-o", "a.features", "--weights", backbone, *other)
    assert network.read_bytes() == before
    run("extract", "photos", "-o", "a.features", "--weights", network, *HOW_SQUEEZENET)
    assert network.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--extractor", "how-resnet50v2"), NotFoundError, "none are published for it; give a file with --weights"),
        (("--extractor", "how-r18"), NotFoundError, r"weights fetch how-r18"),
        (("--extractor", "how"), InputError, "how needs weights: give a network file with --weights"),
        (("--extractor", "surf"), InputError, "unknown extractor 'surf'; choose one of .*how-squeezenet"),
        (
            ("--weights", "BACKBONE"),
            InputError,
            "fit several extractors; give one too, such as --extractor how-squeezenet",
        ),
        (("--weights", "BACKBONE", "--extractor", "delf-squeezenet"), InputError, "learned attention.*train-delf"),
        (
            ("--weights", "BACKBONE", "--extractor", "how-resnet18"),
            MismatchError,
            "missing bn1.bias.*surplus features.0.bias",
        ),
        (
            ("--weights", "none.pth", "--extractor", "how-squeezenet"),
            NotFoundError,
            "none.pth: no such weight file",
        ),
        (("--scales", "1,x"), InputError, "'1,x': expected numbers separated by commas"),
        (("--extractor", "rootsift", "--scales", "1,2"), InputError, "rootsift has no option 'scales'"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    world: Path, backbone: Path, options: tuple[str, ...], error: type[Exception], message: str
) -> None:
    given = [str(backbone) if option == "BACKBONE" else option for option in options]
    with pytest.raises(error, match=message) as caught:
        run("extract", "photos", "-o", "a.features", "--workers", 0, "-q", *given)
    assert "\n" not in str(caught.value)
    assert not Path("a.features").exists()
