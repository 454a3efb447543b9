"""Extractors of other packages: registered, installed or given by their place, from workers to queries."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.errors import InputError
from asmk_engine.extractors import extractor_from_recipe, load_extractor, registry
from asmk_engine.extractors.custom import CustomExtractor
from asmk_engine.extractors.registry import find_extractor, import_extractor, register_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.flat import GlobalIndex
from asmk_engine.inverted.index import Index
from asmk_engine.recipes import Recipe

# A module of a stranger: a torch module wrapped in ten lines, and local features of its own.
MODULE = """
from dataclasses import dataclass

import numpy as np
import torch

from asmk_engine.extractors.custom import CustomExtractor

NETWORK = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2))
torch.manual_seed(0)
for parameter in NETWORK.parameters():
    torch.nn.init.uniform_(parameter, -1, 1)


@dataclass(frozen=True)
class Pooled(CustomExtractor):
    name = "pooled"
    dim = 32
    is_global = True
    gain: float = 1.0

    @torch.inference_mode()
    def compute(self, pixels):
        found = NETWORK(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255).flatten() - 0.5
        return (self.gain * found / found.norm()).numpy()


@dataclass(frozen=True)
class Patches(CustomExtractor):
    name = "patches"
    dim = 27
    max_side: int = 64
    step: int = 4

    def compute(self, pixels):
        height, width = pixels.shape[:2]
        places = [(y, x) for y in range(1, height - 1, self.step) for x in range(1, width - 1, self.step)]
        found = np.array([pixels[y - 1 : y + 2, x - 1 : x + 2].ravel() / 255 for y, x in places], np.float32)
        return found, np.array([(x, y) for y, x in places]), found.std(1)
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs and the module of a stranger, who never installed it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name == "their_features"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "their_features.py").write_text(MODULE)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        coarse.resize((120, 90), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(("name", "kind"), [("Pooled", GlobalIndex), ("Patches", Index)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_class_given_by_its_place_works_from_extraction_to_query(
    name: str, kind: type, workers: int, world: Path
) -> None:
    run("index", "photos", "-o", "i.index", "--extractor", f"their_features:{name}", "--workers", workers, "--words", 8)
    index = kind.open("i.index")  # type: ignore[attr-defined]
    assert index.images == 5 and index.recipe.extractor == name.lower() and index.recipe.is_global == (name == "Pooled")
    Image.open("photos/3.png").save("mine.bmp")
    command = [sys.executable, "-m", "asmk_engine", "query", "i.index", "mine.bmp", "--top", "1", "--assignments", "1"]
    fresh = [*command, "--extractor", f"their_features:{name}"]
    done = subprocess.run(fresh, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "3.png" in done.stdout, done.stderr
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 1 and "give --extractor package.module:Class" in refused.stderr
    more = run("index", "photos", "-o", "i.index", "--workers", workers)
    assert "0 added" in more.stderr


def test_an_index_imports_no_module_that_its_recipe_names(world: Path) -> None:
    """An untrusted index may name any module; that must not be imported."""
    for name in ("their_features:Pooled", "os:system", "pooled"):
        with pytest.raises(InputError, match="there is no extractor"):
            extractor_from_recipe(Recipe(name, {"max_side": 64, "gain": 1.0}, is_global=True))
    assert "their_features" not in sys.modules


def test_positions_and_regions_are_those_of_the_original(world: Path) -> None:
    extractor = load_extractor("their_features:Patches", max_side=60, step=5)
    whole = extractor.extract("photos/0.png")
    assert whole.image_size == (120, 90) and whole.descriptors.shape == (12 * 9, 27)
    assert (np.diff(whole.scores) <= 0).all()
    np.testing.assert_allclose(
        sorted({float(x) for x in whole.keypoints[:, 0]})[:2], [2.5, 12.5]
    )  # (1 + 0.5) * 2 - 0.5
    assert (whole.keypoints[:, 2] == 2).all()
    part = extractor.extract("photos/0.png", box=(40, 30, 80, 70))
    assert part.keypoints[:, 0].min() >= 40 and part.keypoints[:, 1].max() <= 70 and part.image_size == (120, 90)
    with pytest.raises(InputError, match="box"):
        extractor.extract("photos/0.png", box=(200, 0, 300, 50))


def test_registered_names_and_recipes(world: Path) -> None:
    made = import_extractor("their_features:Pooled")
    assert find_extractor("pooled") is made
    register_extractor("pooled", made)  # again, as a module that is reloaded does
    register_extractor("another", made)
    one = load_extractor("pooled", gain=2.0)
    assert one.recipe == Recipe("pooled", {"max_side": 1024, "gain": 2.0}, is_global=True)
    assert Recipe.from_json(one.recipe.to_json()) == one.recipe and Recipe.from_json(one.recipe.to_json()).is_global
    assert extractor_from_recipe(one.recipe) == one
    with pytest.raises(InputError, match="has no option 'depth'"):
        load_extractor("pooled", depth=1)
    with pytest.raises(InputError, match=r"unknown extractor 'none'; choose one of .*another, .*pooled"):
        load_extractor("none")
    for name in ("rootsift", "how-r18", "pooled"):
        with pytest.raises(InputError, match="there is an extractor"):
            register_extractor(name, type("Other", (made,), {}))
    for name in ("", "a b", "a:b", "-x"):
        with pytest.raises(InputError, match="cannot be the name"):
            register_extractor(name, made)
    with pytest.raises(InputError, match="has no recipe, dim"):
        register_extractor("thing", dict)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere:Thing", "cannot be imported"),
        ("their_features:Nothing", "cannot be imported"),
        ("their_features:NETWORK", "is not a class"),
        ("their_features:", "is not the place"),
        (":Thing", "is not the place"),
        ("json:JSONDecoder", "cannot be the name"),
    ],
)
def test_places_without_an_extractor_are_refused(place: str, message: str, world: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_extractor(place)


def test_an_installed_package_is_found_by_its_entry_point(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world / "site"
    (folder / "theirs-1.dist-info").mkdir(parents=True)
    (folder / "theirs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    points = "[asmk_engine.extractors]\npatches = their_features:Patches\nlost = their_features:Lost\n"
    (folder / "theirs-1.dist-info" / "entry_points.txt").write_text(points)
    (world / "their_features.py").rename(folder / "their_features.py")
    monkeypatch.syspath_prepend(str(folder))
    run("index", "photos", "-o", "i.index", "--extractor", "patches", "--workers", 1, "--words", 8)
    Image.open("photos/2.png").save("mine.bmp")
    assert "2.png" in run("query", "i.index", "mine.bmp", "--top", 1, "--assignments", 1).stdout
    with pytest.raises(InputError, match="installed as their_features:Lost, which cannot be imported"):
        load_extractor("lost")


@dataclass(frozen=True)
class Wrong(CustomExtractor):
    name = "wrong"
    dim = 4
    what: str = "short"

    def compute(self, pixels: np.ndarray) -> object:
        """Something else than an extractor has to return."""
        return {
            "short": (np.zeros((3, 3)), np.zeros((3, 2)), np.zeros(3)),
            "two": (np.zeros((3, 4)), np.zeros((3, 2))),
            "none": None,
            "points": (np.zeros((3, 4)), np.zeros((2, 2)), np.zeros(3)),
            "right": (np.zeros((0, 4)), np.zeros((0, 2)), np.zeros(0)),
        }[self.what]


def test_what_is_no_features_is_refused_and_none_are_some() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    for what in ("short", "two", "none", "points"):
        with pytest.raises(InputError, match=r"the extractor 'wrong' (returned|must return)"):
            Wrong(what=what).extract(pixels)
    assert len(Wrong(what="right").extract(pixels)) == 0
    with pytest.raises(InputError, match="no JSON value"):
        _ = Wrong(what=b"x").recipe  # type: ignore[arg-type]


def test_a_class_that_workers_cannot_import_says_so() -> None:
    @dataclass(frozen=True)
    class Local(Wrong):
        name = "local"

    with pytest.raises(InputError, match="put its class in a module, or use workers=0"):
        _ = Local().origin


def test_weights_are_part_of_the_recipe_and_checked(world: Path) -> None:
    text = "\n\n@dataclass(frozen=True)\nclass Weighted(Pooled):\n    name = 'weighted'\n    weights: str = 'w.bin'\n"
    (world / "their_features.py").write_text(MODULE + text)
    (world / "w.bin").write_bytes(b"one")
    one = load_extractor("their_features:Weighted")
    assert "weights" not in one.recipe.options and len(str(one.recipe.weights)) == 64
    assert extractor_from_recipe(one.recipe) == one
    recipe = one.recipe
    (world / "w.bin").write_bytes(b"two")
    with pytest.raises(Exception, match=r"need the network with sha256|makes features of"):
        extractor_from_recipe(recipe)
    (world / "w.bin").unlink()
    (world / "kept.bin").write_bytes(b"one")
    assert extractor_from_recipe(recipe, world / "kept.bin").recipe == recipe  # as an index that carries its network


def test_features_of_a_folder_equal_those_of_its_images(world: Path) -> None:
    extractor = load_extractor("their_features:Patches")
    extractor.extract_folder("photos", "f", workers=2)  # type: ignore[attr-defined]
    stored = FeatureSet.open("f")
    for name in stored.names:
        expected = extractor.extract(world / "photos" / name)
        np.testing.assert_array_equal(stored.read(name).descriptors, expected.descriptors)
        np.testing.assert_array_equal(stored.read(name).keypoints, expected.keypoints)
