"""A training step: losses against their twins, its gradient against finite differences, and the plan of an epoch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import naive_networks as naive
import naive_training
from asmk_engine.errors import InputError
from asmk_engine.iteration import Silent
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.training.classification import ClassOptions, ClassTask
from asmk_engine.training.contrastive import TupleOptions, TupleTask, default_rate
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.instances import Instances
from asmk_engine.training.local_trainee import LocalTrainee, freeze
from asmk_engine.training.loop import TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.losses.contrastive import contrastive
from asmk_engine.training.photographs import load_pixels, place_network, to_network
from asmk_engine.training.task import TrainingTask
from asmk_engine.training.vectors import global_vector, pooled_vector
from tiny_networks import DELF
from trainings import SIDE, tiny_network, write_photographs

OPTIONS = TupleOptions(pairs=6, pool=50, negatives=2, max_side=SIDE, learning_rate=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Instances:
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), {"a": 3, "b": 2, "c": 2, "d": 1})
    return read_instances(folder)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.1, 1.9))
def test_contrastive_loss_against_its_twin(seed: int, count: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    anchor, others = rng.normal(size=4) * 0.5, rng.normal(size=(count, 4)) * 0.5
    matches = rng.random(count) < 0.5
    found = contrastive(torch.tensor(anchor), torch.tensor(others), torch.tensor(matches), margin)
    assert float(found) == pytest.approx(naive_training.contrastive(anchor, others, matches.tolist(), margin), rel=1e-9)


def test_contrastive_loss_of_equal_and_of_far_vectors() -> None:
    anchor = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    same = contrastive(anchor, torch.zeros(1, 4, dtype=torch.float64), torch.tensor([True]), 0.8)
    same.backward()
    assert float(same.detach()) == pytest.approx(0.5 * 4e-12)
    assert torch.isfinite(anchor.grad).all()
    far = contrastive(torch.zeros(4), torch.ones(1, 4), torch.tensor([False]), 0.8)
    assert float(far) == 0
    near = contrastive(torch.zeros(4), torch.zeros(1, 4), torch.tensor([False]), 0.8)
    assert float(near) == pytest.approx(0.5 * 0.8**2, abs=1e-5)


# The rows of Table 1 of the HOW paper, its hats as capitals: H is no smoothing, O a reduction after training, W
# a learned attention. Those of rows 2, 3, 6 and 7 are unreadable in the copy at hand: its numbers of words tell them.
ROWS = ["how", "How", "HOw", "HOW", "HOW", "HOw", "How", "hOW", "how"]


@pytest.mark.parametrize("row", range(1, 10))
def test_vectors_of_every_row_of_the_ablation(row: int) -> None:
    rough, unit, learned = (letter.isupper() for letter in ROWS[row - 1])
    network = tiny_network(
        row,
        attention="learned" if learned else "norm",
        smoothing=1 if rough else 3,
        reduction="post" if unit else "network",
    )
    pixels = torch.from_numpy(np.random.default_rng(row).normal(size=(2, 3, 40, 48)).astype(np.float32))
    with torch.no_grad():
        vectors, found = global_vector(network, pixels), pooled_vector(network, pixels)
        locations, scores = network.maps(pixels) if unit else network(pixels)
    for image in range(2):
        expected = naive.global_descriptor([(locations[image].numpy(), scores[image].numpy())])
        np.testing.assert_allclose(vectors[image].numpy(), expected, rtol=2e-4, atol=1e-6)
        arguments = (locations[image].movedim(0, -1).numpy(), scores[image].numpy())
        expected = naive_training.pooled(*arguments, learned=learned, unit=unit)
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=2e-4, atol=1e-5)


def test_half_precision_is_near() -> None:
    network, pixels = tiny_network(), torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, half = global_vector(network, pixels), global_vector(network, pixels, "bf16")
    assert half.dtype == torch.float32
    assert 0 < float((exact - half).norm()) < 0.05


def make_task(kind: str, network: LocalNetwork, data: Instances) -> TrainingTask:
    if kind == "delf":
        return ClassTask(LocalTrainee(network), data, ClassOptions(max_side=SIDE))
    return TupleTask(LocalTrainee(network), data, OPTIONS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("how", {}), ("how", {"smoothing": 1, "reduction": "post", "attention": "learned"}), ("delf", DELF), ("delf", {})],
)
def test_the_gradient_of_a_step_against_finite_differences(
    kind: str, options: dict[str, Any], data: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in float64, where a central difference of 1e-6 is right to some eight digits."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    task = make_task(kind, tiny_network(**options).double(), data)
    task.trained.double()
    items = [np.array([0, 1, 3, 5]), np.array([3, 4, 0, 7])]
    loaded = [task.load(1, number, item) for number, item in enumerate(items)]

    def total() -> torch.Tensor:
        return torch.stack([task.loss(*pair) for pair in zip(items, loaded, strict=True)]).sum()

    for item, photographs in zip(items, loaded, strict=True):
        task.loss(item, photographs).backward()  # gradients of the items of a step are summed
    rng = np.random.default_rng(0)
    learning = [(name, value) for name, value in task.trained.named_parameters() if value.requires_grad]
    assert all(value.grad is not None for _, value in learning)
    for name, value in learning:
        place = tuple(int(rng.integers(side)) for side in value.shape)
        expected = central_difference(total, value, place)
        assert float(value.grad[place]) == pytest.approx(expected, rel=1e-4, abs=1e-8), name


def central_difference(total: Any, value: torch.Tensor, place: tuple[int, ...], step: float = 1e-6) -> float:
    found = []
    with torch.no_grad():
        for sign in (1, -1):
            value[place] += sign * step
            found.append(float(total()))
            value[place] -= sign * step
    return (found[0] - found[1]) / (2 * step)


def test_a_step_is_adam_on_the_sum_of_the_gradients(
    data: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)
    network = tiny_network()
    task = TupleTask(LocalTrainee(network), data, OPTIONS)
    name, parameter = next(iter(network.named_parameters()))
    before, gradients = parameter.detach().clone().double().numpy(), []
    run = TrainingRun(tmp_path, task, LoopOptions(epochs=1, batch_size=2), {})
    real = run._optimizer.step

    def step(closure: Any = None) -> Any:
        gradients.append(parameter.grad.double().numpy().copy())
        return real(closure)

    run._optimizer.step = step  # type: ignore[method-assign]
    run.run()
    assert len(gradients) == 3, name
    expected = naive_training.adam(before, gradients, OPTIONS.learning_rate, 1e-4)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "options", "share"), [("how", {}, 1.0), ("delf", DELF, 1 / 3)])
def test_gradients_of_tuples_are_summed_those_of_photographs_averaged(
    kind: str, options: dict[str, Any], share: float, data: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(kind, tiny_network(**options), data)
    plan = task.plan(1, Silent()).items[:3]
    for number, item in enumerate(plan):
        task.loss(item, task.load(1, number, item)).backward()
    learning = [value for value in task.trained.parameters() if value.requires_grad]
    expected = [share * value.grad.clone() for value in learning]
    run = TrainingRun(tmp_path, task, LoopOptions(epochs=1, batch_size=3), {})

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run._optimizer, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    for value, gradient in zip(learning, expected, strict=True):
        assert torch.allclose(value.grad, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("augmented_pairs", [0.0, 0.5, 1.0])
def test_the_plan_of_an_epoch_is_mined_with_the_network_as_it_is(data: Instances, augmented_pairs: float) -> None:
    network = tiny_network()
    task = TupleTask(LocalTrainee(network), data, replace(OPTIONS, augmented_pairs=augmented_pairs))
    plan = task.plan(1, Silent())
    assert plan.items.shape == (6, 4)
    vectors = np.stack([described(network, load_pixels(image, SIDE)) for image in data.images])
    distances = []
    for number, item in enumerate(plan.items):
        anchor, positive, *negatives = item.tolist()
        vector = described(network, task.load(1, number, item)[0])
        groups = data.groups.tolist()
        [expected] = naive_training.mine(vector[None], [groups[anchor]], vectors, groups, 2)
        assert negatives == expected
        assert data.instances[anchor] == data.instances[positive]
        distances += [np.linalg.norm(vector - vectors[negative]) for negative in negatives]
    made = int((plan.items[:, 0] == plan.items[:, 1]).sum())
    assert made == round(6 * augmented_pairs)
    assert plan.facts["negative_distance"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert not np.array_equal(task.plan(2, Silent()).items, plan.items)


def described(network: LocalNetwork, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return global_vector(network, to_network(pixels, network))[0].numpy()


def test_photographs_passed_over_are_the_nearest(data: Instances) -> None:
    near = TupleTask(LocalTrainee(tiny_network()), data, OPTIONS).plan(1, Silent()).items
    passed = TupleTask(LocalTrainee(tiny_network()), data, replace(OPTIONS, skip=1)).plan(1, Silent()).items
    assert np.array_equal(near[:, 3], passed[:, 2])


def test_views_of_one_photograph_differ(data: Instances) -> None:
    task = TupleTask(LocalTrainee(tiny_network()), data, OPTIONS)
    first, second, negative = task.load(1, 0, np.array([0, 0, 4]))
    assert first.shape != second.shape or not np.array_equal(first, second)
    again = task.load(1, 0, np.array([0, 0, 4]))
    assert np.array_equal(first, again[0])
    assert np.array_equal(negative, load_pixels(data.images[4], SIDE))


def test_an_epoch_of_classes_has_every_photograph_of_an_instance_once(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path, {"_none": 2, "a": 3, "b": 1})
    data = read_instances(folder, background=[folder / "_none"])
    task = ClassTask(LocalTrainee(tiny_network(**DELF)), data, ClassOptions(max_side=SIDE))
    items = task.plan(1, Silent()).items
    assert sorted(items[:, 0].tolist()) == np.flatnonzero(data.instances >= 0).tolist()
    assert not np.array_equal(items, task.plan(2, Silent()).items)
    with torch.no_grad():
        scores = next(value for name, value in task.trained.named_parameters() if name == "classifier.bias")
        scores.copy_(torch.tensor([50.0, -50.0]))  # says that everything is the first instance
        for item in items:
            loss = float(task.loss(item, task.load(1, 0, item)))
            assert loss == pytest.approx(100.0 * int(data.instances[item[0]]), abs=5)
    with pytest.raises(InputError, match="1 instances; a classifier needs at least two"):
        ClassTask(
            LocalTrainee(tiny_network(**DELF)), replace(data, instances=np.minimum(data.instances, 0)), ClassOptions()
        )


def test_a_frozen_backbone_does_not_learn(data: Instances) -> None:
    task = ClassTask(LocalTrainee(tiny_network(**DELF)), data, ClassOptions(max_side=SIDE, freeze_backbone=True))
    assert {group.rate for group in task.groups()} == {1e-3}
    learning = {name.split(".")[1] for name, value in task.trained.named_parameters() if value.requires_grad}
    assert learning == {"attention", "weight", "bias"}


def test_statistics_of_batch_normalisation_stay() -> None:
    network = LocalNetwork(LocalOptions("resnet18", skip=3, dim=8))
    freeze(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    global_vector(network, torch.randn(1, 3, 40, 40)).sum().backward()
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert network.backbone.bn1.weight.grad is not None
    assert network.reduction is not None
    assert network.reduction.weight.grad is None


def test_the_rate_is_that_of_the_published_code() -> None:
    assert default_rate("resnet18") == default_rate("squeezenet1_1") == 5e-6
    assert default_rate("resnet50") == default_rate("resnet101") == 1e-6


@pytest.mark.parametrize(
    "changes",
    [{"pairs": 0}, {"negatives": 0}, {"skip": -1}, {"augmented_pairs": 1.1}, {"margin": 0.0}, {"learning_rate": 0.0}],
)
def test_tuple_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TupleOptions(**changes)


@pytest.mark.parametrize("changes", [{"max_side": 0}, {"learning_rate": 0.0}, {"head_rate": -1.0}, {"seed": -1}])
def test_class_options_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ClassOptions(**changes)


def test_a_network_is_placed_on_the_processor() -> None:
    network = place_network(tiny_network(), "cpu")
    assert next(network.parameters()).device.type == "cpu"
