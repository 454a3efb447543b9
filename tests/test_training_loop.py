"""The training loop: an interrupted run is equal to an uninterrupted one, and what it writes can be used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import DamagedError, InputError, MismatchError, StorageError
from asmk_engine.extractors import load_extractor
from asmk_engine.iteration import Silent, evenly
from asmk_engine.networks.checkpoints import open_checkpoint, save_checkpoint
from asmk_engine.storage.arrays import CHECKSUMS, map_arrays
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.training.classification import ClassOptions, ClassTask, delf_network
from asmk_engine.training.contrastive import TupleOptions, TupleTask
from asmk_engine.training.curves import draw_curves
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.local_trainee import LocalTrainee
from asmk_engine.training.log import read_log
from asmk_engine.training.loop import BEST, LAST, TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.sfm120k import image_place
from asmk_engine.training.state import STATE
from asmk_engine.training.validation import Validation, ValidationOptions
from tiny_networks import DELF
from trainings import SIDE, Mortal, Stopped, tiny_network, write_photographs

OPTIONS = TupleOptions(pairs=5, pool=50, negatives=2, max_side=SIDE, learning_rate=1e-3, augmented_pairs=0.4)
LOOP = LoopOptions(epochs=2, batch_size=2)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), {"a": 3, "b": 2, "c": 2, "d": 1})


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the tiny trainings; it has tests of its own."""
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)


def make_run(
    folder: Path, photographs: Path, loop: LoopOptions = LOOP, options: TupleOptions = OPTIONS, **more: Any
) -> TrainingRun:
    task = TupleTask(LocalTrainee(tiny_network()), read_instances(photographs), options)
    return TrainingRun(folder, task, loop, {"made": "here"}, "start", **more)


def make_classes(folder: Path, photographs: Path, **more: Any) -> TrainingRun:
    options = ClassOptions(max_side=SIDE, learning_rate=1e-3, head_rate=1e-2, augment=True)
    task = ClassTask(LocalTrainee(tiny_network(**DELF)), read_instances(photographs), options)
    return TrainingRun(folder, task, LoopOptions(epochs=2, batch_size=3), {}, "start", **more)


MAKERS: dict[str, Callable[..., TrainingRun]] = {"how": make_run, "delf": make_classes}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in read_log(folder)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return open_checkpoint(path)[0].state_dict()


def stored(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Where a run stands, and the arrays of its state."""
    file = map_arrays(Folder(folder), STATE)
    place = {key: value for key, value in json.loads(file.metadata["place"]).items() if key != "log_bytes"}
    return place, {key: array for key, array in file.arrays.items() if key != CHECKSUMS}


def check_equal(folder: Path, other: Path) -> None:
    assert lines(folder) == lines(other)
    (place, arrays), (other_place, other_arrays) = stored(folder), stored(other)
    assert place == other_place
    assert all(np.array_equal(array, other_arrays[key]) for key, array in arrays.items())
    for name in (BEST, LAST):
        ours, theirs = weights(folder / name), weights(other / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def whole(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)
        for name, maker in MAKERS.items():
            maker(folder / name, photographs).run()
    return {name: folder / name for name in MAKERS}


# An epoch of tuples makes 10 calls while it looks for negatives, then one for each of three steps; one of
# classification makes three steps, then learns its reduction from eight images.
@pytest.mark.parametrize(
    ("kind", "calls", "save_seconds"),
    [
        *[("how", calls, 0.0) for calls in (0, 9, 10, 11, 12, 24)],
        *[("how", calls, 1e9) for calls in (11, 12, 25)],
        *[("delf", calls, 0.0) for calls in (0, 1, 2, 7, 12)],
        ("delf", 13, 1e9),
    ],
)
def test_an_interrupted_run_is_equal_to_an_uninterrupted_one(
    photographs: Path, tmp_path: Path, whole: dict[str, Path], kind: str, calls: int, save_seconds: float
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        MAKERS[kind](folder, photographs, reporter=Mortal(calls), save_seconds=save_seconds).run()
    MAKERS[kind](folder, photographs, save_seconds=save_seconds).run()
    check_equal(folder, whole[kind])


def test_training_changes_what_learns_and_nothing_else(whole: dict[str, Path]) -> None:
    before, after = tiny_network().state_dict(), weights(whole["how"] / LAST)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if not key.startswith("reduction.")}


def test_the_loss_falls(photographs: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, learning_rate=3e-3, pairs=6, augmented_pairs=0.0)
    make_run(tmp_path, photographs, LoopOptions(epochs=6, batch_size=2), options).run()
    losses = [entry["loss"] for entry in read_log(tmp_path) if entry["kind"] == "epoch"]
    assert losses[-1] < 0.7 * losses[0]


def test_a_finished_run_does_nothing_and_more_epochs_prolong_it(
    photographs: Path, tmp_path: Path, whole: dict[str, Path]
) -> None:
    make_run(tmp_path, photographs, LoopOptions(epochs=1, batch_size=2)).run()
    first = lines(tmp_path)
    make_run(tmp_path, photographs, LoopOptions(epochs=1, batch_size=2)).run()
    assert lines(tmp_path) == first
    make_run(tmp_path, photographs).run()
    check_equal(tmp_path, whole["how"])


def test_the_rate_decays_by_the_epoch(photographs: Path, tmp_path: Path) -> None:
    make_run(tmp_path, photographs, LoopOptions(epochs=3, batch_size=5, decay=0.5)).run()
    rates = [entry["rates"] for entry in read_log(tmp_path) if entry["kind"] == "epoch"]
    assert rates == [[1e-3], [5e-4], [2.5e-4]]


def test_without_a_validation_the_lowest_loss_is_best(photographs: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, learning_rate=0.2)  # so much that the network is worse afterwards
    outcome = make_run(tmp_path, photographs, LoopOptions(epochs=3, batch_size=5), options).run()
    losses = [entry["loss"] for entry in read_log(tmp_path) if entry["kind"] == "epoch"]
    assert outcome.epoch == 1 + int(np.argmin(losses))
    assert outcome.score is None


def test_other_options_are_refused_by_name(photographs: Path, tmp_path: Path) -> None:
    make_run(tmp_path, photographs, LoopOptions(epochs=1)).run()
    with pytest.raises(MismatchError, match=r"margin was 0.8, is 0.7; give the same") as caught:
        make_run(tmp_path, photographs, LoopOptions(epochs=1), replace(OPTIONS, margin=0.7)).run()
    assert "pairs" not in str(caught.value)
    with pytest.raises(MismatchError, match="training was how, is delf"):
        make_classes(tmp_path, photographs).run()


def test_other_data_are_refused(photographs: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run", photographs, LoopOptions(epochs=1)).run()
    other = write_photographs(tmp_path / "other", {"a": 3, "b": 2, "c": 2, "e": 1})
    with pytest.raises(MismatchError, match="data was"):
        make_run(tmp_path / "run", other, LoopOptions(epochs=1)).run()


def test_networks_of_someone_else_are_not_overwritten(photographs: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / BEST, tiny_network(), {})
    with pytest.raises(InputError, match=r"contains best.safetensors but no state.safetensors"):
        make_run(tmp_path, photographs).run()


def test_two_runs_do_not_share_a_folder(photographs: Path, tmp_path: Path) -> None:
    with WriterLock(tmp_path), pytest.raises(StorageError, match="another process is writing here"):
        make_run(tmp_path, photographs).run()


@pytest.mark.parametrize("where", [0.3, 0.99])
def test_a_damaged_state_is_noticed(photographs: Path, tmp_path: Path, where: float) -> None:
    make_run(tmp_path, photographs, LoopOptions(epochs=1)).run()
    data = bytearray((tmp_path / STATE).read_bytes())
    data[int(where * len(data))] ^= 1
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(DamagedError, match=STATE):
        make_run(tmp_path, photographs, LoopOptions(epochs=1)).run()


def test_a_state_of_another_kind_is_no_state(photographs: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / STATE, tiny_network(), {})
    with pytest.raises(DamagedError, match=r"not the state of a training .*; remove it to start again"):
        make_run(tmp_path, photographs).run()


def test_a_log_that_was_cut_is_noticed(photographs: Path, tmp_path: Path) -> None:
    make_run(tmp_path, photographs, LoopOptions(epochs=1)).run()
    (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(DamagedError, match="3 bytes, expected at least"):
        make_run(tmp_path, photographs, LoopOptions(epochs=1)).run()
    (tmp_path / "log.jsonl").write_text('{"kind": "run"}\nno json\n{"half')
    with pytest.raises(DamagedError, match="line 2"):
        read_log(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the loss is nan in epoch 1; start again in another folder with a lower"):
        make_run(tmp_path, photographs, LOOP, replace(OPTIONS, learning_rate=1e18)).run()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_resumes(photographs: Path, tmp_path: Path, precision: str) -> None:
    loop, options = replace(LOOP, precision=precision), replace(OPTIONS, precision=precision)
    make_run(tmp_path / "whole", photographs, loop, options).run()
    with pytest.raises(Stopped):
        make_run(tmp_path / "cut", photographs, loop, options, reporter=Mortal(11), save_seconds=0.0).run()
    make_run(tmp_path / "cut", photographs, loop, options).run()
    check_equal(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"batch_size": 0}, {"every": 0}, {"decay": 0.0}, {"decay": 1.1}, {"precision": "fp8"}]
)
def test_loop_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        LoopOptions(**changes)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A ground truth of three queries, two of them in the database, and the folder of its photographs."""
    folder = write_photographs(tmp_path_factory.mktemp("evaluated"), {"x": 3, "y": 3, "z": 2}, seed=20)
    images = ["x/1.png", "x/2.png", "y/0.png", "y/1.png", "y/2.png", "z/0.png", "z/1.png"]
    queries = [
        {"query": "x/0.png", "bbox": [0, 0, 40, 40], "easy": ["x/1.png"], "hard": ["x/2.png"], "junk": []},
        {"query": "y/0.png", "bbox": None, "easy": ["y/1.png", "y/2.png"], "hard": [], "junk": []},
        {"query": "z/0.png", "bbox": [0, 0, 30, 30], "easy": ["z/1.png"], "hard": [], "junk": ["y/1.png"]},
    ]
    ground_truth = folder / "gnd.json"
    ground_truth.write_text(json.dumps({"imlist": images, "queries": queries}))
    return ground_truth, folder


def test_a_validated_run_keeps_the_best(photographs: Path, evaluated: tuple[Path, Path], tmp_path: Path) -> None:
    validation = Validation(*evaluated, ValidationOptions(max_side=SIDE, scales=(1.0,), words=4))
    outcome = make_run(tmp_path, photographs, LoopOptions(epochs=3, every=2), validation=validation).run()
    entries = [entry for entry in read_log(tmp_path) if entry["kind"] == "validation"]
    assert [entry["epoch"] for entry in entries] == [0, 2, 3]
    scores = [entry["score"] for entry in entries]
    assert all(0 < score <= 1 for score in scores)
    assert outcome.score == max(scores)
    assert outcome.epoch == [0, 2, 3][scores.index(max(scores))]
    assert open_checkpoint(outcome.best)[1]["training"]["epoch"] == outcome.epoch
    report = validation.report(outcome.best, "how", Silent())
    assert report.scores["medium"].mean_average_precision == outcome.score


def test_a_validation_of_the_global_descriptor_beside(
    photographs: Path, evaluated: tuple[Path, Path], tmp_path: Path
) -> None:
    """As Fig. 5 of HOW's paper: nearest neighbours of the multi-scale descriptor that the loss optimises."""
    options = ValidationOptions(max_side=SIDE, scales=(1.0, 0.5), words=4, with_global=True)
    validation, plain = Validation(*evaluated, options), Validation(*evaluated, replace(options, with_global=False))
    outcome = make_run(tmp_path, photographs, LoopOptions(epochs=2, every=2), validation=validation).run()
    entries = [entry for entry in read_log(tmp_path) if entry["kind"] == "validation"]
    assert outcome.score == max(entry["score"] for entry in entries)
    extractor = load_extractor("how-global", weights=str(tmp_path / LAST), max_side=SIDE, scales=(1.0, 0.5))
    described = {
        path.relative_to(evaluated[1]).as_posix(): extractor.extract(path).descriptors[0]
        for path in evaluated[1].rglob("*.png")
    }
    found = []
    for query in validation.ground_truth.queries:
        photograph = evaluated[1] / query.name
        vector = extractor.extract(photograph, box=query.box).descriptors[0]
        others = [name for name in validation.ground_truth.images if name not in query.junk | {query.name}]
        ranked = sorted(others, key=lambda name: (-float(described[name] @ vector), name))
        found.append(average_precision([ranked.index(name) for name in query.easy | query.hard]))
    assert entries[-1]["global_score"] == pytest.approx(sum(found) / len(found), abs=1e-6)
    assert validation.described() == {**plain.described(), "with_global": True}


def average_precision(ranks: list[int]) -> float:
    """The trapezoid of the Revisited Oxford protocol, from the ranks of the positives, counted from 0."""
    total = 0.0
    for seen, rank in enumerate(sorted(ranks)):
        before = 1.0 if rank == 0 else seen / rank
        total += (before + (seen + 1) / (rank + 1)) / 2
    return total / len(ranks)


def test_the_codebook_of_a_validation_from_training_images(
    evaluated: tuple[Path, Path], whole: dict[str, Path], photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in HOW's paper: the words know nothing of the database."""
    trained, seen, train = read_instances(photographs).images, [], Codebook.train
    monkeypatch.setattr(
        Codebook, "train", lambda features, *a, **k: (seen.append(features.names), train(features, *a, **k))[1]
    )
    options = ValidationOptions(max_side=SIDE, scales=(1.0,), words=4)
    own = Validation(*evaluated, options)
    other = Validation(*evaluated, replace(options, codebook_images=5), trained=trained)
    scores = [one.report(whole["how"] / BEST, "how", Silent()).scores["medium"] for one in (own, other)]
    assert all(0 < score.mean_average_precision <= 1 for score in scores)
    assert set(seen[0]) == set(own.ground_truth.images)
    assert sorted(seen[1]) == [f"{n}/{image.name}" for n, image in enumerate(evenly(trained, 5))]
    assert other.described() == {**own.described(), "codebook_images": 5}
    with pytest.raises(InputError, match="no training images"):
        Validation(*evaluated, replace(options, codebook_images=5))
    with pytest.raises(InputError, match="codebook_images is -1; give 0 or more"):
        replace(options, codebook_images=-1)


def test_queries_of_a_validation_are_cut_out_first(
    evaluated: tuple[Path, Path], whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from asmk_engine.extractors.how import How

    validation, boxes, real = Validation(*evaluated, ValidationOptions(SIDE, scales=(1.0,), words=4)), [], How.extract

    def extract(self: How, image: Any, box: Any = None) -> Any:
        boxes.append(box)
        return real(self, image, box)

    monkeypatch.setattr(How, "extract", extract)
    validation.report(whole["how"] / BEST, "how", Silent())
    assert [box for box in boxes if box] == [(0, 0, 40, 40), (0, 0, 30, 30)]


def test_a_validation_without_its_photographs_is_refused(evaluated: tuple[Path, Path], tmp_path: Path) -> None:
    from asmk_engine.errors import NotFoundError

    ground_truth, folder = evaluated
    other = write_photographs(tmp_path / "other", {"y": 3, "z": 2})
    with pytest.raises(NotFoundError, match="missing"):
        Validation(ground_truth, other)
    (other / "x").mkdir()
    for name in ("1.png", "2.png"):
        (other / "x" / name).write_bytes((folder / "x" / name).read_bytes())
    with pytest.raises(NotFoundError, match=r"1 photographs of queries are missing, such as 'x/0.png'"):
        Validation(ground_truth, other)


def test_a_validation_takes_photographs_without_an_extension(
    evaluated: tuple[Path, Path], whole: dict[str, Path], tmp_path: Path
) -> None:
    """As those of SfM-120k: 32 hexadecimal digits, three folders deep, and nothing behind them."""
    content, renamed = json.loads(evaluated[0].read_text()), {}
    for number, path in enumerate(sorted(evaluated[1].rglob("*.png"))):
        name = f"{number:032x}"
        place = tmp_path / "ims" / image_place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        renamed[path.relative_to(evaluated[1]).as_posix()] = name
    content["imlist"] = [renamed[name] for name in content["imlist"]]
    for query in content["queries"]:
        query |= {"query": renamed[query["query"]]}
        query |= {kind: [renamed[name] for name in query[kind]] for kind in ("easy", "hard", "junk")}
    (tmp_path / "gnd.json").write_text(json.dumps(content))
    options = ValidationOptions(max_side=SIDE, scales=(1.0,), words=4)
    found = Validation(tmp_path / "gnd.json", tmp_path / "ims", options)
    expected = Validation(*evaluated, options)
    one, other = (each.report(whole["how"] / BEST, "how", Silent()) for each in (found, expected))
    assert one.scores["medium"].mean_average_precision == other.scores["medium"].mean_average_precision


def test_a_validation_that_finds_nothing_is_refused(evaluated: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(evaluated[0].read_text())
    content["queries"] = [{**content["queries"][1], "easy": []}]
    (tmp_path / "gnd.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="no query has a positive image"):
        Validation(tmp_path / "gnd.json", evaluated[1])


def test_what_was_trained_describes_photographs(whole: dict[str, Path], photographs: Path) -> None:
    for kind, folder in whole.items():
        extractor = load_extractor(kind, weights=str(folder / BEST), max_side=SIDE, scales=(1.0,))
        features = extractor.extract(photographs / "a" / "0.png")
        assert features.descriptors.shape[1] == 8
        assert len(features) > 0
    origin = open_checkpoint(whole["how"] / BEST)[1]
    assert origin["made"] == "here"
    assert origin["training"]["margin"] == 0.8


def test_a_reduction_after_training_is_learned_from_its_network(whole: dict[str, Path], photographs: Path) -> None:
    from asmk_engine.images.listing import find_images
    from asmk_engine.training.whitening import learn_reduction, views

    network = open_checkpoint(whole["delf"] / LAST)[0]
    kept = network.reduction.weight.detach().clone()
    learn_reduction(network, views(find_images(photographs).images, SIDE))
    assert torch.equal(network.reduction.weight, kept)


def test_delf_begins_with_a_backbone_or_a_network(tmp_path: Path) -> None:
    backbone = tiny_network(skip=0).backbone
    np.savez(tmp_path / "backbone.npz", **{key: value.numpy() for key, value in backbone.state_dict().items()})
    one, origin = delf_network(tmp_path / "backbone.npz", "squeezenet1_1", 9, 8, seed=1)
    two, _ = delf_network(tmp_path / "backbone.npz", "squeezenet1_1", 9, 8, seed=1)
    assert one.options.attention == "learned"
    assert len(origin["backbone_sha256"]) == 64
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.parameters(), two.parameters(), strict=True))
    save_checkpoint(tmp_path / "whole.safetensors", one, {"from": "a test"})
    again, origin = delf_network(tmp_path / "whole.safetensors", None, 0, 128, seed=0)
    assert (again.options, origin) == (one.options, {"from": "a test"})
    with pytest.raises(InputError, match="a map of 128 channels cannot be reduced to 129"):
        delf_network(tmp_path / "backbone.npz", "squeezenet1_1", 9, 129, seed=0)
    with pytest.raises(InputError, match="give their name with --backbone"):
        delf_network(tmp_path / "backbone.npz", None, 0, 128, seed=0)


def test_curves_are_drawn_from_the_log(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    entries = [
        {"kind": "run"},
        {"kind": "step", "at": 0.5, "loss": 1.0, "epoch": 1},
        {"kind": "validation", "epoch": 0, "score": 0.25},
        {"kind": "validation", "epoch": 1, "score": 0.5},
        {"kind": "epoch", "epoch": 1, "loss": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with Image.open(draw_curves(tmp_path)) as drawn:
        assert drawn.size == (960, 600)
        plain = np.array(drawn)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "validation", "epoch": 2, "score": 0.5, "global_score": 0.4}) + "\n")
    with Image.open(draw_curves(tmp_path)) as drawn:
        assert not np.array_equal(np.array(drawn), plain)


def test_without_matplotlib_there_are_no_curves_but_a_run(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from asmk_engine.errors import DependencyError

    said: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "say", said.append, raising=False)
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", draw_curves)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    make_run(tmp_path, photographs, reporter=reporter).run()
    assert len([line for line in said if "pip install 'asmk-engine[plots]'" in line]) == 1
    assert not (tmp_path / "curves.png").exists()
    with pytest.raises(DependencyError):
        draw_curves(tmp_path)
