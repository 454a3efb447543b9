"""Training of CVNet-Rerank: triplets that become harder, hidden places, the loss, exact resumption, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from asmk_engine.cli import commands
from asmk_engine.errors import InputError
from asmk_engine.iteration import Silent
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.reranking.checkpoints import open_rerank_checkpoint
from asmk_engine.networks.reranking.network import RerankNetwork, RerankOptions, seeded_rerank_network
from asmk_engine.training.crops import CropOptions
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.log import read_log
from asmk_engine.training.loop import TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.losses.symmetric_pairs import symmetric_pairs
from asmk_engine.training.rerank_task import RerankTask, RerankTaskOptions
from asmk_engine.training.rerank_trainee import RerankTrainee
from trainings import Mortal, Stopped, write_photographs

OPTIONS = RerankTaskOptions(epochs=2, pairs=4, hard=(0.0, 1.0), hidden=(0.0, 0.5), hardest=1, crop=CropOptions(48),
                            max_side=64, learning_rate=0.01)  # fmt: skip
LOOP = LoopOptions(epochs=2, batch_size=2, optimizer="sgd", schedule="cosine", every=1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), {"a": 3, "b": 3, "c": 2})


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)


def tiny(levels: int = 2) -> RerankNetwork:
    """SqueezeNet with random weights, whose maps are not all alike, and small levels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        backbone = build_backbone("squeezenet1_1")
        for parameter in backbone.parameters():
            parameter.data.mul_(1.7)
    return seeded_rerank_network(RerankOptions("squeezenet1_1", 8, levels, untrained_seed=0), backbone.eval())


def make_task(photographs: Path, options: RerankTaskOptions = OPTIONS) -> RerankTask:
    return RerankTask(RerankTrainee(tiny()), read_instances(photographs), options)


def make_run(folder: Path, photographs: Path, **more: Any) -> TrainingRun:
    return TrainingRun(folder, make_task(photographs), LOOP, {"made": "here"}, "start", **more)


def test_rates_rise_linearly_to_the_last_epoch() -> None:
    options = RerankTaskOptions(epochs=5)
    assert [round(options.at(options.hard, epoch), 9) for epoch in range(1, 7)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert [round(options.at(options.hidden, epoch), 9) for epoch in (1, 3, 5)] == [0.0, 0.1, 0.2]
    assert RerankTaskOptions(epochs=1).at((0.2, 1.0), 1) == 1.0


def test_hard_negatives_are_the_most_similar_images_of_other_classes(photographs: Path) -> None:
    task = make_task(photographs)
    first, last = task.plan(1, Silent()), task.plan(2, Silent())
    assert (first.facts["hard_negatives"], last.facts["hard_negatives"], last.facts["hidden"]) == (0.0, 1.0, 0.5)
    groups = read_instances(photographs).groups
    vectors = np.stack([task.trainee.vector(task.load(1, 0, np.array([n]))[0], "fp32").numpy() for n in range(8)])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for plan in (first, last):
        assert plan.items.shape == (4, 3) and np.array_equal(plan.items, make_task(photographs).plan(
            1 if plan is first else 2, Silent()).items)  # fmt: skip
        query, positive, negative = plan.items.T
        assert (groups[query] == groups[positive]).all() and (query != positive).all()
        assert (groups[query] != groups[negative]).all()
    own = task._vectors
    assert own is not None
    for query, _, negative in last.items:
        others = [n for n in range(8) if groups[n] != groups[query]]
        assert negative == max(others, key=lambda n: float(own[query] @ own[n]))


def test_places_are_hidden_with_the_probability_of_the_epoch(photographs: Path) -> None:
    task = make_task(photographs)
    maps = torch.ones(3, 5, 40, 50)
    assert torch.equal(task._hidden(maps, 1, 7), maps)
    hidden = task._hidden(maps, 2, 7)
    assert torch.equal(hidden, task._hidden(maps, 2, 7)) and not torch.equal(hidden, task._hidden(maps, 2, 8))
    assert torch.equal(hidden.amin(1), hidden.amax(1))  # all channels of a place together
    assert 0.45 < float(hidden.mean()) < 0.55 and not torch.equal(hidden[0], hidden[1])


def test_the_loss_is_the_mean_over_both_orders() -> None:
    drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 4, 4)))

    def logits(query: list[torch.Tensor], key: list[torch.Tensor]) -> torch.Tensor:
        first = (query[0] * key[0].roll(1, 1)).sum((1, 2, 3))
        return torch.stack([first, 1 - first], 1)

    found = float(symmetric_pairs(logits, [drawn]))
    expected = 0.0
    for one, other, matches in ((0, 1, 1), (1, 0, 1), (0, 2, 0), (2, 0, 0)):
        first = float((drawn[one] * drawn[other].roll(1, 0)).sum())
        both = np.array([first, 1 - first])
        shares = np.exp(both - both.max()) / np.exp(both - both.max()).sum()
        expected -= np.log(shares[matches]) / 4
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_run_is_equal_to_an_uninterrupted_one(photographs: Path, tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", photographs).run()
    for calls in (1, 3, 11):
        folder = tmp_path / f"stopped{calls}"
        with pytest.raises(Stopped):
            make_run(folder, photographs, reporter=Mortal(calls), save_seconds=0.0).run()
        result = make_run(folder, photographs).run()
        assert result.last.read_bytes() == whole.last.read_bytes()
    network, origin = open_rerank_checkpoint(whole.last)
    assert origin["made"] == "here" and network.options.untrained_seed is None
    before = tiny()
    assert all(map(torch.equal, network.backbone.state_dict().values(), before.backbone.state_dict().values()))
    assert not torch.equal(network.encoder.classifier[2].weight, before.encoder.classifier[2].weight)
    assert not torch.equal(network.pyramid.levels[0].weight, before.pyramid.levels[0].weight)


def test_a_run_that_stops_after_the_last_step_of_an_epoch_logs_its_rates(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object) -> None:
        raise Stopped

    make_run(tmp_path / "whole", photographs).run()
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(RerankTrainee, "write", stop)
        make_run(tmp_path / "cut", photographs, save_seconds=0.0).run()
    make_run(tmp_path / "cut", photographs).run()
    logs = [[{**entry, "seconds": 0} for entry in read_log(tmp_path / name)] for name in ("whole", "cut")]
    assert logs[0] == logs[1] and len({*(one["rates"][0] for one in logs[0] if one["kind"] == "epoch")}) == 2


def test_the_network_learns_which_maps_are_alike() -> None:
    """A triplet whose positive has the features of the query, moved by one place, and whose negative has others."""
    torch.manual_seed(1)
    network = tiny()
    drawn = torch.randn(2, network.backbone.channels, 7, 7)
    maps = torch.stack([drawn[0], drawn[0].roll(1, 2), drawn[1]])
    optimizer = torch.optim.Adam([*network.pyramid.parameters(), *network.encoder.parameters()], 0.002)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = symmetric_pairs(network, network.pyramid(maps))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_numbers_out_of_range_are_refused(photographs: Path) -> None:
    for bad in ({"epochs": 0}, {"hard": (0.2, 1.1)}, {"hidden": (0.0, 1.0)}, {"learning_rate": 0.0}, {"pairs": -1}):
        with pytest.raises(InputError):
            RerankTaskOptions(**bad)
    with pytest.raises(InputError, match="crops of 16 pixels; the network needs 17"):
        make_task(photographs, RerankTaskOptions(crop=CropOptions(16)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.npz"
    np.savez(path, **{key: value.numpy() for key, value in tiny().backbone.state_dict().items()})
    return path


def train(data: Path, output: Path, weights: Path, *more: object) -> Result:
    small = ["--crop", 48, "--max-side", 64, "--batch", 2, "--epochs", 1, "--triplets", 2, "--device", "cpu", "-q"]
    given = ["train-rerank", data, "-o", output, "--weights", weights, *small, *more]
    return CliRunner().invoke(commands, [str(one) for one in given])


def test_the_command(photographs: Path, weights: Path, tmp_path: Path) -> None:
    result = train(photographs, tmp_path / "run", weights, "--width", 8, "--levels", 2, "--json", "--flip", 0.5)
    assert result.exit_code == 0, (result.output, result.exception)
    told = json.loads(result.stdout)
    assert told == {"kind": "training", "best": str(tmp_path / "run" / "best.safetensors"),
                    "last": str(tmp_path / "run" / "last.safetensors"), "score": None, "epoch": 1}  # fmt: skip
    described = read_log(tmp_path / "run")[0]
    assert described["training"] == "cvnet-rerank" and described["network"]["width"] == 8
    assert described["crop"]["flip"] == 0.5 and described["hidden"] == [0.0, 0.2]
    (tmp_path / "pairs.txt").write_text("a/0.png a/1.png\nb/0.png b/1.png\n")
    again = ["--layout", "photos", "--verified", tmp_path / "pairs.txt", "--width", 8, "--levels", 2, "--seed", 5]
    result = train(photographs, tmp_path / "further", Path(told["best"]), *again, "--precision", "bf16")
    assert result.exit_code == 0, (result.output, result.exception)


def test_the_command_refuses(photographs: Path, weights: Path, tmp_path: Path) -> None:
    result = train(photographs, tmp_path / "run", weights, "--layout", "photos")
    assert "no classes" in str(result.exception)
    result = train(photographs, tmp_path / "run", weights, "--hard", "0.2")
    assert "expected two numbers" in str(result.exception) + result.output
