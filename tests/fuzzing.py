"""A process with little memory that reads altered files: python fuzzing.py SEED CASES FOLDER.

Every reader of files from untrusted sources gets small valid files with bytes changed, cut out, repeated and exchanged,
and a few that are noise. It prints how many of them were refused; any error other than AsmkError ends it.
"""

from __future__ import annotations

import json
import pickle
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.compat.conversion import import_asmk
from asmk_engine.errors import AsmkError
from asmk_engine.features import FeatureSet
from asmk_engine.indexes.manifest import read_manifest
from asmk_engine.interop.hloc import import_hloc
from asmk_engine.inverted.index import Index
from asmk_engine.storage import hdf5 as inspector
from asmk_engine.storage.folder import Folder, encode_manifest
from asmk_engine.storage.pickles.unpickle import read_plain_pickle
from samples import random_codebook, random_images, write_features

MEMORY = 3 << 30  # address space; numpy, Numba and HDF5 take most of the first
TOKENS = [b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff", b"[" * 300, b"999999999999999999999", b"-1", b'"', b"{", b"}"]


def altered(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes."""
    result = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        place, deed = rng.randrange(len(result) + 1), rng.randrange(6)
        if deed == 0 and place < len(result):
            result[place] = rng.randrange(256)
        elif deed == 1:
            result[place : place + rng.randrange(1, 40)] = b""
        elif deed == 2:
            result[place:place] = result[place : place + rng.randrange(1, 40)]
        elif deed == 3:
            result[place : place + 8] = rng.choice(TOKENS)
        elif deed == 4:
            result[place:place] = rng.choice(TOKENS)
        else:
            del result[place + rng.randrange(1 + len(result) - place) :]
        result = result or bytearray(1)
    return bytes(result) if rng.random() > 0.02 else rng.randbytes(rng.randrange(300))


def targets(folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """By name a valid file and what reads it."""
    features = write_features(folder / "f", random_images(4, 8))
    codebook = random_codebook(12, 8)
    codebook.save(folder / "c.h5")
    index = Index.create(folder / "index", codebook)
    index.add(features)
    pickled = folder / "p.pkl"
    pickled.write_bytes(pickle.dumps({"imlist": ["a", "b"], "gnd": [{"bbx": [1.0, 2.0], "easy": np.arange(3)}]}))
    centroids = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    state = {"index_factory": "FaissL2Index", "centroids": centroids, "type": "ASMKCodebook", "params": {}}
    (folder / "asmk.pkl").write_bytes(pickle.dumps(state))
    hloc = folder / "hloc.h5"
    with h5py.File(hloc, "w") as file:
        for name in ("a.jpg", "below/b.jpg"):
            file[f"{name}/keypoints"] = np.ones((5, 2), np.float32)
            file[f"{name}/descriptors"] = np.ones((8, 5), np.float32)
            file[f"{name}/image_size"] = np.array([640, 480])
    part = next((folder / "f").glob("part-*.h5"))
    segment = next((folder / "index").glob("segment-*"))
    words = next((folder / "index").glob("codebook-*"))

    def manifest() -> object:
        (folder / "index" / "manifest.copy.json").unlink(missing_ok=True)
        return read_manifest(Folder(folder / "index"))

    def whole_index() -> object:
        opened = Index.open(folder / "index")
        return [opened.names, [segment.file.verify() for segment in opened.snapshot.segments]]

    return {
        "features": (part, lambda: list(FeatureSet.open(folder / "f").images())),
        "hloc": (hloc, lambda: import_hloc(hloc, folder / f"out-{random.random()}")),
        "codebook": (folder / "c.h5", lambda: Codebook.open(folder / "c.h5")),
        "segment": (segment, whole_index),
        "index codebook": (words, whole_index),
        "pickle": (pickled, lambda: read_plain_pickle(pickled)),
        "asmk pickle": (folder / "asmk.pkl", lambda: import_asmk(folder / "asmk.pkl", folder / f"o-{random.random()}")),
        "manifest": (folder / "index" / "manifest.json", manifest),
    }


def resigned(data: bytes) -> bytes:
    """A manifest with the checksum that its altered content should have, so that what is behind it is read."""
    try:
        content = json.loads(data)
        content.pop("checksum", None)
        return encode_manifest(content)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data


def main() -> None:
    """Read so many altered files of each kind."""
    seed, cases, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    inspector.SECONDS = 2.0  # some of the files make HDF5 run for ever
    rng = random.Random(seed)
    refused = {}
    for name, (path, read) in targets(folder).items():
        whole, refused[name] = path.read_bytes(), 0
        for _ in range(cases):
            data = altered(whole, rng)
            path.write_bytes(resigned(data) if name == "manifest" and rng.random() < 0.7 else data)
            try:
                read()
            except AsmkError as error:
                refused[name] += 1
                if "\n" in str(error):
                    raise
            except BaseException:
                (folder / "culprit").write_bytes(path.read_bytes())
                print(f"{name}: {folder / 'culprit'}", file=sys.stderr)
                raise
        path.write_bytes(whole)
    print(json.dumps(refused))


if __name__ == "__main__":
    main()
