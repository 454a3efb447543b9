"""Verdicts of verified answers: what is learned against slow twins, the stored file, and the command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine import (
    Codebook,
    Features,
    FeatureSet,
    FusedIndex,
    FusedSearcher,
    GlobalIndex,
    Index,
    Reranking,
    Searcher,
)
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkWarning, DamagedError, InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureWriter, Source
from asmk_engine.indexes.calibrations import NAME, StoredCalibration, read_calibration, write_calibration
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe_index
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.recipes import Recipe
from asmk_engine.search.calibrating import calibrate, sampled_names
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.geometry import image_geometry
from asmk_engine.verification.match import match
from asmk_engine.verification.verdict import (
    CONSTANTS,
    MIRRORED_LOSS,
    Calibration,
    constants_of,
    learned,
    probabilities_of,
    threshold,
)

RECIPE = Recipe("custom:test", {})
SIZE = (640, 480)


def views(group, count, rng, features=60, dim=32):
    """Views of one thing: the same features moved and scaled, with a little noise, among others."""
    descriptors = rng.normal(size=(features, dim)).astype(np.float32)
    places = rng.random((features, 2)) * (500, 350)
    scales = 2.0 ** rng.uniform(2, 4, features)
    found = {}
    for number in range(count):
        scale, shift = rng.uniform(0.7, 1.2), rng.uniform(0, 60, 2)
        keypoints = np.c_[places * scale + shift, scales * scale]
        noisy = descriptors + rng.normal(0, 0.3, descriptors.shape).astype(np.float32)
        found[f"{group} {number}.jpg"] = Features.from_descriptors(noisy, keypoints, image_size=SIZE)
    return found


def collection(groups=8, each=6, seed=0):
    rng = np.random.default_rng(seed)
    return {name: one for group in range(groups) for name, one in views(f"g{group}", each, rng).items()}


def written(images, path, recipe=RECIPE):
    with FeatureWriter(path, recipe, 32, images_root=str(path.parent)) as writer:
        for number, (name, features) in enumerate(images.items(), start=1):
            writer.add(name, features, Source(1, 1, number))
    return FeatureSet.open(path)


def indexed(images, folder, geometry=None, segments=1):
    features = written(images, folder / "x.features")
    made = Index.create(folder / "x.index", Codebook.train(features, words=8, seed=0), geometry=geometry)
    names = sorted(images)
    for part in range(segments):
        made.add(features.selected(names[part::segments]))
    return made


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return indexed(collection(), tmp_path_factory.mktemp("verdicts"))


@pytest.fixture
def own(index, tmp_path):
    """A copy of the index, to be changed."""
    shutil.copytree(index.path, tmp_path / "x.index")
    shutil.copytree(index.path.parent / "x.features", tmp_path / "x.features")
    return Index.open(tmp_path / "x.index")


def run(*words, code=0):
    result = CliRunner().invoke(commands, [*map(str, words)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


# --- what is learned --------------------------------------------------------------------------------------------------


def naive_threshold(targets, chance, weight, wrong):
    for level in sorted({one for one in targets if one > 0}):
        false = weight * (1 + sum(one >= level for one in chance))
        if false <= wrong * sum(one >= level for one in targets):
            return level
    return None


def naive_probabilities(targets, chance, weight):
    """By the formula of the isotonic regression: the greatest over beginnings of the least mean up to an end.

    Returns the probability at each evidence.
    """
    levels = sorted({*targets, *chance})
    good = [sum(one == level for one in targets) for level in levels]
    bad = [weight * (sum(one == level for one in chance) + (level == levels[-1])) for level in levels]

    def share(j, k):
        return sum(good[j : k + 1]) / (sum(good[j : k + 1]) + sum(bad[j : k + 1]))

    found = {}
    for i, level in enumerate(levels):
        best = max(min(share(j, k) for k in range(i, len(levels))) for j in range(i + 1))
        found[level] = min(0.999, max(0.0, 1 - (1 - best) / best)) if best else 0.0
    return found


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_and_probabilities_are_those_of_the_naive_twins(seed):
    rng, digits = np.random.default_rng(seed), 1 + seed % 2
    count = int(rng.integers(1, 8))
    true = rng.uniform(0, 5, count * (seed % 3))
    targets = np.round(np.concatenate([rng.exponential(0.2, count), true]), digits)
    chance = np.sort(np.round(rng.exponential(0.2, int(rng.integers(0, 8))), digits))
    weight = float(rng.choice([1.0, 1.7]))
    for wrong in (0.01, 0.1, 0.5, 2.0):
        expected = naive_threshold(targets.tolist(), chance.tolist(), weight, wrong)
        assert threshold(targets, chance, weight, wrong) == expected
    evidences, probabilities = probabilities_of(targets, chance, weight)
    assert list(evidences) == sorted(evidences) and list(probabilities) == sorted(probabilities)
    assert all(0 <= one <= 0.999 for one in probabilities)
    judge = Calibration(1, 0.5, evidences, probabilities)
    for level, expected in naive_probabilities(targets.tolist(), chance.tolist(), weight).items():
        at = [p for e, p in zip(evidences, probabilities, strict=True) if e == level]
        assert expected == pytest.approx(at[0] if at else judge.probability(level), abs=1e-6)


def test_a_clear_collection_is_learned_and_its_numbers_follow_from_the_formula():
    rng = np.random.default_rng(0)
    chance, true = rng.exponential(0.05, 2000), rng.uniform(1, 3, 400)
    targets = np.concatenate([chance, true])
    decoys = np.concatenate([rng.exponential(0.05, 2000), rng.uniform(1, 3, 400)])  # of symmetric things
    constants = CONSTANTS["learned"]
    found = learned(targets, decoys, constants, 48)
    unrelated = sorted(MIRRORED_LOSS * d for t, d in zip(targets, decoys, strict=True) if t < constants.maybe)
    weight = len(targets) / len(unrelated)
    assert found.match == naive_threshold(targets.tolist(), unrelated, weight, 0.01)
    assert found.maybe == naive_threshold(targets.tolist(), unrelated, weight, 0.1)
    assert (found.is_learned, found.images, found.answers) == (True, 48, 2400) and found.maybe < found.match < 1
    assert found.probability(0.0) < 0.05 and found.probability(2.0) > 0.98
    assert [found.verdict(e) for e in (found.match, found.maybe, 0)] == ["match", "maybe", "no"]


@pytest.mark.parametrize(
    ("targets", "decoys"),
    [([], []), ([0.1], [0.1]), ([0.0] * 9, [0.0] * 9), ([5.0] * 50, [4.0] * 50), ([0.1] * 3000, [0.1] * 3000)],
    ids=["nothing", "one", "no features in common", "all copies, too few", "no match at all"],
)
def test_where_nothing_can_be_learned_the_constants_count(targets, decoys):
    found = learned(np.array(targets), np.array(decoys), constants_of(["rootsift"]), 1)
    assert not found.is_learned and found.features == "rootsift" and found.answers == len(targets)
    assert (found.match, found.maybe) == (CONSTANTS["rootsift"].match, CONSTANTS["rootsift"].maybe)


def test_copies_alone_are_matches_once_they_are_many():
    found = learned(np.full(200, 5.0), np.full(200, 4.0), CONSTANTS["learned"], 4)
    assert found.is_learned and found.verdict(5.0) == "match" and found.probability(5.0) > 0.98


def test_constants_are_raised_to_what_chance_reaches():
    decoys = np.append(np.full(3000, 0.1), [2.0] * 5)
    found = learned(np.full(3005, 0.1), decoys, CONSTANTS["learned"], 60)
    assert not found.is_learned and found.match == pytest.approx(2.0 * MIRRORED_LOSS)
    factor = found.match / CONSTANTS["learned"].match
    assert found.maybe == pytest.approx(factor * CONSTANTS["learned"].maybe)


def test_constants_are_of_the_kinds_of_features():
    assert [constants_of(kinds).features for kinds in (["rootsift"], ["how"], ["how", "rootsift"], [])] == [
        "rootsift", "learned", "several", "learned",
    ]  # fmt: skip
    for one in CONSTANTS.values():
        assert 0 < one.maybe < one.match
        assert list(one.evidences) == sorted(one.evidences) and list(one.probabilities) == sorted(one.probabilities)


def test_a_mirrored_image_does_not_match_itself():
    images = views("a", 2, np.random.default_rng(3))
    codebook = Codebook.train([one.descriptors for one in images.values()], words=2, seed=0)
    one, other = (image_geometry(features, codebook) for features in images.values())
    back = one.mirrored().mirrored()
    np.testing.assert_allclose(back.places, one.places, atol=1e-3)
    assert match(one, other).inliers > 30 > 4 * match(one.mirrored(), other).inliers


# --- the index --------------------------------------------------------------------------------------------------------


def test_answers_are_judged_and_the_truth_is_found(own):
    stored = calibrate(own, threads=1)
    assert stored.calibration.is_learned and stored.indexed == 48
    assert read_calibration(Folder(own.path), own.snapshot.manifest) == stored
    for name in ("g0 0.jpg", "g5 3.jpg"):
        hits = Searcher(own).search_name(name, None, rerank=20)
        assert {hit.name for hit in hits if hit.verdict == "match"} == {f"{name[:2]} {n}.jpg" for n in range(6)}
        assert all(hit.probability > 0.9 for hit in hits if hit.verdict == "match")
        assert all(hit.probability < 0.5 for hit in hits[:20] if hit.verdict == "no")
        assert [(hit.verdict, hit.probability) for hit in hits[20:]] == [(None, None)] * len(hits[20:])


def test_what_is_learned_depends_on_nothing_else(tmp_path):
    images = collection(groups=5)
    for name, segments in (("a", 1), ("b", 3)):
        (tmp_path / name).mkdir()
        indexed(images, tmp_path / name, segments=segments)
    one, other = (Index.open(tmp_path / name / "x.index") for name in "ab")
    assert calibrate(one, 9, threads=1).calibration == calibrate(other, 9, threads=3).calibration
    assert sampled_names(["b", "a", "c"], 2) == sampled_names(["c", "b", "a"], 2)


def test_stored_geometry_is_enough_and_nothing_is_one_line(tmp_path):
    kept = indexed(collection(groups=3), tmp_path, geometry="all")
    shutil.rmtree(tmp_path / "x.features")
    assert calibrate(Index.open(kept.path)).calibration.answers > 200
    (tmp_path / "bare").mkdir()
    bare = indexed(collection(groups=3), tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "x.features")
    with pytest.raises(NotFoundError, match="neither the geometry nor the features of"):
        calibrate(Index.open(bare.path))


@pytest.mark.parametrize("count", [0, 1])
def test_no_image_and_one_image(tmp_path, count):
    images = dict([*collection(groups=1).items()][:6])
    made = indexed(images, tmp_path)
    made.delete(sorted(images)[count:])
    stored = calibrate(made)
    assert (stored.calibration.is_learned, stored.calibration.answers, stored.indexed) == (False, 0, count)


def test_only_what_was_calibrated_is_judged(own):
    name = "g0 0.jpg"
    by_descriptors = Searcher(own).search_name(name, rerank=Reranking.by_descriptors())
    other = Reranking(verification=replace(Reranking().verification, slack=0.02))
    assert {hit.verdict for hit in [*by_descriptors, *Searcher(own).search_name(name, rerank=other)]} == {None}
    joint = JointIndex([own])
    calibrate(own)
    assert Searcher(joint).calibration() == constants_of(["custom:test"])
    assert Searcher(own).calibration().is_learned
    with pytest.raises(InputError, match="several indexes searched as one"):
        calibrate(joint)


def test_a_calibration_stays_and_tells_when_it_is_outgrown(own):
    stored = calibrate(own)
    own.delete(["g0 0.jpg"])
    own.add(written(views("new", 3, np.random.default_rng(9)), own.path.parent / "new.features"))
    own.merge()
    assert read_calibration(Folder(own.path), own.snapshot.manifest) == stored
    assert not stored.is_outgrown(own.images) and describe_index(own)["calibration"]["is_outgrown"] is False
    own.delete(own.names[:30])
    assert stored.is_outgrown(own.images) and describe_index(own)["calibration"]["is_outgrown"]
    assert check_index(own.path).clean
    parts = describe_index(own)["bytes_by_part"]
    assert parts["calibration"] > 0 and parts["leftover"] == 0


@pytest.mark.parametrize("how", ["cut", "flipped", "foreign", "empty", "other", "order"])
def test_a_file_that_is_damaged_or_foreign_is_one_line(own, how):
    stored = calibrate(own)
    path = own.path / NAME
    data = path.read_bytes()
    manifest = own.snapshot.manifest
    if how == "foreign":
        write_calibration(Folder(own.path), replace(manifest, identity="0" * 32), stored)
    elif how == "order":
        upside = replace(stored.calibration, match=0.1, maybe=0.2)
        write_calibration(Folder(own.path), manifest, StoredCalibration(upside, 1, 1))
    else:
        path.write_bytes(
            {"cut": data[:-9], "flipped": data.replace(b"match", b"mitch"), "empty": b"", "other": b"{}"}[how]
        )
    with pytest.raises(MismatchError if how == "foreign" else DamagedError, match="asmk-engine calibrate") as error:
        read_calibration(Folder(own.path), manifest)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    with pytest.warns(AsmkWarning, match="constants of the package"):
        hits = Searcher(own).search_name("g0 0.jpg", rerank=5)
    assert hits[1].verdict == "match"
    assert [finding.file for finding in check_index(own.path).findings] == [NAME]
    assert describe_index(own)["calibration"] is None
    repair_index(own.path, write=True)
    assert not path.exists() and check_index(own.path).clean


def test_several_kinds_of_features(tmp_path):
    images = collection(groups=5)
    sets = {name: written(images, tmp_path / name, Recipe(f"custom:{name}", {})) for name in ("one", "two")}
    codebooks = {name: Codebook.train(features, words=8, seed=0) for name, features in sets.items()}
    fused = FusedIndex.create(tmp_path / "f.index", codebooks, [1.0, 1.0])
    fused.add(sets)
    stored = calibrate(fused)
    assert stored.calibration.features == "several" and stored.calibration.answers > 700
    hits = FusedSearcher(fused).search_name("g1 0.jpg", 10, rerank=10)
    assert len(hits[0].matches) == 2 and {hit.name for hit in hits if hit.verdict == "match"} == {
        f"g1 {n}.jpg" for n in range(6)
    }


# --- the command line -------------------------------------------------------------------------------------------------


def test_nothing_is_suggested_that_is_refused(own, tmp_path):
    run("shard", own.path, "-o", tmp_path / "x.shards", "--shards", 2)
    said = run("query", tmp_path / "x.shards", "g2 0.jpg", "--rerank", 10).stderr
    assert "verdicts are by constants for learned features" in said and "calibrate" not in said


def test_the_commands(own):
    name = "g2 0.jpg"
    first = run("query", own.path, name, "--rerank", 10, "--top", 8)
    assert "verdicts are by constants for learned features" in first.stderr and "calibrate" in first.stderr
    assert run("query", own.path, name, "--rerank", 10, "--quiet").stderr == ""
    done = run("calibrate", own.path)
    assert "learned from 48 images and 2204 of their answers: a match needs an evidence of" in done.stderr
    found = run("query", own.path, name, "--rerank", 20, "--top", 25)
    assert "constants" not in found.stderr
    rows = [line.split() for line in found.stdout.splitlines()[1:]]
    assert [row[2] for row in rows[:5]] == ["match"] * 5 and "no" in [row[2] for row in rows]
    assert rows[0][5] == "inliers" and rows[-1][2:5] == ["-", "-", "-"] and rows[0][-1].startswith("g2%20")
    only = run("query", own.path, name, "--only", "matches", "--format", "jsonl")
    hits = json.loads(only.stdout)["hits"]
    assert len(hits) == 5 and all(hit["verdict"] == "match" and hit["probability"] > 0.9 for hit in hits)
    trec = run("query", own.path, name, "--only", "maybes", "--format", "trec").stdout.splitlines()
    assert len(trec) == 5 and len(trec[0].split()) == 6
    assert "verdicts" in run("info", own.path).stdout


def test_what_excludes_each_other_is_one_line(own, tmp_path):
    name = "g2 0.jpg"
    assert (
        "--only needs --rerank-by places"
        in run("query", own.path, name, "--only", "matches", "--rerank", 5, "--rerank-by", "descriptors", code=2).output
    )
    assert (
        "--only and --fuse exclude"
        in run("query", own.path, name, "--only", "matches", "--fuse", own.path, code=2).output
    )


def test_nothing_is_left_but_a_line(own):
    run("calibrate", own.path, "--images", "5")
    own.delete([f"g2 {number}.jpg" for number in range(1, 6)])
    assert "-  no match" in run("query", own.path, "g2 0.jpg", "--only", "matches").stdout


def test_global_descriptors_have_no_verdicts(tmp_path):
    GlobalIndex.create(tmp_path / "g.index", 8)
    result = CliRunner().invoke(commands, ["calibrate", str(tmp_path / "g.index")])
    assert isinstance(result.exception, InputError) and "global descriptors have no places" in str(result.exception)
    assert not Path(tmp_path / "g.index" / NAME).exists()
