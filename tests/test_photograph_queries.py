"""Photographs as queries of a searcher: files, images of Pillow and pixels are described as the index's own images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from asmk_engine import Codebook, FeatureSet, GlobalIndex, GlobalSearcher, Index, Searcher, load_extractor
from asmk_engine.cli import commands
from asmk_engine.diffusion import Diffusion, DiffusionSearcher, build_neighbours
from asmk_engine.errors import AsmkError, InputError, MismatchError, NotFoundError
from asmk_engine.extractors.concatenation import ConcatenatedExtractor, concatenated_recipe
from asmk_engine.extractors.rootsift import RootSift
from asmk_engine.features import Features
from asmk_engine.flat import Codec
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.inverted.signatures import Signature
from asmk_engine.recipes import IMPORTED, Recipe
from global_samples import global_images, write_global
from samples import make_features, random_codebook

SIDE = 160


def picture(seed: int) -> np.ndarray:
    """A photograph of noise in squares: [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 255, (15, 20, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, their features, and an index of all but the last, made with unusual options."""
    place = tmp_path_factory.mktemp("photographs")
    (place / "photos").mkdir()
    for number in range(6):
        Image.fromarray(picture(number)).save(place / "photos" / f"{number}.png")
    extractor = load_extractor("rootsift", max_features=70, max_side=SIDE - 30)
    features = extractor.extract_folder(place / "photos", place / "features", workers=1)
    index = Index.create(place / "index", Codebook.train(features, 8, rounds=2))
    index.add(features.selected(features.names[:5]))
    return place


@pytest.fixture
def index(place: Path) -> Index:
    return Index.open(place / "index")


def test_the_extractor_of_an_index_is_public_and_made_once(index: Index, place: Path) -> None:
    assert index.extractor == RootSift(max_features=70, max_side=SIDE - 30) and index.extractor is index.extractor
    assert index.extractor.recipe == index.recipe
    joint = JointIndex([index])
    assert joint.extractor == index.extractor and joint.extractor is joint.extractor


@pytest.mark.parametrize("number", [2, 5])
def test_every_kind_of_photograph_finds_what_its_features_find(index: Index, place: Path, number: int) -> None:
    path, pixels = place / "photos" / f"{number}.png", picture(number)
    features = FeatureSet.open(place / "features").read(f"{number}.png")
    for target in (index, JointIndex([index])):
        searcher = Searcher(target)
        expected = searcher.search(features, 3)
        queries = [str(path), path, Image.open(path), pixels, features, searcher.sign(features)]
        for query in queries:
            assert searcher.search(query, top=3) == expected
        assert searcher.search(iter(queries), 3) == [expected] * 6
        assert searcher.rank(path).scores.tolist() == searcher.rank(features).scores.tolist()
        assert searcher.scores(pixels) == searcher.scores(features)
    assert (expected[0].name == f"{number}.png") == (number < 5)


def test_grey_and_turned_photographs(index: Index, tmp_path: Path) -> None:
    searcher = Searcher(index)
    grey = picture(3)[:, :, 0]
    assert searcher.search(grey) == searcher.search(np.repeat(grey[:, :, None], 3, axis=2))
    turned = Image.fromarray(np.rot90(picture(2)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: to be shown turned to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert searcher.search(image) == searcher.search(tmp_path / "turned.png") == searcher.search(picture(2))
    clear = Image.fromarray(picture(2)).convert("RGBA")
    assert searcher.search(clear) == searcher.search(picture(2))


def test_a_region_is_that_of_the_extractor(index: Index, place: Path) -> None:
    searcher, box, path = Searcher(index), (20, 10, 120, 100), place / "photos/2.png"
    expected = searcher.search(index.extractor.extract(path, box=box))
    for query in (path, str(path), picture(2), Image.fromarray(picture(2))):
        assert searcher.search(query, box=box) == expected != searcher.search(query)
    assert searcher.search_name("2.png", box=box) == expected


def test_a_text_is_a_file_and_never_a_name(index: Index, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(index)
    monkeypatch.chdir(place)
    with pytest.raises(NotFoundError, match=r"no such file.*search_name"):
        searcher.search("2.png")
    with pytest.raises(NotFoundError, match="no such file") as caught:
        searcher.search("9.png")
    assert "search_name" not in str(caught.value)
    monkeypatch.chdir(place / "photos")
    Image.fromarray(picture(4)).save(place / "photos/other.png")
    try:
        assert searcher.search("other.png")[0].name == "4.png"
    finally:
        (place / "photos/other.png").unlink()


def test_a_name_finds_what_its_features_find(index: Index, place: Path) -> None:
    features = FeatureSet.open(place / "features")
    for searcher in (Searcher(index), Searcher(JointIndex([index]))):
        for name in ("2.png", "4.png"):
            assert searcher.search_name(name, 3) == searcher.search(features.read(name), 3)
        for name in ("5.png", "photos/2.png", ""):
            with pytest.raises(NotFoundError, match="no image named"):
                searcher.search_name(name)


def test_a_name_without_stored_features_is_extracted_again(place: Path, tmp_path: Path) -> None:
    features = FeatureSet.open(place / "features")
    index = Index.create(tmp_path / "i", Index.open(place / "index").codebook)
    index.add(features)
    index._publish(index.snapshot.manifest.following(features=()))
    searcher = Searcher(index)
    assert searcher.search_name("3.png", 3) == searcher.search(features.read("3.png"), 3)


NOTHING = Signature(np.zeros(0, np.uint32), np.zeros((0, 2), np.uint64))
BAD: list[tuple[Any, dict[str, Any], type[AsmkError], str]] = [
    (picture(0).astype(np.float32), {}, InputError, "expected uint8"),
    (picture(0)[:, :, :2], {}, InputError, "expected uint8"),
    (np.zeros((2, 3, 4, 3), np.uint8), {}, InputError, "expected uint8"),
    (np.zeros((0, 4), np.uint8), {}, InputError, "expected uint8"),
    (picture(0), {"box": (0, 0, 999, 9)}, InputError, "exceeds the image"),
    (picture(0), {"box": (9, 9, 3, 3)}, InputError, "inverted or empty"),
    (make_features(np.ones((1, 128))), {"box": (0, 0, 9, 9)}, InputError, "not of features"),
    (NOTHING, {"box": (0, 0, 9, 9)}, InputError, "not of features"),
    ([picture(0)], {"box": (0, 0, 9, 9)}, InputError, "one photograph"),
    (7, {}, InputError, "a query is a int"),
    (None, {}, InputError, "a query is a NoneType"),
    (b"a.jpg", {}, InputError, "a query is a bytes"),
    ([picture(0), 7], {}, InputError, "a query is a int"),
    ([[picture(0)]], {}, InputError, "a query is a list"),
    ([picture(0), "missing.jpg"], {}, NotFoundError, "no such file"),
    (Image.new("RGBA", (30, 30), (0, 0, 0, 0)), {}, InputError, "wholly transparent"),
    (picture(0), {"top": 0}, InputError, "top is 0"),
]


@pytest.mark.parametrize(("query", "options", "kind", "words"), BAD, ids=[words for *_, words in BAD])
def test_what_is_no_query_is_refused_in_one_line(
    index: Index, query: Any, options: dict[str, Any], kind: type[AsmkError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        Searcher(index).search(query, **options)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_photographs_are_refused_in_one_line(index: Index, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photograph")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(picture(1)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    with Image.open(tmp_path / "cut.jpg") as cut:
        for query in (tmp_path / "text.jpg", str(tmp_path / "empty.jpg"), tmp_path, cut):
            with pytest.raises(InputError) as caught:
                Searcher(index).search(query)
            assert "\n" not in str(caught.value)


def test_an_index_that_cannot_describe_photographs_says_so(tmp_path: Path) -> None:
    images = {"a": np.ones((3, 8))}
    for recipe, words in ((Recipe("arrays"), "given as arrays"), (Recipe(IMPORTED), "made by another program")):
        index = Index.in_memory(random_codebook(3, 8, recipe=recipe))
        index.add(images.items(), recipe=recipe)
        searcher = Searcher(index)
        with pytest.raises(InputError, match=words):
            searcher.search(picture(0))
        with pytest.raises(InputError, match=words):
            searcher.search_name("a")
        with pytest.raises(InputError, match=words):
            _ = index.extractor
        assert searcher.search(Features.from_descriptors(images["a"]))[0].name == "a"


# ----------------------------------------------------------------------------------------- global descriptors


PARTS = [RootSift(max_features=1, max_side=side).recipe for side in (100, 200)]
"""Stand-ins for global extractors: any that gives one descriptor."""


def test_a_global_index_describes_photographs_by_its_concatenation(tmp_path: Path) -> None:
    recipe = concatenated_recipe(PARTS, [1.0, 2.0])
    index = GlobalIndex.in_memory(Codec(recipe, 256))
    extractor = index.extractor
    assert isinstance(extractor, ConcatenatedExtractor) and extractor.recipe == recipe and index.extractor is extractor
    photographs = {f"{number}.png": picture(number) for number in range(4)}
    index.add(((name, extractor.extract(pixels)) for name, pixels in photographs.items()), recipe=recipe)
    Image.fromarray(photographs["2.png"]).save(tmp_path / "query.png")
    for target in (index, JointIndex([index])):
        searcher = GlobalSearcher(target)
        expected = searcher.search(extractor.extract(photographs["2.png"]), 2)
        queries = [tmp_path / "query.png", str(tmp_path / "query.png"), photographs["2.png"]]
        assert searcher.search(queries, 2) == [expected] * 3 and expected[0].name == "2.png"
        assert searcher.search(Image.open(tmp_path / "query.png"), 2) == expected
        with pytest.raises(InputError, match="a query is a Signature"):
            searcher.search(NOTHING)  # type: ignore[call-overload]


def test_names_of_a_global_index(tmp_path: Path) -> None:
    images = global_images(9)
    features = write_global(tmp_path / "f", images)
    index = GlobalIndex.create(tmp_path / "i", Codec(features.recipe, features.dim))
    index.add(features)
    searcher = GlobalSearcher(index)
    for name in features.names[3:6]:
        assert searcher.search_name(name, 4) == searcher.search(images[name], 4)
    later = write_global(tmp_path / "g", {"new": images[features.names[4]]})
    index.add(later)
    assert searcher.search_name("new", 4) == searcher.search(images[features.names[4]], 4)


def test_features_of_another_dimension_are_refused(index: Index) -> None:
    queries: Iterable[Features] = [make_features(np.ones((1, 9)))]
    with pytest.raises(MismatchError):
        Searcher(index).search(queries)


def test_diffusion_takes_the_same_queries(index: Index, place: Path) -> None:
    build_neighbours(index, 3)
    path, box = place / "photos" / "5.png", (8, 8, 120, 100)
    features = FeatureSet.open(place / "features").read("5.png")
    searcher = DiffusionSearcher(Searcher(index), Diffusion(3))
    expected = searcher.search(features, None)
    assert searcher.search(str(path), None) == searcher.search(picture(5), None) == expected
    assert searcher.search_name("2.png", 1)[0].name == "2.png"
    assert searcher.search(path, None, box=box) == searcher.search(index.extractor.extract(path, box=box), None)
    assert searcher.scores(path) == {hit.name: hit.score for hit in expected} | {
        name: 0.0 for name in index.names if name not in {hit.name for hit in expected}
    }
    with pytest.raises(InputError, match="a query is a int; expected Features, Signature"):
        searcher.search(7)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="top is 0"):
        searcher.search(features, 0)
    call = ["query", str(index.path), str(path), "--box", "8,8,120,100", "--format", "jsonl", "--diffusion"]
    found = CliRunner().invoke(commands, [*call, "--diffusion-neighbours", "3"])
    assert found.exit_code == 0, found.output
    names = [hit.name for hit in searcher.search(path, 10, box=box)]
    places = [found.output.index(f'"{name}"') for name in names]
    assert places == sorted(places) and names
