"""Three memory cards with equal names, as people use them: no photograph is lost, and none is confused with another."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from asmk_engine.extraction.attempts import file_fingerprint
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.search.query_features import QuerySource
from samples import as_ordinary_user
from test_identity import call, fill, paint

CARDS = ("one", "two", "three")
NAMES = ("DCIM/IMG_1.jpg", "DCIM/IMG_2.jpg", "private/IMG_3.jpg", "private/IMG_4.jpg")
FEATURES = 400
OPTIONS = ("--extractor", "rootsift", "--max-features", FEATURES, "--workers", 0)


def index(card: Path, to: Path, *options: object, code: int = 0) -> str:
    """The messages of `index`."""
    words = ("--words", "16") if not to.exists() else ()
    return call("index", card, "-o", to, *OPTIONS, *words, *options, code=code).err


def index_as_ordinary_user(card: Path, to: Path, *options: object) -> str:
    """The messages of `index` in a process for which permissions count, and which could not do all."""
    arguments = ["index", card, "-o", to, *OPTIONS, *options]
    done = as_ordinary_user([sys.executable, "-m", "asmk_engine", *map(str, arguments)])
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def check_each_is_itself(to: Path, photographs: dict[str, Path]) -> None:
    """Each name is that photograph: found by it as the best, with its own content and its own features."""
    opened = Index.open(to)
    assert opened.names == sorted(photographs)
    source, extractor = QuerySource(opened), load_extractor("rootsift", max_features=FEATURES)
    for name, path in photographs.items():
        assert opened.identity(name).fingerprint == file_fingerprint(path)
        own, asked = extractor.extract(path), source.features(name)[0]
        assert np.array_equal(own.descriptors.astype(np.float32), asked.descriptors.astype(np.float32)), name
    told = call("query", to, *photographs.values(), "--format", "jsonl", "--top", 1)
    for line in told.out.splitlines():
        answer = json.loads(line)
        assert photographs[answer["hits"][0]["name"]] == Path(answer["query"])


def test_three_memory_cards(tmp_path: Path) -> None:
    reader, archive, to = tmp_path / "reader", tmp_path / "archive", tmp_path / "photos.index"
    cards = {
        card: fill(archive / card, {name: 10 * number + place for place, name in enumerate(NAMES)})
        for number, card in enumerate(CARDS)
    }
    kept = {f"{'' if card == 'one' else card + '/'}{name}": cards[card] / name for card in CARDS for name in NAMES}

    shutil.copytree(cards["one"], reader)  # each card in turn lies in the same reader
    assert "4 added" in index(reader, to)
    shutil.rmtree(reader)
    shutil.copytree(cards["two"], reader)
    told = index(reader, to, code=1)
    assert "0 added" in told and "4 photographs whose file was replaced" in told and "--prefix" in told
    assert "4 added" in index(reader, to, "--prefix", "two")
    shutil.rmtree(reader)
    told = index(cards["three"], to, code=1)  # from a folder of its own
    assert "4 photographs left out" in told and "0 already indexed" in told
    assert "4 added" in index(cards["three"], to, "--prefix", "three")
    check_each_is_itself(to, kept)

    was = shutil.copy(cards["three"] / NAMES[0], tmp_path / "was.jpg")
    paint(cards["three"] / NAMES[0], 77)  # changed
    (cards["three"] / NAMES[1]).unlink()  # gone
    (cards["three"] / "private").chmod(0o000)  # locked
    told = index_as_ordinary_user(cards["three"], to, "--prefix", "three", "--prune")
    assert "--prune removes 1 of 12 images: 'three/DCIM/IMG_2.jpg'" in told and "private" in told
    assert "1 photograph whose file was replaced" in told
    del kept["three/DCIM/IMG_2.jpg"]
    kept["three/DCIM/IMG_1.jpg"] = Path(was)
    (cards["three"] / "private").chmod(0o755)
    check_each_is_itself(to, kept)

    told = index(cards["three"], to, "--prefix", "three", "--prune", "--update")
    assert "1 replaced" in told and "0 removed" in told
    kept["three/DCIM/IMG_1.jpg"] = cards["three"] / NAMES[0]
    check_each_is_itself(to, kept)
    call("merge", to)
    call("check", to)
    check_each_is_itself(to, kept)
    assert FeatureSet.open(tmp_path / "photos.features").names == sorted(kept)
