"""From photographs to an index in one call: what it gives, resumes and reports, and that the command gives the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import asmk_engine
from asmk_engine import AsmkWarning, Codebook, FeatureSet, GlobalIndex, Index, pipeline
from asmk_engine.cli import commands
from asmk_engine.demo import bundled_photos
from asmk_engine.errors import AsmkError, InputError, MismatchError, NotFoundError
from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.flat.codec import CodecOptions
from asmk_engine.inverted.search import Searcher
from asmk_engine.iteration import Silent
from asmk_engine.maintenance.description import describe
from asmk_engine.maintenance.extractor_facts import describe_extractor
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.cache import weights_folder
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.pipeline.display import Console, Forwarding, display_of
from asmk_engine.pipeline.failures import Failures
from asmk_engine.recipes import Recipe
from asmk_engine.search.query_features import QuerySource
from asmk_engine.storage.arrays import write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import file_sha256
from disks import fast_disk
from global_samples import global_images, write_global
from samples import ENVIRONMENT, random_images, write_features

NAMES = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "motorcycle_left", "motorcycle_right")
SIDE = 240
RESNET18 = WEIGHTS["resnet18"].sha256
SIFT: dict[str, Any] = {"extractor": "rootsift", "max_features": 150, "workers": 0}
SIFT_TYPED = ("--extractor", "rootsift", "--max-features", 150, "--workers", 0)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs, made small."""
    folder = tmp_path_factory.mktemp("photographs")
    for photo in bundled_photos():
        if (name := Path(photo.name).stem) in NAMES:
            with Image.open(photo.path) as image:
                image.thumbnail((SIDE, SIDE))
                image.convert("RGB").save(folder / f"{name}.jpg", quality=90)
    assert len(list(folder.iterdir())) == len(NAMES)
    return folder


@pytest.fixture
def world(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with a copy of the photographs in photos/, and an empty cache of weights."""
    fast_disk(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASMK_ENGINE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(photographs, "photos")
    return tmp_path


@pytest.fixture(scope="session")
def gem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights for global descriptors."""
    place = tmp_path_factory.mktemp("network") / "gem.safetensors"
    save_stand_in(place, "gem")
    return place


def typed(*arguments: object) -> Result:
    return CliRunner().invoke(commands, list(map(str, arguments)))


def best(index: Index | GlobalIndex, photograph: str) -> str:
    """The best image for a photograph, described as the index describes."""
    searcher = Searcher(index) if isinstance(index, Index) else asmk_engine.GlobalSearcher(index)
    return searcher.search(QuerySource(index).extractor.extract(photograph), top=1)[0].name


def contents(*folders: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in folders for path in sorted(Path(folder).rglob("*"))}


class StoppedError(Exception):
    """Raised by a function that receives progress."""


# ------------------------------------------------------------------------------------------------------- the results


def test_a_folder_becomes_an_index_that_finds_its_photographs(world: Path) -> None:
    index = asmk_engine.index_folder("photos", "photos.index", words=16, **SIFT)
    assert isinstance(index, Index) and index.names == sorted(f"{name}.jpg" for name in NAMES)
    assert index.recipe == Recipe("rootsift", FeatureSet.open("photos.features").recipe.options)
    assert index.codebook.words == 16 and index.recipe.options["max_features"] == 150
    opened = asmk_engine.open_index("photos.index")
    assert isinstance(opened, Index)
    for name in index.names:
        assert best(opened, f"photos/{name}") == name


@pytest.mark.parametrize("kind", ["local", "global"])
def test_the_command_and_the_function_write_the_same_bytes(
    kind: str, world: Path, gem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))  # the identity of an index, and all that is random
    if kind == "local":
        options, more = SIFT_TYPED, ("--words", 16, "--seed", 3)
        keywords, others = SIFT, {"words": 16, "seed": 3}
    else:
        options, more = ("--weights", gem, "--workers", 0, "--max-side", 128), ("--pca", 4, "--half")
        keywords, others = {"weights": gem, "workers": 0, "max_side": 128}, {"pca": 4, "half": True}
    outputs = ("photos.index", "photos.features")
    shutil.copy("photos/coins.jpg", "later.jpg")
    Path("photos/coins.jpg").unlink()

    assert typed("index", "photos", "-o", "photos.index", "-q", *options, *more).exit_code == 0
    shutil.copy2("later.jpg", "photos/coins.jpg")
    assert typed("index", "photos", "-o", "photos.index", "-q", *options).exit_code == 0
    by_command = contents(*outputs)
    Path("photos/coins.jpg").unlink()
    for output in outputs:
        shutil.rmtree(output)
    asmk_engine.index_folder("photos", "photos.index", **keywords, **others)
    shutil.copy2("later.jpg", "photos/coins.jpg")
    index = asmk_engine.index_folder("photos", "photos.index", **keywords)
    assert contents(*outputs) == by_command and len(by_command) > 6
    assert index.images == len(NAMES)


def test_extract_folder_gives_what_the_command_gives(world: Path) -> None:
    assert typed("extract", "photos", "-o", "a.features", "-q", *SIFT_TYPED).exit_code == 0
    by_command = {Path(name).name: content for name, content in contents("a.features").items()}
    features = asmk_engine.extract_folder("photos", "b.features", **SIFT)
    assert {Path(name).name: content for name, content in contents("b.features").items()} == by_command
    assert features.names == sorted(f"{name}.jpg" for name in NAMES) and features.path == Path("b.features")


def test_a_codebook_of_the_command_is_that_of_the_index(world: Path) -> None:
    asmk_engine.extract_folder("photos", "a.features", **SIFT)
    assert typed("build-codebook", "a.features", "-o", "a.h5", "--words", 8, "-q").exit_code == 0
    trained = asmk_engine.index_folder("a.features", "trained.index", words=8)
    given = asmk_engine.index_folder(FeatureSet.open("a.features"), "given.index", codebook=Codebook.open("a.h5"))
    by_path = asmk_engine.index_folder("a.features", "path.index", codebook="a.h5")
    for index in (trained, given, by_path):
        assert index.codebook.fingerprint == Codebook.open("a.h5").fingerprint and index.images == len(NAMES)


def test_global_descriptors_make_a_global_index_that_carries_its_network(world: Path, gem: Path) -> None:
    index = asmk_engine.index_folder(
        "photos", "gem.index", weights=gem, max_side=128, workers=0, half=True, memory="2G"
    )
    assert isinstance(index, GlobalIndex) and index.codec.precision == "half"
    assert file_sha256(index.network) == file_sha256(gem) == index.recipe.weights
    shutil.rmtree("gem.features")
    Path("gem.network.safetensors").unlink()
    opened = asmk_engine.open_index("gem.index")
    assert isinstance(opened, GlobalIndex) and best(opened, "photos/rocket.jpg") == "rocket.jpg"


def test_files_lists_and_several_inputs_are_taken(world: Path) -> None:
    Path("some.txt").write_text("photos/coins.jpg\nphotos/camera.jpg\n")
    Path("more").mkdir()
    shutil.move("photos/rocket.jpg", "more/rocket.jpg")
    index = asmk_engine.index_folder(Path("photos/chelsea.jpg"), "photos.index", words=2, **SIFT)
    assert index.names == ["chelsea.jpg"]
    index = asmk_engine.index_folder((path for path in ("some.txt", Path("more"))), "photos.index", **SIFT)
    assert index.names == ["chelsea.jpg", "photos/camera.jpg", "photos/coins.jpg", "rocket.jpg"]


def test_several_sets_are_concatenated(world: Path) -> None:
    write_global(world / "gem.features", global_images(20))
    write_global(world / "spoc.features", global_images(20, 16, seed=2), Recipe("spoc"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsmkWarning)  # the network of these made-up features is nowhere
        index = asmk_engine.index_folder(
            [FeatureSet.open("gem.features"), "spoc.features"], "both.index", concatenate=True, part_weights=[1, 2]
        )
    assert isinstance(index, GlobalIndex) and (index.images, index.codec.input_dim) == (20, 24 + 16)
    with pytest.raises(InputError, match="a feature set must be the only input"):
        asmk_engine.index_folder(["gem.features", FeatureSet.open("spoc.features")], "two.index")


# ------------------------------------------------------------------------------------------- resuming and progress


@pytest.mark.parametrize("stage", ["extract", "sample", "k-means", "index"])
def test_a_run_that_was_stopped_is_resumed(stage: str, world: Path) -> None:
    def stop(at: str, done: int, total: int) -> None:
        if (at, done) == (stage, 3):
            raise StoppedError

    call: dict[str, Any] = {"words": 16, **SIFT}
    with pytest.raises(StoppedError):
        asmk_engine.index_folder("photos", "photos.index", progress=stop, **call)
    kept = len(FeatureSet.open("photos.features"))
    assert kept == (len(NAMES) if stage != "extract" else 3)
    report = pipeline.index_images(
        "photos", "photos.index", training=pipeline.CodebookOptions(16) if stage != "index" else None,
        extraction=pipeline.ExtractionOptions("rootsift", workers=0, others={"max_features": 150}),
    )  # fmt: skip
    assert (report.extraction.extracted, report.extraction.intake.unchanged.__len__()) == (len(NAMES) - kept, kept)
    assert report.addition.added == len(NAMES) and report.failures.reasons == []
    whole = asmk_engine.index_folder("photos", "whole.index", **call)
    assert report.index.names == whole.names
    assert report.index.codebook.fingerprint == whole.codebook.fingerprint
    for name in whole.names:
        assert best(report.index, f"photos/{name}") == name


@pytest.mark.parametrize("stage", ["extract", "index"])
def test_a_process_that_was_killed_is_resumed(stage: str, world: Path) -> None:
    code = f"""
import os, signal, asmk_engine
def kill(stage, done, total):
    if (stage, done) == ({stage!r}, 5):
        os.kill(os.getpid(), signal.SIGKILL)
asmk_engine.index_folder("photos", "photos.index", words=16, progress=kill, **{SIFT!r})
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, timeout=300, check=False)
    assert done.returncode == -9, done.stderr
    index = asmk_engine.index_folder("photos", "photos.index", words=16 if stage == "extract" else "auto", **SIFT)
    assert index.names == sorted(f"{name}.jpg" for name in NAMES) and index.codebook.words == 16
    assert typed("check", "photos.index").exit_code == 0


def test_progress_is_told_stage_by_stage(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, list[tuple[int, int]]] = defaultdict(list)
    asmk_engine.index_folder(
        "photos", "photos.index", words=8, rounds=4, **SIFT, progress=lambda *call: told[call[0]].append(call[1:])
    )
    assert list(told) == ["extract", "sample", "k-means", "index"]
    for stage, calls in told.items():
        done, totals = zip(*calls, strict=True)
        assert set(totals) == {4 if stage == "k-means" else len(NAMES)}, stage
        assert list(done) == sorted(done) and done[-1] == totals[0], stage
    assert capsys.readouterr() == ("", "")


def test_progress_true_says_what_the_command_says(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/broken.jpg").write_text("no image")
    Path("photos/notes.pdf").write_text("no image")
    typed_lines = typed("index", "photos", "-o", "a.index", "--words", 8, *SIFT_TYPED).stderr.splitlines()
    asmk_engine.index_folder("photos", "b.index", words=8, progress=True, **SIFT)
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" not in line]
    assert lines == [line.replace("a.", "b.") for line in typed_lines if "images/s" not in line]
    assert any("skipped 'broken.jpg'" in line for line in lines) and any("1 .pdf" in line for line in lines)
    asmk_engine.index_folder("photos/coins.jpg", "c.index", words=2, progress=False, **SIFT)
    assert capsys.readouterr() == ("", "")


def test_a_display_is_what_was_asked_for() -> None:
    assert type(display_of(None)) is type(display_of(False)) is Silent
    assert isinstance(display_of(True), Console) and isinstance(display_of(print), Forwarding)
    with pytest.raises(InputError, match=r"progress is 'yes'; give True .* \(stage, done, total\)"):
        display_of("yes")


# ---------------------------------------------------------------------------------- additions, changes, and removals


def test_another_call_adds_what_is_new_and_describes_nothing_else(world: Path) -> None:
    new = Path("photos/rocket.jpg").rename("rocket.jpg")
    asmk_engine.index_folder("photos", "photos.index", words=16, **SIFT)
    shutil.copy(new, "photos/rocket.jpg")
    report = pipeline.index_images("photos", "photos.index", extraction=pipeline.ExtractionOptions(workers=0))
    assert (report.extraction.extracted, report.addition.added, report.addition.unchanged) == (1, 1, len(NAMES) - 1)
    assert report.index.images == len(NAMES) and best(report.index, str(new)) == "rocket.jpg"
    assert report.features.names == report.index.names


@pytest.mark.parametrize("option", ["prefix", "update", "replace"])
def test_photographs_of_names_in_use_are_left_out_and_said_when_the_rest_is_done(option: str, world: Path) -> None:
    asmk_engine.index_folder("photos", "photos.index", words=16, **SIFT)
    Path("card").mkdir()
    shutil.copy("photos/coins.jpg", "card/camera.jpg")
    Path("photos/rocket.jpg").rename("card/new.jpg")
    with pytest.raises(
        InputError, match=r"1 photograph left out, .*'camera.jpg'; --update .* --prefix NAME keeps both"
    ):
        asmk_engine.index_folder("card", "photos.index", **SIFT)
    assert "new.jpg" in asmk_engine.open_index("photos.index")
    report = pipeline.index_images("card", "photos.index", extraction=pipeline.ExtractionOptions(workers=0))
    assert report.extraction.intake.taken == ["camera.jpg"] and len(report.failures) == 1
    if option == "prefix":
        index = asmk_engine.index_folder("card", "photos.index", prefix="two", **SIFT)
        assert {"camera.jpg", "two/camera.jpg"} <= set(index.names)
        assert best(index, "photos/camera.jpg") == "camera.jpg"
    else:
        index = asmk_engine.index_folder("card", "photos.index", **{option: True}, **SIFT)
        assert index.names == sorted([*(f"{name}.jpg" for name in NAMES), "new.jpg"])
    holder = "two/camera.jpg" if option == "prefix" else "camera.jpg"
    assert index.identity(holder).fingerprint == file_fingerprint(Path("card/camera.jpg"))


def test_changed_photographs_are_replaced_and_vanished_ones_removed_when_asked(world: Path) -> None:
    asmk_engine.index_folder("photos", "photos.index", words=16, **SIFT)
    shutil.copy("photos/coffee.jpg", "photos/coins.jpg")
    Path("photos/rocket.jpg").unlink()
    with pytest.raises(InputError, match=r"whose file was replaced by another: 'coins.jpg'; the old ones are kept"):
        asmk_engine.index_folder("photos", "photos.index", **SIFT)
    index = asmk_engine.index_folder("photos", "photos.index", update=True, prune=True, **SIFT)
    assert "rocket.jpg" not in index and index.images == len(NAMES) - 1
    for name in NAMES[:6]:
        Path(f"photos/{name}.jpg").unlink(missing_ok=True)
    report = pipeline.index_images("photos", "photos.index", intake=pipeline.IntakeOptions(prune=True))
    assert "more than half" in report.failures.reasons[0] and report.removed == ()
    assert report.index.images == len(NAMES) - 1
    index = asmk_engine.index_folder("photos", "photos.index", prune=True, yes=True, **SIFT)
    assert index.names == ["motorcycle_left.jpg", "motorcycle_right.jpg"]


def test_pruning_a_feature_set_needs_the_same_leave(world: Path) -> None:
    asmk_engine.extract_folder("photos", "a.features", **SIFT)
    for name in NAMES[:5]:
        Path(f"photos/{name}.jpg").unlink()
    with pytest.raises(InputError, match="--prune would remove 5 of 8 images"):
        asmk_engine.extract_folder("photos", "a.features", prune=True)
    assert len(FeatureSet.open("a.features")) == len(NAMES)
    assert len(asmk_engine.extract_folder("photos", "a.features", prune=True, yes=True)) == 3


# ---------------------------------------------------------------------------------------------- what cannot be done


def caught(record: Any) -> list[str]:
    assert all(one.category is AsmkWarning and one.filename == __file__ for one in record), list(map(str, record))
    return [str(one.message) for one in record]


@pytest.mark.parametrize("progress", [None, lambda stage, done, total: None])
def test_unreadable_photographs_are_warned_of_once(progress: Any, world: Path) -> None:
    for number in range(5):
        Path(f"photos/broken {number}.jpg").write_text("no image")
    with pytest.warns(AsmkWarning) as record:
        index = asmk_engine.index_folder("photos", "photos.index", words=16, progress=progress, **SIFT)
    (message,) = caught(record)
    assert message.startswith("photos.index: 5 images could not be read and left out: 'broken 0.jpg': ")
    assert message.endswith("; and 2 more") and "\n" not in message and message.count("broken") == 3
    assert index.images == len(NAMES)
    with pytest.warns(AsmkWarning, match="5 images could not be read") as record:
        features = asmk_engine.extract_folder("photos", "photos.features")
    assert len(caught(record)) == 1 and len(features.failures) == 5
    report = pipeline.extract_features("photos", "photos.features")
    assert sorted(report.skipped) == sorted(features.failures) and len(report.failures) == 0
    with pytest.raises(InputError, match=r"'?broken 0.jpg'?: .*without strict"):
        asmk_engine.index_folder("photos", "photos.index", strict=True, workers=0)


def test_options_without_effect_and_a_missing_network_are_warned_of(world: Path, gem: Path) -> None:
    asmk_engine.index_folder("photos", "photos.index", words=16, **SIFT)
    with pytest.warns(AsmkWarning, match=r"the codebook exists already: --words .* are ignored") as record:
        index = asmk_engine.index_folder("photos", "photos.index", words=32, **SIFT)
    assert len(caught(record)) == 1 and index.codebook.words == 16
    asmk_engine.extract_folder("photos", "gem.features", weights=gem, max_side=128, workers=0)
    Path("gem.network.safetensors").unlink()
    with pytest.warns(AsmkWarning, match="created without it and can be queried with features") as record:
        index = asmk_engine.index_folder("gem.features", "gem.index", half=True)
    assert len(caught(record)) == 1 and index.network is None
    with pytest.warns(AsmkWarning, match=r"gem.index already exists: --pca and --half ignored"):
        index = asmk_engine.index_folder("gem.features", "gem.index", pca=4, half=True)
    assert index.codec.dim == 128
    index = asmk_engine.index_folder("gem.features", "given.index", weights=gem)
    assert file_sha256(index.network) == file_sha256(gem)


def test_a_link_that_leads_nowhere_is_warned_of(world: Path) -> None:
    Path("photos/away").symlink_to(world / "disk")
    with pytest.warns(AsmkWarning, match=r"not searched: .*away: a broken link") as record:
        asmk_engine.extract_folder("photos", "a.features", **SIFT)
    assert len(caught(record)) == 1


def test_several_failures_are_one_error_with_a_note_for_each() -> None:
    failures = Failures()
    failures.check()
    failures.add("the first")
    with pytest.raises(InputError) as one:
        failures.check()
    assert str(one.value) == "the first" and not hasattr(one.value, "__notes__")
    with failures.noting("a file"):
        raise OSError(28, "No space left on device", "disk")
    with pytest.raises(InputError) as error:
        failures.check()
    assert str(error.value) == "2 errors; the first: the first"
    assert error.value.__notes__ == failures.reasons == ["the first", "disk: No space left on device"]


CONTRADICTIONS: list[tuple[dict[str, Any], type[AsmkError], str]] = [
    ({"words": "many"}, InputError, "words is 'many'; expected auto or a whole number, 1 or more"),
    ({"words": 0}, InputError, "words is 0"),
    ({"words": True}, InputError, "words is True"),
    ({"rounds": 0}, InputError, "rounds is 0; expected a whole number, 1 or more"),
    ({"seed": -1}, InputError, "seed is -1; expected a whole number, 0 or more"),
    ({"whitening": "zca"}, InputError, "whitening 'zca' is unknown; choose one of auto, pca, none"),
    ({"backend": "sklearn"}, InputError, "backend 'sklearn' is unknown"),
    ({"assignment": "soft"}, InputError, "assignment 'soft' is unknown"),
    ({"whiten": True}, InputError, "whiten without pca"),
    ({"pq": 8, "half": True}, InputError, "choose one"),
    ({"pq": 3}, InputError, "pq is 3"),
    ({"progress": 3}, InputError, "progress is 3"),
    ({"memory": "much"}, InputError, "'much' is not a size"),
    ({"extractor": "surf"}, InputError, "unknown extractor 'surf'"),
    ({"extractor": "rootsift", "word": 3}, InputError, "rootsift has no option 'word'; it has: max_features"),
    ({"extractor": "rootsift", "scales": [1, 0.5]}, InputError, "rootsift has no option 'scales'"),
    ({"weights": "none.pth", "extractor": "how-squeezenet"}, NotFoundError, "none.pth: no such weight file"),
    ({"codebook": "none.h5"}, NotFoundError, "none.h5"),
    ({"prefix": "/two"}, InputError, "the prefix '/two' cannot start the name"),
    ({"workers": -1, "extractor": "rootsift"}, InputError, "workers is -1"),
]


@pytest.mark.parametrize(("options", "error", "message"), CONTRADICTIONS)
def test_arguments_that_cannot_be_are_refused_before_any_work(
    options: dict[str, Any], error: type[AsmkError], message: str, world: Path
) -> None:
    with pytest.raises(error) as refused:
        asmk_engine.index_folder("photos", "photos.index", **options)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(path.name for path in world.iterdir()) == ["photos"]


def test_arguments_that_do_not_fit_the_inputs_are_refused(world: Path) -> None:
    features = asmk_engine.extract_folder("photos", "a.features", **SIFT)
    for options, message in (
        (
            {"extractor": "rootsift", "max_features": 9},
            "a.features: extractor and max_features given for a feature set",
        ),
        ({"prefix": "two"}, "--prefix and --all-files apply to images"),
        ({"features": "b.features"}, "--features applies to images"),
        ({"pca": 4}, "--pca for local features"),
    ):
        for given in (features, "a.features"):
            with pytest.raises(InputError) as refused:
                asmk_engine.index_folder(given, "a.index", **options)
            assert message in str(refused.value)
    with pytest.raises(InputError, match="no images given"):
        asmk_engine.index_folder([], "a.index")
    asmk_engine.index_folder(features, "a.index", words=8)
    other = Codebook.train(features, 4)
    with pytest.raises(MismatchError, match="differs from the given one"):
        asmk_engine.index_folder("photos", "a.index", codebook=other)
    with pytest.raises(MismatchError, match="max_features=9"):
        asmk_engine.extract_folder("photos", "a.features", extractor="rootsift", max_features=9)
    write_global(world / "gem.features", global_images(20))
    asmk_engine.index_folder(write_global(world / "spoc.features", global_images(9), Recipe("spoc")), "spoc.index")
    with pytest.raises(InputError, match="a global index has no codebook"):
        asmk_engine.index_folder("spoc.features", "spoc.index", codebook=other)
    with pytest.raises(InputError, match="allows 100 MiB, but a global index needs"):
        asmk_engine.index_folder("spoc.features", "spoc.index", memory=100 << 20)
    with pytest.raises(InputError, match="1 MiB of memory were allowed"):
        asmk_engine.index_folder("a.features", "a.index", memory=1 << 20)


def test_the_options_of_the_pipeline_mean_what_they_say() -> None:
    smaller = pipeline.GlobalIndexOptions(pca=4, whiten=True, pq=1, train_on="x.features")
    assert smaller.given == ["--pca", "--whiten", "--pq", "--train-on"]
    assert smaller.codec_options(3) == CodecOptions(4, True, 1, False, 3)
    given = pipeline.ExtractionOptions("auto", others={"max_side": None, "scales": (1.0,)})
    assert given.name is None and given.given == {"scales": (1.0,)}
    assert pipeline.ExtractionOptions("gem").name == "gem"


def test_everything_that_the_pipeline_exports_is_there() -> None:
    assert sorted(pipeline._homes) == pipeline.__all__
    assert all(getattr(pipeline, name).__doc__ for name in pipeline.__all__)
    with pytest.raises(AttributeError, match=r"'asmk_engine.pipeline' has no attribute 'index_photos'"):
        _ = pipeline.index_photos


# -------------------------------------------------------------------------------------------------- which extractor


@pytest.fixture
def fetched(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Weights of SqueezeNet in the cache, as if they were the published ones."""
    torch.manual_seed(0)
    entry = WEIGHTS["squeezenet1_1"]
    weights_folder().mkdir(parents=True)
    place = weights_folder() / entry.file
    classifier = {"classifier.1.weight": torch.zeros(1000, 512, 1, 1), "classifier.1.bias": torch.zeros(1000)}
    torch.save(build_backbone("squeezenet1_1").state_dict() | classifier, place)
    monkeypatch.setitem(WEIGHTS, entry.name, dataclasses.replace(entry, sha256=file_sha256(place)[:8]))
    yield place


def test_published_weights_that_were_fetched_are_shown(fetched: Path) -> None:
    options = ("--max-side", 96, "--scales", 1, "--workers", 0)
    for name in ("a.features", "b.features"):
        told = typed("extract", "photos", "-o", name, "--extractor", "how-squeezenet", *options)
        assert told.exit_code == 0 and "extractor:" not in told.stderr
    index = asmk_engine.index_folder("b.features", "c.index", words=2)
    recipes = [FeatureSet.open("a.features").recipe, FeatureSet.open("b.features").recipe, index.recipe]
    assert len(set(recipes)) == 1 and recipes[0].extractor == "how"
    digest = file_sha256(fetched)
    expected = {"name": "how", "preset": "how-squeezenet", "backbone": "squeezenet1_1", "published": "squeezenet1_1",
                "weights": {"file": None, "sha256": digest}, "whitened": len(NAMES)}  # fmt: skip
    row = f"how-squeezenet (how), network on squeezenet1_1, made of weights squeezenet1_1 sha256 {digest[:16]}, "
    row += f"whitened on {len(NAMES)} images"
    for place in ("a.features", "c.index"):
        assert describe(place)["extractor"] == expected
        assert json.loads(typed("info", place, "--json").stdout)["extractor"] == expected
        assert f"extractor          {row}" in typed("info", place).stdout.splitlines()
    Path("a.network.safetensors").unlink()
    assert describe("a.features")["extractor"]["preset"] is None


def test_auto_is_the_extractor_of_what_is_there(world: Path, gem: Path) -> None:
    asmk_engine.extract_folder("photos", "gem.features", extractor="gem", weights=gem, max_side=128, workers=0)
    shutil.copy("photos/coins.jpg", "photos/again.jpg")
    features = asmk_engine.extract_folder("photos", "gem.features", extractor="auto", workers=0)
    assert len(features) == len(NAMES) + 1
    told = typed("index", "photos", "-o", "gem.index", "--extractor", "auto", "--workers", 0)
    assert told.exit_code == 0 and "extractor:" not in told.stderr
    assert asmk_engine.open_index("gem.index").recipe == features.recipe


def test_the_facts_of_an_extractor_come_from_its_network_as_far_as_it_can_be_read(tmp_path: Path, gem: Path) -> None:
    unknown = {"preset": None, "backbone": None, "weights": {"file": None, "sha256": None}, "published": None,
               "whitened": None}  # fmt: skip
    assert describe_extractor(Recipe("rootsift"), None) == {"name": "rootsift", **unknown}
    assert describe_extractor(Recipe("gem"), tmp_path / "none.safetensors") == {"name": "gem", **unknown}
    found = describe_extractor(Recipe("gem", {}, file_sha256(gem)), gem)
    assert found == {"name": "gem", **unknown, "backbone": "squeezenet1_1"}  # a beginning of it, which no preset is
    for number, content in enumerate((b"", b"nothing", gem.read_bytes()[:50])):
        (tmp_path / f"{number}.safetensors").write_bytes(content)
        assert describe_extractor(Recipe("gem"), tmp_path / f"{number}.safetensors") == {"name": "gem", **unknown}


@pytest.mark.parametrize(("origin", "published", "preset"), [
    ({"file": "how_r18.pth", "sha256": "ab" * 32}, "how-r18", "how-r18"),
    ({"file": "mine.pth", "sha256": "ab" * 32}, None, None),  # how-r18 and how-resnet18 have the same backbone
    ({"trunk_sha256": f"{RESNET18:0<64}", "images": 9, "descriptors": 900}, "resnet18", "how-resnet18"),
    (["no", "mapping"], None, None),
])  # fmt: skip
def test_presets_of_one_backbone_are_told_apart_by_their_weights(
    origin: Any, published: str | None, preset: str | None, tmp_path: Path
) -> None:
    options = {"trunk": "resnet18", "skip": 0}  # as files name the backbone
    metadata = {"kind": "asmk-engine network", "network": json.dumps(options), "origin": json.dumps(origin)}
    write_arrays(Folder(tmp_path), "n.safetensors", {"x": np.zeros(1, np.float32)}, metadata)
    found = describe_extractor(Recipe("how"), tmp_path / "n.safetensors")
    assert (found["published"], found["preset"]) == (published, preset)
    assert found["whitened"] == (9 if published == "resnet18" else None)


def test_whiten_takes_auto_for_its_default(fetched: Path) -> None:
    for name, extractor in (("a", ()), ("b", ("--extractor", "auto"))):
        told = typed(
            "whiten", "photos", "--weights", fetched, "-o", f"{name}.safetensors", "--max-side", 96, *extractor
        )
        assert told.exit_code == 0 and "how-squeezenet, 128 dimensions" in told.stderr
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_features_without_anything_are_reported(tmp_path: Path) -> None:
    images = random_images(12, 8, features=20)
    images |= {"flat.png": dataclasses.replace(next(iter(images.values())), descriptors=np.zeros((0, 8), np.float32),
               keypoints=np.zeros((0, 3), np.float32), scores=np.zeros(0, np.float32))}  # fmt: skip
    features = write_features(tmp_path / "a.features", images)
    report = pipeline.index_images(features, tmp_path / "a.index", training=pipeline.CodebookOptions(2))
    empty = sorted(name for name, found in images.items() if not len(found))
    assert sorted(report.without_features) == empty and "flat.png" in empty
    assert report.extraction is None and report.skipped == {} and report.index.images == len(images)
