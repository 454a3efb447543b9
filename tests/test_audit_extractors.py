"""The audit by global descriptors, whose candidates local features verify, and the extractors that it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine.audit import AuditInputs, AuditOptions, AuditReport, TrainingSource, run_audit
from asmk_engine.cli import commands
from asmk_engine.errors import InputError
from asmk_engine.extractors.custom import CustomExtractor
from asmk_engine.features import FeatureSet
from asmk_engine.networks.global_checkpoints import save_global_checkpoint
from asmk_engine.pipeline.extractor_choice import ExtractionOptions
from audit_samples import EXTRACTION, Sides, drawn_sides, recall
from disks import fast_disk
from trainings import tiny_global

TOP = 4


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return drawn_sides(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "gem.safetensors"
    save_global_checkpoint(path, tiny_global(), {})
    return path


def audit(sides: Sides, folder: Path, network: Path, verification: str) -> AuditReport:
    inputs = AuditInputs(TrainingSource(sides.train), (sides.test,))
    extraction = ExtractionOptions(None, network, workers=0, others={"max_side": 128})
    options = AuditOptions(top=TOP, verification=verification)
    return run_audit(inputs, folder, options, extraction=extraction, local=EXTRACTION if verification == "places"
                     else None)  # fmt: skip


# ------------------------------------------------------------------------------------------- global candidates


def nearest(sides: Sides, work: Path) -> dict[str, set[str]]:
    """The most similar training images of each query, by a loop over the stored descriptors."""
    train, asked = (FeatureSet.open(work / name) for name in ("train.features", "train-queries.features"))
    vectors = {name: train.read(name).descriptors[0].astype(np.float64) for name in train.names}
    found = {}
    for query in asked.names:
        own = asked.read(query).descriptors[0].astype(np.float64)
        scores = {name: float(own @ vector) for name, vector in vectors.items()}
        found[query] = set(sorted(scores, key=lambda name: -scores[name])[:TOP])
    return found


def test_candidates_of_a_global_descriptor_are_verified_by_local_features(
    sides: Sides, tmp_path: Path, network: Path
) -> None:
    report = audit(sides, tmp_path, network, "places")
    candidates = nearest(sides, tmp_path / "work")
    assert report.questions.counts.pairs == TOP * len(sides.truth)
    assert all(pair.image in candidates[pair.query] for pair in report.questions.pairs)
    described = FeatureSet.open(tmp_path / "work" / "local.features")
    assert described.recipe.extractor == "rootsift"
    assert set(described.names) == set.union(*candidates.values())  # only candidates are described anew
    reached = {query for query, names in candidates.items()
               if any(name.startswith(f"{sides.truth[query.removeprefix('test/')]}/") for name in names)}  # fmt: skip
    right = {pair.query for pair in report.questions.pairs
             if pair.label == sides.truth[pair.query.removeprefix("test/")]}  # fmt: skip
    assert right == reached  # what the candidates lose is lost, and the verification loses no more
    assert len(right) >= 6


def test_sift_verifies_candidates_of_a_global_descriptor(sides: Sides, tmp_path: Path, network: Path) -> None:
    report = audit(sides, tmp_path, network, "sift")
    assert FeatureSet.open(tmp_path / "work" / "sift.features").recipe.extractor == "rootsift"
    candidates = nearest(sides, tmp_path / "work")
    assert all(pair.image in candidates[pair.query] for pair in report.questions.pairs)
    assert all(one.evidence == one.inliers >= 12 for one in report.questions.pairs)
    assert recall(report, sides) >= 0.6


# ------------------------------------------------------------------------------------------ refused extractors


@dataclass(frozen=True)
class OneVector(CustomExtractor):
    """An extractor of another package that makes one vector of an image."""

    name = "one-vector"
    dim = 4
    is_global = True

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """Return the same vector for every image."""
        del pixels
        return np.full(4, 0.5, np.float32)


REFUSED = {
    "several at once": (["--extractor", "rootsift,gem"], "one extractor at a place"),
    "several that verify": (
        ["--extractor", "gem-squeezenet", "--local-extractor", "rootsift,how"],
        "one extractor at a place",
    ),
    "one vector that verifies": (["--extractor", "gem-squeezenet", "--local-extractor", "spoc"], "one vector"),
    "one vector that verifies, as a preset": (["--extractor", "gem", "--local-extractor", "cvnet-resnet50"], "one vec"),
    "one that verifies beside SIFT": (
        ["--extractor", "gem", "--local-extractor", "rootsift", "--verify", "sift"],
        "describes candidates by RootSIFT",
    ),
    "two of local features": (["--extractor", "how-squeezenet", "--local-extractor", "rootsift"], "verify them too"),
    "two of local features, the first by default": (["--local-extractor", "rootsift"], "verify them too"),
    "one vector of another package that verifies": (
        ["--extractor", "gem", "--local-extractor", "test_audit_extractors:OneVector"],
        "one vector",
    ),
    "an unknown one": (["--extractor", "nothing"], "unknown extractor"),
    "an unknown one that verifies": (["--extractor", "gem", "--local-extractor", "nothing"], "unknown extractor"),
}
"""What is given → what the error says."""


@pytest.mark.parametrize("case", REFUSED)
def test_extractors_that_do_not_fit_are_refused_in_one_line(
    case: str, sides: Sides, network: Path, tmp_path: Path
) -> None:
    given, reason = REFUSED[case]
    weights = ["--weights", str(network)] if "gem-squeezenet" in given or "gem" in given else []
    arguments = ["audit", str(sides.train), str(sides.test), "-o", str(tmp_path), "--workers", "0", "--max-side", "64"]
    result = CliRunner().invoke(commands, [*arguments, *weights, *given])
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    assert reason in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "audit.json").exists()
