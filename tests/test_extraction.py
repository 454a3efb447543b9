"""Runs of extraction: resumed, interrupted, with broken images and images that crash the process that reads them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import asmk_engine
from asmk_engine.errors import DamagedError, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.extraction import intake, pools
from asmk_engine.extraction.run import ExtractionSummary, extract_images
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.images.kinds import KINDS_READ
from asmk_engine.images.roots import Root
from asmk_engine.storage import hdf5 as inspector
from asmk_engine.storage.messages import receive, send
from misbehaving import Missing, Scripted, Unmakeable

WORKERS = [0, 2]


def scripts(folder: Path, **files: str) -> Path:
    """A folder of images that a `Scripted` extractor obeys."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.jpg").write_text(text)
    return folder


def extract(folder: Path, workers: int = 0, **options: object) -> ExtractionSummary:
    return extract_images(Scripted(), folder, folder.parent / "set", workers=workers, **options)


def opened(folder: Path) -> FeatureSet:
    return FeatureSet.open(folder.parent / "set")


def content(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in part_names(path)}


def children() -> set[str]:
    """The processes that this one has started and not yet waited for, where the system lists them."""
    lists = Path("/proc/self/task").glob("*/children")
    return {number for file in lists for number in file.read_text().split()}


@pytest.fixture(autouse=True)
def earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the processes that other tests of this run have started, such as servers."""
    monkeypatch.setattr(sys.modules[__name__], "EARLIER", children())


EARLIER: set[str] = set()


def no_children() -> bool:
    """Whether all processes of a test have ended and been waited for, but for the one that inspects files."""
    if inspector._process.cache_info().currsize:
        inspector._process().close()
        inspector._process.cache_clear()
    return children() <= EARLIER


@pytest.mark.parametrize("workers", WORKERS)
def test_features_are_written_in_the_order_of_the_images(tmp_path: Path, workers: int) -> None:
    folder = scripts(tmp_path / "photos", **{f"{number:02d}": f"fine {number}" for number in range(40)})
    summary = extract(folder, workers)
    assert (summary.extracted, summary.unchanged, summary.removed, summary.failed) == (40, 0, 0, {})
    assert summary.images_per_second == pytest.approx(40 / summary.seconds)
    photos = opened(folder)
    assert [name for name, _ in photos.images()] == [f"{number:02d}.jpg" for number in range(40)]
    assert [photos.count(f"{number:02d}.jpg") for number in range(40)] == list(range(40))
    assert photos.roots() == (Root(str(folder)),) and photos.root("07.jpg") == Root(str(folder))
    source = photos.source("07.jpg")
    assert (source.size, source.mtime) == (6, (folder / "07.jpg").stat().st_mtime_ns)


def test_the_parts_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        noise = cv2.GaussianBlur(rng.normal(128, 400, (90, 120)).astype(np.float32), (0, 0), 2)
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(tmp_path / f"photos/{number}.png")
    sets = []
    for workers in (0, 1, 3):
        load_extractor().extract_folder(tmp_path / "photos", tmp_path / f"set{workers}", workers=workers)
        sets.append(content(tmp_path / f"set{workers}"))
    assert sets[0] == sets[1] == sets[2]
    assert FeatureSet.open(tmp_path / "set0").descriptor_count > 50


@pytest.mark.parametrize("workers", WORKERS)
def test_broken_images_are_noted_and_never_stop_the_run(tmp_path: Path, workers: int) -> None:
    folder = scripts(tmp_path / "photos", a="fine", b="broken", c="bug", d="nan", e="fine", f="chatter 2")
    (folder / "g.jpg").mkdir()
    (folder / "h.jpg").symlink_to("nowhere.jpg")
    summary = extract(folder, workers)
    assert summary.extracted == 3
    assert summary.failed["b.jpg"] == "broken, says the file"
    assert summary.failed["c.jpg"] == "the extractor failed on it (ZeroDivisionError: one by none); leave the image out"
    assert "every value must be finite" in summary.failed["d.jpg"]
    assert "FileNotFoundError" in summary.failed["h.jpg"]
    assert opened(folder).names == ["a.jpg", "e.jpg", "f.jpg"]
    assert opened(folder).failures == summary.failed
    with pytest.raises(NotFoundError, match="broken, says the file"):
        opened(folder).read("b.jpg")


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("killed", "crashed the decoder (the worker process ended by signal 9 SIGKILL); leave the image out"),
        ("exit", "crashed the decoder (the worker process ended with status 3); leave the image out"),
    ],
)
def test_an_image_that_ends_its_worker_costs_that_image_only(tmp_path: Path, deed: str, reason: str) -> None:
    folder = scripts(tmp_path / "photos", a="fine", b=deed, c="fine", d=deed, e=deed, f="fine")
    summary = extract(folder, 2)
    assert summary.extracted == 3
    assert summary.failed == dict.fromkeys(["b.jpg", "d.jpg", "e.jpg"], reason)
    assert opened(folder).failures == summary.failed
    assert no_children()


def test_an_interrupt_that_reaches_a_worker_is_left_to_the_parent(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="interrupted 2", b="fine 1")
    assert extract(folder, 1).failed == {}
    assert opened(folder).count("a.jpg") == 2


def test_an_image_that_takes_for_ever_is_given_up(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine", b="hang", c="fine", d="fine")
    summary = extract(folder, 2, image_seconds=0.7)
    assert summary.extracted == 3
    assert summary.failed == {"b.jpg": "took longer than 0.7 s to extract and was stopped; leave the image out"}


def test_what_keeps_workers_from_starting_stops_the_run(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine", b="fine")
    with pytest.raises(InputError, match="this extractor refuses to be made"):
        extract_images(Unmakeable(), folder, tmp_path / "one", workers=2)
    with pytest.raises(StorageError, match="ended with status 5 while starting; use fewer workers, or none"):
        extract_images(Missing(), folder, tmp_path / "two", workers=2)
    with pytest.raises(InputError, match="workers is -1"):
        extract_images(Scripted(), folder, tmp_path / "three", workers=-1)
    assert no_children()


@pytest.mark.parametrize("workers", WORKERS)
def test_strict_stops_at_the_first_broken_image_and_keeps_what_was_done(tmp_path: Path, workers: int) -> None:
    folder = scripts(tmp_path / "photos", a="fine", b="fine", c="broken", d="fine")
    with pytest.raises(
        InputError, match=r"^c\.jpg: broken, says the file; without strict such images are skipped$"
    ) as caught:
        extract(folder, workers, strict=True)
    assert no_children(), "the workers must not live as long as the traceback does"
    assert opened(folder).names == ["a.jpg", "b.jpg"]
    del caught


def test_strict_does_not_pass_over_bad_names(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine")
    (folder / "list.txt").write_text("../up.jpg\na.jpg\n")
    with pytest.raises(InputError, match="leads out of the folder"):
        extract_images(Scripted(), folder / "list.txt", tmp_path / "set", workers=0, strict=True)


def test_a_second_run_does_only_what_is_new_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scripts(tmp_path / "photos", a="fine 1", b="fine 2", c="fine 3", d="broken")
    extract(folder)
    scripts(folder, a="fine 9", e="fine 5")  # same size, other content
    os.utime(folder / "b.jpg", ns=(1, 1))  # touched, not changed
    asked: list[str] = []
    monkeypatch.setattr(Scripted, "extract", recording(asked, Scripted.extract))
    summary = extract(folder)
    assert asked == ["a.jpg", "d.jpg", "e.jpg"]
    assert (summary.extracted, summary.unchanged, list(summary.failed)) == (2, 2, ["d.jpg"])
    photos = opened(folder)
    assert [photos.count(name) for name in photos.names] == [9, 2, 3, 5]


def recording(asked: list[str], extract: Callable) -> Callable:
    def record(self: Scripted, image: Path, box: object = None) -> object:
        asked.append(image.name)
        return extract(self, image, box)

    return record


def test_nothing_is_written_when_nothing_is_new(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine 1", b="broken")
    extract(folder)
    before = content(tmp_path / "set")
    summary = extract(folder)
    assert (summary.unchanged, list(summary.failed)) == (1, ["b.jpg"])
    assert content(tmp_path / "set") == before


def test_a_mended_image_is_no_failure_any_more_and_a_spoilt_one_has_no_features(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine 1", b="broken", c="fine 1")
    extract(folder)
    scripts(folder, a="broken", b="fine 2")
    extract(folder)
    assert opened(folder).names == ["b.jpg", "c.jpg"]
    assert opened(folder).failures == {"a.jpg": "broken, says the file"}


def test_features_of_a_listed_image_that_is_gone_are_kept_unless_pruned(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine 1", b="fine 2")
    listed = tmp_path / "photos/list.txt"
    listed.write_text("a.jpg\nb.jpg\n")
    output = tmp_path / "set"
    extract_images(Scripted(), listed, output, workers=0)
    (folder / "a.jpg").unlink()
    summary = extract_images(Scripted(), listed, output, workers=0)
    assert list(summary.failed) == ["a.jpg"]
    assert FeatureSet.open(output).names == ["a.jpg", "b.jpg"]
    assert extract_images(Scripted(), listed, output, workers=0, prune=True).removed == 1
    assert FeatureSet.open(output).names == ["b.jpg"]


def test_pruning_forgets_images_and_failures_that_vanished(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine 1", b="broken", c="fine 1", d="fine 1")
    extract(folder)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).unlink()
    assert extract(folder).removed == 0
    assert opened(folder).names == ["a.jpg", "c.jpg", "d.jpg"]
    summary = extract(folder, prune=True)
    assert (summary.removed, summary.unchanged) == (1, 2)
    assert opened(folder).names == ["c.jpg", "d.jpg"] and opened(folder).failures == {}
    assert extract(folder, prune=True).removed == 0


def test_unchanged_images_cost_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scripts(tmp_path / "photos", **{f"{number:04d}": "fine 1" for number in range(1462)})
    extract(folder)
    monkeypatch.setattr(pools, "WorkerPool", None)
    monkeypatch.setattr(intake, "file_fingerprint", None)
    begun = time.perf_counter()
    assert extract(folder, workers=2).unchanged == 1462
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize("workers", WORKERS)
def test_an_interrupted_run_keeps_what_it_has_and_goes_on_later(tmp_path: Path, workers: int) -> None:
    folder = scripts(tmp_path / "photos", **{f"{number:02d}": f"fine {number}" for number in range(60)})

    def interrupt(done: int, total: int, failed: int) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(folder, workers, progress=interrupt)
    assert len(opened(folder)) == 25
    assert no_children()
    summary = extract(folder, workers)
    assert (summary.unchanged, summary.extracted) == (25, 35)
    assert [opened(folder).count(name) for name in opened(folder).names] == list(range(60))


@pytest.mark.skipif(os.name == "nt", reason="signals of a terminal")
def test_control_c_at_the_terminal_ends_a_plain_script_and_loses_nothing(tmp_path: Path) -> None:
    """A script without `if __name__ == "__main__"`, interrupted together with its workers, as a terminal does it."""
    scripts(tmp_path / "photos", **{f"{number:03d}": "fine 1" for number in range(400)})
    code = f"""
import signal
from misbehaving import Scripted
from asmk_engine.extraction.run import extract_images
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
def say(done, total, failed):
    print(done, flush=True)
extract_images(Scripted(delay=0.05), {str(tmp_path / "photos")!r}, {str(tmp_path / "set")!r}, workers=2, progress=say)
"""
    (tmp_path / "script.py").write_text(code)
    paths = [str(Path(asmk_engine.__file__).parents[1]), str(Path(__file__).parent)]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    for line in process.stdout:
        if int(line) == 20:
            os.killpg(process.pid, signal.SIGINT)
            break
    _, said = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said and process.returncode != 0
    photos = FeatureSet.open(tmp_path / "set")
    assert 20 <= len(photos) < 400 and photos.failures == {}


def test_progress_counts_every_image_once(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine", b="broken", c="fine")
    extract(folder)
    scripts(folder, d="fine", e="broken")
    calls: list[tuple[int, int, int]] = []
    extract(folder, progress=lambda *call: calls.append(call))
    assert calls == [(2, 5, 0), (3, 5, 1), (4, 5, 1), (5, 5, 2)]


def test_a_folder_without_a_readable_image_is_an_error_that_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (folder / name).write_text("Dear diary")
    with pytest.raises(InputError) as caught:
        extract_images(load_extractor(), folder, tmp_path / "set", workers=1)
    reason = f"not an image of a supported kind; expected {KINDS_READ}"
    assert str(caught.value) == (
        f"{folder}: none of 4 images could be read: a.jpg: {reason}; b.jpg: {reason}; c.jpg: {reason}; and 1 more"
    )
    empty = FeatureSet.open(tmp_path / "set")
    assert len(empty) == 0 and len(empty.failures) == 4
    Image.fromarray(np.full((50, 50), 90, np.uint8)).save(folder / "flat.png")
    assert extract_images(load_extractor(), folder, tmp_path / "set", workers=0).extracted == 1
    assert len(FeatureSet.open(tmp_path / "set").read("flat.png")) == 0


def test_an_empty_folder_leaves_no_set_behind(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="no images found"):
        extract(tmp_path / "photos")
    assert not (tmp_path / "set").exists()


def test_strange_names_survive_the_whole_way(tmp_path: Path) -> None:
    names = ["-dash.jpg", "#hash.jpg", "new\nline.jpg", "two  spaces .jpg", "日本語.jpg", "100%.jpg"]
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("fine 2")
    (folder / "bad\nbroken.jpg").write_text("broken")
    summary = extract(folder, workers=1)
    assert summary.failed == {"bad\nbroken.jpg": "broken, says the file"}
    assert sorted(opened(folder).names) == sorted(names)
    assert extract(folder).unchanged == len(names)


def test_features_of_other_options_are_refused(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine")
    extract(folder)
    with pytest.raises(MismatchError, match=r"seed=0.*seed=1"):
        extract_images(Scripted(seed=1), folder, tmp_path / "set", workers=0)


def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="a file is in the way"):
        extract_images(Scripted(), folder, tmp_path / "file", workers=0)
    with pytest.raises(StorageError, match="cannot make the folder"):
        extract_images(Scripted(), folder, tmp_path / "file/below", workers=0)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_target_is_a_storage_error(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="choose a folder with write permission"):
        extract_images(Scripted(), folder, tmp_path / "closed/set", workers=0)


def test_a_cut_part_is_named_with_the_cure(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", a="fine 20", b="fine 20")
    extract(folder)
    part = tmp_path / "set/part-000000.h5"
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(DamagedError, match="remove this file and run extract again"):
        extract(folder)
    part.unlink()
    assert extract(folder).extracted == 2


def test_workers_load_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys, asmk_engine.extraction.workers
from asmk_engine.extractors import load_extractor
load_extractor()
print([name for name in ("torch", "numba", "click", "faiss", "scipy") if name in sys.modules])
"""
    paths = [str(Path(asmk_engine.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr


def test_workers_use_one_thread_and_ignore_modules_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    folder = scripts(tmp_path / "photos", a="threads")
    assert extract(folder, 1).extracted == 1
    assert opened(folder).count("a.jpg") == 1


def test_messages_between_processes_are_plain_data_and_checked() -> None:
    stream = io.BytesIO()
    arrays = [np.arange(6, dtype=np.float16).reshape(2, 3), np.zeros((0, 3), np.float32)]
    send(stream, {"path": "a\udcff.jpg"}, arrays)
    whole = stream.getvalue()
    content, found = receive(io.BytesIO(whole))
    assert content == {"path": "a\udcff.jpg"}
    for array, expected in zip(found, arrays, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    with pytest.raises(EOFError):
        receive(io.BytesIO(whole[:-1]))
    with pytest.raises(ValueError, match="a message of"):
        receive(io.BytesIO(b"\xff" * 100))
    with pytest.raises(ValueError, match="OBJECT"):
        receive(io.BytesIO(whole.replace(b"<f2", b"|O8").ljust(200, b"\0")))
