"""Three memory cards with equal names, as people use them: no photograph is lost, and none taken for another."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from asmk_engine.attempts import file_fingerprint
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet
from asmk_engine.index import Index
from asmk_engine.queries import QuerySource
from samples import as_ordinary_user
from test_identity import fill, paint

CARDS = ("one", "two", "three")
NAMES = ("DCIM/IMG_1.jpg", "DCIM/IMG_2.jpg", "private/IMG_3.jpg", "private/IMG_4.jpg")
FEATURES = 400


def run(*arguments: object, code: int = 0) -> str:
    """Run the program as somebody for whom permissions count; its messages, and its answers on the last lines."""
    done = as_ordinary_user([sys.executable, "-m", "asmk_engine", *map(str, arguments)])
    assert done.returncode == code and "Traceback" not in done.stderr, (arguments, done.stdout, done.stderr)
    return done.stderr + done.stdout


def index(card: Path, to: Path, *options: object, code: int = 0) -> str:
    words = ("--words", "16") if not to.exists() else ()
    return run("index", card, "-o", to, "--extractor", "rootsift", "--max-features", FEATURES, *words, *options,
               code=code)  # fmt: skip


def check_each_is_itself(to: Path, photographs: dict[str, Path]) -> None:
    """Each name is that photograph: found by it as the best, with its own content and its own features."""
    opened = Index.open(to)
    assert opened.names == sorted(photographs)
    source, extractor = QuerySource(opened), load_extractor("rootsift", max_features=FEATURES)
    for name, path in photographs.items():
        assert opened.identity(name).fingerprint == file_fingerprint(path)
        own, asked = extractor.extract(path), source.features(name)[0]
        assert np.array_equal(own.descriptors.astype(np.float32), asked.descriptors.astype(np.float32)), name
    for line in run("query", to, *photographs.values(), "--format", "jsonl", "--top", 1).splitlines():
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
    assert "0 added" in told and "4 photographs replaced" in told and "--prefix" in told
    assert "4 added" in index(reader, to, "--prefix", "two")
    shutil.rmtree(reader)
    told = index(cards["three"], to, code=1)  # from a folder of its own
    assert "4 photographs not taken in" in told and "0 there already" in told
    assert "4 added" in index(cards["three"], to, "--prefix", "three")
    check_each_is_itself(to, kept)

    was = shutil.copy(cards["three"] / NAMES[0], tmp_path / "was.jpg")
    paint(cards["three"] / NAMES[0], 77)  # changed
    (cards["three"] / NAMES[1]).unlink()  # gone
    (cards["three"] / "private").chmod(0o000)  # locked
    told = index(cards["three"], to, "--prefix", "three", "--prune", code=1)
    assert "--prune removes 1 of 12 images: 'three/DCIM/IMG_2.jpg'" in told and "private" in told
    assert "1 photograph replaced" in told
    del kept["three/DCIM/IMG_2.jpg"]
    kept["three/DCIM/IMG_1.jpg"] = Path(was)
    (cards["three"] / "private").chmod(0o755)
    check_each_is_itself(to, kept)

    told = index(cards["three"], to, "--prefix", "three", "--prune", "--update")
    assert "1 replaced" in told and "0 removed" in told
    kept["three/DCIM/IMG_1.jpg"] = cards["three"] / NAMES[0]
    check_each_is_itself(to, kept)
    run("merge", to)
    run("check", to)
    check_each_is_itself(to, kept)
    assert FeatureSet.open(tmp_path / "photos.features").names == sorted(kept)
