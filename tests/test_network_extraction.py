"""Runs of extraction in two steps: decoding in worker processes, batches in the network, resuming, broken images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.extraction import run as extraction
from asmk_engine.extraction.run import ExtractionSummary, extract_images
from asmk_engine.extractors.how import How
from asmk_engine.extractors.network import BatchedExtractor, NetworkExtractor
from asmk_engine.features import Features, FeatureSet, part_names
from asmk_engine.images.decoding import View
from samples import ENVIRONMENT
from tiny_networks import picture, tiny_checkpoint

SIZES = [(48, 64), (64, 48), (48, 64), (40, 40), (48, 64), (64, 48), (48, 64)]


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> How:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    return How(weights=tiny_checkpoint(path), max_features=60, max_side=56, scales=[1.0, 0.5])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photographs of three sizes."""
    (tmp_path / "photos").mkdir()
    for number, size in enumerate(SIZES):
        save(tmp_path / "photos", number, picture(*size, number))
    return tmp_path / "photos"


def save(folder: Path, name: object, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(folder / f"{name}.png")


def extract(extractor: How, folder: Path, workers: int | None = 0, **options: object) -> ExtractionSummary:
    return extract_images(extractor, folder, folder.parent / "set", workers=workers, **options)  # type: ignore[arg-type]


def opened(folder: Path) -> FeatureSet:
    return FeatureSet.open(folder.parent / "set")


def content(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in part_names(path)}


def assert_close(one: Features, other: Features) -> None:
    """Equal but for the last digits, in which a batch may differ from its images, and for the order of near ties."""
    first, second = (np.lexsort(features.keypoints.T) for features in (one, other))
    np.testing.assert_array_equal(one.keypoints[first], other.keypoints[second])
    ours, theirs = one.descriptors[first].astype(np.float32), other.descriptors[second].astype(np.float32)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
    assert one.image_size == other.image_size


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[list[tuple[int, ...]]]]:
    """Lets so many images be gathered, as on a GPU; the shapes of each batch that is described are noted."""

    def gather(count: int) -> list[list[tuple[int, ...]]]:
        seen: list[list[tuple[int, ...]]] = []
        run = NetworkExtractor._run

        def noted(self: NetworkExtractor, views: list[View]) -> list[Features]:
            seen.append([view.pixels.shape for view in views])
            return run(self, views)

        monkeypatch.setattr(BatchedExtractor, "batch_size", count)
        monkeypatch.setattr(NetworkExtractor, "_run", noted)
        return seen

    return gather


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, alone: bool) -> list[int]:
    """Describing the red photograph fails, or only a batch that holds it when not `alone`; the batches tried."""
    tried: list[int] = []
    run = NetworkExtractor._run

    def spoilt(self: NetworkExtractor, views: list[View]) -> list[Features]:
        tried.append(len(views))
        red = any((view.pixels == [255, 0, 0]).all() for view in views)
        if red and (alone or len(views) > 1):
            raise error
        return run(self, views)

    monkeypatch.setattr(NetworkExtractor, "_run", spoilt)
    return tried


def red(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), [255, 0, 0], np.uint8)


# ------------------------------------------------------------------------------------------------------ the same sets


@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_number_of_workers_gives_the_same_set(
    batch_size: int, extractor: How, folder: Path, gathering: Callable
) -> None:
    """On a processor workers describe as well as decode; where images are gathered they only decode."""
    batches = gathering(batch_size)
    sets, counts = [], (0, 2) if batch_size == 1 else (0, 1, 2)  # a worker that describes takes seconds to start
    for workers in counts:
        extract_images(extractor, folder, folder.parent / f"set{workers}", workers=workers)
        sets.append(FeatureSet.open(folder.parent / f"set{workers}"))
    assert len(batches) == (7 if batch_size == 1 else 18)
    assert len(content(folder.parent / "set2")) == 1
    if batch_size > 1:
        assert content(folder.parent / "set0") == content(folder.parent / "set1") == content(folder.parent / "set2")
    for photos in sets:
        assert photos.recipe == extractor.recipe and photos.failures == {}
        assert [name for name, _ in photos.images()] == [f"{number}.png" for number in range(7)]
        for number, size in enumerate(SIZES):
            assert_close(photos.read(f"{number}.png"), extractor.extract(picture(*size, number)))


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [1] * 7), (3, [2, 1, 1, 1, 1, 1]), (7, [4, 2, 1]), (96, [4, 2, 1])]
)
def test_images_of_one_size_are_described_together_and_written_in_order(
    batch_size: int, sizes: list[int], extractor: How, folder: Path, gathering: Callable
) -> None:
    batches = gathering(batch_size)
    assert extract(extractor, folder).extracted == 7
    assert [len(batch) for batch in batches] == sizes
    assert all(len(set(batch)) == 1 for batch in batches)
    photos = opened(folder)
    assert [name for name, _ in photos.images()] == [f"{number}.png" for number in range(7)]
    for number, size in enumerate(SIZES):
        assert_close(photos.read(f"{number}.png"), extractor.extract(picture(*size, number)))


def test_the_same_run_gives_the_same_bytes(extractor: How, folder: Path, gathering: Callable) -> None:
    gathering(5)
    for name in ("one", "two"):
        extract_images(extractor, folder, folder.parent / name, workers=0)
    assert content(folder.parent / "one") == content(folder.parent / "two")


def test_worker_processes_decode_and_load_no_network() -> None:
    code = """
import sys, asmk_engine.extraction.workers
from asmk_engine.extraction.attempts import Origin
Origin("asmk_engine.extraction.attempts:Viewer", {"max_side": 64, "lanczos": True}).make()
print([name for name in ("torch", "numba", "asmk_engine.networks") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# ----------------------------------------------------------------------------------------------------------- resuming


def test_a_second_run_describes_only_what_is_new_or_changed(extractor: How, folder: Path, gathering: Callable) -> None:
    batches = gathering(96)
    assert extract(extractor, folder).extracted == 7
    batches.clear()
    summary = extract(extractor, folder)
    assert (summary.extracted, summary.unchanged, batches) == (0, 7, [])
    save(folder, 2, picture(30, 50, 77))
    save(folder, 8, picture(44, 44, 8))
    before = opened(folder).read("3.png")
    summary = extract(extractor, folder)
    assert (summary.extracted, summary.unchanged) == (2, 6)
    assert sorted(batches) == [[(30, 50, 3)], [(44, 44, 3)]]
    assert_close(opened(folder).read("2.png"), extractor.extract(picture(30, 50, 77)))
    np.testing.assert_array_equal(opened(folder).read("3.png").descriptors, before.descriptors)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_interrupted_run_keeps_what_it_has_and_goes_on_later(
    batch_size: int, extractor: How, folder: Path, gathering: Callable
) -> None:
    gathering(batch_size)

    def interrupt(done: int, total: int, failures: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(extractor, folder, progress=interrupt)
    kept = opened(folder).names
    assert kept[:3] == ["0.png", "1.png", "2.png"] and len(kept) < 7
    summary = extract(extractor, folder)
    assert (summary.extracted, summary.unchanged) == (7 - len(kept), len(kept))
    for number, size in enumerate(SIZES):
        assert_close(opened(folder).read(f"{number}.png"), extractor.extract(picture(*size, number)))


def test_another_network_or_option_is_refused(extractor: How, folder: Path, tmp_path: Path) -> None:
    extract(extractor, folder)
    other = tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    options = {"max_features": 60, "max_side": 56}
    for stranger in (How(weights=other, scales=[1.0, 0.5], **options), How(weights=extractor.weights, **options)):
        with pytest.raises(MismatchError):
            extract(stranger, folder)


def test_weights_that_are_not_there_stop_the_run_before_it_begins(extractor: How, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such weight file"):
        extract(How(weights=str(tmp_path / "none.safetensors")), folder)
    assert not (folder.parent / "set").exists()


# ------------------------------------------------------------------------------------------------------- what breaks


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (4, 0), (4, 2)])
def test_broken_images_are_noted_where_they_stand(
    batch_size: int, workers: int, extractor: How, folder: Path, gathering: Callable
) -> None:
    gathering(batch_size)
    whole = (folder / "1.png").read_bytes()
    (folder / "0a.png").write_bytes(b"no photograph")
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "6a.png").write_bytes(b"")
    reports: list[tuple[int, int, int]] = []
    summary = extract(extractor, folder, workers, progress=lambda *report: reports.append(report))
    assert summary.extracted == 6 and list(summary.failed) == ["0a.png", "3.png", "6a.png"]
    assert "not an image of a supported kind" in summary.failed["0a.png"]
    assert "ends before the image does" in summary.failed["3.png"] or "damaged or truncated" in summary.failed["3.png"]
    assert "the file is empty" in summary.failed["6a.png"]
    photos = opened(folder)
    assert photos.failures == summary.failed
    assert [name for name, _ in photos.images()] == [f"{number}.png" for number in (0, 1, 2, 4, 5, 6)]
    assert reports[0] == (0, 9, 0) and reports[-1] == (9, 9, 3) and len(reports) == 10
    with pytest.raises(InputError, match=r"0a\.png: not an image .*; without strict such images are skipped"):
        extract(extractor, folder, strict=True)
    save(folder, "3", picture(50, 40, 3))
    assert extract(extractor, folder).extracted == 1


@pytest.mark.parametrize("batch_size", [1, 96])
def test_nothing_but_broken_images_is_an_error(
    batch_size: int, extractor: How, tmp_path: Path, gathering: Callable
) -> None:
    gathering(batch_size)
    (tmp_path / "photos").mkdir()
    for name in "ab":
        (tmp_path / f"photos/{name}.png").write_bytes(b"no photograph")
    with pytest.raises(InputError, match=r"none of 2 images could be read: a\.png: not an image"):
        extract(extractor, tmp_path / "photos")


def test_an_image_too_small_for_a_location_is_in_the_set_without_features(extractor: How, folder: Path) -> None:
    save(folder, "small", picture(3, 40))
    assert extract(extractor, folder).failed == {}
    found = opened(folder).read("small.png")
    assert found.descriptors.shape == (0, 8) and found.image_size == (40, 3)


ERRORS = [RuntimeError("the device\nhas a fault"), torch.OutOfMemoryError("out of memory"), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_that_fails_is_tried_image_by_image(
    error: Exception, extractor: How, folder: Path, gathering: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering(96)
    tried = failing(monkeypatch, error, alone=False)
    save(folder, 4, red(48, 64))
    summary = extract(extractor, folder)
    assert summary.extracted == 7 and summary.failed == {}
    assert tried[0] == 4 and 1 in tried
    for number in (0, 1, 3, 6):
        assert_close(opened(folder).read(f"{number}.png"), extractor.extract(picture(*SIZES[number], number)))


@pytest.mark.parametrize("batch_size", [1, 4, 96])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_image_that_fails_alone_costs_itself(
    error: Exception,
    batch_size: int,
    extractor: How,
    folder: Path,
    gathering: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gathering(batch_size)
    failing(monkeypatch, error, alone=True)
    save(folder, 4, red(48, 64))
    (folder / "0a.png").write_bytes(b"no photograph")
    summary = extract(extractor, folder)
    said = " ".join(str(error).split())
    reason = f"the extractor failed on it ({type(error).__name__}: {said}); leave the image out"
    assert summary.extracted == 6 and summary.failed["4.png"] == reason
    assert "not an image" in summary.failed["0a.png"]  # what failed in the first step keeps its own reason
    assert [name for name, _ in opened(folder).images()] == [f"{number}.png" for number in (0, 1, 2, 3, 5, 6)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_features_that_are_not_finite_are_refused(
    batch_size: int, extractor: How, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchedExtractor, "batch_size", batch_size)
    run = NetworkExtractor._run

    def broken(self: NetworkExtractor, views: list[View]) -> list[Features]:
        found = run(self, views)
        if views[0].pixels.shape[:2] == (40, 40):
            found[0].descriptors[0, 0] = np.inf
        return found

    monkeypatch.setattr(NetworkExtractor, "_run", broken)
    summary = extract(extractor, folder)
    assert summary.extracted == 6 and "every value must be finite" in summary.failed["3.png"]


def test_what_cannot_be_written_stops_the_run(extractor: How, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing runs behind describing; its first error must come out all the same."""

    def full(self: object, name: str, *arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extraction.FeatureWriter, "add", full)
    with pytest.raises(OSError, match="No space left"):
        extract(extractor, folder)
