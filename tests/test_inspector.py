"""HDF5 files from untrusted sources: inspected by a process that may crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkError, DamagedError, InputError
from asmk_engine.features import FeatureSet
from asmk_engine.storage import hdf5 as inspector
from asmk_engine.storage import hdf5_inspection as inspection
from asmk_engine.storage.hdf5 import open_hdf5
from samples import random_codebook, random_images, write_features


def link(name: str, target: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name] = target

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((5,), "f4")
    layout[:] = h5py.VirtualSource("/elsewhere.h5", "secret", (5,))
    file.create_virtual_dataset("group/view", layout)


def outside(file: h5py.File) -> None:
    file.create_dataset("view", (5,), "f4", external=[("/etc/passwd", 0, 20)])


def unknown_filter(file: h5py.File) -> None:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((4,))
    created.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"strange", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((8,)), created)


def claims(options: dict[str, object]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.create_dataset("much", (1 << 45,), "f4", chunks=(1 << 10,), **options)

    return change


HOSTILE = {
    "soft link": (link("group/here", h5py.SoftLink("/plain")), "'group/here' is a soft or external link"),
    "soft link to nothing": (link("here", h5py.SoftLink("/nowhere")), "soft or external link"),
    "external link": (link("here", h5py.ExternalLink("other.h5", "/a")), "soft or external link"),
    "virtual dataset": (virtual, "group/view: its values are in other files"),
    "external storage": (outside, "view: its values are in other files"),
    "unknown filter": (unknown_filter, "strange: filter 32015 is not built into HDF5"),
    "a claim": (claims({}), "much: claims 140737488355328 bytes"),
    "a claim with a filter": (claims({"compression": "gzip"}), "much: claims"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
        file["plain"] = np.arange(100)
        file["group/packed"] = np.arange(10)
        file.create_dataset("packed", data=np.zeros(5000), compression="gzip", shuffle=True, fletcher32=True)
        file.attrs["text"] = "a text"
    return tmp_path / "file.h5"


@pytest.fixture
def fresh() -> Iterator[None]:
    """Another inspecting process for this test, and none of it left behind."""
    inspector._process.cache_clear()
    inspector._inspect_once.cache_clear()
    yield
    inspector._process.cache_clear()
    inspector._inspect_once.cache_clear()


def test_a_plain_file_is_opened(path: Path) -> None:
    with open_hdf5(path) as file:
        assert file["plain"][:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("case", HOSTILE)
def test_what_leads_out_of_a_file_is_refused(case: str, path: Path) -> None:
    change, said = HOSTILE[case]
    open_hdf5(path).close()
    with h5py.File(path, "a", libver="latest") as file:
        change(file)
    with pytest.raises(InputError, match=said) as raised:
        open_hdf5(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_circles_of_groups_end(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["group/round"] = file["/"]
    open_hdf5(path).close()


def test_more_objects_than_the_file_holds_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "LEAST_OBJECT", path.stat().st_size // 3)
    with pytest.raises(inspection.Refused, match="more groups and datasets"):
        inspection.inspect(path)


def test_a_long_attribute_is_refused(path: Path) -> None:
    with h5py.File(path, "a", libver="latest") as file:
        space = h5py.h5s.create_simple((1 << 16,))
        h5py.h5a.create(file.id, b"long", h5py.h5t.NATIVE_DOUBLE, space)
    with path.open("rb+") as cut:
        cut.truncate(1 << 18)
    with pytest.raises((InputError, OSError)):
        open_hdf5(path)


def test_what_is_no_hdf5_file_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("text.h5", "nothing.h5"):
        with pytest.raises(OSError):
            open_hdf5(tmp_path / name)


@pytest.mark.parametrize(
    "program", ["import os; os.abort()", "input(); print('no JSON', flush=True)", "raise SystemExit", "input()"]
)
def test_a_process_that_dies_of_a_file_is_replaced(
    program: str, path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(inspector, "_BOOTSTRAP", program)
        with pytest.raises(DamagedError, match=r"file\.h5: HDF5 crashed or hung on it"):
            open_hdf5(path)
    open_hdf5(path).close()


def test_a_process_that_hangs_on_a_file_is_ended(path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "_BOOTSTRAP", "import time; time.sleep(1000)")
    monkeypatch.setattr(inspector, "SECONDS", 0.2)
    with pytest.raises(DamagedError, match="crashed or hung"):
        open_hdf5(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="memory is limited through the resource module")
def test_a_process_that_grows_is_refused_its_memory(path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    grow = "from asmk_engine.storage import hdf5_inspection as i\ndef grow(path): bytearray(4 << 30)\n"
    grow += "i.inspect = grow\ni.main()"
    monkeypatch.setattr(inspector, "_BOOTSTRAP", grow)
    with pytest.raises(InputError, match="needs more than 2147483648 bytes of memory"):
        open_hdf5(path)


def test_no_altered_byte_of_our_own_files_gets_past_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reader of HDF5 files, on files with a few bytes changed, some of which make HDF5 run for ever."""
    monkeypatch.setattr(inspector, "SECONDS", 3.0)
    rng = np.random.default_rng(0)
    features = write_features(tmp_path / "f", random_images(6, 8))
    random_codebook(20, 8).save(tmp_path / "c.h5")
    part = next((tmp_path / "f").glob("part-*.h5"))
    readers: list[tuple[Path, Callable[[], object]]] = [
        (tmp_path / "c.h5", lambda: Codebook.open(tmp_path / "c.h5")),
        (part, lambda: list(FeatureSet.open(features.path).images())),
    ]
    refused = 0
    for path, read in readers:
        whole = path.read_bytes()
        for _ in range(150):
            altered = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 6000), rng.integers(1, 4)):
                altered[place] = rng.integers(0, 256)
            path.write_bytes(altered)
            try:
                read()
            except AsmkError as error:
                refused += 1
                assert "\n" not in str(error)
        path.write_bytes(whole)
        read()
    assert refused > 20
