"""Training of re-ranking transformers: triplets and losses of a twin, exact resume, and what it learns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from asmk_engine import Features
from asmk_engine.cli import commands
from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.images.listing import ImageFile
from asmk_engine.networks.reranking.image_tokens import ScaleUnit
from asmk_engine.networks.reranking.transformer_files import open_transformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.networks.reranking.transformer_pairs import pair_logits
from asmk_engine.recipes import Recipe
from asmk_engine.training.instances import make_instances
from asmk_engine.training.loop import TrainingRun
from asmk_engine.training.loop_options import LoopOptions, make_optimizer
from asmk_engine.training.neighbour_triplets import NeighbourOptions, near_triplets, nearest_images
from asmk_engine.training.task import StepBatch
from asmk_engine.training.transformer_task import (
    PairedFeatures,
    TransformerTask,
    TransformerTrainee,
    TransformerTraining,
    new_transformer,
    transformer_loop,
)
from samples import write_features
from trainings import Mortal, Stopped

SMALL = TransformerOptions(global_dim=6, dim=8, layers=1, heads=2, hidden=16, features=6)
NEAR = NeighbourOptions(neighbours=12, least_positives=2)
OPTIONS = TransformerTraining(NEAR, learning_rate=3e-3)
INSTANCES, EACH = 5, 4


def instances(names):
    labels = [name.split("/")[0].replace("none", "") for name in names]
    return make_instances([ImageFile(name, Path(name)) for name in names], labels, [""] * len(names))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Images whose local descriptors tell their instance, and whose global ones hardly do."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("drawn")
    patterns = rng.normal(size=(INSTANCES, 4, 8))
    names = [f"{number}/{place}.jpg" for number in range(INSTANCES) for place in range(EACH)] + ["none/0.jpg"]
    local, whole = {}, {}
    for name in names:
        known = name.split("/")[0]
        pattern = rng.normal(size=(4, 8)) if known == "none" else patterns[int(known)]
        keypoints = np.column_stack([rng.uniform(0, 100, (4, 2)), np.full(4, 16.0)])
        shown = pattern + rng.normal(0, 0.2, (4, 8))
        local[name] = Features.from_descriptors(shown, keypoints, image_size=(100, 100))
        whole[name] = Features.from_descriptors(rng.normal(size=(1, 6)))
    return (
        write_features(folder / "local", local, recipe=Recipe("delg-local")),
        write_features(folder / "whole", whole, recipe=Recipe("delg")),
        instances(names),
    )


def task_of(drawn, seed=0, **options):
    local, whole, data = drawn
    trainee = TransformerTrainee(new_transformer(SMALL, seed))
    return TransformerTask(trainee, PairedFeatures(local, whole, data), data, replace(OPTIONS, **options))


def test_nearest_images_are_those_of_a_loop():
    vectors = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    vectors[4] = 2 * vectors[3]
    cosines = [
        [float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))) for other in vectors] for one in vectors
    ]
    for number, near in enumerate(nearest_images(vectors, 4)):
        others = [other for other in range(9) if other != number]
        assert near.tolist() == sorted(others, key=lambda other: -cosines[number][other])[:4]
    assert nearest_images(vectors[:1], 4).shape == (1, 0)
    assert nearest_images(vectors[:2], 4).tolist() == [[1], [0]]


def test_triplets_are_an_anchor_with_a_near_positive_and_a_near_negative():
    names = [
        f"{label}/{place}" for label, count in (("a", 4), ("b", 3), ("none", 2), ("c", 1)) for place in range(count)
    ]
    data, vectors = instances(names), np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    found, near = near_triplets(vectors, data, NeighbourOptions(6, 1)), nearest_images(vectors, 6)
    labels = [name.split("/")[0] for name in names]
    expected = {}
    for number, label in enumerate(labels):
        same = [other for other in near[number] if labels[other] == label != "none"]
        others = [other for other in near[number] if labels[other] != label or label == "none"]
        if same and others:
            expected[number] = same, others
    assert found.anchors.tolist() == list(expected)
    assert [(p.tolist(), n.tolist()) for p, n in zip(found.positives, found.negatives, strict=True)] == list(
        map(tuple, expected.values())
    )
    seen = found.drawn(np.random.default_rng(0))
    assert sorted(seen[:, 0].tolist()) == list(expected)
    assert all(p in expected[a][0] and n in expected[a][1] for a, p, n in seen.tolist())
    with pytest.raises(InputError, match="no image has 4 positives"):
        near_triplets(vectors, data, NeighbourOptions(6, 4))


def test_positives_of_given_pairs_are_those_that_are_near():
    rng, names = np.random.default_rng(3), [f"{number}/0" for number in range(12)]
    vectors, drawn_pairs = rng.normal(size=(12, 4)).astype(np.float32), rng.integers(0, 8, (9, 2))
    both = np.concatenate([drawn_pairs, drawn_pairs[:, ::-1]])
    data, near = replace(instances(names), pairs=both), nearest_images(vectors, 6)
    found, known = near_triplets(vectors, data, NeighbourOptions(6, 1)), {tuple(pair) for pair in both.tolist()}
    expected = {one: [other for other in near[one].tolist() if (one, other) in known] for one in range(12)}
    assert found.anchors.tolist() == [one for one, others in expected.items() if others]
    assert [positives.tolist() for positives in found.positives] == [others for others in expected.values() if others]


def test_losses_are_binary_cross_entropies(drawn):
    task = task_of(drawn)
    triplets = task.plan(1, None).items[:3]
    network, found = task.trainee.network.eval(), task.losses(triplets).detach()
    for row, loss in zip(triplets, found.tolist(), strict=True):
        anchor, *others = (task._features.tokens(int(number), ScaleUnit(), 6) for number in row)
        positive, negative = pair_logits(network, anchor, others)
        sigmoid = [1 / (1 + math.exp(-logit)) for logit in (positive, negative)]
        assert loss == pytest.approx(-(math.log(sigmoid[0]) + math.log(1 - sigmoid[1])) / 2, abs=1e-5)


def test_a_run_that_was_killed_resumes_with_the_same_weights(drawn, tmp_path):
    loop = transformer_loop(2, batch_size=4)

    def run(folder, **others):
        return TrainingRun(folder, task_of(drawn), loop, {"from": "test"}, **others).run()

    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", reporter=Mortal(3), save_seconds=0.0)
    cut = run(tmp_path / "cut")
    assert whole.epoch == cut.epoch
    one, other = (open_transformer(result.last)[0].state_dict() for result in (whole, cut))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)
    assert open_transformer(whole.best)[1]["from"] == "test"


def test_steps_against_the_gradient_lower_the_loss(drawn):
    task = task_of(drawn)
    triplets, parameters = task.plan(1, None).items, list(task.trainee.network.parameters())
    losses = []
    for _ in range(4):
        loss = task.losses(triplets).mean()
        losses.append(loss.item())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.02 * gradient
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_step_in_parts_has_the_gradient_of_the_whole(drawn):
    gradients = []
    for micro_batch in (12, 2):
        task = task_of(drawn, micro_batch=micro_batch)
        items = list(task.plan(1, None).items[:5])
        parts = list(task.parts(StepBatch(1, 0, 5, items, [[]] * 5)))
        sum(part.loss for part in parts).backward()
        assert sum(len(part.values) for part in parts) == 5
        gradients.append(torch.cat([one.grad.flatten() for one in task.trainee.network.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_adamw_decays_weights_apart_from_the_gradient(drawn):
    groups = task_of(drawn).groups()
    optimizer = make_optimizer(groups, transformer_loop())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 5e-4
    assert LoopOptions().optimizer == "adam"


def test_features_must_be_of_both_sorts_and_have_all_images(drawn):
    local, whole, data = drawn
    with pytest.raises(MismatchError, match="expected local features"):
        PairedFeatures(whole, whole, data)
    with pytest.raises(MismatchError, match="expected global descriptors"):
        PairedFeatures(local, local, data)
    with pytest.raises(NotFoundError, match=r"lacks 1 of 2 training images: '9/0\.jpg"):
        PairedFeatures(local, whole, instances(["0/0.jpg", "9/0.jpg"]))


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"micro_batch": 0}, {"seed": -1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        TransformerTraining(**wrong)
    with pytest.raises(InputError, match="neighbours is 0"):
        NeighbourOptions(0)


def test_a_transformer_has_no_vector_of_one_image():
    with pytest.raises(InputError, match="no vector of one"):
        TransformerTrainee(new_transformer(SMALL, 0)).vector(np.zeros((8, 8, 3), np.uint8), "fp32")


def test_the_command_trains_resumes_and_refuses(drawn, tmp_path):
    local, whole, data = drawn
    for image in data.images:
        path = tmp_path / "photos" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    given = ["train-rrt", tmp_path / "photos", "--local", local.path, "--global", whole.path, "-o", tmp_path / "run"]
    given += ["--layers", 1, "--hidden", 8, "--features", 5, "--neighbours", 12, "--least-positives", 2]

    def run(*more):
        return CliRunner().invoke(commands, [*map(str, [*given, "--device", "cpu", *more])])

    first = run("--epochs", 1, "--json")
    assert first.exit_code == 0, (first.output, first.exception)
    assert "anchors" in first.stderr
    second = run("--epochs", 2, "--json", "-q")
    assert second.exit_code == 0, (second.output, second.exception)
    found, origin = open_transformer(json.loads(second.stdout)["last"])
    assert found.options == TransformerOptions(6, 8, 1, 4, 8, 5)
    assert origin["training"]["epoch"] == 2
    assert isinstance(run("--epochs", 2, "--seed", 1).exception, MismatchError)
    swapped = run("--local", whole.path)
    assert "expected local features" in str(swapped.exception)
