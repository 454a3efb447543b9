"""An index of several kinds of features: its fused scores are those of a slow twin, however it was made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asmk_engine import Codebook, GlobalIndex, GlobalSearcher, Index, Searcher
from asmk_engine.errors import FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.features import ArrayFeatures, Features, FeatureSet
from asmk_engine.features.model import fingerprint_features
from asmk_engine.flat import Codec, Expansion
from asmk_engine.fused.index import FusedContents, FusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.fused.sources import FusedSource, joint_fingerprint
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.recipes import GLOBAL_ARRAYS, Recipe
from asmk_engine.search.fusion import fuse
from asmk_engine.search.opening import join_indexes, open_index
from asmk_engine.storage.folder import Folder
from disks import fast_disk
from fused_histories import (
    DIM,
    ELSEWHERE,
    HERE,
    NAMES,
    POOL,
    QUERIES,
    SIDE,
    WORDS,
    Kinds,
    content_of,
    create,
    encoders,
    images_of,
    small_limits,
    some,
    write_sets,
)
from naive_fused import fused
from samples import RECIPE, make_features, random_codebook

OTHER = Recipe("others", {"seed": 1})
NOTHING = make_features(np.empty((0, DIM)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, FeatureSet]:
    return write_sets(tmp_path / "sets", POOL)


@pytest.fixture
def index(tmp_path: Path, sets: dict[str, FeatureSet]) -> FusedIndex:
    made = create(tmp_path / "index")
    made.add(sets)
    return made


def alone(images: dict[str, Kinds]) -> tuple[Index, GlobalIndex]:
    """An index of each kind of the same images; one without local features is in both, as an image without any."""
    kinds: Any = encoders()
    local, whole = Index.in_memory(kinds["parts"]), GlobalIndex.in_memory(kinds["whole"])
    local.add({name: parts or NOTHING for name, (parts, _) in images.items()}.items(), recipe=RECIPE)
    vectors = {name: found for name, (_, found) in images.items() if found}
    whole.add(vectors.items(), recipe=kinds["whole"].recipe)
    return local, whole


def twin(
    images: dict[str, Kinds], query: FusedFeatures, weights: Sequence[float], own: Sequence[str] = (), **how: Any
) -> list[tuple[str, float]]:
    """The fused ranking from the answers of an index of each kind alone."""
    local, whole = alone(images)
    searchers: list[Any] = [Searcher(local, how.get("match")), GlobalSearcher(whole, how.get("expansion"))]
    answers, used = [], []
    for searcher, part, weight in zip(searchers, query.parts, weights, strict=True):
        if part is not None and len(part):
            answers.append({hit.name: hit.score for hit in searcher.search(part, None)})
            used.append(weight / sum(weights))
    return fused(answers, used, frozenset(own))


def pairs(hits: Sequence[Any]) -> list[tuple[str, float]]:
    return [(hit.name, hit.score) for hit in hits]


@pytest.mark.parametrize("weights", [(1, 1), (0.9, 0.1), (1, 0), (0, 2)])
@pytest.mark.parametrize("how", [{}, {"match": SelectiveMatch(idf=True)}, {"expansion": Expansion(3)}])
def test_the_fused_ranking_is_that_of_the_twin(index: FusedIndex, weights: tuple[float, float], how: Any) -> None:
    for query in QUERIES:
        expected = twin(POOL, query, weights, **how)
        assert len(expected) > 8
        for threads in (1, 3):
            searcher = FusedSearcher(index, weights=weights, threads=threads, **how)
            assert pairs(searcher.search(query, None)) == expected
            for top in (1, 4, 50):
                assert pairs(searcher.search(query, top)) == expected[:top]
        ranked = searcher.rank(query)
        numbers = searcher.image_numbers([name for name, _ in expected])
        assert ranked.numbers.tolist() == [numbers[name] for name, _ in expected]
        assert ranked.scores.tolist() == [score for _, score in expected]


def test_the_stored_weights_are_the_default(index: FusedIndex) -> None:
    assert index.weights == {"parts": 0.75, "whole": 0.25}
    assert pairs(FusedSearcher(index).search(QUERIES[0], None)) == twin(POOL, QUERIES[0], (0.75, 0.25))
    index.set_weights([1, 3])
    again = FusedIndex.open(index.path)
    assert again.weights == {"parts": 0.25, "whole": 0.75} and again.snapshot.manifest.commit == 3
    assert pairs(FusedSearcher(again).search(QUERIES[0], None)) == twin(POOL, QUERIES[0], (0.25, 0.75))
    index.set_weights([0.25, 0.75])
    assert index.snapshot.manifest.commit == 3  # nothing to change


def test_weights_of_0_and_1_give_the_order_of_one_kind(index: FusedIndex) -> None:
    local, whole = alone(POOL)
    for query in QUERIES:
        parts, vector = query.parts
        assert isinstance(parts, Features) and isinstance(vector, Features)
        first = [hit.name for hit in Searcher(local).search(parts, None)]
        second = [hit.name for hit in GlobalSearcher(whole).search(vector, None)]
        assert [hit.name for hit in FusedSearcher(index, weights=(1, 0)).search(query, None)] == first
        assert [hit.name for hit in FusedSearcher(index, weights=(0, 1)).search(query, None)] == second
        assert 5 < len(first) < len(POOL) and 5 < len(second) < len(POOL)


def test_a_kind_that_the_query_lacks_leaves_the_other(index: FusedIndex) -> None:
    parts, vector = QUERIES[1].parts
    for query in (FusedFeatures((parts, None)), FusedFeatures((None, vector)), FusedFeatures((NOTHING, vector))):
        found = pairs(FusedSearcher(index).search(query, None))
        assert found == twin(POOL, query, (0.75, 0.25)) and found
    assert FusedSearcher(index).search(FusedFeatures((None, NOTHING)), None) == []
    with pytest.raises(MismatchError, match=r"has features of 1 kinds, the index .* has 2"):
        FusedSearcher(index).search(FusedFeatures((parts,)))


def test_segments_merging_and_the_order_of_images_change_nothing(
    tmp_path: Path, sets: dict[str, FeatureSet], index: FusedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [pairs(FusedSearcher(index).search(query, None)) for query in QUERIES]
    small_limits(monkeypatch)
    pieces, late = create(tmp_path / "pieces"), create(tmp_path / "late")
    pieces.add(sets, segment_postings=9)
    late.add({"whole": sets["whole"]})
    late.add({"parts": sets["parts"].selected(NAMES[::2])}, existing="skip")
    summary = late.add(sets, existing="skip", segment_postings=1)
    assert (summary.added, summary.replaced) == (4, 9)  # those without a vector, and those with both kinds
    assert len(pieces.snapshot.segments) > 1 and len(late.snapshot.segments) > 1
    for made in (pieces, late):
        for _ in range(2):
            assert made.names == NAMES
            assert [pairs(hits) for hits in FusedSearcher(made).search(QUERIES, None)] == expected
            made.merge()
            assert len(made.snapshot.segments) == 1
        made.preload()


def test_deleted_images_are_gone_at_once(index: FusedIndex) -> None:
    before = {query: FusedSearcher(index).search(query, None) for query in QUERIES}
    gone = NAMES[2:9:3]
    index.delete(gone)
    left = {name: kinds for name, kinds in POOL.items() if name not in gone}
    for query in before:
        assert pairs(FusedSearcher(index).search(query, None)) == twin(left, query, (0.75, 0.25))
    index.merge()
    assert pairs(FusedSearcher(index).search(QUERIES[0], None)) == twin(left, QUERIES[0], (0.75, 0.25))
    with pytest.raises(NotFoundError, match="nothing was deleted"):
        index.delete(gone)


def test_the_scores_of_the_others_do_not_depend_on_whether_the_query_is_indexed(tmp_path: Path) -> None:
    """The best score is that of another image, so an evaluation is the same with the queries in the index or not."""
    for name in NAMES[:3]:
        query = FusedFeatures(POOL[name], content_of(name))
        without = {other: kinds for other, kinds in POOL.items() if other != name}
        answers = []
        for number, images in enumerate((POOL, without)):
            made = create(tmp_path / f"{name}-{number}")
            made.add(write_sets(tmp_path / f"{name}-{number}-sets", images))
            answers.append(pairs(FusedSearcher(made).search(query, None)))
        assert answers[0] == twin(POOL, query, (0.75, 0.25), own=[name])
        assert answers[1] == twin(without, query, (0.75, 0.25))
        assert [one for one in answers[0] if one[0] != name] == answers[1]
        assert answers[0][0][0] == name and answers[0][0][1] > answers[0][1][1]


def test_without_another_image_there_is_no_scale(tmp_path: Path) -> None:
    made = create(tmp_path / "one")
    query = FusedFeatures(POOL[NAMES[0]], content_of(NAMES[0]))
    assert FusedSearcher(made).search(query) == [] and made.names == [] and len(made) == 0
    made.merge()
    made.add(write_sets(tmp_path / "sets", some(NAMES[:1])))
    found = FusedSearcher(made).search(query)
    assert pairs(found) == twin(some(NAMES[:1]), query, (0.75, 0.25), own=NAMES[:1])
    assert len(found) == 1 and found[0].score > 0


def test_equal_scores_are_in_byte_order_of_the_names(tmp_path: Path) -> None:
    same = dict.fromkeys(("photo 010.jpg", "photo 002.jpg", "photo 011.jpg"), POOL[NAMES[0]])
    made = create(tmp_path / "same")
    made.add(write_sets(tmp_path / "sets", same), segment_postings=1)
    found = FusedSearcher(made).search(QUERIES[0], None)
    assert [hit.name for hit in found] == sorted(same) and len({hit.score for hit in found}) == 1


def three_kinds(path: Path, order: Sequence[str], images: dict[str, dict[str, Features]]) -> FusedIndex:
    kinds: dict[str, Any] = {"a": random_codebook(WORDS, DIM), "b": random_codebook(6, DIM, 2, OTHER)}
    kinds["c"] = Codec(Recipe(GLOBAL_ARRAYS), SIDE)
    weights = {"a": 0.5, "b": 0.3, "c": 0.1}
    made = FusedIndex.create(path, {name: kinds[name] for name in order}, [weights[name] for name in order])
    made.add({name: ArrayFeatures.of_images(images[name].items(), kinds[name].recipe) for name in order})
    return made


def test_the_order_of_the_kinds_changes_no_score(tmp_path: Path) -> None:
    images: dict[str, dict[str, Features]] = {"a": {}, "b": {}, "c": {}}
    for name, (parts, whole) in images_of(14, seed=1).items():
        images["a"][name] = images["b"][name] = parts or NOTHING
        images["c"] |= {name: whole} if whole else {}
    parts, vector = QUERIES[2].parts
    query = {"a": parts, "b": parts, "c": vector}
    answers = []
    for order in itertools.permutations("abc"):
        made = three_kinds(tmp_path / "".join(order), order, images)
        answers.append(pairs(FusedSearcher(made).search(FusedFeatures(tuple(query[name] for name in order)), None)))
    assert all(answer == answers[0] for answer in answers) and len(answers[0]) > 8


def test_fusing_the_rankings_of_two_indexes_with_the_same_scale_is_the_same(index: FusedIndex) -> None:
    """`fuse` scales from the least to the best; for scores from 0 on it is the same formula."""
    local, whole = alone(POOL)
    parts, vector = QUERIES[0].parts
    assert isinstance(parts, Features) and isinstance(vector, Features)
    rankings = [Searcher(local).search(parts, None), GlobalSearcher(whole).search(vector, None)]
    known = set(POOL)
    scaled = []
    for hits in rankings:
        missing = [type(hits[0])(name, 0.0) for name in known - {hit.name for hit in hits}]
        scaled.append([hit for hit in hits if hit.score >= 0] + missing)
    found = {hit.name: hit.score for hit in fuse(scaled, weights=[0.75, 0.25])}
    mine = {hit.name: hit.score for hit in FusedSearcher(index).search(QUERIES[0], None)}
    positive = {hit.name for hit in rankings[1] if hit.score >= 0}
    assert len(positive) > 3
    for name in positive:
        assert mine[name] == pytest.approx(found[name])


def test_several_indexes_answer_as_one(tmp_path: Path) -> None:
    parts = [dict(list(POOL.items())[begin::3]) for begin in range(3)]
    made = []
    for number, images in enumerate(parts):
        one = create(tmp_path / str(number))
        one.add(write_sets(tmp_path / f"sets {number}", images))
        made.append(one)
    marked = {f"distractor1:{name}": kinds for name, kinds in parts[2].items()}
    joint = join_indexes(made[:2], made[2:])
    assert isinstance(joint, JointIndex) and joint.images == len(parts[0]) + len(parts[1])
    for query in QUERIES:
        expected = twin({**parts[0], **parts[1], **marked}, query, (0.75, 0.25))
        assert pairs(FusedSearcher(joint).search(query, None)) == expected  # type: ignore[arg-type]
    kinds: Any = {**encoders(), "parts": random_codebook(WORDS, DIM, 9)}
    other = FusedIndex.create(tmp_path / "other", kinds)
    with pytest.raises(MismatchError, match="its set of codebooks and codecs is"):
        join_indexes([made[0], other])
    with pytest.raises(MismatchError, match="not the same kind of index"):
        join_indexes([made[0], alone(POOL)[0]])


def test_what_one_kind_does_not_need_is_not_read(
    index: FusedIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reopened = FusedIndex.open(index.path)
    FusedSearcher(reopened, weights=(1, 0)).search(QUERIES[0])
    segment = reopened.snapshot.segments[0]
    read, unread = (file.blocks for file in segment.part_files)
    assert read is not None and read._compared[0] and unread is not None
    FusedSearcher(reopened).search(QUERIES[0])
    before = segment
    index.delete(NAMES[:1])
    reopened.refresh()
    assert reopened.snapshot.segments[0].file is before.file
    assert reopened.snapshot.segments[0].part_files == before.part_files
    assert reopened.snapshot.encoder is not None and reopened.images == index.images


def test_an_image_keeps_what_its_kinds_know(index: FusedIndex, sets: dict[str, FeatureSet], tmp_path: Path) -> None:
    for name in NAMES:
        known = index.identity(name)
        assert known is not None and (known.root, known.fingerprint) == (HERE, content_of(name))
        place = index.snapshot.find(name)
        assert place is not None and index.snapshot.lacking(place) == tuple(part is None for part in POOL[name])
    with pytest.raises(InputError, match="already in the index"):
        index.add(sets)
    again = index.add(sets, existing="update")
    assert (again.added, again.replaced, again.unchanged) == (0, 0, len(NAMES))
    assert index.snapshot.manifest.commit == 2
    moved = index.add(write_sets(tmp_path / "elsewhere", POOL, ELSEWHERE), existing="skip")
    assert moved.moved == moved.unchanged == len(NAMES)
    changed = index.add(write_sets(tmp_path / "changed", some(NAMES[:2]), edition=1), existing="skip")
    assert changed.changed == () and changed.taken == tuple(NAMES[:2])
    pruned = index.add({"parts": sets["parts"]}, existing="skip", prune=True)
    assert pruned.removed == len(NAMES) - len(sets["parts"])
    assert next(path for (path, *_) in index.feature_places) == tmp_path / "sets" / "parts"


def test_features_of_another_file_of_the_name_are_left_out(tmp_path: Path) -> None:
    name = NAMES[0]
    sets = write_sets(tmp_path / "old", some([name]))
    sets["whole"] = write_sets(tmp_path / "new", some([name]), edition=1)["whole"]
    source = FusedSource(list(sets.values()))
    assert source.other == {name: [1]} and source.holders(name) == [0] and source.kinds_of(name) == [0]
    made = create(tmp_path / "index")
    made.add(sets)
    place = made.snapshot.find(name)
    assert place is not None and made.snapshot.lacking(place) == (False, True)


def test_arrays_are_identified_by_all_their_kinds() -> None:
    rng = np.random.default_rng(0)
    local = {f"{number}": rng.normal(size=(20, DIM)) for number in range(5)}
    whole = {name: rng.normal(size=(1, SIDE)) for name in local}
    kinds = {"parts": Codebook.train(list(local.values()), words=2), "whole": Codec(Recipe(GLOBAL_ARRAYS), SIDE)}
    made = FusedIndex.in_memory(kinds)
    assert made.add({"parts": local.items(), "whole": whole.items()}).added == 5
    query = FusedFeatures.of_arrays([local["2"], whole["2"]])
    known = made.identity("2")
    assert known is not None and query.fingerprint == known.fingerprint
    assert query.fingerprint == joint_fingerprint([fingerprint_features(part) for part in query.parts])  # type: ignore[arg-type]
    best = FusedSearcher(made).search(query)
    assert best[0].name == "2" and best[0].score > best[1].score
    with pytest.raises(InputError, match="given as arrays and cannot be extracted here"):
        FusedSearcher(made).search("photo.jpg")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda made: made.add({"others": []}), "has no kind of features named 'others'; it has 'parts', 'whole'"),
        (lambda made: made.add({}, existing="never"), "existing is 'never'"),
        (lambda made: made.set_weights([1]), "weights are .1.0. for 2 kinds of features"),
        (lambda made: FusedSearcher(made, weights=[0, 0]), "not all of them 0"),
        (lambda made: FusedSearcher(made, weights=[1, -1]), "one of 0 or more for each"),
        (lambda made: FusedIndex.create(made.path / "x", {}), "no kind of features was given"),
        (lambda made: FusedIndex.create(made.path / "x", {"a": made.encoders["whole"], "b": made.encoders["whole"]}),
         "two kinds of features are of"),
        (lambda made: made.add({"whole": [("a", np.ones((2, SIDE)))]}), "with a recipe|recipe"),
        (lambda made: FusedSearcher(made).search(5), "a query is a int; expected FusedFeatures"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, call: Any, message: str) -> None:
    made = create(tmp_path / "index")
    with pytest.raises((InputError, MismatchError), match=message) as error:
        call(made)
    assert "\n" not in str(error.value) and made.snapshot.manifest.commit == 1 and not (made.path / "x").exists()


def test_contents_of_a_whole_segment_are_added_once_and_with_every_kind(index: FusedIndex, tmp_path: Path) -> None:
    segment, kinds = index.snapshot.segments[0], index.snapshot.encoder.kinds
    names = [f"{place}.jpg".encode() for place in range(3)]
    parts = tuple(kind.nothing(3) for kind in kinds)
    contents = FusedContents(names, np.arange(3, dtype=np.uint64), np.zeros(3, np.uint32), parts)
    index.add_contents(contents)
    assert index.images == segment.images + 3 and index.snapshot.find("2.jpg") is not None
    with pytest.raises(InputError, match="already in the index"):
        index.add_contents(contents)
    with pytest.raises(MismatchError, match="contents have 1 kinds of features, the index 2; give all"):
        index.add_contents(replace(contents, names=[b"other", b"b", b"c"], parts=parts[:1]))
    assert index.images == segment.images + 3


def test_two_descriptors_are_no_vector(tmp_path: Path) -> None:
    made = create(tmp_path / "index")
    double = make_features(np.ones((2, SIDE)))
    with pytest.raises(InputError, match="has 2 descriptors, a global kind takes at most one"):
        made.add(write_sets(tmp_path / "sets", {"photo 001.jpg": (None, double)}))
    assert made.names == []


def test_other_classes_and_other_programs_are_told_what_it_is(index: FusedIndex, tmp_path: Path) -> None:
    assert isinstance(open_index(index.path), FusedIndex)
    with pytest.raises(FormatError, match=r"found an index of several kinds .*, expected an index of local"):
        Index.open(index.path)
    with pytest.raises(FormatError, match=r"found a global index .*, expected an index of several kinds"):
        whole = GlobalIndex.create(tmp_path / "whole", 8)
        FusedIndex.open(whole.path)
    content = json.loads((index.path / "manifest.json").read_text())
    assert content["kind"] not in ("asmk-engine index", "asmk-engine global index")  # which earlier versions would open
    content.pop("checksum")
    Folder(index.path).replace_manifest(COPIES, {**content, "format": 5})
    with pytest.raises(FormatError, match="index format 5, this version reads 4 and below"):
        open_index(index.path)
    Folder(index.path).replace_manifest(COPIES, {**content, "kind": "asmk-engine later index"})
    with pytest.raises(FormatError, match="this is 'asmk-engine later index', not an index of asmk-engine"):
        open_index(index.path)
