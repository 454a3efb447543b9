"""What does training give a global network, on photographs of things that it has never seen?

    python benchmarks/global_training.py PHOTOS --ground-truth gnd.json --weights squeezenet1.1.npz --work WORK
        [--networks how-asmk,gem,solar] [--minutes 10] [--side 448] [--fold 0] [--check]

The photographs are halved by instance as in `halves.py`, and the first half is taught: every instance is a class, of
its photographs and random views of them, and so is every distractor. A network with ImageNet weights and a head drawn
at random is evaluated on the second half, then trained by `train-global` with the loss of its paper for --minutes, and
evaluated again after the last epoch. `how-asmk` is the default extractor with the vocabulary of the package.

--fold chooses settings without the second half: of three parts of the first half, by instance, two are taught and the
one with this number is evaluated.

WORK keeps everything, so a run that was stopped goes on, and several processes may do different networks once the first
has written WORK/data/finished; `taskset -c 0` gives a process one core. Each network has a line; the last line is JSON.
Differences are paired by query, with 95 % bootstrap intervals over the queries. `--check` is a trial in seconds on
drawn pictures, without PHOTOS and weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from halves import instance, split, write_half

from asmk_engine import Index, Searcher
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.names import resolve
from asmk_engine.extractors.presets import DEFAULT
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Silent
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.search.query_features import query_source
from asmk_engine.training.augmented_pairs import ViewOptions, random_view
from asmk_engine.training.global_networks import StartOptions, open_network, save_network
from asmk_engine.training.log import read_log
from asmk_engine.training.photographs import load_pixels
from asmk_engine.training.validation import Validation, ValidationOptions

Options = dict[str, Any]
Found = dict[str, Any]

ROWS = ("easy", "medium", "hard")
DISTRACTORS = "_distractors"
SEED = 0
FOLDS = 3
VIEWS, DISTRACTOR_VIEWS = 10, 4  # of each photograph, itself among them
VIEW_SIDE = 384
PROBED_CLASSES = 48
DRAWN = 16  # pictures in a trial, half of them distractors
ASMK = "how-asmk"
DIM = 512

TUPLES: Options = {
    "pairs": 150,
    "pool": 600,
    "negatives": 3,
    "max_side": 288,
    "schedule": "cosine",
    "learning_rate": 3e-6,
    "head_factor": 30,
}
CROPS: Options = {
    "crop": 224,
    "least_area": 0.3,
    "colour": 0.3,
    "batch": 32,
    "optimizer": "adam",
    "schedule": "cosine",
    "learning_rate": 1e-5,
    "head_factor": 10,
}
CLASSES: Options = {**CROPS, "class_factor": 100, "freeze": "backbone@1"}  # a random classifier spoils a backbone


@dataclass(frozen=True)
class Training:
    """How a network is trained: a loss of `train-global`, the dimensions of its linear layer, and options."""

    loss: str
    dim: int
    options: Options


TRAININGS = {
    "gem": Training("contrastive", 0, TUPLES),
    "gem-ap": Training("ap", DIM, {**CROPS, "batch": 96, "micro_batch": 48, "per_class": 2}),
    "agem": Training("contrastive", 0, TUPLES),
    "glam": Training("arcface", DIM, CLASSES),
    "solar": Training("triplet-squared", DIM, {**TUPLES, "margin": 1.25, "second_order": 10}),
    "dolg": Training("arcface", DIM, CLASSES),
    "delg": Training("arcface", DIM, CLASSES),
    "token": Training("arcface", DIM, CLASSES),
    "dplg": Training("arcface", DIM, CLASSES),
    "cvnet": Training("momentum", DIM, {**CLASSES, "momentum_rate": 0.99}),
    "cider": Training("arcface", DIM, CLASSES),
}


def main() -> None:
    """Parse the arguments, measure every network that is not yet measured, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--ground-truth", type=Path)
    parser.add_argument("--weights", type=Path, help="ImageNet weights of SqueezeNet 1.1 or EfficientNet-Lite")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps data, runs and results")
    parser.add_argument("--networks", default=",".join([ASMK, *TRAININGS]))
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each network")
    parser.add_argument("--side", type=int, default=448, help="longer side of the photographs that are evaluated")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="evaluate a third of the first half instead")
    parser.add_argument("--check", action="store_true", help="a trial in seconds")
    options = parser.parse_args()
    if not (options.check or (options.photos and options.ground_truth and options.weights)):
        parser.error("give PHOTOS, --ground-truth and --weights, or --check")
    names = [name for name in options.networks.split(",") if name]
    if unknown := set(names) - {ASMK, *TRAININGS}:
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}")
    if options.check:
        draw(options)
    prepare(options)
    results = {}
    for name in names:
        results[name] = kept(name, options)
        print(line(name, results[name], results.get(ASMK)), flush=True)
    print(json.dumps({name: summary(result) for name, result in results.items()}))


def prepare(options: argparse.Namespace) -> None:
    """Write the classes that are taught, and the photographs and queries of the evaluation."""
    data = options.work / "data"
    if (data / "finished").exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    content = json.loads(options.ground_truth.read_text())
    taught, test = split(content["imlist"], SEED, DISTRACTORS)
    if options.fold is not None:
        taught, test = without_fold(taught, options.fold)
    write_half(data / "test", options.photos, test, content["queries"])
    for place, name in enumerate(taught):
        photograph = options.photos / instance(name) / Path(name).name
        render(photograph, instance(name), data / "taught", np.random.default_rng([SEED, place]))
    probe(data)
    (data / "finished").touch()


def without_fold(names: list[str], fold: int) -> tuple[list[str], list[str]]:
    """Return the names of the other folds and those of this one; an instance is in one fold."""
    shuffler = random.Random(SEED)
    instances = sorted({instance(name) for name in names} - {DISTRACTORS})
    others = sorted(name for name in names if instance(name) == DISTRACTORS)
    held = {*shuffler.sample(instances, len(instances))[fold::FOLDS]}
    held |= {*shuffler.sample(others, len(others))[fold::FOLDS]}
    tested = [name for name in names if name in held or instance(name) in held]
    return [name for name in names if name not in {*tested}], tested


def render(photograph: Path, label: str, folder: Path, rng: np.random.Generator) -> None:
    """Write a photograph and random views of it into the folder of its class; a distractor is a class of its own."""
    pixels = load_pixels(ImageFile(photograph.name, photograph), 2 * VIEW_SIDE)
    is_distractor = label == DISTRACTORS
    place = folder / (f"distractor {photograph.stem}" if is_distractor else label)
    place.mkdir(parents=True, exist_ok=True)
    views = ViewOptions(least_area=0.35, tilt=0.12, shrink=1.0)
    for number in range(DISTRACTOR_VIEWS if is_distractor else VIEWS):
        view = random_view(pixels, rng, views) if number else pixels
        factor = min(1.0, VIEW_SIDE / max(view.shape[:2]))
        small = cv2.resize(view, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(place / f"{photograph.stem} {number}.jpg"), small[:, :, ::-1])


def probe(data: Path) -> None:
    """Write a folder of a few classes, by which a training is timed before it begins."""
    for place in sorted((data / "taught").iterdir())[-PROBED_CLASSES:]:
        (data / "probe" / place.name).mkdir(parents=True)
        for image in sorted(place.iterdir())[:DISTRACTOR_VIEWS]:
            (data / "probe" / place.name / image.name).symlink_to(image.resolve())


def kept(name: str, options: argparse.Namespace) -> Found:
    """Return the result that the work folder has for these options, else measure it."""
    training = TRAININGS.get(name)
    if training and options.check:
        training = replace(training, options={**training.options, **small(training)})
    asked = {"side": options.side} if training is None else {
        "loss": training.loss, "dim": training.dim, "minutes": options.minutes, "side": options.side, **training.options
    }  # fmt: skip
    path = options.work / name / "result.json"
    if path.exists() and (found := json.loads(path.read_text()))["asked"] == asked:
        return dict(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = asmk(options) if training is None else trained(name, training, options)
    path.write_text(json.dumps({"asked": asked, **found}))
    return dict(found)


def asmk(options: argparse.Namespace) -> Found:
    """Evaluate the default extractor and the vocabulary of the package on the second half."""
    half, index = options.work / "data" / "test", options.work / ASMK / "index"
    shutil.rmtree(index, ignore_errors=True)
    begun = time.monotonic()
    run("index", half / "photos", "-o", index, "--extractor", DEFAULT, "-q")
    opened = Index.open(index)
    ground_truth = resolve(read_ground_truth(half / "gnd.json"), opened.names).ground_truth
    source = query_source(opened)
    report = evaluate_index(
        ground_truth, Searcher(opened), lambda query: source.ground_truth_features(query.name, query.box)
    )
    return {"after": report.per_query, "minutes": (time.monotonic() - begun) / 60}


def trained(name: str, training: Training, options: argparse.Namespace) -> Found:
    """Evaluate a network on the second half, train it, and evaluate it again."""
    folder, data = options.work / name, options.work / "data"
    start = folder / "start.safetensors"
    network, origin = open_network(options.weights, StartOptions(name, training.dim, seed=SEED))
    save_network(start, network, origin)
    test = Validation(data / "test" / "gnd.json", data / "test" / "photos", ValidationOptions(options.side, scales=()))
    before = test.report(start, name, Silent()).per_query
    train(name, training, options)
    epochs = [entry for entry in read_log(folder / "run") if entry["kind"] == "epoch"]
    return {
        "parameters": sum(one.numel() for one in network.parameters()),
        "losses": [entry["loss"] for entry in epochs],
        "minutes": sum(entry["seconds"] for entry in epochs) / 60,
        "before": before,
        "after": test.report(folder / "run" / "last.safetensors", name, Silent()).per_query,
    }


def train(name: str, training: Training, options: argparse.Namespace) -> None:
    """Train for as many epochs as take the minutes."""
    folder, data = options.work / name, options.work / "data"
    plan = folder / "epochs.json"
    if not plan.exists():
        plan.write_text(json.dumps(epochs_within(name, training, options)))
    epochs = json.loads(plan.read_text())
    words = [*words_of(name, training, folder), "-o", folder / "run", "--epochs", epochs, "--check", "files"]
    run("train-global", data / "taught", *words, "-q")


def epochs_within(name: str, training: Training, options: argparse.Namespace) -> int:
    """Return how many epochs take the minutes, by the time of one of a few classes, in which all parts learn."""
    folder, data = options.work / name, options.work / "data"
    shutil.rmtree(folder / "probe", ignore_errors=True)
    changed = {key: value for key, value in training.options.items() if key != "freeze"}
    items = changed.get("pairs", len(list((data / "taught").rglob("*.jpg"))))
    changed |= {key: changed[key] // 10 for key in ("pairs", "pool") if key in changed}
    probed = words_of(name, replace(training, options=changed), folder)
    run("train-global", data / "probe", *probed, "-o", folder / "probe", "--epochs", 1, "-q")
    log = read_log(folder / "probe")
    planned, timed = (next(entry for entry in log if entry["kind"] == kind) for kind in ("plan", "epoch"))
    return max(2, math.ceil(60 * options.minutes / (timed["seconds"] / planned["items"] * items)))


def words_of(name: str, training: Training, folder: Path) -> list[Any]:
    """Return the options of `train-global` for a network."""
    words = ["--network", name, "--loss", training.loss, "--weights", folder / "start.safetensors"]
    return words + [word for key, value in training.options.items() for word in (f"--{key.replace('_', '-')}", value)]


def run(*words: Any) -> str:
    """Run a command of asmk-engine; return what it printed."""
    command = [sys.executable, "-m", "asmk_engine", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def means(per_query: dict[str, dict[str, float]]) -> list[float]:
    """Return the mAP of all rows in percent."""
    return [100 * float(np.mean(list(per_query[row].values()))) for row in ROWS]


def difference(after: Found, before: Found, row: str) -> list[float]:
    """Return the mean difference of a row in percent, paired by query, and the ends of its interval."""
    interval = bootstrap([100 * (score - before[row][name]) for name, score in after[row].items()])
    return [interval.mean, interval.low, interval.high]


def summary(result: Found) -> Found:
    """Return a result without the scores of the queries."""
    short = {key: value for key, value in result.items() if key not in ("before", "after", "asked")}
    short["map_after"] = means(result["after"])
    if "before" in result:
        short["map_before"] = means(result["before"])
        short["gain"] = {row: difference(result["after"], result["before"], row) for row in ROWS}
    return short


def line(name: str, result: Found, local: Found | None) -> str:
    """Return the line of a network: before → after, the gains of Medium and Hard, and what is missing to HOW-ASMK."""
    after = " / ".join(f"{value:.1f}" for value in means(result["after"]))
    if "before" not in result:
        return f"{name:<9} {after}"
    before = " / ".join(f"{value:.1f}" for value in means(result["before"]))
    gains = ", ".join(said(difference(result["after"], result["before"], row)) for row in ROWS[1:])
    beside = f"  {ASMK} {said(difference(local['after'], result['after'], 'medium'))}" if local else ""
    size, losses = result["parameters"] / 1e6, result["losses"]
    return (
        f"{name:<9} {size:.1f} M  loss {losses[0]:.3f} → {losses[-1]:.3f}  {before} → {after}  {gains}{beside}  "
        f"{result['minutes']:.1f} min, {len(losses)} epochs"
    )


def said(values: list[float]) -> str:
    """Return a difference with its interval."""
    return f"{values[0]:+.1f} [{values[1]:+.1f}, {values[2]:+.1f}]"


def draw(options: argparse.Namespace) -> None:
    """Draw pictures with their ground truth, and random weights, for a trial."""
    options.photos, options.ground_truth = options.work / "drawn", options.work / "drawn.json"
    options.weights, options.minutes, options.side = options.work / "drawn.safetensors", 0.02, 96
    if options.weights.exists():
        return
    queries, names = [], []
    for place in range(DRAWN):
        folder = DISTRACTORS if place >= DRAWN // 2 else f"thing{place}"
        rng = np.random.default_rng([SEED, place])
        thing = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (128, 96), interpolation=cv2.INTER_NEAREST)
        views = [thing] if folder == DISTRACTORS else [thing, random_view(thing, rng), random_view(thing, rng)]
        own = [f"{folder}/{place}-{number}.png" for number in range(len(views))]
        for name, view in zip(own, views, strict=True):
            (options.photos / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(options.photos / name), view)
        names += own
        if len(own) > 1:
            queries.append({"query": own[0], "bbox": None, "easy": own[1:2], "hard": own[2:], "junk": []})
    options.ground_truth.write_text(json.dumps({"imlist": names, "queries": queries}))
    save_network(options.weights, GlobalNetwork(GlobalOptions("squeezenet1_1")), {})


def small(training: Training) -> Options:
    """Return the options of a training that are smaller in a trial."""
    if "pairs" in training.options:
        return {"pairs": 10, "pool": 100, "negatives": 1, "max_side": 64}
    return {"crop": 64, "batch": 8}


if __name__ == "__main__":
    main()
