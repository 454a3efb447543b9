"""Regions of images: their signatures, an index of them through every kind of change, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import naive
import naive_regions
from asmk_engine.errors import FormatError, InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.features.arrays import ArrayFeatures
from asmk_engine.indexes import manifest as manifests
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.manifest import read_manifest
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.regional import packed_signs, regional_signature
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.signatures import Signature, sign
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe
from asmk_engine.regions.attention import attention_map, component_boxes, feature_boxes, least_to_most
from asmk_engine.regions.boxes import ImageBoxes, ScoredBox, rows_inside
from asmk_engine.regions.grid import grid_boxes
from asmk_engine.regions.options import RegionOptions
from asmk_engine.regions.proposals import region_boxes
from asmk_engine.storage.folder import Folder
from disks import fast_disk
from samples import RECIPE, random_codebook

DIM, WORDS, SIZE = 16, 6, (90, 60)
CODEBOOK = random_codebook(WORDS, DIM)
AGGREGATE, SEPARATE = RegionOptions("aggregate"), RegionOptions("separate")
GIVEN = RegionOptions("aggregate", None)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def photographs(count: int, seed: int = 0, most: int = 30) -> dict[str, Features]:
    """Images of 0 to `most` features at random places."""
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(count):
        size = int(rng.integers(0, most + 1))
        places = np.column_stack([rng.uniform(-0.5, side - 0.5, size) for side in SIZE])
        descriptors = rng.normal(size=(size, DIM)).astype(np.float32)
        found[f"{number:03d}.jpg"] = Features.from_descriptors(descriptors, places, image_size=SIZE)
    return found


def source(images: dict[str, Features]) -> ArrayFeatures:
    return ArrayFeatures(images, RECIPE, dim=DIM)


def made(path: Path, images: dict[str, Features], regions: RegionOptions | None, **more: object) -> Index:
    index = Index.create(path, CODEBOOK, regions=regions)
    index.add(source(images), **more)  # type: ignore[arg-type]
    return index


def nearest(descriptors: np.ndarray) -> list[int]:
    return [naive.nearest_words(one, CODEBOOK.centroids, 1)[0] for one in descriptors]


def parts_of(image: Features, boxes: list[tuple[float, ...]]) -> list[tuple[np.ndarray, list[int]]]:
    """Descriptors and words of the whole image and of each of its regions."""
    words = nearest(image.descriptors)
    rows = [list(range(len(image))), *(naive_regions.inside(image.keypoints[:, :2].tolist(), box) for box in boxes)]
    return [(image.descriptors[own], [words[row] for row in own]) for own in rows]


def bits(signature: Signature) -> dict[int, list[int]]:
    codes = [[int(code) >> place & 1 for place in range(DIM)] for code in signature.codes[:, 0]]
    return dict(zip(signature.words.tolist(), codes, strict=True))


def query_bits(image: Features) -> dict[int, list[int]]:
    return bits(sign(image, CODEBOOK, 2))


def expected_scores(images: dict[str, Features], query: Features, mode: str) -> dict[str, float]:
    """The scores of the twins, above 0."""
    found = {}
    for name, image in images.items():
        parts = parts_of(image, grid_boxes(SIZE, 2) if len(image) else [])
        if mode == "aggregate":
            means = naive_regions.joined_regions(parts, CODEBOOK.centroids)
            signs = {word: naive.binarise(vector) for word, vector in means.items()}
            score = naive_regions.regional_score(query_bits(query), signs)
        else:
            sums = [naive_regions.residual_sums(*part, CODEBOOK.centroids) for part in parts]
            entries = [{word: naive.binarise(vector) for word, vector in one.items()} for one in sums]
            score = max(naive.asmk_score(query_bits(query), entry) for entry in entries)
        if score > 0:
            found[name] = score
    return found


def found_scores(index: Index | JointIndex, query: Features, **match: bool) -> dict[str, float]:
    searcher = Searcher(index, SelectiveMatch(**match), multiple_assignment=2)
    return {hit.name: hit.score for hit in searcher.search(query, top=None)}


@pytest.mark.parametrize("seed", range(4))
def test_a_joined_signature_equals_its_twin(seed: int) -> None:
    image = photographs(1, seed + 10, most=60)["000.jpg"]
    boxes = [*grid_boxes(SIZE, 3), (0.0, 0.0, 0.2, 0.2)]
    regions = [image, *(crop(image, box) for box in boxes)]
    signature = regional_signature(regions, CODEBOOK)
    expected = naive_regions.joined_regions(parts_of(image, boxes), CODEBOOK.centroids)
    assert bits(signature) == {word: naive.binarise(vector) for word, vector in sorted(expected.items())}


def crop(image: Features, box: tuple[float, ...]) -> Features:
    rows = naive_regions.inside(image.keypoints[:, :2].tolist(), box)
    return Features(image.descriptors[rows], image.keypoints[rows], image.scores[rows], image.image_size)


def test_without_regions_there_are_no_words_and_one_region_is_plain_asmk() -> None:
    assert len(regional_signature([], CODEBOOK)) == 0
    empty = Features.from_descriptors(np.empty((0, DIM), np.float32))
    assert len(regional_signature([empty, empty], CODEBOOK)) == 0
    image = photographs(1, 3)["000.jpg"]
    assert bits(regional_signature([image], CODEBOOK)) == bits(sign(image, CODEBOOK))
    assert bits(regional_signature([image, empty], CODEBOOK)) == bits(sign(image, CODEBOOK))


def test_regions_weigh_the_same_whatever_their_number_of_features() -> None:
    word = CODEBOOK.centroids[0].astype(np.float64)
    step = np.zeros(DIM)
    step[0] = 0.01
    side = np.zeros(DIM)
    side[1] = 0.001
    many = Features.from_descriptors(np.array([word + step] * 9))
    few = Features.from_descriptors(np.array([word - step + side]))
    assert bits(regional_signature([many, few, few], CODEBOOK))[0][0] == 0
    assert bits(regional_signature([many, many, few], CODEBOOK))[0][0] == 1


def test_words_that_cancel_are_dropped() -> None:
    word, step = CODEBOOK.centroids[2], np.zeros(DIM, np.float32)
    step[3] = 0.25
    plus, minus = (Features.from_descriptors(np.array([word + sign_ * step])) for sign_ in (1, -1))
    assert len(regional_signature([plus], CODEBOOK)) == 1
    assert len(regional_signature([plus, minus], CODEBOOK)) == 0
    same = Features.from_descriptors(word[None])  # no residual at all
    assert len(regional_signature([same], CODEBOOK)) == 0


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 130])
def test_signs_are_packed_as_codes(dim: int) -> None:
    vectors = np.random.default_rng(dim).normal(size=(5, dim))
    vectors[0] = 0
    for vector, code in zip(vectors, packed_signs(vectors), strict=True):
        found = [int(code[place // 64]) >> (place % 64) & 1 for place in range(64 * len(code))]
        assert found == naive.binarise(vector) + [0] * (64 * len(code) - dim)


def test_places_in_a_box_are_those_of_whole_pixels() -> None:
    xs = [-0.5, -0.51, 0, 0.49, 0.5, 4.49, 4.5, 5.49, 5.5, 10]
    points = np.array([(x, 2.0) for x in xs], np.float32)
    image = Features.from_descriptors(np.zeros((len(xs), 2)), points)
    for box in [(0, 0, 5, 5), (0.3, 0, 4.2, 5), (1, 0, 5.1, 2.5), (0, 3, 9, 4), (-9, -9, 99, 99)]:
        assert rows_inside(image, box).tolist() == naive_regions.inside(points.tolist(), box)


def test_a_grid_has_the_squares_of_r_mac() -> None:
    assert grid_boxes((90, 60), 1) == [(0, 0, 60, 60), (30, 0, 90, 60)]
    assert len(grid_boxes((90, 60), 2)) == 2 + 6
    assert grid_boxes((60, 60), 1) == [(0, 0, 60, 60)]
    assert grid_boxes((1, 1), 3) == [(0, 0, 1, 1)]
    for x1, y1, x2, y2 in grid_boxes((640, 201), 4):
        assert 0 <= x1 < x2 <= 640 and 0 <= y1 < y2 <= 201 and x2 - x1 == y2 - y1


@pytest.mark.parametrize("regions", [AGGREGATE, SEPARATE])
def test_scores_of_an_index_are_those_of_the_twin(tmp_path: Path, regions: RegionOptions) -> None:
    images = photographs(25)
    index = made(tmp_path / "index", images, regions)
    for query in photographs(4, seed=9).values():
        expected = expected_scores(images, query, regions.mode)
        assert found_scores(index, query) == pytest.approx(expected, rel=1e-9)
        top = Searcher(index, multiple_assignment=2).search(query, top=3)
        assert [hit.score for hit in top] == pytest.approx(sorted(expected.values(), reverse=True)[:3], rel=1e-9)


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("regions", [AGGREGATE, SEPARATE, RegionOptions("separate", 3)])
def test_scores_do_not_depend_on_the_life_of_an_index(tmp_path: Path, regions: RegionOptions, idf: bool) -> None:
    images, query = photographs(30), photographs(2, seed=5)["001.jpg"]
    index = Index.create(tmp_path / "index", CODEBOOK, regions=regions)
    names = sorted(images)
    for part in (names[:7], names[7:20], names[20:]):
        index.add(source({name: images[name] for name in part}))
    assert len(index.snapshot.segments) == 3
    gone = sorted(images)[::4]
    index.delete(gone)
    fresh = made(tmp_path / "fresh", {name: images[name] for name in images if name not in gone}, regions)
    expected = found_scores(fresh, query, idf=idf)
    assert expected and found_scores(index, query, idf=idf) == expected
    assert check_index(index.path).clean
    index.merge()
    assert found_scores(index, query, idf=idf) == expected
    index.add(source(images), existing="skip")
    assert found_scores(Index.open(index.path), query, idf=idf) == found_scores(made(tmp_path / "a", images, regions),
                                                                              query, idf=idf)  # fmt: skip
    report = check_index(index.path)
    assert report.clean, report.findings


def test_an_index_of_regions_without_images(tmp_path: Path) -> None:
    query = photographs(1, seed=5, most=9)["000.jpg"]
    for regions in (AGGREGATE, SEPARATE):
        index = Index.create(tmp_path / regions.mode, CODEBOOK, regions=regions)
        assert found_scores(index, query) == {}
        index.add(source({"a.jpg": photographs(1, most=0)["000.jpg"]}))
        assert found_scores(index, query) == {} and check_index(index.path).clean
        index.delete(["a.jpg"])
        assert index.merge() == 1 and check_index(index.path).clean


def test_what_an_index_says_of_its_regions(tmp_path: Path) -> None:
    images = photographs(8)
    plain, separate = made(tmp_path / "plain", images, None), made(tmp_path / "index", images, SEPARATE)
    assert describe(plain.path)["regions"] is None
    known = describe(separate.path)["regions"]
    filled = [image for image in images.values() if len(image)]
    boxes = [box for image in filled for box in grid_boxes(SIZE, 2) if len(rows_inside(image, box))]
    assert known == {"mode": "separate", "levels": 2, "least_score": 0.1, "attention": None, "entries": 8 + len(boxes)}
    assert describe(separate.path)["images"] == 8
    assert separate.regions == SEPARATE and Index.open(separate.path).regions == SEPARATE


def test_earlier_programs_refuse_an_index_of_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, plain = made(tmp_path / "index", photographs(3), AGGREGATE), made(tmp_path / "b", photographs(3), None)
    assert index.snapshot.manifest.to_json()["format"] == 4
    assert plain.snapshot.manifest.to_json()["format"] == 1
    monkeypatch.setattr(manifests, "FORMATS", (1, 2, 3))
    with pytest.raises(FormatError, match="index format 4, this version reads 3 and below; update asmk-engine"):
        read_manifest(Folder(index.path))


def test_indexes_with_and_without_regions_do_not_mix(tmp_path: Path) -> None:
    images = photographs(4)
    others = {f"b/{name}": image for name, image in photographs(4, seed=2).items()}
    plain = made(tmp_path / "plain", images, None)
    one, other = (made(tmp_path / mode.mode, others, mode) for mode in (AGGREGATE, SEPARATE))
    for pair in ([plain, one], [one, plain], [plain, other]):
        with pytest.raises(MismatchError, match="their scores do not compare"):
            JointIndex(pair)
    with pytest.raises(MismatchError, match=r"has regions \(separate\).*has regions \(aggregate\)"):
        JointIndex([one], [other])


def test_joint_indexes_of_regions_score_as_one(tmp_path: Path) -> None:
    images, query = photographs(12), photographs(1, seed=5)["000.jpg"]
    names = sorted(images)
    halves = [{name: images[name] for name in part} for part in (names[:5], names[5:])]
    parts = [made(tmp_path / f"{number}", half, SEPARATE) for number, half in enumerate(halves)]
    assert found_scores(JointIndex(parts), query) == found_scores(made(tmp_path / "all", images, SEPARATE), query)


def test_given_boxes_are_the_regions(tmp_path: Path) -> None:
    images = photographs(6)
    squares = [ScoredBox(box, 0.5) for box in grid_boxes(SIZE, 2)]
    low = ScoredBox((0, 0, 9, 9), 0.05)
    boxes = ImageBoxes({name.removesuffix(".jpg"): [*squares, low] for name in images})
    query = photographs(1, seed=5)["000.jpg"]
    given = made(tmp_path / "given", images, GIVEN, boxes=boxes)
    assert found_scores(given, query) == found_scores(made(tmp_path / "grid", images, AGGREGATE), query)
    shares = ImageBoxes({name: [ScoredBox(tuple(np.divide(one.box, (*SIZE, *SIZE))), 1) for one in squares]
                         for name in images}, are_shares=True)  # fmt: skip
    again = made(tmp_path / "shares", images, GIVEN, boxes=shares)
    assert found_scores(again, query) == found_scores(given, query)


def test_an_image_without_boxes_is_its_own_region(tmp_path: Path) -> None:
    images, query = photographs(6), photographs(1, seed=5)["000.jpg"]
    given = made(tmp_path / "given", images, RegionOptions("separate", None), boxes=ImageBoxes({}))
    assert found_scores(given, query) == pytest.approx(found_scores(made(tmp_path / "plain", images, None), query))


def test_boxes_have_to_fit_the_index(tmp_path: Path) -> None:
    images, boxes = photographs(3), ImageBoxes({})
    with pytest.raises(InputError, match="boxes that are given with the images; add the boxes"):
        made(tmp_path / "a", images, GIVEN)
    with pytest.raises(InputError, match=r"has regions \(aggregate, a grid of 2\)"):
        made(tmp_path / "b", images, AGGREGATE, boxes=boxes)
    with pytest.raises(InputError, match="has no regions"):
        made(tmp_path / "c", images, None, boxes=boxes)
    assert Index.open(tmp_path / "c").images == 0
    unknown = Features.from_descriptors(np.ones((3, DIM)))
    with pytest.raises(InputError, match=r"x\.jpg: its width and height are unknown"):
        made(tmp_path / "d", {"x.jpg": unknown}, AGGREGATE)


def test_signatures_of_crops_are_added_as_entries(tmp_path: Path) -> None:
    images, query = photographs(5), photographs(1, seed=5)["000.jpg"]
    index = Index.create(tmp_path / "index", CODEBOOK, regions=SEPARATE)
    parts = {name: [image, *(crop(image, box) for box in grid_boxes(SIZE, 2))] for name, image in images.items()}
    signed = ((name, [sign(part, CODEBOOK) for part in own]) for name, own in parts.items())
    assert index.add_signatures(signed) == 5
    assert found_scores(index, query) == found_scores(made(tmp_path / "grid", images, SEPARATE), query)
    one = sign(images["001.jpg"], CODEBOOK)
    with pytest.raises(InputError, match="0 signatures"):
        index.add_signatures([("new.jpg", [])])
    with pytest.raises(InputError, match="2 signatures"):
        made(tmp_path / "joined", {}, AGGREGATE).add_signatures([("new.jpg", [one, one])])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "both"},
        {"levels": 0},
        {"levels": 7},
        {"levels": 2.0},
        {"least_score": float("nan")},
        {"attention": 0.5},
        {"levels": None, "attention": 1.5},
    ],
)
def test_options_of_regions_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="; "):
        RegionOptions(**{"mode": "aggregate", **wrong})  # type: ignore[arg-type]


def test_boxes_are_found_by_name() -> None:
    boxes = ImageBoxes({"a/x.jpg": [ScoredBox((0, 0, 1, 1))], "b.c": [ScoredBox((0, 0, 2, 2))]})
    assert boxes.key("a/x.jpg") == "a/x.jpg" and boxes.key("a/x.png") is None and boxes.key("x.jpg") is None
    assert boxes.key("b.c.jpg") == "b.c" and boxes.key("b.c") == "b.c" and boxes.key("b") is None
    assert boxes.unused(["b.c.jpg"]) == ["a/x.jpg"]
    unknown = Features.from_descriptors(np.ones((1, DIM)))
    assert region_boxes("b.c.png", unknown, GIVEN, boxes) == [(0, 0, 2, 2)]
    with pytest.raises(InputError, match="inverted or empty"):
        ImageBoxes({"a": [ScoredBox((3, 0, 1, 1))]})
    with pytest.raises(InputError, match="expected finite numbers"):
        ImageBoxes({"a": [ScoredBox((0, 0, 1, float("inf")))]})


@pytest.mark.parametrize("seed", range(6))
def test_boxes_of_attention_equal_their_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = [(9, 13), (1, 1), (1, 20), (16, 16), (5, 7), (12, 3)][seed]
    attention, size = rng.uniform(0, 1, shape), (int(rng.integers(1, 999)), int(rng.integers(1, 999)))
    for threshold in (0.0, 0.75, 0.9, 1.5):
        found = component_boxes(attention, threshold, size)
        expected = naive_regions.attention_boxes(attention.tolist(), threshold, size)
        assert len(found) == min(len(expected), 8)
        for one in found:
            assert (
                min(np.abs(np.subtract([*one.box, one.score], [*box, score])).max() for box, score in expected) < 1e-9
            )
    assert component_boxes(np.full(shape, 0.5), 0.5, size) == [ScoredBox((0, 0, *size), 0.5)]


def test_the_largest_components_come_first() -> None:
    attention = np.zeros((20, 40))
    for place in range(12):
        attention[0 : place + 1, 3 * place : 3 * place + 2] = 0.5 + place / 100
    found = component_boxes(attention, 0.5, (400, 200))
    assert [one.box for one in found] == [(30 * p, 0, 30 * p + 20, 10 * (p + 1)) for p in range(11, 3, -1)]
    assert [one.score for one in found] == pytest.approx([0.5 + p / 100 for p in range(11, 3, -1)])


def test_a_map_spans_its_range_and_equal_values_are_foreground() -> None:
    assert least_to_most(np.array([[2.0, 4.0], [3.0, 2.0]])).tolist() == [[0, 1], [0.5, 0]]
    assert least_to_most(np.full((2, 3), 7.0)).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_features_make_boxes_where_they_are_strong() -> None:
    places = [(20, 30, 20), (24, 30, 20), (70, 15, 10), (45, 50, 10)]
    image = Features.from_descriptors(np.ones((4, DIM)), np.array(places, np.float32), np.array([9.0, 8, 7, 1]), SIZE)
    found = feature_boxes(image, 0.5)
    expected = naive_regions.attention_boxes(least_to_most(attention_map(image, (64, 43))).tolist(), 0.5, SIZE)
    assert np.allclose(sorted(one.box for one in found), sorted(box for box, _ in expected))
    assert len(found) == 2 and found[0].box[0] < 20 < found[0].box[2] and found[1].box[0] < 70 < found[1].box[2]
    assert feature_boxes(image.strongest(0), 0.5) == []
    assert feature_boxes(Features.from_descriptors(np.ones((2, DIM))), 0.5) == []
    regions = RegionOptions("aggregate", None, attention=0.5)
    assert region_boxes("a", image, regions, None) == [one.box for one in found]
    assert RegionOptions.from_json(regions.to_json()) == regions and not regions.are_given
