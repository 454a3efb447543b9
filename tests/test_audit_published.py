"""The recipe of the published numbers, on drawn photographs in the files and folders of the published sets."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from asmk_engine.audit.judgements import JudgementJournal
from asmk_engine.audit.published import CLASSES_LEFT, IMAGES_LEFT, ROWS
from asmk_engine.audit.state import read_state
from asmk_engine.cli import commands
from asmk_engine.evaluation.landmarks import read_labels
from asmk_engine.networks.global_checkpoints import save_global_checkpoint
from audit_samples import Sides, drawn_sides, landmarks
from disks import fast_disk
from trainings import tiny_global

SETS = {"gnd_rparis6k": ("paris", ("room-0", "room-1")), "gnd_roxford5k": ("oxford", ("room-1", "foreign"))}
"""Ground truth → the folder of its photographs, and how the names of its queries begin."""


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def revisited(sides: Sides, folder: Path, stem: str) -> Path:
    """Write a ground truth as `gnd_roxford5k.pkl`, with the boxes of its queries, and its photographs into jpg/."""
    place, rooms = SETS[stem]
    names = [Path(name).stem for name in sorted(sides.truth) if name.startswith(rooms)]
    gnd = []
    for name in names:
        target = folder / place / "jpg" / f"{name}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((sides.test / f"{name}.jpg").read_bytes())
        with Image.open(target) as opened:
            width, height = opened.size
        gnd.append({"bbx": [4.0, 3.0, width - 5.0, height - 4.0], "easy": [], "hard": [], "junk": []})
    path = folder / f"{stem}.pkl"
    path.write_bytes(pickle.dumps({"imlist": ["elsewhere"], "qimlist": names, "gnd": gnd}, protocol=2))
    return path


def published_sets(sides: Sides, folder: Path) -> list[Any]:
    """Write all that the recipe of docs/audit.md reads, and return its arguments, with a small network."""
    landmarks(sides, folder / "gldv2")
    table = (folder / "gldv2" / "train_clean.csv").rename(folder / "train_clean.csv")
    names = "landmark_id,category\n4,http://commons.wikimedia.org/wiki/Category:Paris\n"
    (folder / "train_label_to_category.csv").write_text(names)
    control = folder / "NC-clean"
    control.mkdir()
    lines = []
    for number, path in enumerate(sorted(sides.train.glob("other-*/*.jpg"))):
        (control / f"{number}.jpg").write_bytes(path.read_bytes())
        lines.append(f"{number}.jpg {number // 2}\n")
    (control / "list.txt").write_text("".join(lines))
    save_global_checkpoint(folder / "gem.safetensors", tiny_global(), {})
    return [
        "audit", table, *(revisited(sides, folder, stem) for stem in SETS), "-o", folder / "audit",
        "--images", folder / "gldv2", "--test-images", folder / "paris", "--test-images", folder / "oxford",
        "--weights", folder / "gem.safetensors", "--verify", "sift", "--word", "Oxford", "--word", "Paris",
        "--class-names", folder / "train_label_to_category.csv", "--control", control / "list.txt", "--published",
        "--workers", "0",
    ]  # fmt: skip


def answer_truly(folder: Path) -> None:
    """Let a judge answer who knows the rooms; class 4 is said to be shown."""
    questions = read_state(folder).questions
    with JudgementJournal(folder) as journal:
        for one in questions.pairs:
            right = one.query.split("/")[1].startswith(f"room-{int(one.label) - 1}")
            journal.add(one.key, "Ann", "same" if right else "different")
        [named] = questions.named
        journal.add(named.key, "Ann", "same")


def test_the_recipe_runs_on_files_in_the_published_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = drawn_sides(tmp_path / "drawn")
    arguments = [str(one) for one in published_sets(sides, tmp_path)]
    assert commands.main([*arguments], standalone_mode=False) is None
    questions = read_state(tmp_path / "audit").questions
    assert [row.name for row in ROWS] == [*questions.counts.queries, "text"]
    assert questions.counts.queries == {"gnd_rparis6k": 6, "gnd_roxford5k": 5}
    assert questions.unread == {}
    [control] = questions.controls
    assert (control.images, control.classes, control.found) == (4, 2, 0)
    answer_truly(tmp_path / "audit")
    capsys.readouterr()
    commands.main([*arguments, "--json"], standalone_mode=False)
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert [(row["name"], row["overlapping"], row["classes"], row["images"]) for row in content["table"]] == [
        ("gnd_rparis6k", 6, 2, 4), ("gnd_roxford5k", 3, 0, 0), ("text", 0, 1, 2)
    ]  # fmt: skip
    assert {one["label"] for one in content["removed"]} == {"1", "2", "4"}
    assert set(read_labels(tmp_path / "audit" / "cleaned.csv").values()) == {"3", "5"}
    assert not (tmp_path / "audit" / "cleaned-images.csv").exists()
    assert re.search(r"left +81295 +1578905 +2 +4", err)
    assert re.search(r"gnd_rparis6k +36 +11 +1227 +6 +2 +4", err)


def test_the_published_numbers_add_up() -> None:
    removed = 1_580_470 - IMAGES_LEFT, 81_313 - CLASSES_LEFT
    assert (sum(row.images for row in ROWS), sum(row.classes for row in ROWS)) == removed == (1565, 18)
