"""The global index ranks as the papers define, however its contents were added."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import naive_descriptors as naive
from asmk_engine.errors import DependencyError, FormatError, InputError, MismatchError
from asmk_engine.extractors.concatenation import (
    ConcatenatedExtractor,
    concatenated_extractor,
    concatenated_recipe,
    joined,
)
from asmk_engine.features import Features, FeatureSet, Source
from asmk_engine.flat import Codec, CodecOptions, Expansion, GlobalIndex, GlobalSearcher
from asmk_engine.flat.augmentation import augment
from asmk_engine.flat.codec_training import train_codec, train_on
from asmk_engine.flat.concatenation import concatenate
from asmk_engine.flat.cuda import CudaScores
from asmk_engine.flat.products import rounding_margin
from asmk_engine.flat.search import _cuda_scores
from asmk_engine.indexes.answers import Hit
from asmk_engine.inverted.index import Index
from asmk_engine.kernels.vectors import dots, widen
from asmk_engine.recipes import GLOBAL_EXTRACTORS, Recipe
from asmk_engine.search.fusion import fuse
from asmk_engine.search.opening import open_index
from disks import fast_disk
from global_samples import DIM, RECIPE, global_images, write_global
from samples import make_features, random_codebook, write_features

OPTIONS = [
    CodecOptions(),
    CodecOptions(half=True),
    CodecOptions(pca=10),
    CodecOptions(pca=16, whiten=True),
    CodecOptions(pca=7, half=True),
    CodecOptions(pq=8),
    CodecOptions(pq=1),
    CodecOptions(pca=16, pq=8),
]


def sample(count: int = 300, dim: int = DIM, seed: int = 7) -> np.ndarray:
    return np.concatenate([image.descriptors for image in global_images(count, dim, seed).values()])


@pytest.fixture(scope="module", params=OPTIONS, ids=str)
def codec(request: pytest.FixtureRequest) -> Codec:
    return train_on(sample(), RECIPE, request.param)


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture
def images() -> dict[str, Features]:
    return global_images(40)


def made(path: Path, codec: Codec, images: dict[str, Features], name: str = "index") -> GlobalIndex:
    index = GlobalIndex.create(path / name, codec)
    index.add(write_global(path / f"{name}.features", images))
    return index


def stored(codec: Codec, images: dict[str, Features]) -> dict[str, list[float]]:
    """What the slow twins make of the images: projected, and rounded or quantised."""
    found = {}
    for name, features in images.items():
        vector = np.array(projected(codec, features), np.float32)
        if codec.centroids is not None:
            found[name] = naive.reconstruct(naive.nearest_centroids(vector.tolist(), codec.centroids), codec.centroids)
        else:
            found[name] = vector.astype(codec.dtype).astype(np.float64).tolist()
    return found


def projected(codec: Codec, features: Features) -> list[float]:
    vector = features.descriptors[0].astype(np.float64).tolist()
    if codec.projection is None or codec.mean is None or not any(vector):
        return naive.unit(vector) if codec.projection is None else [0.0] * codec.dim
    return naive.project(vector, codec.mean.tolist(), codec.projection.tolist())


def test_scores_are_those_of_the_twin(tmp_path: Path, codec: Codec, images: dict[str, Features]) -> None:
    searcher = GlobalSearcher(made(tmp_path, codec, images))
    database = stored(codec, images)
    for query in global_images(4, seed=3).values():
        vector = projected(codec, query)
        expected = {name: naive.dot(vector, x) for name, x in database.items()}
        found = searcher.scores(query)
        assert found.keys() == expected.keys()
        assert all(found[name] == pytest.approx(expected[name], abs=3e-6) for name in found)
        full = searcher.search(query, None)
        assert full == [Hit(name, score) for name, score in naive.rank(found)]
        for top in (1, 2, 5, 39, 40, 100):
            assert searcher.search(query, top) == full[:top]


def test_answers_do_not_depend_on_segments_order_blocks_threads_or_merging(
    tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, queries = global_images(60), list(global_images(5, seed=3).values())
    index = made(tmp_path, codec, images)
    expected = [GlobalSearcher(index).search(query, 9) for query in queries]
    everything = GlobalSearcher(index).search(queries, None)
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 100)
    monkeypatch.setattr("asmk_engine.flat.index.BATCH_SIZE", 3)
    monkeypatch.setattr("asmk_engine.flat.products.BLOCK_BYTES", 500)
    monkeypatch.setattr("asmk_engine.flat.nearest.EXACT_BYTES", 700)
    monkeypatch.setattr("asmk_engine.flat.products.ProductScores.block_bytes", 100)
    other = GlobalIndex.create(tmp_path / "other", codec)
    names = list(images)
    np.random.default_rng(0).shuffle(names)
    for part in range(7):
        other.add(write_global(tmp_path / f"part-{part}", {name: images[name] for name in names[part::7]}))
    for _ in range(2):
        for threads in (1, 2):
            searcher = GlobalSearcher(other, threads=threads)
            assert [searcher.search(query, 9) for query in queries] == expected
            assert searcher.search(queries, 9) == expected
            assert searcher.search(queries, None) == everything
        assert other.merge(chunk_bytes=300) in (7, 1)
    assert len(other.snapshot.segments) == 1
    small = GlobalIndex.create(tmp_path / "small", codec)
    small.add(write_global(tmp_path / "again", images), segment_bytes=11 * codec.width * codec.dtype.itemsize)
    assert len(small.snapshot.segments) == 6
    assert GlobalSearcher(small).search(queries, 9) == expected


def test_equal_scores_are_in_byte_order_of_the_names(tmp_path: Path) -> None:
    vector = np.eye(1, DIM)
    images = {name: make_features(vector) for name in ("b", "a", "é", "Z", "e\u0301")}
    index = GlobalIndex.create(tmp_path / "index", Codec(RECIPE, DIM))
    for name, features in images.items():
        index.add(write_global(tmp_path / f"set {len(index)}", {name: features}))
    hits = GlobalSearcher(index).search(make_features(vector), 4)
    assert [hit.name for hit in hits] == sorted(images, key=str.encode)[:4]
    assert all(hit.score == 1.0 for hit in hits)


def test_products_of_matrices_only_propose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a product errs within its margin, the answer is the same."""
    images = global_images(200, dim=64)
    index = made(tmp_path, Codec(RECIPE, 64), images)
    query = next(iter(global_images(1, dim=64, seed=9).values()))
    expected = GlobalSearcher(index).search(query, 20)
    approximate = "asmk_engine.flat.products.FlatScores.approximate"
    from asmk_engine.flat.products import FlatScores

    original, rng = FlatScores.approximate, np.random.default_rng(0)

    def erring(self: FlatScores, *place: object) -> np.ndarray:
        scores = original(self, *place)  # type: ignore[arg-type]
        return scores + (rng.choice((-0.98, 0.98), scores.shape) * self.margin).astype(np.float32)

    monkeypatch.setattr("asmk_engine.flat.products._UNIT_ROUNDOFF", 2.0**-14)  # margins that matter
    for _ in range(5):
        monkeypatch.setattr(approximate, erring)
        assert GlobalSearcher(index).search(query, 20) == expected


def test_an_accelerator_gives_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its part that needs no accelerator: proposals by torch, in blocks that are kept and in blocks that are not."""
    monkeypatch.setattr("asmk_engine.flat.cuda.CudaScores.device", "cpu")
    monkeypatch.setattr("asmk_engine.flat.cuda.BLOCK_BYTES", 700)
    queries = list(global_images(4, seed=3).values())
    for options in (CodecOptions(), CodecOptions(half=True), CodecOptions(pq=8)):
        index = made(tmp_path, train_on(sample(), RECIPE, options), global_images(40), options.precision)
        index.delete(["image 004.jpg"])
        expected = GlobalSearcher(index, Expansion(3), device="cpu").search(queries, 7)
        with monkeypatch.context() as patch:
            patch.setattr("asmk_engine.flat.search._cuda_scores", lambda device: CudaScores)
            for _ in range(2):
                assert GlobalSearcher(index, Expansion(3), device="cuda").search(queries, 7) == expected


def test_cuda_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, query = made(tmp_path, Codec(RECIPE, DIM), global_images(4)), global_images(4)["image 003.jpg"]
    for likely, there in ((False, False), (True, False)):
        _cuda_scores.cache_clear()
        monkeypatch.setattr("asmk_engine.flat.cuda.is_likely", lambda likely=likely: likely)
        monkeypatch.setattr("asmk_engine.flat.cuda.is_there", lambda there=there: there)
        assert GlobalSearcher(index, device="auto").search(query, 1)
        with pytest.raises(InputError, match="no CUDA device"):
            GlobalSearcher(index, device="cuda").search(query, 1)
    _cuda_scores.cache_clear()


def test_the_margin_holds_for_any_order_of_sums() -> None:
    rng = np.random.default_rng(0)
    for dim in (1, 7, 100, 2048):
        one, other = (v / np.linalg.norm(v) for v in np.abs(rng.normal(size=(2, dim))))
        one, other = one.astype(np.float32), other.astype(np.float32)
        running = np.float32(0)
        for a, b in zip(one, other, strict=True):  # the worst order: one after another
            running = np.float32(running + np.float32(a * b))
        assert abs(float(running) - naive.dot(one.tolist(), other.tolist())) <= rounding_margin(dim)


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 64, 100])
def test_dot_products_and_halves_equal_their_twins(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows, query = rng.normal(size=(5, dim)).astype(np.float32), rng.normal(size=dim).astype(np.float32)
    out = np.empty(5)
    dots(rows, query, out)
    assert out == pytest.approx([naive.dot(row.tolist(), query.tolist()) for row in rows], abs=1e-12)
    alone = np.empty(1)
    for place in range(5):
        dots(rows[place : place + 1].copy(), query, alone)
        assert alone[0] == out[place]


def test_every_half_is_widened_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = np.ascontiguousarray(halves[np.isfinite(halves)])
    values = np.empty(len(halves), np.float32)
    widen(halves.view(np.uint16), values.view(np.uint32), values)
    assert np.array_equal(values.view(np.uint32), halves.astype(np.float32).view(np.uint32))


def test_principal_directions_keep_what_varies_most() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 6)) * [0.01, 3, 0.02, 1, 0.03, 2]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    plain = train_on(vectors, RECIPE, CodecOptions(pca=3))
    assert plain.projection is not None and plain.mean is not None
    assert np.abs(plain.projection).argmax(axis=1).tolist() == [1, 5, 3]
    assert plain.projection @ plain.projection.T == pytest.approx(np.eye(3), abs=1e-5)
    white = train_on(vectors, RECIPE, CodecOptions(pca=3, whiten=True))
    assert white.projection is not None and white.mean is not None
    spread = (vectors - white.mean) @ white.projection.T
    assert np.cov(spread.T, bias=True) == pytest.approx(np.eye(3), abs=1e-3)


def test_quantisation_comes_near_and_codes_are_the_nearest_centroids() -> None:
    vectors = sample(400)
    for options, least in ((CodecOptions(pq=8), 0.7), (CodecOptions(pq=1), 0.999)):
        codec = train_on(vectors, RECIPE, options)
        assert codec.centroids is not None and codec.width == DIM // (options.pq or 1)
        some = codec.apply(vectors[5:6])
        codes = codec.encode(some)
        assert codes.dtype == np.uint8
        assert codes[0].tolist() == naive.nearest_centroids(some[0].tolist(), codec.centroids)
        decoded = codec.decode(codes)
        assert decoded[0].tolist() == naive.reconstruct(codes[0].tolist(), codec.centroids)
        assert float(decoded[0] @ some[0]) > least
    one, two = (train_on(vectors, RECIPE, CodecOptions(pq=8)) for _ in range(2))
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(("neighbours", "alpha"), [(1, 3.0), (5, 3.0), (4, 0.0), (100, 1.0)])
def test_expansion_equals_its_twin(
    tmp_path: Path, codec: Codec, images: dict[str, Features], neighbours: int, alpha: float
) -> None:
    index = made(tmp_path, codec, images)
    database = stored(codec, images)
    searcher = GlobalSearcher(index, Expansion(neighbours, alpha))
    for query in list(global_images(4, seed=3).values()):
        vector = naive.expand(projected(codec, query), database, neighbours, alpha)
        found = searcher.scores(query)
        for name, x in database.items():
            assert found[name] == pytest.approx(naive.dot(vector, x), abs=1e-5)


def test_augmentation_equals_its_twin_and_is_closed(tmp_path: Path, codec: Codec) -> None:
    images = global_images(30)
    index = made(tmp_path, codec, images)
    index.delete(["image 007.jpg"])
    del images["image 007.jpg"]
    told: list[tuple[int, int]] = []
    room = 7 * codec.width * codec.dtype.itemsize
    blended = augment(
        index,
        tmp_path / "blended",
        Expansion(4, 2.0),
        segment_bytes=room,
        on_image=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (29, 29) and blended.names == sorted(images)
    database = naive.augment(stored(codec, images), 4, 2.0)
    for place, segment in enumerate(blended.snapshot.segments):
        assert place < 6
        for name, vector in zip(segment.names(), segment.vectors, strict=True):
            found = codec.decode(vector[None])[0]
            expected = np.array(database[name], np.float32)
            if codec.centroids is not None:
                expected = codec.decode(codec.encode(expected[None]))[0]
            assert found == pytest.approx(expected, abs=2e-3 if codec.precision == "half" else 1e-4)
    again = GlobalIndex.open(blended.path)
    assert again.codec.augmentation == {"neighbours": 4, "alpha": 2.0}
    with pytest.raises(InputError, match="augmented"):
        again.add(write_global(tmp_path / "more", global_images(1, seed=5, prefix="new")))
    with pytest.raises(InputError, match="already augmented"):
        augment(again, tmp_path / "twice")


@pytest.mark.parametrize("weights", [None, [1.0, 1.0], [2.0, 0.5]])
def test_fusion_equals_its_twins(weights: list[float] | None) -> None:
    rankings = [[("a", 0.9), ("b", 0.5), ("c", 0.1)], [("d", 7.0), ("b", 6.0), ("a", 6.0)]]
    hits = [[Hit(*pair) for pair in ranking] for ranking in rankings]
    for method, twin in (("scores", naive.fuse_scores), ("ranks", naive.fuse_ranks)):
        expected = naive.rank(twin(rankings, weights or [1.0, 1.0]))
        found = fuse(hits, method=method, weights=weights)
        assert [hit.name for hit in found] == [name for name, _ in expected]
        assert [hit.score for hit in found] == pytest.approx([score for _, score in expected])
        assert fuse(hits, method=method, weights=weights, top=2) == found[:2]


def test_fusion_at_the_boundaries() -> None:
    one = [Hit("b", 0.5), Hit("a", 0.5)]
    assert fuse([]) == [] and fuse([[], []]) == []
    assert [hit.name for hit in fuse([one, []])] == ["a", "b"]  # all scores equal: names decide
    assert [hit.name for hit in fuse([one, []], method="ranks")] == ["b", "a"]
    for weights in ([1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("inf")]):
        with pytest.raises(InputError, match="weights"):
            fuse([one, one], weights=weights)
    with pytest.raises(InputError, match="choose one of scores, ranks"):
        fuse([one], method="sum")


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_concatenation_equals_its_twin(tmp_path: Path, weights: list[float] | None) -> None:
    one, two = global_images(12), global_images(12, dim=10, seed=4)
    sets = [write_global(tmp_path / "one", one), write_global(tmp_path / "two", two, Recipe("spoc"))]
    both = concatenate(sets, tmp_path / "both", weights)
    assert both.recipe.is_global and both.dim == DIM + 10 and both.names == sets[0].names
    for name in one:
        parts = [features[name].descriptors[0].astype(float).tolist() for features in (one, two)]
        expected = naive.concatenate(parts, weights or [1.0, 1.0])
        assert both.read(name).descriptors[0] == pytest.approx(expected, abs=1e-6)
        assert both.source(name) == sets[0].source(name)
    index = GlobalIndex.create(tmp_path / "index", Codec(both.recipe, both.dim))
    index.add(both)
    assert GlobalSearcher(index).search(both.read("image 004.jpg"), 1)[0].name == "image 004.jpg"


def test_photographs_are_described_side_by_side(tmp_path: Path) -> None:
    """With a stand-in for global extractors: any that gives one descriptor."""
    parts = [Recipe("rootsift", {"max_features": 1, "max_side": side}) for side in (100, 200)]
    recipe = concatenated_recipe(parts, [1.0, 2.0])
    extractor = concatenated_extractor(recipe)
    assert extractor.dim == 256
    assert [part.recipe.options["max_side"] for part in extractor.parts] == [100, 200]
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (12, 12, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    found = extractor.extract(image)
    expected = joined([part.extract(image) for part in extractor.parts], [1.0, 2.0])
    assert np.array_equal(found.descriptors, expected.descriptors)
    made = extractor.origin.make()
    assert isinstance(made, ConcatenatedExtractor) and made.recipe == extractor.recipe
    for parts_said in ("none", [{"extractor": "rootsift"}], [3]):
        with pytest.raises(InputError, match=r"the parts in .* are missing or invalid"):
            concatenated_extractor(Recipe("concatenation", {"parts": parts_said}))


def test_the_network_of_a_part_is_told_by_its_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        file.write_bytes(file.name.encode())
    right = hashlib.sha256(b"b.safetensors").hexdigest()
    parts = [Recipe("gem", {}, right), Recipe("spoc", {}, "00" * 32), Recipe("mac")]
    asked: list[object] = []
    made = "asmk_engine.extractors.concatenation.extractor_from_recipe"
    monkeypatch.setattr(made, lambda part, network, device: asked.append((part, network)))
    concatenated_extractor(concatenated_recipe(parts, [1.0, 1.0, 1.0]), files)
    assert asked == [(parts[0], files[1]), (parts[1], None), (parts[2], None)]


def test_a_concatenation_is_brought_up_to_date(tmp_path: Path) -> None:
    images = global_images(6)
    names = sorted(images)

    def sets(chosen: list[str], fingerprint: int) -> list[FeatureSet]:
        source = Source(1, 2, fingerprint)
        kinds = (RECIPE, Recipe("spoc"))
        folders = [tmp_path / f"{fingerprint} {kind.extractor}" for kind in kinds]
        some = {name: images[name] for name in chosen}
        pairs = zip(folders, kinds, strict=True)
        return [write_features(folder, some, recipe=kind, source=source) for folder, kind in pairs]

    concatenate(sets(names[:4], 1), tmp_path / "both")
    told: list[tuple[int, int]] = []
    once = concatenate(sets(names[:4], 1), tmp_path / "both", on_image=lambda done, total: told.append((done, total)))
    assert told == [] and once.names == names[:4]
    later = concatenate(sets(names[1:], 2), tmp_path / "both", on_image=lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5) and later.names == names[1:] and later.source(names[1]).fingerprint == 2


def test_what_cannot_be_concatenated_is_refused(tmp_path: Path) -> None:
    images = global_images(3)
    one = write_global(tmp_path / "one", images)
    few = write_global(tmp_path / "few", dict(list(images.items())[:2]), Recipe("spoc"))
    local = write_global(tmp_path / "local", images, Recipe("rootsift"))
    for sets, weights, error in (
        ([one], None, "give two or more"),
        ([one, few], None, "missing, but in .*: 'image 002.jpg'; extract"),
        ([few, one], None, "missing, but in .*: 'image 002.jpg'; extract"),
        ([one, one], None, "with itself"),
        ([one, local], None, "many descriptors per image"),
        ([one, few], [1.0], "one weight above 0 for each"),
        ([one, few], [1.0, 0.0], "one weight above 0 for each"),
    ):
        with pytest.raises((InputError, MismatchError), match=error):
            concatenate(sets, tmp_path / "both", weights)
        assert not (tmp_path / "both").exists()
    with pytest.raises(MismatchError, match="use the same options, or another folder"):
        concatenate([one, write_global(tmp_path / "mac", images, Recipe("mac"))], tmp_path / "one")
    with pytest.raises(MismatchError, match="exactly one"):
        joined([make_features(np.ones((2, 3)))], [1.0])


def test_bad_options_and_too_few_descriptors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"pca": 0}, {"whiten": True}, {"pq": 4}, {"pq": 8, "half": True}):
        with pytest.raises(InputError):
            CodecOptions(**wrong)  # type: ignore[arg-type]
    some = sample(100)
    for options, error, message in (
        (CodecOptions(pca=25), MismatchError, "PCA to 25 dimensions, the descriptors have 24"),
        (CodecOptions(pca=12, pq=8), MismatchError, "12 dimensions do not divide into sub-spaces of 8; .* 8,"),
        (CodecOptions(pq=8), InputError, "100 training descriptors for 256 centroids"),
    ):
        with pytest.raises(error, match=message):
            train_on(some, RECIPE, options)
    with pytest.raises(InputError, match="10 training descriptors for PCA to 20"):
        train_on(some[:10], RECIPE, CodecOptions(pca=20))
    with pytest.raises(MismatchError, match="many descriptors per image"):
        train_codec(write_global(tmp_path / "local", global_images(3), Recipe("rootsift")), CodecOptions())
    monkeypatch.setattr("asmk_engine.flat.codec_training.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install"):
        train_on(sample(), RECIPE, CodecOptions(pq=8))


def test_a_codec_of_another_dimension_is_refused() -> None:
    codec = train_on(sample(), RECIPE, CodecOptions(pca=16, pq=8))
    assert codec.mean is not None and codec.projection is not None and codec.centroids is not None
    for changes, message in (
        ({"input_dim": 30}, "PCA was trained on 24 dimensions, the descriptors have 30"),
        ({"mean": None}, "projection without a mean"),
        ({"projection": codec.projection[:8]}, r"centroids \(2, 256, 8\), expected \[M, 256, S\] with M S = 8"),
        ({"projection": codec.projection[:, :9]}, "its projection is"),
        ({"centroids": codec.centroids[:, :9]}, "product quantiser"),
        ({"precision": "half"}, "does not match its arrays"),
        ({"precision": "double"}, "does not match its arrays"),
        ({"mean": codec.mean * np.nan}, "finite"),
    ):
        with pytest.raises(MismatchError, match=message):
            replace(codec, **changes)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    images = global_images(5)
    index = made(tmp_path, Codec(RECIPE, DIM), images)
    before = {file.name: file.read_bytes() for file in index.path.iterdir()}
    two = write_global(tmp_path / "two", {**images, "new": make_features(np.ones((2, DIM)))})
    none = write_global(tmp_path / "none", {"new": make_features(np.ones((0, DIM)))}, dim=DIM)
    wide = write_global(tmp_path / "wide", global_images(2, 30, prefix="wide"))
    other = write_global(tmp_path / "other", global_images(2, prefix="other"), Recipe("spoc"))
    same = write_global(tmp_path / "same", images)
    for features, error, message in (
        (two, InputError, "'new' has 2 descriptors"),
        (none, InputError, "'new' has 0 descriptors"),
        (wide, MismatchError, "30 dimensions, the codec of .* was made for 24"),
        (other, MismatchError, "spoc.*gem"),
    ):
        with pytest.raises(error, match=message):
            index.add(features, existing="skip")
    with pytest.raises(InputError, match="use skip"):
        index.add(same)
    assert before == {file.name: file.read_bytes() for file in index.path.iterdir()}
    searcher = GlobalSearcher(index)
    with pytest.raises(MismatchError, match="2 descriptors"):
        searcher.search(make_features(np.ones((2, DIM))))
    with pytest.raises(MismatchError, match="the codec expects"):
        searcher.search(make_features(np.ones((1, 5))))
    with pytest.raises(InputError, match="NaN"):
        searcher.search(make_features(np.full((1, DIM), np.nan)))
    with pytest.raises(InputError, match="top"):
        searcher.search(images["image 003.jpg"], 0)
    for wrong in ({"neighbours": 0}, {"alpha": -1.0}, {"alpha": float("nan")}):
        with pytest.raises(InputError):
            Expansion(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="choose one of"):
        GlobalSearcher(index, device="tpu")


def test_an_empty_and_a_single_image_index(tmp_path: Path) -> None:
    index = GlobalIndex.create(tmp_path / "index", Codec(RECIPE, DIM))
    query = global_images(1, seed=3)["image 000.jpg"]
    for searcher in (GlobalSearcher(index), GlobalSearcher(index, Expansion(3))):
        assert searcher.search(query) == [] and searcher.search([query], None) == [[]] and searcher.search([]) == []
    index.add(write_global(tmp_path / "one", global_images(1)))
    assert len(GlobalSearcher(index, Expansion(3)).search(query, None)) == 1
    assert augment(index, tmp_path / "blended").images == 1


def test_the_two_kinds_are_told_apart(tmp_path: Path) -> None:
    index = made(tmp_path, Codec(RECIPE, DIM), global_images(3))
    local = Index.create(tmp_path / "local", random_codebook(4, DIM))
    assert isinstance(open_index(index.path), GlobalIndex) and isinstance(open_index(local.path), Index)
    with pytest.raises(FormatError, match="a global index"):
        Index.open(index.path)
    with pytest.raises(FormatError, match="an index of local features"):
        GlobalIndex.open(local.path)
    assert index.recipe == RECIPE and index.recipe.is_global and not local.recipe.is_global
    assert {"gem", "concatenation"} < GLOBAL_EXTRACTORS
