"""Training of global networks: steps in parts, runs that resume, schedules, and what learns when."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.iteration import Silent
from asmk_engine.networks.composed.network import build_composed
from asmk_engine.networks.global_checkpoints import open_global_checkpoint
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.training.batch_options import BatchOptions, MomentumOptions
from asmk_engine.training.batches import BatchTask
from asmk_engine.training.contrastive import TupleOptions, TupleTask
from asmk_engine.training.crops import CropOptions
from asmk_engine.training.freezing import Freeze, check_freezes, parse_freeze
from asmk_engine.training.global_tasks import make_task
from asmk_engine.training.global_trainee import GlobalTrainee, TraineeOptions
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.instances import Instances
from asmk_engine.training.log import read_log
from asmk_engine.training.loop import BEST, LAST, TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.losses.contrastive import contrastive
from asmk_engine.training.losses.second_order import second_order
from asmk_engine.training.losses.triplet import triplet
from asmk_engine.training.momentum import MomentumTask
from asmk_engine.training.photographs import load_pixels
from asmk_engine.training.schedule import Schedule
from asmk_engine.training.task import StepBatch, TrainingTask
from trainings import SIDE, Mortal, Stopped, tiny_global, write_photographs

CROP = CropOptions(side=32, least_area=0.5)
BATCH = BatchOptions(batch_size=4, learning_rate=0.05, max_side=SIDE, crop=CROP, contrast=MomentumOptions(10, 0.75))
AP = replace(BATCH, loss="ap", sampling="classes", per_class=2)
TUPLES = TupleOptions(
    pairs=4, pool=50, negatives=2, max_side=SIDE, learning_rate=1e-3, loss="triplet-squared", second_order=10.0
)
LOOP = LoopOptions(
    epochs=2, batch_size=4, optimizer="sgd", schedule="cosine", warm_up=1.0, clip=1.0, nesterov=True, decay=1.0
)
KINDS: dict[str, tuple[Any, LoopOptions]] = {
    "arcface": (BATCH, LOOP),
    "curricularface": (replace(BATCH, loss="curricularface", micro_batch=3, smoothing=0.1), LOOP),
    "ap": (replace(AP, micro_batch=2), replace(LOOP, optimizer="adam", nesterov=False)),
    "momentum": (replace(BATCH, loss="momentum"), LOOP),
    "triplet": (TUPLES, LoopOptions(epochs=2, batch_size=2)),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Instances:
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), {"a": 4, "b": 3, "c": 3, "d": 2, "e": 1})
    return read_instances(folder)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the tiny trainings; it has tests of its own."""
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)


def trainee(network: Any = None, **options: Any) -> GlobalTrainee:
    return GlobalTrainee(network or tiny_global(), "gem", TraineeOptions(**options))


def make_run(folder: Path, data: Instances, kind: str, **more: Any) -> TrainingRun:
    options, loop = KINDS[kind]
    return TrainingRun(folder, make_task(trainee(), data, options), loop, {"made": "here"}, "start", **more)


def state_of(task: TrainingTask) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in task.trained.state_dict().items()}


# Every image of the data passes through a step; eleven calls are those of a mining of negatives.
@pytest.mark.parametrize(
    ("kind", "calls", "save_seconds"),
    [
        *[(kind, calls, 0.0) for kind in ("arcface", "curricularface", "ap", "momentum") for calls in (1, 4)],
        ("momentum", 2, 1e9),
        ("triplet", 14, 0.0),
    ],
)
def test_an_interrupted_run_is_equal_to_an_uninterrupted_one(
    data: Instances, tmp_path: Path, kind: str, calls: int, save_seconds: float
) -> None:
    whole = make_run(tmp_path / "whole", data, kind)
    whole.run()
    with pytest.raises(Stopped):
        make_run(tmp_path / "cut", data, kind, reporter=Mortal(calls), save_seconds=save_seconds).run()
    again = make_run(tmp_path / "cut", data, kind, workers=1)
    again.run()
    expected, found = state_of(whole.task), state_of(again.task)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    logs = [[{**entry, "seconds": 0} for entry in read_log(tmp_path / name)] for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    for name in (BEST, LAST):
        networks = [open_global_checkpoint(tmp_path / one / name) for one in ("whole", "cut")]
        assert all(map(torch.equal, *(network.state_dict().values() for network, _ in networks)))
    assert networks[0][1]["training"]["training"] == "gem"


@pytest.mark.parametrize("kind", ["arcface", "curricularface", "cross-entropy", "ap", "momentum"])
def test_parts_of_a_step_have_the_gradient_of_the_whole(data: Instances, kind: str) -> None:
    options = replace(AP if kind == "ap" else BATCH, loss=kind, batch_size=6)
    gradients, values = [], []
    for size in (0, 1, 4):
        task = make_task(trainee(), data, replace(options, micro_batch=size))
        assert isinstance(task, BatchTask)
        batch = first_batch(task, 6)
        parts = list(taken(task, batch))
        values.append(torch.cat([part.values for part in parts]).tolist())
        gradients.append([parameter.grad for parameter in task.trained.parameters() if parameter.grad is not None])
    for other, value in zip(gradients[1:], values[1:], strict=True):
        assert value == pytest.approx(values[0], rel=1e-5)
        for one, expected in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


def taken(task: TrainingTask, batch: StepBatch) -> Iterator[Any]:
    for part in task.parts(batch):
        part.loss.backward()
        yield part


def first_batch(task: TrainingTask, size: int, epoch: int = 1) -> StepBatch:
    items = list(task.plan(epoch, Silent()).items[:size])
    return StepBatch(epoch, 0, size, items, [task.load(epoch, number, item) for number, item in enumerate(items)])


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_loss_falls(data: Instances, tmp_path: Path, kind: str) -> None:
    options, loop = KINDS[kind]
    task = make_task(trainee(), data, replace(options, learning_rate=0.01 if kind == "triplet" else 0.02))
    TrainingRun(tmp_path, task, replace(loop, epochs=12, warm_up=0.0), {}).run()
    losses = [entry["loss"] for entry in read_log(tmp_path) if entry["kind"] == "epoch"]
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "triplet-squared"])
def test_the_losses_of_a_tuple(data: Instances, loss: str) -> None:
    task = TupleTask(trainee(), data, replace(TUPLES, loss=loss, margin=0.6))
    item = np.array([0, 1, 4, 8])
    photographs = task.load(1, 0, item)
    with torch.no_grad():
        anchor, positive, *rest = (task.trainee.vector(load_pixels(data.images[n], SIDE), "fp32") for n in item)
        negatives = torch.stack(rest)
        if loss == "contrastive":
            others = torch.cat([positive[None], negatives])
            expected = contrastive(anchor, others, torch.tensor([True, False, False]), 0.6)
        else:
            expected = triplet(anchor, positive, negatives, 0.6, squared=loss == "triplet-squared")
        expected = expected + 10 * second_order(anchor, positive, negatives)
        assert float(task.loss(item, photographs)) == pytest.approx(float(expected), rel=1e-5)


def test_a_step_of_the_momentum_network(data: Instances) -> None:
    task = MomentumTask(trainee(), data, replace(BATCH, loss="momentum", micro_batch=3))
    batch = first_batch(task, 4)
    before = state_of(task)
    assert all(data.instances[one] == data.instances[other] for one, other in batch.items)
    list(taken(task, batch))
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([loaded[1] for loaded in batch.photographs]))
        keys = task.trainee.vectors(pixels, "fp32")
    queue = state_of(task)
    torch.testing.assert_close(queue["queue.vectors"][:4], keys, rtol=1e-5, atol=1e-6)
    assert queue["queue.labels"].tolist() == [int(data.instances[one[0]]) for one in batch.items] + [-1] * 6
    with torch.no_grad():
        for parameter in task.trainee.network.parameters():
            parameter.add_(1.0)
    task.end_step()
    after = state_of(task)
    name = "momentum.whitening.bias"
    torch.testing.assert_close(after[name], before[name] + 0.25)


def test_delg_trains_its_local_branch(data: Instances) -> None:
    network = build_composed("delg", "squeezenet1_1", code=4, hidden=8, dim=6)
    made = GlobalTrainee(network, "delg", TraineeOptions())
    task = make_task(made, data, BATCH)
    batch = first_batch(task, 4)
    whole = torch.cat([part.values for part in taken(task, batch)])
    assert network.head.local_branch.encoder.weight.grad is not None  # type: ignore[union-attr]
    plain = BatchTask(made, data, BATCH)
    expected = torch.cat([part.values for part in plain.parts(batch)])
    pixels = torch.from_numpy(np.stack([loaded[0] for loaded in batch.photographs]))
    with torch.no_grad():
        _, map4 = made.vectors_and_map(pixels, "fp32")
        local = network.head.local(map4)  # type: ignore[operator]
        errors = (local.reconstruction - map4).square().mean((1, 2, 3))
        logits = local.attended @ task.trained["attention"].weight.T  # type: ignore[index]
        labels = torch.tensor([int(data.instances[item[0]]) for item in batch.items])
        attention = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(whole, expected + attention + 10 * errors, rtol=1e-4, atol=1e-5)


def test_what_a_network_draws_at_random_follows_from_the_step(data: Instances) -> None:
    """The masks of CiDeR are noise while it trains; a step that is repeated after a kill must draw the same."""
    made = GlobalTrainee(build_composed("cider", "squeezenet1_1"), "cider", TraineeOptions(batch_norm="batch"))
    task = BatchTask(made, data, replace(BATCH, crop=CropOptions(side=80)))
    made.begin_epoch(1)
    losses = []
    for epoch in (1, 1, 2):
        torch.manual_seed(len(losses))
        batch = replace(first_batch(task, 4), epoch=epoch)
        with torch.no_grad():
            losses.append(torch.cat([part.values for part in task.parts(batch)]).tolist())
    assert losses[0] == losses[1] != losses[2]


def test_what_is_frozen_does_not_learn(data: Instances, tmp_path: Path) -> None:
    made = trainee(freezes=(parse_freeze("head@1"), parse_freeze("backbone@2-")))
    task = make_task(made, data, BATCH)
    states = [state_of(task)]
    for epochs in (1, 2):
        TrainingRun(tmp_path, task, replace(LOOP, epochs=epochs, schedule="constant"), {}).run()
        states.append(state_of(task))
    changes = [
        {key.split(".")[1] for key in one if key.startswith("network.") and not torch.equal(one[key], two[key])}
        for one, two in pairwise(states)
    ]
    assert changes == [{"backbone"}, {"exponent", "whitening"}]


def test_statistics_of_batch_normalisation_are_frozen_or_move(data: Instances) -> None:
    for batch_norm, moves in (("frozen", False), ("batch", True)):
        network = GlobalNetwork(GlobalOptions("resnet18", skip=3))
        made = trainee(network, batch_norm=batch_norm, freezes=(parse_freeze("backbone@2"),))
        for epoch, expected in ((1, moves), (2, False)):
            made.begin_epoch(epoch)
            before = network.state_dict()["backbone.bn1.running_mean"].clone()
            made.vectors(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8), "fp32")
            assert torch.equal(before, network.state_dict()["backbone.bn1.running_mean"]) is not expected


def test_rates_of_the_groups() -> None:
    groups = trainee(head_factor=3.0, exponent_factor=10.0).groups(0.1)
    assert [(group.rate, group.decays) for group in groups] == [
        (0.1, True),
        (pytest.approx(0.3), True),
        (1.0, False),
    ]
    assert [len(group.parameters) for group in groups[1:]] == [2, 1]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("exponential", 4, 0.5), [1, 1, 0.5, 0.125]),
        (Schedule("constant", 4), [1, 1, 1, 1]),
        (Schedule("cosine", 4), [1, (1 + 0.5**0.5) / 2 * 1.0, 0.5 + 0.5 * np.cos(np.pi * 0.375), 0.5 - 0.5 * 0.5**0.5]),
        (Schedule("polynomial", 4, power=2.0), [1, 0.75**2, 0.625**2, 0.25**2]),
        (Schedule("linear", 4), [1, 0.75, 0.625, 0.25]),
        (Schedule("linear", 4, warm_up=2.0), [0.1, 0.75 * 0.55, 0.625 * 0.775, 0.25]),
    ],
)
def test_schedules(schedule: Schedule, expected: list[float]) -> None:
    times = [0.0, 1.0, 1.5, 3.0]
    if schedule.name == "exponential":
        times = [0.0, 0.9, 1.5, 3.0]
    assert [schedule.factor(at) for at in times] == pytest.approx(expected)


def test_a_schedule_that_depends_on_the_length_fixes_it(data: Instances, tmp_path: Path) -> None:
    make_run(tmp_path, data, "arcface").run()
    longer = TrainingRun(tmp_path, make_task(trainee(), data, BATCH), replace(LOOP, epochs=3), {}, "start")
    with pytest.raises(MismatchError, match="epochs was 2, is 3"):
        longer.run()


def test_clipping_bounds_the_gradient(data: Instances, tmp_path: Path) -> None:
    task = make_task(trainee(), data, BATCH)
    run = TrainingRun(tmp_path, task, replace(LOOP, epochs=1, clip=1e-3), {})
    norms, real = [], run._optimizer.step

    def step(closure: Any = None) -> Any:
        squares = [one.grad.square().sum() for one in task.trained.parameters() if one.grad is not None]
        norms.append(float(torch.stack(squares).sum().sqrt()))
        return real(closure)

    run._optimizer.step = step  # type: ignore[method-assign]
    run.run()
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-3)


def test_bf16_trains(data: Instances, tmp_path: Path) -> None:
    task = make_task(trainee(), data, replace(BATCH, precision="bf16"))
    TrainingRun(tmp_path, task, replace(LOOP, epochs=1, precision="bf16"), {}).run()
    assert all(np.isfinite(entry["loss"]) for entry in read_log(tmp_path) if entry["kind"] == "step")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("backbone", Freeze("backbone")),
        ("head@3", Freeze("head", 3, 3)),
        ("head@-10", Freeze("head", 1, 10)),
        ("backbone@11-", Freeze("backbone", 11)),
        ("backbone@2-4", Freeze("backbone", 2, 4)),
    ],
)
def test_freezes_are_read(text: str, expected: Freeze) -> None:
    assert parse_freeze(text) == expected


@pytest.mark.parametrize("text", ["trunk", "head@", "head@-", "head@x", "head@4-2", "head@0-2"])
def test_freezes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="expected backbone or head"):
        parse_freeze(text)


def test_something_always_learns() -> None:
    check_freezes([Freeze("backbone", 1, 2), Freeze("head", 3)], 5)
    with pytest.raises(InputError, match="in epoch 3 both backbone and head are frozen"):
        check_freezes([Freeze("backbone", 1, 3), Freeze("head", 3)], 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 99}, "13 images of a class, fewer than the 99 of a step"),
        ({"crop": CropOptions(side=16)}, "crops of 16 pixels; the network needs"),
    ],
)
def test_data_that_do_not_suffice(data: Instances, options: dict[str, Any], message: str) -> None:
    network = GlobalNetwork(GlobalOptions("squeezenet1_1")) if "crop" in options else None
    with pytest.raises(InputError, match=message):
        make_task(trainee(network), data, replace(BATCH, **options))
    one = replace(data, instances=np.minimum(data.instances, 0))
    with pytest.raises(InputError, match="1 classes; training needs at least two"):
        make_task(trainee(), one, BATCH)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "hinge"},
        {"sampling": "all"},
        {"batch_size": 0},
        {"sampling": "classes", "batch_size": 6},
        {"scale": 0.0},
        {"bins": 1},
        {"margin": 2.0},
        {"smoothing": 1.0},
    ],
)
def test_batch_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        BatchOptions(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "rprop"},
        {"schedule": "steps"},
        {"nesterov": True},
        {"clip": -1.0},
        {"warm_up": -1.0},
        {"power": 0.0},
    ],
)
def test_loop_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        LoopOptions(**changes)


@pytest.mark.parametrize("changes", [{"queue": 0}, {"rate": 1.0}, {"contrast": -1.0}])
def test_momentum_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        MomentumOptions(**changes)
