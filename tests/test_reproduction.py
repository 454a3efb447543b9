"""Experiments of published rows: their numbers, what they need, and every stage rehearsed on drawn photographs."""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import naive_how
import naive_reproduction as naive
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, DamagedError, InputError, MismatchError, NotFoundError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import Prediction
from asmk_engine.extractors import EXTRACTORS, PRESETS, load_extractor
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.images.listing import ImageList, find_images
from asmk_engine.inverted.index import Index
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.recipes import Recipe
from asmk_engine.reproduction import datasets as datasets_module
from asmk_engine.reproduction import extraction, stages
from asmk_engine.reproduction.catalogue import experiment_names, open_experiment
from asmk_engine.reproduction.comparison import is_published, obstacles
from asmk_engine.reproduction.datasets import Published, Rehearsed, few_landmarks, labelled_task, revisited_task
from asmk_engine.reproduction.engines import fitted
from asmk_engine.reproduction.evaluation import Measured, micro_interval
from asmk_engine.reproduction.experiment import (
    Codes,
    Describe,
    PublishedRow,
    parse_experiment,
)
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.files import DATASETS, check_there, chosen_tests, datasets_of, listing, needs
from asmk_engine.reproduction.papers import table_experiments
from asmk_engine.reproduction.report import as_dict, as_markdown, lines
from asmk_engine.reproduction.stages import ReproductionResult, run
from asmk_engine.training.sfm120k import image_place
from disks import fast_disk
from samples import make_features, write_features
from tiny_networks import randomised

FACTS = Path(__file__).resolve().parents[2] / "shared" / "facts" / "models.md"
SUBJECTS = 4
EXPERIMENTS = experiment_names()

# The first columns of Table 2: GiB for the million distractors, mean of all tests, mean of those with distractors.
TOTALS_2 = {
    "how-r18-1000": (4.6, 54.8, 43.5),
    "how-r50-1000": (7.9, 58.0, 47.4),
    "how-r50-1200": (9.2, 58.8, 48.4),
    "how-r50-1400": (10.6, 59.3, 49.0),
    "how-r50-2000": (14.3, 60.1, 50.1),
    "delf-asmk": (9.2, 53.0, 43.1),
    "gem": (7.6, 47.3, 35.2),
    "gem-w": (7.6, 49.0, 37.2),
    "rmac": (7.6, 45.8, 33.6),
    "gem-ap-pq1": (1.9, 49.6, 36.7),
    "gem-ap-pq8": (0.2, 48.1, 35.5),
    "gem-ap-1024": (3.8, 49.0, 35.8),
    "gem-ap-512": (1.9, 47.5, 33.7),
    "gem-concatenation": (15.3, 53.4, 41.4),
    "gem-quoted": (7.6, 47.4, 35.5),
    "gem-ap": (7.6, 49.7, 36.7),
    "gem-ap-quoted": (7.6, 49.9, 37.1),
    "delf-public": (9.2, 52.5, 42.7),
    "delf-quoted": (9.2, 51.5, 42.2),
}

# The rows of Table 2 of the HOW paper: Oxford Medium, +1M, Hard, +1M; Paris Medium, +1M, Hard, +1M.
TABLE_2 = {
    "how-r18-1000": ("**R18how n=1000**", (75.1, 55.7, 51.7, 32.0, 79.4, 57.4, 58.3, 28.9)),
    "how-r50-1000": ("**⁻R50how n=1000**", (78.3, 63.6, 55.8, 36.8, 80.1, 58.4, 60.1, 30.7)),
    "how-r50-1200": ("⁻R50how n=1200", (78.8, 64.5, 56.7, 37.7, 80.6, 59.6, 61.0, 31.7)),
    "how-r50-1400": ("⁻R50how n=1400", (79.1, 64.9, 56.8, 38.2, 81.0, 60.4, 61.5, 32.6)),
    "how-r50-2000": ("**⁻R50how n=2000**", (79.4, 65.8, 56.9, 38.9, 81.6, 61.8, 62.4, 33.7)),
    "delf-asmk": ("⁻R50 DELF†", (69.0, 54.1, 44.0, 31.1, 79.5, 59.3, 58.9, 28.1)),
    "gem": ("R101 GeM†", (65.4, 45.1, 40.1, 22.7, 76.7, 50.8, 55.2, 22.4)),
    "gem-w": ("R101 GeM_w†", (67.8, 47.7, 41.7, 23.3, 77.6, 52.9, 56.3, 25.0)),
    "rmac": ("R101 R-MAC [14]", (60.9, 39.3, 32.4, 12.5, 78.9, 54.8, 59.4, 28.0)),
    "gem-ap-pq1": ("GeM_AP PQ1", (67.1, 47.7, 42.2, 22.5, 80.3, 51.9, 60.8, 24.6)),
    "gem-ap-pq8": ("GeM_AP PQ8", (65.1, 46.1, 40.4, 21.6, 78.7, 50.7, 58.7, 23.5)),
    "gem-ap-1024": ("GeM_AP† →1024", (66.6, 46.7, 41.6, 21.7, 80.0, 51.0, 60.3, 23.8)),
    "gem-ap-512": ("GeM_AP† →512", (65.9, 43.9, 40.5, 19.7, 79.5, 48.9, 59.4, 22.3)),
    "gem-concatenation": ("GeM_AP+GeM_w†", (70.5, 52.6, 45.7, 27.1, 81.9, 57.0, 63.4, 29.1)),
    "gem-quoted": ("R101 GeM [35]", (64.7, 45.2, 38.5, 19.9, 77.2, 52.3, 56.3, 24.7)),
    "gem-ap": ("R101 GeM_AP†", (67.1, 47.8, 42.3, 22.5, 80.3, 51.9, 60.9, 24.6)),
    "gem-ap-quoted": ("R101 GeM_AP", (67.5, 47.5, 42.8, 23.2, 80.1, 52.5, 60.5, 25.1)),
    "delf-public": ("⁻R50 DELF‡", (69.2, 54.3, 44.3, 31.3, 78.7, 58.2, 57.4, 26.9)),
    "delf-quoted": ("⁻R50 DELF [29,34]", (67.8, 53.8, 43.1, 31.2, 76.9, 57.3, 55.4, 26.4)),
}

# The rows of Table 3: GiB, and µAP by CLS1, CLS2 and CLS3; words per image, from the text below the table.
TABLE_3 = {
    "gldv2-gem": ("R101 GeM (SfM)", (31.5, 1.9, 18.0, 24.1), 0),
    "gldv2-gem-w": ("R101 GeM_w", (31.5, 3.7, 23.4, 28.7), 0),
    "gldv2-gem-ap": ("R101 GeM-AP", (31.5, 2.8, 14.8, 20.7), 0),
    "gldv2-delf": ("⁻R50 DELF (Landmarks)", (24.1, 2.1, 11.9, 21.9), 347),
    "gldv2-how-r18": ("R18how", (17.5, 8.5, 20.0, 27.0), 252),
    "gldv2-how-r50": ("⁻R50how", (29.3, 18.5, 33.1, 36.5), 423),
}

# The rows of Table 1: mAP on the validation set, on Oxford Medium, µAP on Tiny-GLD2, each followed by words per image,
# and the deviations of all of them.
TABLE_1 = {
    1: ((85.2, 263.8, 74.8, 283.6, 81.3, 252.2), (0.3, 0.1, 0.2, 0.2, 1.0, 0.5)),
    2: ((85.3, 344.1, 75.4, 365.9, 80.6, 332.8), (0.2, 0.7, 0.3, 0.5, 0.3, 1.0)),
    3: ((84.8, 343.5, 73.1, 365.7, 78.6, 336.2), (0.2, 2.7, 0.3, 2.8, 1.0, 3.5)),
    4: ((83.7, 354.4, 70.0, 380.7, 74.2, 358.6), (0.9, 2.0, 1.7, 2.9, 3.6, 5.5)),
    5: ((75.5, 391.0, 63.7, 442.3, 64.0, 427.5), (1.3, 8.2, 1.6, 9.7, 1.8, 15.6)),
    6: ((77.1, 375.0, 67.0, 429.0, 67.3, 417.8), (0.9, 8.5, 1.0, 13.8, 2.1, 11.7)),
    7: ((78.4, 354.6, 67.8, 402.8, 66.7, 367.2), (0.8, 10.5, 1.3, 12.2, 1.5, 14.8)),
    8: ((77.0, 279.6, 65.4, 320.6, 68.6, 300.9), (0.9, 5.6, 0.5, 6.8, 1.8, 11.4)),
    9: ((80.4, 308.3, 69.9, 345.4, 71.1, 308.4), (0.5, 4.0, 1.4, 5.2, 1.8, 4.1)),
}


# The fingerprints of the experiments, first 16 digits, when work folders first stored them.
FINGERPRINTS = {
    "delf-asmk": "9e8867fd944e2b24",
    "gem": "51306f3efed3a259",
    "gem-ap-1024": "4710242970c28d28",
    "gem-ap-512": "d9a1f3fdaa23d57b",
    "gem-ap-pq1": "3a72671bb606fa11",
    "gem-ap-pq8": "7cb90074be3e6ba4",
    "gem-concatenation": "ad83965d40e8cbe6",
    "gem-w": "4035fb07efe46013",
    "how-r18-1000": "ef2fe69a2f00f66a",
    "how-r50-1000": "67dbdb4ecef17fb4",
    "how-r50-1200": "2d93353332c62a31",
    "how-r50-1400": "571358899c9160a0",
    "how-r50-2000": "c2976fde2d390a67",
    "rmac": "79791764a9b22242",
    "rootsift-asmk": "66ffff4e13ecee40",
    "tiny-gld2": "7fabb94cf7e900f4",
}


def published(row: PublishedRow) -> dict[str, dict[str, float]]:
    """The scores of the search; those that are re-ranked are in test_published_tables.py."""
    return {test.name: {key: value for key, value in test.published.items() if ", " not in key} for test in row.tests}


# ---- the experiments of the package


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_names_what_there_is(name: str) -> None:
    row = open_experiment(name)
    assert row.name == name and row.title and row.source and row.tests
    assert set(datasets_of(row, True)) <= DATASETS.keys()
    for part in row.describe:
        assert part.extractor in EXTRACTORS.keys() | PRESETS.keys()
        assert part.weights in WEIGHTS or (part.weights == "" and (part.extractor == "rootsift" or row.incomparable))
        family = PRESETS[part.extractor].extractor if part.extractor in PRESETS else part.extractor
        module, maker = EXTRACTORS[family].split(":")
        apart = {} if part.extractor == "rootsift" else {"weights": "some file"}
        for others in ({}, row.train.options if row.train else {}):
            getattr(import_module(module), maker)(**{**part.options, **others}, **apart)  # checks the options


def test_there_is_an_experiment_for_every_row() -> None:
    ablations = {f"ablation-{number}" for number in TABLE_1}
    others = ablations | {"rootsift-asmk", "tiny-gld2"} | table_experiments().keys()
    assert set(EXPERIMENTS) == TABLE_2.keys() | TABLE_3.keys() | others
    page = (Path(__file__).resolve().parents[1] / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert [name for name in EXPERIMENTS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", TABLE_2)
def test_the_numbers_are_those_of_table_2(name: str) -> None:
    om, om1, oh, oh1, pm, pm1, ph, ph1 = TABLE_2[name][1]
    assert published(open_experiment(name)) == {
        "roxford5k": {"medium": om, "hard": oh},
        "roxford5k+revisitop1m": {"medium": om1, "hard": oh1},
        "rparis6k": {"medium": pm, "hard": ph},
        "rparis6k+revisitop1m": {"medium": pm1, "hard": ph1},
    }


@pytest.mark.parametrize("name", TABLE_3)
def test_the_numbers_are_those_of_table_3(name: str) -> None:
    row = open_experiment(name)
    memory, *scores = TABLE_3[name][1]
    assert row.memory == memory and row.search.multiple_assignment == (1 if row.kind == "local" else 5)
    (test,) = row.tests
    assert (list(test.published.values()), test.dataset, test.words) == (
        scores,
        "gldv2-recognition",
        TABLE_3[name][2],
    )


@pytest.mark.parametrize("number", TABLE_1)
def test_the_numbers_are_those_of_table_1(number: int) -> None:
    row = open_experiment(f"ablation-{number}")
    assert [test.name for test in row.tests] == ["sfm120k-val", "roxford5k", "gldv2"]
    assert [test.multiple_assignment for test in row.tests] == [0, 0, 1]
    found = [(*test.published.values(), test.words) for test in row.tests]
    spread = [(*test.deviations.values(), test.words_deviation) for test in row.tests]
    assert tuple(np.ravel(found)) == TABLE_1[number][0] and tuple(np.ravel(spread)) == TABLE_1[number][1]
    assert [list(test.published) for test in row.tests] == [["all"], ["medium"], ["cls3"]]
    assert bool(row.incomparable) == (number > 1) and row.describe[0].weights == ("how-r18" if number == 1 else "")
    assert row.describe[0].extractor == ("how-r18" if number == 1 else "delf" if number in (4, 5, 8) else "how")


@pytest.mark.parametrize("name", TABLE_2)
def test_memory_and_means_are_those_of_table_2(name: str) -> None:
    row = open_experiment(name)
    assert (row.memory, row.means["all"], row.means["distractors"]) == TOTALS_2[name]
    om, om1, oh, oh1, pm, pm1, ph, ph1 = TABLE_2[name][1]
    # The paper prints one digit, of means of numbers it had with more, and cuts one of them (R-MAC).
    assert row.means["all"] == pytest.approx((om + om1 + oh + oh1 + pm + pm1 + ph + ph1) / 8, abs=0.11)
    assert row.means["distractors"] == pytest.approx((om1 + oh1 + pm1 + ph1) / 4, abs=0.11)


def test_the_other_published_numbers() -> None:
    assert published(open_experiment("rootsift-asmk")) == {
        "roxford5k": {"medium": 60.6, "hard": 36.7}, "rparis6k": {"medium": 61.4, "hard": 35.0}}  # fmt: skip
    assert published(open_experiment("tiny-gld2")) == {"gldv2": {"cls3": 81.3}}


@pytest.mark.skipif(not FACTS.is_file(), reason="the tables of the papers are not at hand")
def test_the_numbers_are_those_of_the_copied_tables() -> None:
    text = FACTS.read_text(encoding="utf-8")
    for name, (row, numbers) in TABLE_2.items():
        (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", text, re.MULTILINE)
        assert [float(cell) for cell in line.split("|")] == [*TOTALS_2[name], *numbers], row
    for row, numbers, _ in TABLE_3.values():
        (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", text, re.MULTILINE)
        assert [float(cell) for cell in line.split("|")] == list(numbers), row
    for number, (means, deviations) in TABLE_1.items():
        (line,) = re.findall(rf"^\| {number} \|.*?\| C[OE] \|(.*)\|$", text, re.MULTILINE)
        cells = [cell.strip().split("±") for cell in line.split("|")]
        assert [float(cell[0]) for cell in cells] == list(means), number
        assert [float(cell[1]) for cell in cells[::2]] == list(deviations[::2]), number
    assert "HesAff-rSIFT-ASMK*+SP 60.6/61.4/36.7/35.0" in text and "81.3±1.0" in text


def test_how_is_set_up_as_in_the_paper() -> None:
    for name, count in (("how-r18-1000", 1000), ("how-r50-1400", 1400), ("how-r50-2000", 2000)):
        row = open_experiment(name)
        assert row.describe[0].options["max_features"] == count
        assert row.describe[0].options["scales"] == [2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25]
        assert row.train is not None and (row.train.dataset, row.train.images) == ("sfm120k", 20000)
        assert row.train.options["scales"] == [1.0]
        assert row.codebook is not None and (row.codebook.words, row.codebook.rounds) == (65536, 10)
        assert (row.search.alpha, row.search.threshold, row.search.idf, row.search.multiple_assignment) == (
            3.0,
            0.0,
            False,
            5,
        )
    assert open_experiment("tiny-gld2").search.multiple_assignment == 1
    crossed = {test.dataset: test.train for test in open_experiment("rootsift-asmk").tests}
    assert crossed == {"roxford5k": "rparis6k", "rparis6k": "roxford5k"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_our_features_differ_in_is_listed(name: str) -> None:
    row = open_experiment(name)
    differences = " ".join(row.differences)
    assert ("half precision" in differences) == (row.kind == "local") and "EXIF orientation" in differences


def test_local_descriptors_are_halves_and_global_ones_are_not(tmp_path: Path) -> None:
    for name, expected in (("how", np.float16), ("delf", np.float16), ("gem", np.float32), ("rmac", np.float32)):
        save_stand_in(tmp_path / f"{name}.safetensors", name)
        found = load_extractor(name, weights=str(tmp_path / f"{name}.safetensors")).extract(draw(1, 0))
        assert found.descriptors.dtype == expected, name
    assert load_extractor("rootsift").extract(draw(1, 0)).descriptors.dtype == np.float16


# ---- strict reading

SMALL = """
name = "small"
title = "A small experiment"
source = "nowhere"
kind = "local"
[[describe]]
extractor = "rootsift"
options = { max_features = 200 }
[train]
dataset = "rparis6k"
[codebook]
words = 4
rounds = 2
[[tests]]
dataset = "roxford5k"
published = { medium = 50.0, hard = 101 }
"""

REFUSED = [
    ("name = ", "names = ", "'names' is not a key; there are name"),
    ('title = "A small experiment"\n', "", "'title' is missing"),
    ('kind = "local"', 'kind = "other"', "kind 'other', expected local or global"),
    ("words = 4", 'words = "four"', "words: 'four', expected a int"),
    ("words = 4", "words = true", "words: True, expected a int"),
    ("rounds = 2", "turns = 2", "codebook: 'turns' is not a key"),
    ("[[describe]]", "[describe]", "no [[describe]]"),
    ("[[tests]]", "[[test]]", "no [[tests]]"),
    ("[codebook]\nwords = 4\nrounds = 2\n", "", "a local experiment has"),
    ('[train]\ndataset = "rparis6k"\n', "", "nothing to learn from"),
    ("[codebook]", "[codec]\npq = 8\n[codebook]", "no [codec]"),
    ("medium = 50.0", "middle = 50.0", "published middle = 50.0"),
    ("medium = 50.0", "medium = '50'", "published medium = '50'"),
    (
        "medium = 50.0, hard = 101 }",
        "hard = 1 }\ndeviations = { easy = 1 }",
        "deviations easy = 1, expected a number un",
    ),
    ('kind = "local"', 'kind = "local"\nmeans = { some = 1 }', "means some = 1, expected a number under all, distr"),
    ('kind = "local"', 'kind = "global"', "a global experiment has no [codebook]"),
    ("[[tests]]", '[[tests]]\ndataset = "roxford5k"\n[[tests]]', "two tests are 'roxford5k'"),
    ("words = 4", "words = ", "not readable as TOML"),
    ("[train]\n", "train = 3\n[other]\n", "is not a key"),
]


def test_a_small_experiment_is_read() -> None:
    row = parse_experiment(SMALL, "small.toml")
    assert (row.kind, row.describe[0].options, row.tests[0].published["hard"]) == ("local", {"max_features": 200}, 101)
    assert row.fingerprint == parse_experiment(SMALL, "elsewhere").fingerprint
    assert row.fingerprint != parse_experiment(SMALL.replace("words = 4", "words = 5"), "small.toml").fingerprint


def test_the_number_of_assignments_is_called_as_before() -> None:
    row = parse_experiment(SMALL + "[search]\nassignments = 2\n", "small.toml")
    assert row.search.multiple_assignment == 2
    with pytest.raises(DamagedError, match=r"'multiple_assignment' is not a key; there are alpha, .*, assignments"):
        parse_experiment(SMALL + "[search]\nmultiple_assignment = 2\n", "small.toml")


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_work_folders_of_before_belong_to_the_same_experiment(name: str) -> None:
    row = open_experiment(name)
    assert FINGERPRINTS[name] in [fingerprint[:16] for fingerprint in (row.fingerprint, *row.earlier)]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_a_wrong_experiment_is_refused_in_one_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(DamagedError, match=re.escape(message)) as caught:
        parse_experiment(SMALL.replace(old, new, 1), "small.toml")
    assert str(caught.value).startswith("small.toml") and "\n" not in str(caught.value)


def test_experiments_are_found_by_name_or_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there are how-r18-1000"):
        open_experiment("how-r18")
    with pytest.raises(NotFoundError, match=re.escape("mine.toml: no such file")):
        open_experiment(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text(SMALL)
    assert open_experiment(str(tmp_path / "mine.toml")).name == "small"
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedError, match="UTF-8"):
        open_experiment(str(tmp_path / "mine.toml"))


# ---- what is needed


@pytest.fixture(autouse=True)
def quick_and_apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, and no weights that were fetched by somebody."""
    fast_disk(monkeypatch)
    monkeypatch.setenv("ASMK_ENGINE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_a_missing_file_is_named_with_its_address(tmp_path: Path) -> None:
    row = open_experiment("how-r18-1000")
    wanted = needs(row, tmp_path)
    with pytest.raises(NotFoundError) as caught:
        check_there(row, wanted)
    said = str(caught.value)
    for part in (
        tmp_path / "roxford5k/gnd_roxford5k.pkl",
        tmp_path / "weights/how_r18.pth",
        "oxbuild_images-v1.tgz",
        "http://ptak.felk.cvut.cz/personal/toliageo/share/how/models/how_r18.pth",
        "7 are missing",
    ):
        assert str(part) in said
    assert "\n" not in said and "revisitop1m" not in said
    assert any("revisitop1m.{1..100}.tar.gz" in need.address for need in needs(row, tmp_path, distractors=True))
    assert sum(line.startswith("MISSING") for line in listing(wanted)) == 7


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    row = open_experiment("gem-w")
    for need in needs(row, tmp_path):
        need.path.parent.mkdir(parents=True, exist_ok=True)
        if need.name.endswith("/"):
            need.path.mkdir()
        else:
            need.path.write_bytes(b"x")
    assert [need.name for need in needs(row, tmp_path) if not need.there] == ["roxford5k/jpg/", "rparis6k/jpg/"]
    for dataset in ("roxford5k", "rparis6k"):
        (tmp_path / dataset / "jpg" / "one.jpg").write_bytes(b"x")
    check_there(row, needs(row, tmp_path))


def test_weights_of_ones_own_are_not_asked_for_and_unusable_ones_are_said(tmp_path: Path) -> None:
    row = open_experiment("delf-asmk")
    (need,) = [need for need in needs(row, tmp_path) if need.name.startswith("weights")]
    need.path.parent.mkdir()
    need.path.write_bytes(b"x")
    (need,) = [need for need in needs(row, tmp_path) if need.name.startswith("weights")]
    assert not need.there and "TensorFlow" in need.note and "TensorFlow" in "".join(listing([need]))
    assert not [need for need in needs(row, tmp_path, weights=[Path("mine")]) if need.name.startswith("weights")]


def test_distractors_only_where_wanted() -> None:
    row = open_experiment("gem")
    assert [test.name for test in chosen_tests(row, False)] == ["roxford5k", "rparis6k"]
    assert len(chosen_tests(row, True)) == 4 and "revisitop1m" in datasets_of(row, True)
    assert [test.name for test in chosen_tests(row, True, True)] == ["roxford5k", "roxford5k+revisitop1m"]
    assert datasets_of(row, False) == ["roxford5k", "rparis6k"]


# ---- photographs and what is asked of them


def draw(seed: int, number: int) -> np.ndarray:
    """A scene of blotches, seen turned and shrunk a little."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(48 // step, 64 // step, 3)) for step in (16, 8, 4)]
    scene = sum(cv2.resize(layer, (64, 48), interpolation=cv2.INTER_CUBIC) for layer in layers)
    turn = cv2.getRotationMatrix2D((32, 24), 3 * number, 1 - 0.04 * number)
    return cv2.warpAffine(np.clip(128 + 45 * scene, 0, 255).astype(np.uint8), turn, (64, 48), borderMode=4)


def save(folder: Path, gnd: Path, others: int = 1) -> None:
    """Four subjects, each a query with a region and three views; and photographs the ground truth does not know."""
    folder.mkdir(parents=True)
    queries, names = [], []
    for subject in range(SUBJECTS):
        views = [f"subject {subject} {number}" for number in range(4)]
        for number, name in enumerate(views):
            cv2.imencode(".png", draw(subject, number))[1].tofile(folder / f"{name}.png")
        queries.append({"query": views[0], "bbox": [2, 2, 60, 44], "easy": views[1:3], "hard": views[3:], "junk": []})
        names += views[1:]
    for number in range(others):
        cv2.imencode(".png", draw(100 + number, 0))[1].tofile(folder / f"other {number}.png")
    gnd.write_text(json.dumps({"imlist": names, "queries": queries}))


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    folder = tmp_path_factory.mktemp("photographs")
    save(folder / "photos", folder / "gnd.json")
    return Rehearsed(folder / "photos", folder / "gnd.json")


def test_the_database_is_what_the_truth_lists(rehearsed: Rehearsed) -> None:
    task = rehearsed.task("roxford5k", False)
    assert (
        len(task.database.images) == 3 * SUBJECTS and len(rehearsed.photographs("sfm120k").images) == 4 * SUBJECTS + 1
    )
    assert [query.name for query in task.queries] == [f"subject {number} 0" for number in range(SUBJECTS)]
    assert task.queries[0].path.name == "subject 0 0.png" and task.queries[0].box == (2, 2, 60, 44)
    assert task.ground_truth is not None and task.ground_truth.queries[0].easy == {"subject 0 1.png", "subject 0 2.png"}
    assert [image.name for image in rehearsed.photographs("sfm120k", 2).images] == ["other 0.png", "subject 0 0.png"]


def test_a_missing_photograph_of_a_query_is_named(rehearsed: Rehearsed) -> None:
    found = find_images([rehearsed.photos])
    without = replace(found, images=[image for image in found.images if image.name != "subject 1 0.png"])
    with pytest.raises(NotFoundError, match="1 photographs of queries are missing, such as 'subject 1 0'"):
        revisited_task(read_ground_truth(rehearsed.ground_truth), without)


def test_labels_of_a_ground_truth(rehearsed: Rehearsed) -> None:
    task = labelled_task(rehearsed.task("gldv2", False))
    assert task.ground_truth is None and task.labels is not None and task.answers is not None
    assert task.labels["subject 2 3.png"] == "subject 2 0" and len(task.labels) == len(task.database.images) == 12
    assert task.answers["subject 3 0"] == {"subject 3 0"}


def test_few_landmarks_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (("LANDMARKS", 2), ("DATABASE_OF_LANDMARK", 2), ("QUERIES_OF_LANDMARK", 1)):
        monkeypatch.setattr(datasets_module, key, value)
    labels = {f"{mark}{number}{label}x": str(label) for label, mark in ((10, "a"), (9, "b"), (2, "c"), (11, "d"))
              for number in range({2: 2}.get(label, 4))}  # fmt: skip
    with pytest.raises(NotFoundError, match="photographs are missing, such as"):
        few_landmarks(labels, tmp_path)
    for name in labels:
        path = tmp_path / name[0] / name[1] / name[2] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    task = few_landmarks(labels, tmp_path)
    assert [image.name for image in task.database.images] == ["b/0/9/b09x.jpg", "b/1/9/b19x.jpg",
                                                              "a/0/1/a010x.jpg", "a/1/1/a110x.jpg"]  # fmt: skip
    assert [query.name for query in task.queries] == ["b29x", "a210x"]  # 9 before 10, and 2 has too few
    assert task.labels == {
        "b/0/9/b09x.jpg": "9",
        "b/1/9/b19x.jpg": "9",
        "a/0/1/a010x.jpg": "10",
        "a/1/1/a110x.jpg": "10",
    }
    assert task.answers == {"b29x": {"9"}, "a210x": {"10"}}
    with pytest.raises(NotFoundError, match="no landmark has 3 images"):
        few_landmarks({"abc": "1"}, tmp_path)


def save_landmarks(folder: Path, usage: str = "Private") -> None:
    """Google Landmarks as it is published: two landmarks with two training images, and three test images."""
    ids = {"train": ["abc1", "abd2", "bcd3", "cde4"], "test": ["xyz1", "xyz2", "yzx3"]}
    for part, names in ids.items():
        for number, name in enumerate(names):
            path = folder / part / name[0] / name[1] / name[2] / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imencode(".jpg", draw(number // 2, number % 2))[1].tofile(path)
    rows = [f"{name},http://x,{number // 2 + 5}" for number, name in enumerate(ids["train"])]
    (folder / "train.csv").write_text("id,url,landmark_id\n" + "\n".join(rows))
    solution = f"id,landmarks,Usage\nxyz1,5,{usage}\nxyz2,,{usage}\nyzx3,6 7,Public\n"
    (folder / "recognition_solution_v2.1.csv").write_text(solution)


def test_all_landmarks_of_the_published_files(tmp_path: Path) -> None:
    save_landmarks(tmp_path / "gldv2-recognition")
    task = Published(tmp_path).task("gldv2-recognition", True)
    assert [image.name for image in task.database.images] == [
        "a/b/c/abc1.jpg", "a/b/d/abd2.jpg", "b/c/d/bcd3.jpg", "c/d/e/cde4.jpg"]  # fmt: skip
    assert task.labels == {"a/b/c/abc1.jpg": "5", "a/b/d/abd2.jpg": "5", "b/c/d/bcd3.jpg": "6", "c/d/e/cde4.jpg": "6"}
    assert [query.name for query in task.queries] == ["xyz1", "xyz2"]
    assert task.queries[0].path == tmp_path / "gldv2-recognition" / "test" / "x" / "y" / "z" / "xyz1.jpg"
    assert task.answers == {"xyz1": {"5"}, "xyz2": frozenset()}
    (tmp_path / "gldv2-recognition" / "test" / "x" / "y" / "z" / "xyz2.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"1 photographs are missing, such as .*xyz2\.jpg"):
        Published(tmp_path).task("gldv2-recognition", True)
    save_landmarks(tmp_path / "public" / "gldv2-recognition", "Public")
    with pytest.raises(NotFoundError, match="the recognition solution has no private images"):
        Published(tmp_path / "public").task("gldv2-recognition", True)


def test_the_validation_set_of_how(tmp_path: Path) -> None:
    folder, names = tmp_path / "sfm120k-val", [f"{number:06d}abcdef" for number in range(4)]
    for number, name in enumerate(names):
        path = folder / "ims" / image_place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(".png", draw(number // 2, number))[1].tofile(path)
    gnd = [{"ok": np.array([1]), "junk": np.array([0])}, {"ok": [3], "junk": [2, 0]}]
    content = {"cids": names, "qidx": [0, 2], "gnd": gnd}
    (folder / "retrieval-SfM-120k-val-eccv2020.pkl").write_bytes(pickle.dumps(content))
    task = Published(tmp_path).task("sfm120k-val", False)
    assert [image.name for image in task.database.images] == names  # files without a suffix
    assert [(query.name, query.box) for query in task.queries] == [(names[0], None), (names[2], None)]
    assert task.ground_truth is not None and task.ground_truth.queries[1].easy == {names[3]}
    text = SMALL.replace('"roxford5k"', '"sfm120k-val"').replace("medium = 50.0, hard = 101", "all = 85.2")
    row = parse_experiment(text.replace('"rparis6k"', '"sfm120k-val"'), "small.toml")
    found = run(row, Published(tmp_path), Settings(tmp_path / "work", tmp_path, workers=0), Recorded())
    assert found.measured["sfm120k-val"]["all"].value == 100 and found.measured["sfm120k-val"]["all"].queries == 2
    assert found.obstacles["sfm120k-val"][0] == "4 of the 12441 images of sfm120k-val"


def test_a_network_that_was_not_published_has_to_be_given(tmp_path: Path) -> None:
    row = open_experiment("ablation-4")
    (need,) = [need for need in needs(row, tmp_path) if "weights" in need.name]
    assert not need.there and "give one that you trained with --weights" in need.note
    assert not [need for need in needs(row, tmp_path, weights=[Path("mine")]) if "weights" in need.name]
    with pytest.raises(InputError, match="delf: the network of this row was not published; give one"):
        run(row, Published(tmp_path), Settings(tmp_path / "work", tmp_path), Recorded())


# ---- figures


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_micro_average_precision(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    names = [f"image {number}" for number in range(12)]
    ground_truth = {name: frozenset(rng.choice(["a", "b"], int(rng.integers(0, 2)))) for name in names} | {
        "z": frozenset("a")
    }
    made = {name: Prediction(str(rng.choice(["a", "b"])), float(rng.integers(0, 4))) for name in names[:9]}
    guesses: dict[str, Prediction | None] = {**made, names[9]: None}
    found = micro_interval(ground_truth, guesses, rounds=50, seed=seed)
    expected = naive.micro_interval(ground_truth, guesses, rounds=50, seed=seed)
    assert np.allclose([found.value, found.low, found.high], 100 * np.array(expected)) and found.queries == len(
        ground_truth
    )
    monkeypatch.setattr("asmk_engine.reproduction.evaluation.CHUNK", 30)  # drawn in pieces
    assert micro_interval(ground_truth, guesses, rounds=50, seed=seed) == found


def test_micro_average_precision_of_nothing_and_of_one() -> None:
    assert math.isnan(micro_interval({"a": frozenset()}, {"a": Prediction("x", 1.0)}).value)
    assert math.isnan(micro_interval({}, {}).value)
    one = micro_interval({"a": frozenset("x")}, {"a": Prediction("x", 1.0)})
    assert (one.value, one.low, one.high) == (100, 100, 100)


def outcome(value: float, rehearsal: bool) -> ReproductionResult:
    row = parse_experiment(SMALL, "small.toml")
    found = {"easy": Measured(math.nan, math.nan, math.nan, 0), "medium": Measured(value, value - 1, value + 1, 70)}
    return ReproductionResult(
        row, rehearsal, row.tests, {"roxford5k": found}, {"index": 1.5}, ("a note",), {"words": 4}
    )


@pytest.mark.parametrize(("value", "inside"), [(50.9, True), (51.1, False), (49.0, True), (48.9, False)])
def test_published_beside_measured(value: float, inside: bool) -> None:
    easy, medium = lines(outcome(value, False))
    assert (easy.published, easy.inside) == (None, None)
    assert (medium.published, medium.inside) == (50.0, inside)
    text = as_markdown(outcome(value, False))
    interval = f"{value - 1:.1f} to {value + 1:.1f}"
    assert f"| roxford5k | medium | 50.0 | {value:.1f} | {interval} | 70 | {'yes' if inside else 'no'} |" in text
    assert "| roxford5k | easy | – | – | – to – | 0 |  |" in text
    assert "faces blurred" in text and "a note" in text and "| index | 1.5 |" in text


def test_a_rehearsal_is_not_compared() -> None:
    content = as_dict(outcome(50.0, True))
    assert [line["published_inside"] for line in content["lines"]] == [None, None]
    json.dumps(content, allow_nan=False)
    text = as_markdown(outcome(50.0, True))
    assert "not compared" in text and "A rehearsal" in text and "faces blurred" not in text


def whole(**images: int) -> dict[str, Any]:
    """The facts of a run on all images of the data sets, but for those given."""
    counts = {"roxford5k": 4993, "rparis6k": 6322, "revisitop1m": 1_001_001, "gldv2": 10_000}
    counts |= {"sfm120k-val": 12_441, "gldv2-recognition": 4_132_914} | images
    learned = {"images of sfm120k to learn from": counts.pop("sfm120k", 20_000)}
    return {**{f"index of {name}": {"images": count} for name, count in counts.items()}, **learned}


def obstacles_of(name: str, number: int = 0, facts: dict[str, Any] | None = None, **settings: Any) -> tuple[str, ...]:
    row = open_experiment(name)
    return obstacles(row, row.tests[number], Settings(Path("w"), **{"data": Path("d"), **settings}), facts or whole())


def test_only_like_is_compared_with_like(tmp_path: Path) -> None:
    assert obstacles_of("how-r18-1000") == obstacles_of("how-r18-1000", 1) == obstacles_of("gem-w") == ()
    assert "your own DELF network is used" in obstacles_of("delf-asmk")[0]
    assert "Tiny-GLD2, which was not released" in obstacles_of("tiny-gld2")[0]
    assert [bool(obstacles_of("ablation-1", number)) for number in range(3)] == [False, False, True]
    assert [bool(obstacles_of("ablation-2", number)) for number in range(3)] == [True, True, True]
    assert obstacles_of("gldv2-how-r18") == ()
    assert obstacles_of("gem-ap-512") == obstacles_of("gem-concatenation") == ()
    assert "rehearsal" in obstacles_of("how-r18-1000", data=None)[0]
    own = tmp_path / "mine.safetensors"
    own.write_bytes(b"x")
    (told,) = obstacles_of("how-r18-1000", weights=(own,))
    assert told == "weights of your own, mine.safetensors, instead of how_r18.pth"
    assert obstacles_of("how-r18-1000", weights=(tmp_path / "elsewhere" / "how_r18.pth",)) == ()


def test_weights_are_known_by_their_sum_where_one_is_published(tmp_path: Path) -> None:
    backbone = Describe("rmac", "resnet101")
    file = tmp_path / WEIGHTS["resnet101"].file
    file.write_bytes(b"not those")
    assert not is_published(backbone, file) and not is_published(Describe("how"), file)
    assert is_published(Describe("how-r18", "how-r18"), tmp_path / "how_r18.pth")


@pytest.mark.parametrize(
    ("images", "number", "told"),
    [
        ({"roxford5k": 4992}, 0, "4992 of the 4993 images of roxford5k"),
        ({"roxford5k": 4992}, 1, "4992 of the 4993 images of roxford5k"),
        ({"revisitop1m": 10}, 1, "10 of the 1001001 images of revisitop1m"),
        ({"sfm120k": 19_999}, 0, "19999 of the 20000 training images of sfm120k"),
    ],
)
def test_a_part_of_the_data_is_not_compared(images: dict[str, int], number: int, told: str) -> None:
    assert obstacles_of("how-r18-1000", number, whole(**images)) == (told,)
    assert obstacles_of("how-r18-1000", 2, whole(roxford5k=1, revisitop1m=1)) == ()  # Paris has both whole


def test_memory_means_and_words_in_the_report() -> None:
    row = open_experiment("how-r18-1000")
    scores = {test.name: {key: Measured(value + 1, value, value + 2, 70) for key, value in test.published.items()}
              for test in row.tests}  # fmt: skip
    facts = {**whole(), "index of revisitop1m": {"images": 1_001_001, "postings": 1, "bytes": 5 * 2**30}}
    facts["index of roxford5k"] = {"images": 10, "postings": 25}
    found = ReproductionResult(row, False, row.tests, scores, {}, (), facts)
    text = as_markdown(found)
    for line in (
        "| mean of medium and hard, all tests, % | 54.8 | 55.8 |",
        "| mean of medium and hard, tests with distractors, % | 43.5 | 44.5 |",
        "| memory of the index of revisitop1m, GiB | 4.6 | 5.0 |",
        "| words per image of roxford5k | – | 2.5 |",
    ):
        assert line in text
    fewer = replace(found, tests=row.tests[:1], measured={"roxford5k": scores["roxford5k"]}, facts={})
    assert "| mean of medium and hard, all tests, % | 54.8 | – |" in as_markdown(fewer)
    assert [one["published"] for one in as_dict(fewer)["totals"]] == [54.8, 43.5, 4.6]


def test_deviations_and_words_are_read_and_shown() -> None:
    text = SMALL.replace(
        "hard = 101 }", "hard = 101 }\ndeviations = { medium = 0.3 }\nwords = 263.8\nwords_deviation = 0.1"
    )
    row = parse_experiment(text, "small.toml")
    assert row.fingerprint == parse_experiment(SMALL, "small.toml").fingerprint
    shown = as_markdown(replace(outcome(50.0, False), row=row, tests=row.tests))
    assert "| roxford5k | medium | 50.0 ± 0.3 | 50.0 |" in shown
    assert "| words per image of roxford5k | 263.8 ± 0.1 | – |" in shown


@pytest.mark.parametrize(
    ("codes", "count", "expected"),
    [
        (Codes(pca=4), 20, (4, None)),
        (Codes(pca=64), 20, (16, None)),
        (Codes(pca=64), 3, (3, None)),
        (Codes(pq=8), 255, (None, None)),
        (Codes(pq=8), 256, (None, 8)),
        (Codes(pca=64, pq=8), 300, (16, 8)),
        (Codes(pca=12, pq=8), 300, (12, None)),
    ],
)
def test_a_rehearsal_learns_no_more_than_there_is(
    tmp_path: Path, codes: Codes, count: int, expected: tuple[int | None, int | None]
) -> None:
    images = {f"image {number}": make_features(np.ones((1, 16), np.float32)) for number in range(count)}
    features = write_features(tmp_path / "f.features", images)
    options, notes = fitted(codes, features, True)
    assert (options.pca, options.pq) == expected
    assert bool(notes) == (expected != (codes.pca or None, codes.pq or None))
    assert fitted(codes, features, False)[0].pca == (codes.pca or None)


# ---- the stages


class Recorded:
    """A display that remembers, and stops the world at a message."""

    def __init__(self, stop: str = "") -> None:
        self.said: list[str] = []
        self.stop = stop

    def say(self, message: str) -> None:
        self.said.append(message)
        if self.stop and self.stop in message:
            raise KeyboardInterrupt

    @contextmanager
    def bar(self, what: str, unit: str) -> Iterator[Callable[..., None]]:
        yield lambda done, total, failed=0: None


def rehearse(
    name: str, rehearsed: Rehearsed, work: Path, display: Recorded | None = None, **settings: Any
) -> dict[str, dict[str, Measured]]:
    row = open_experiment(name)
    return run(row, rehearsed, Settings(work, workers=0, **settings), display or Recorded()).measured


def test_a_local_experiment_with_distractors(rehearsed: Rehearsed, tmp_path: Path) -> None:
    found = rehearse("delf-asmk", rehearsed, tmp_path, distractors=True)
    assert found.keys() == {"roxford5k", "roxford5k+revisitop1m"}
    assert found["roxford5k"].keys() == {"easy", "medium", "hard"}
    alone, among = (found[name]["medium"] for name in found)
    assert 0 < among.value < alone.value <= 100 and alone.low <= alone.value <= alone.high and alone.queries == SUBJECTS
    trained = FeatureSet.open(tmp_path / "sfm120k.training.features")
    assert trained.recipe.options["scales"] == [1.0]
    database = FeatureSet.open(tmp_path / "roxford5k.features")
    assert database.recipe.options["scales"] == [2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25] and len(database) == 12
    regions = FeatureSet.open(tmp_path / "roxford5k.queries.features")
    keypoints = regions.read("subject 0 0").keypoints
    assert keypoints[:, 0].min() >= 2 and keypoints[:, 0].max() <= 60 and keypoints[:, 1].max() <= 44


def test_recognition(rehearsed: Rehearsed, tmp_path: Path) -> None:
    found = rehearse("tiny-gld2", rehearsed, tmp_path)["gldv2"]
    assert found.keys() == {"cls1", "cls2", "cls3"} and found["cls1"].queries == SUBJECTS
    assert found["cls1"].value > 50


def test_a_run_that_stops_anywhere_goes_on_from_there(rehearsed: Rehearsed, tmp_path: Path) -> None:
    whole = rehearse("gem-concatenation", rehearsed, tmp_path / "whole")
    assert whole["roxford5k"]["medium"].value > 50
    stages = ["network", "roxford5k-1.features", "index roxford5k", "queries of roxford5k", "search roxford5k"]
    said: list[str] = []
    for stage in stages:
        display = Recorded(stop=stage)
        with pytest.raises(KeyboardInterrupt):
            rehearse("gem-concatenation", rehearsed, tmp_path / "parts", display)
        said += display.said
    display = Recorded()
    assert rehearse("gem-concatenation", rehearsed, tmp_path / "parts", display) == whole
    assert len(part_names(tmp_path / "parts" / "roxford5k.features")) == 1  # joined once
    described = [line for line in said + display.said if "images described" in line]
    assert sum("12 images described" in line for line in described) == 2  # once by each extractor
    assert all("12 images described" in line or "0 images described, 12 there" in line for line in described)


def test_learning_that_stops_goes_on_from_there(rehearsed: Rehearsed, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        rehearse("delf-asmk", rehearsed, tmp_path / "parts", Recorded(stop="sfm120k.training.features"))
    display = Recorded()
    found = rehearse("delf-asmk", rehearsed, tmp_path / "parts", display)
    assert "sfm120k.training.features: 0 images described, 17 there, 0 skipped" in display.said
    assert found == rehearse("delf-asmk", rehearsed, tmp_path / "whole")


def test_what_some_extractor_could_not_describe_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make_features(np.ones((1, 3), np.float32))
    held = {"gem": "abc", "spoc": "bcd"}
    sets = {
        name: write_features(tmp_path / name, dict.fromkeys(images, one), recipe=Recipe(name, {}))
        for name, images in held.items()
    }
    monkeypatch.setattr(extraction, "_extracted", lambda part, *_: (sets[part], {part: "why"}))
    parts: Any = list(held)

    def described() -> tuple[FeatureSet, dict[str, str]]:
        return extraction.describe_images(parts, ImageList([], "", {}), tmp_path / "both.features", 0, Recorded())

    found, failed = described()
    assert found.names == ["b", "c"] and found.dim == 6 and failed == {"gem": "why", "spoc": "why"}
    sets["spoc"] = sets["spoc"].selected(["c"])
    assert described()[0].names == ["c"]


def test_what_is_done_is_not_done_again(rehearsed: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rehearse("gem-ap-pq8", rehearsed, tmp_path)
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "journal.json"}
    notes = json.loads((tmp_path / "journal.json").read_text())["notes"]
    assert any("no product quantisation" in note for note in notes) and any("random weights" in note for note in notes)
    for place in ("stages.evaluate_task", "engines.train_codec"):
        monkeypatch.setattr(f"asmk_engine.reproduction.{place}", lambda *_: pytest.fail("done again"))
    assert rehearse("gem-ap-pq8", rehearsed, tmp_path) == whole
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "journal.json"}
    assert kept == made
    with pytest.raises(MismatchError, match="made with another experiment"):
        rehearse("gem-w", rehearsed, tmp_path)
    with pytest.raises(MismatchError, match="another folder of photographs"):
        rehearse("gem-ap-pq8", replace(rehearsed, photos=rehearsed.photos.parent), tmp_path)
    content = json.loads((tmp_path / "journal.json").read_text())
    for damaged in ("{", "[]", json.dumps({**content, "notes": {}}), json.dumps({**content, "key": 3})):
        (tmp_path / "journal.json").write_text(damaged)
        with pytest.raises(DamagedError, match=re.escape("journal.json: not readable")):
            rehearse("gem-ap-pq8", rehearsed, tmp_path)
    with pytest.raises(InputError, match="holds other files"):
        rehearse("gem-w", rehearsed, rehearsed.photos)


def test_a_folder_of_an_earlier_fingerprint_goes_on(
    rehearsed: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = open_experiment("gem-ap-pq8")
    earlier = replace(row, title="An earlier title", earlier=())
    whole = run(earlier, rehearsed, Settings(tmp_path, workers=0), Recorded()).measured
    key = json.loads((tmp_path / "journal.json").read_text())["key"]
    monkeypatch.setattr("asmk_engine.reproduction.stages.evaluate_task", lambda *_: pytest.fail("done again"))
    now = replace(row, earlier=(earlier.fingerprint,))
    assert run(now, rehearsed, Settings(tmp_path, workers=0), Recorded()).measured == whole
    assert json.loads((tmp_path / "journal.json").read_text())["key"] == key
    with pytest.raises(MismatchError, match="made with another experiment"):
        run(row, rehearsed, Settings(tmp_path, workers=0), Recorded())


def as_before_stage_folders(work: Path) -> None:
    """Make a work folder what it was when codebooks and codecs lay beside the features, and figures in the journal."""
    (learned,) = work.glob("learn-*")
    for name, earlier in (("codebook.h5", "sfm120k.codebook.h5"), ("codec.index", "codec-by-sfm120k.index")):
        if (learned / name).exists():
            (learned / name).rename(work / earlier)
    for stage in (learned, *work.glob("search-*")):
        shutil.rmtree(stage)
    content = json.loads((work / "journal.json").read_text())
    (work / "journal.json").write_text(json.dumps({**content, "results": {"roxford5k": {"key": [], "rows": {}}}}))


@pytest.mark.parametrize("name", ["delf-asmk", "gem-ap-1024"])
def test_a_folder_of_before_the_stage_folders_goes_on(
    name: str, rehearsed: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rehearse(name, rehearsed, tmp_path)
    facts = json.loads((tmp_path / "journal.json").read_text())["facts"]
    as_before_stage_folders(tmp_path)
    for place in ("LocalEngine.learn", "GlobalEngine.learn"):
        monkeypatch.setattr(f"asmk_engine.reproduction.engines.{place}", lambda *_: pytest.fail("learned again"))
    assert rehearse(name, rehearsed, tmp_path) == whole
    assert json.loads((tmp_path / "journal.json").read_text())["facts"] == facts


def test_a_search_is_done_again_when_the_photographs_change(rehearsed: Rehearsed, tmp_path: Path) -> None:
    shutil.copytree(rehearsed.photos, tmp_path / "photos")
    mine, work = replace(rehearsed, photos=tmp_path / "photos"), tmp_path / "work"
    whole = rehearse("gem-w", mine, work)
    kept = {path: path.read_bytes() for path in work.glob("search-*/numbers.json")}
    shutil.copy(tmp_path / "photos" / "other 0.png", tmp_path / "photos" / "subject 0 1.png")
    assert rehearse("gem-w", mine, work) != whole
    assert kept.items() < {path: path.read_bytes() for path in work.glob("search-*/numbers.json")}.items()


def test_figures_without_a_value_are_kept(tmp_path: Path) -> None:
    nothing = Measured(math.nan, math.nan, math.nan, 0)
    kept = json.loads(json.dumps(stages._as_json({"cls1": nothing, "cls2": Measured(1.5, 1, 2, 3)}), allow_nan=False))
    found = stages._from_json(kept)
    assert math.isnan(found["cls1"].value) and found["cls1"].queries == 0 and found["cls2"] == Measured(1.5, 1, 2, 3)


def test_weights_of_ones_own_in_a_rehearsal(rehearsed: Rehearsed, tmp_path: Path) -> None:
    save_stand_in(tmp_path / "mine.safetensors", "rmac", seed=7)
    rehearse("rmac", rehearsed, tmp_path / "work", weights=(tmp_path / "mine.safetensors",))
    content = json.loads((tmp_path / "work" / "journal.json").read_text())
    assert content["notes"] == [] and "rmac" in content["facts"]["features"][0]


def test_stand_ins_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("how", "delf", "gem", "crow"):
        one, again, other = (save_stand_in(tmp_path / f"{name}{n}.safetensors", name, seed) for n, seed in
                             enumerate((0, 0, 1)))  # fmt: skip
        assert one == again != other
        extractor = load_extractor(name, weights=str(tmp_path / f"{name}0.safetensors"))
        features = extractor.extract(draw(1, 0))
        assert len(features) and np.isfinite(features.descriptors).all() and features.descriptors.any()


# ---- published data, of which a drawn one takes the place


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("roxford5k", "rparis6k"):
        save(folder / name / "jpg", folder / name / f"gnd_{name}.pkl", others=0)
    (folder / "small.toml").write_text(SMALL)
    return folder


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(commands, ["reproduce", *map(str, arguments)])


def test_an_experiment_of_ones_own_on_data(data: Path, tmp_path: Path) -> None:
    done = invoke(data / "small.toml", "--data", data, "-o", tmp_path / "work", "--workers", 0, "--json", "-q")
    assert done.exception is None, done.exception
    content = json.loads(done.stdout)
    assert content == json.loads((tmp_path / "work" / "report.json").read_text())
    (medium,) = [line for line in content["lines"] if line["row"] == "medium"]
    assert not content["rehearsal"] and medium["published"] == 50.0
    assert medium["published_inside"] is None
    (reasons,) = content["not_compared"].values()
    assert reasons == ["12 of the 4993 images of roxford5k", "12 of the 6322 training images of rparis6k"]
    assert content["seconds"].keys() >= {"network", "learn from rparis6k", "index roxford5k", "search roxford5k"}
    assert content["machine"]["numpy"] == np.__version__ and "training" in content["facts"]["learned from rparis6k"]
    text = (tmp_path / "work" / "report.md").read_text()
    assert "| roxford5k | medium | 50.0 |" in text and "- 12 of the 4993 images of roxford5k\n" in text
    assert "| words per image of roxford5k | – | " in text
    assert Published(data).photographs("rparis6k", 3).images[0].name == "subject 0 1.png"


def save_sfm(folder: Path, count: int) -> None:
    """The published list, whose photographs bear no endings, and its photographs; the last one cannot be read."""
    names = [f"{number:06d}abcdef" for number in reversed(range(count))]
    for number, name in enumerate(names):
        path = folder / "ims" / image_place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(".png", draw(number, 0))[1].tofile(path)
    (folder / "ims" / image_place(names[-1])).write_bytes(b"cut")
    part = {"cids": names, "cluster": [0] * count, "qidxs": [0], "pidxs": [1]}
    (folder / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps({"train": part, "val": part}))


def save_how_r18(path: Path) -> None:
    """What the training of HOW writes, with random weights."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.5 + torch.rand(shape, generator=generator) if name.endswith("var") else
        torch.tensor(7) if name.endswith("tracked") else 0.05 * torch.randn(shape, generator=generator)
        for name, shape in naive_how.official_shapes("resnet18", 0).items()
    }  # fmt: skip
    meta = {"architecture": "resnet18", "skip_layer": 0, "dim": 128, "feat_pool_k": 3}
    path.parent.mkdir(exist_ok=True)
    torch.save({"meta": {**meta, "mean": [0.5] * 3, "std": [0.2] * 3}, "state_dict": state}, path)


def save_gem(path: Path) -> None:
    """What the code of the GeM family writes, upon a small backbone, with a whitening to 5 dimensions learned apart."""
    network = randomised(GlobalNetwork(GlobalOptions("squeezenet1_1")))
    state = {key.removeprefix("backbone."): value for key, value in network.state_dict().items()}
    state["pool.p"] = state.pop("exponent")
    meta = {"architecture": "squeezenet1_1", "pooling": "gem", "regional": False, "whitening": False, "outputdim": 512}
    rng = np.random.default_rng(0)
    learned = {"m": torch.from_numpy(rng.normal(size=(512, 1)) / 30), "P": torch.from_numpy(rng.normal(size=(5, 512)))}
    content = {**meta, "mean": [0.5] * 3, "std": [0.2] * 3, "Lw": {"retrieval-SfM-120k": {"ms": learned}}}
    path.parent.mkdir(exist_ok=True)
    torch.save({"meta": content, "state_dict": state}, path)


def test_how_with_its_published_weights_and_training_images(data: Path, tmp_path: Path) -> None:
    save_sfm(data / "sfm120k", 6)
    save_how_r18(data / "weights" / "how_r18.pth")
    text = SMALL.replace('"rootsift"', '"how-r18"\nweights = "how-r18"').replace("max_features = 200", "scales = [1.0]")
    text = text.replace('"rparis6k"', '"sfm120k"\nimages = 6\noptions = { scales = [2.0, 1.0] }').replace(
        "words = 4", "words = 2"
    )
    row = parse_experiment(text, "how.toml")
    check_there(row, needs(row, data))
    found = run(row, Published(data), Settings(tmp_path, data, workers=0), Recorded())
    trained = FeatureSet.open(tmp_path / "sfm120k.training.features")
    assert len(trained) == 5 and trained.recipe.options["scales"] == [2.0, 1.0]
    assert list(trained.failures) == ["000000abcdef"] and "1 photographs could not" in found.notes[0]
    codebook = Index.open(tmp_path / "roxford5k-by-sfm120k.index").codebook
    assert codebook.recipe.options["scales"] == [1.0] and codebook.training["features"]["options"]["scales"] == [2, 1]
    assert codebook.words == 2 and codebook.dim == 128 and Index.open(tmp_path / "roxford5k-by-sfm120k.index").network
    assert found.measured["roxford5k"]["medium"].queries == SUBJECTS
    assert [image.name for image in Published(data).photographs("sfm120k", 2).images] == [
        "000005abcdef",
        "000004abcdef",
    ]


def test_gem_with_the_whitening_of_its_checkpoint(data: Path, tmp_path: Path) -> None:
    row = open_experiment("gem")
    assert row.describe[0].projection == "retrieval-SfM-120k/ms"
    path = data / "weights" / WEIGHTS["gem-resnet101"].file
    save_gem(path)
    found = run(row, Published(data), Settings(tmp_path, data, workers=0), Recorded())
    assert FeatureSet.open(tmp_path / "roxford5k.features").dim == 5
    assert found.measured.keys() == {"roxford5k", "rparis6k"}
    assert {line.inside for line in lines(found)} == {None}
    assert found.obstacles == {
        "roxford5k": ("12 of the 4993 images of roxford5k",),
        "rparis6k": ("12 of the 6322 images of rparis6k",),
    }
    with pytest.raises(MismatchError, match="another file of weights"):
        run(row, Published(data), Settings(tmp_path, data, weights=(path,), workers=0), Recorded())


def test_the_command_lists_and_tells(data: Path, tmp_path: Path) -> None:
    listed = invoke()
    assert listed.exit_code == 0 and [line.split()[0] for line in listed.stdout.splitlines()] == EXPERIMENTS
    assert [row["recipe"] for row in json.loads(invoke("--json").stdout)] == EXPERIMENTS
    told = invoke("gem-concatenation").stdout
    assert "roxford5k: medium 70.5, hard 45.7" in told and "weights fetch gem-w-resnet101" in told
    assert "MISSING" not in told and "oxbuild_images" in told
    assert len(json.loads(invoke("gem", "--json").stdout)) == 5
    missing = invoke("gem", "--data", tmp_path)
    assert isinstance(missing.exception, NotFoundError) and "MISSING" in missing.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gem", "--rehearse", "photos"], "go together"),
        (["gem", "--data", "d", "--rehearse", "photos", "--ground-truth", "t"], "either --data"),
        (["gem", "--data", "d", "--weights", "a", "--weights", "b"], "1 --weights at most"),
    ],
)
def test_calls_that_make_no_sense(arguments: list[str], message: str) -> None:
    wrong = invoke(*arguments)
    assert wrong.exit_code == 2 and message in wrong.stderr


def test_a_rehearsal_of_photographs_that_are_not_there(tmp_path: Path) -> None:
    wrong = invoke(
        "gem", "--rehearse", tmp_path / "none", "--ground-truth", tmp_path / "gnd.json", "-o", tmp_path / "work"
    )
    assert isinstance(wrong.exception, AsmkError) and "\n" not in str(wrong.exception)
