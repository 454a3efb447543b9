"""The losses of global networks: each against its twin, its gradient against finite differences."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import naive_losses as naive
from asmk_engine.training.losses.arcface import ArcFace
from asmk_engine.training.losses.average_precision import average_precision_loss
from asmk_engine.training.losses.cross_entropy import SoftmaxHead
from asmk_engine.training.losses.curricularface import RATE, CurricularFace
from asmk_engine.training.losses.heads import with_margin
from asmk_engine.training.losses.momentum import DescriptorQueue, MomentumContrast
from asmk_engine.training.losses.second_order import second_order
from asmk_engine.training.losses.triplet import triplet

SEEDS = st.integers(0, 2**32 - 1)


def units(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    values = torch.tensor(rng.normal(size=shape))
    return values / values.norm(dim=-1, keepdim=True)


def check_gradient(loss: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
    """Central differences in float64, in every coordinate."""
    assert torch.autograd.gradcheck(loss, [one.detach().requires_grad_() for one in inputs], eps=1e-6, atol=1e-6)


@given(SEEDS, st.floats(0, 0.5), st.floats(0.01, 1.0))
def test_arcface(seed: int, smoothing: float, margin: float) -> None:
    rng = np.random.default_rng(seed)
    head = ArcFace(4, 5, 7.0, margin, smoothing).double()
    vectors, labels = torch.tensor(rng.normal(size=(3, 4))), torch.tensor(rng.integers(0, 5, 3))
    weights = head.weight.tolist()
    expected = [
        naive.arcface(one, int(label), weights, 7.0, margin, smoothing)
        for one, label in zip(vectors.tolist(), labels, strict=True)
    ]
    assert head(vectors, labels).tolist() == pytest.approx(expected, rel=1e-9)


@given(SEEDS, st.floats(0.01, 1.0))
def test_curricularface_over_several_steps(seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    head = CurricularFace(4, 5, 7.0, margin).double()
    t = 0.0
    for _ in range(3):
        vectors, labels = torch.tensor(rng.normal(size=(3, 4))), torch.tensor(rng.integers(0, 5, 3))
        weights = head.weight.tolist()
        expected, t = naive.curricularface(vectors.tolist(), labels.tolist(), weights, t, 7.0, margin, RATE)
        assert head(vectors, labels).tolist() == pytest.approx(expected, rel=1e-8)
        assert float(head.curriculum.t[0]) == pytest.approx(t, rel=1e-9, abs=1e-15)
    head.eval()
    head(vectors, labels)
    assert float(head.curriculum.t[0]) == pytest.approx(t, rel=1e-9, abs=1e-15)


@given(SEEDS, st.floats(0, 0.5))
def test_cross_entropy(seed: int, smoothing: float) -> None:
    rng = np.random.default_rng(seed)
    head = SoftmaxHead(4, 5, 3.0, smoothing).double()
    head.bias.data.copy_(torch.tensor(rng.normal(size=5)))
    vectors, labels = torch.tensor(rng.normal(size=(3, 4))), torch.tensor(rng.integers(0, 5, 3))
    classes = list(zip(head.weight.tolist(), head.bias.tolist(), strict=True))
    logits = [[3 * naive.dot(one, weight) + bias for weight, bias in classes] for one in vectors.tolist()]
    expected = [naive.cross_entropy(row, int(label), smoothing) for row, label in zip(logits, labels, strict=True)]
    assert head(vectors, labels).tolist() == pytest.approx(expected, rel=1e-9)


@given(SEEDS, st.integers(1, 4), st.floats(0.01, 2.0), st.booleans())
def test_triplet(seed: int, count: int, margin: float, squared: bool) -> None:
    rng = np.random.default_rng(seed)
    anchor, positive, negatives = units(rng, 4), units(rng, 4), units(rng, count, 4)
    found = triplet(anchor, positive, negatives, margin, squared=squared)
    expected = naive.triplet(anchor.tolist(), positive.tolist(), negatives.tolist(), margin, squared)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(SEEDS, st.integers(1, 4))
def test_second_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    anchor, positive, negatives = units(rng, 4), units(rng, 4), units(rng, count, 4)
    expected = naive.second_order(anchor.tolist(), positive.tolist(), negatives.tolist())
    assert float(second_order(anchor, positive, negatives)) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(SEEDS, st.integers(2, 9), st.integers(2, 30))
def test_average_precision(seed: int, count: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, labels = units(rng, count, 3), torch.tensor(rng.integers(0, 3, count))
    found = average_precision_loss(vectors, labels, bins).tolist()
    expected = [1 - naive.average_precision(vectors.tolist(), labels.tolist(), one, bins) for one in range(count)]
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-10)


@given(SEEDS, st.integers(1, 12))
def test_momentum_contrast(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    queue, loss = DescriptorQueue(12, 4).double(), MomentumContrast(7.0, 0.15).double()
    keys, own = units(rng, count, 4), torch.tensor(rng.integers(0, 3, count))
    queue.push(keys, own)
    vectors, labels = units(rng, 3, 4), torch.tensor(rng.integers(0, 3, 3))
    if not (labels[:, None] == own[None]).any():
        assert loss(vectors, labels, queue).tolist() == [0, 0, 0]
        return
    pairs = list(zip(keys.tolist(), own.tolist(), strict=True))
    expected, t = naive.momentum_contrast(vectors.tolist(), labels.tolist(), pairs, 0.0, 7.0, 0.15, RATE)
    assert loss(vectors, labels, queue).tolist() == pytest.approx(expected, rel=1e-8)
    assert float(loss.curriculum.t) == pytest.approx(t, rel=1e-9)


def test_the_queue_replaces_the_oldest() -> None:
    queue = DescriptorQueue(5, 1)
    for number in range(0, 8, 2):
        queue.push(torch.tensor([[float(number)], [float(number + 1)]]), torch.tensor([number, number + 1]))
    assert sorted(queue.labels.tolist()) == [3, 4, 5, 6, 7]
    assert queue.vectors[:, 0].tolist() == queue.labels.tolist()
    queue.push(torch.arange(9.0)[:, None], torch.arange(9))
    assert sorted(queue.labels.tolist()) == [4, 5, 6, 7, 8]


def test_gradients_against_finite_differences() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = units(rng, 4, 5), torch.tensor([0, 1, 0, 2])
    anchor, positive, negatives = units(rng, 5), units(rng, 5), units(rng, 3, 5)
    for head in (ArcFace(5, 3, 4.0, 0.2, 0.1), CurricularFace(5, 3, 4.0, 0.2), SoftmaxHead(5, 3, 4.0, 0.1)):
        head.double().eval()
        if isinstance(head, CurricularFace):
            head.curriculum.t.fill_(0.3)

        def of_head(values: torch.Tensor, weights: torch.Tensor, head: torch.nn.Module = head) -> torch.Tensor:
            return torch.func.functional_call(head, {"weight": weights}, (values, labels))

        check_gradient(of_head, vectors, torch.tensor(rng.normal(size=(3, 5))))
    for squared in (True, False):
        check_gradient(lambda a, p, n, s=squared: triplet(a, p, n, 1.5, squared=s), anchor, positive, negatives)
    check_gradient(second_order, anchor, positive, negatives)
    near = torch.tensor(rng.uniform(0.1, 1, (4, 5)))
    check_gradient(lambda values: average_precision_loss(functional.normalize(values), labels, 7), near)
    queue, contrast = DescriptorQueue(8, 5).double(), MomentumContrast(4.0, 0.15).double().eval()
    queue.push(units(rng, 6, 5), torch.tensor([0, 0, 1, 2, 2, 3]))
    check_gradient(lambda values: contrast(values, labels, queue), vectors)


def test_gradients_are_finite_where_vectors_are_equal() -> None:
    same = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    head = ArcFace(3, 2, 30.0, 0.15).double()
    head.weight.data.fill_(1)
    losses = [
        head(same, torch.tensor([0])).sum(),
        triplet(same[0], same[0], same, 0.5, squared=False),
        second_order(same[0], same[0], same),
    ]
    for loss in losses:
        [gradient] = torch.autograd.grad(loss, same, retain_graph=True)
        assert torch.isfinite(gradient).all()
    assert losses[1].item() == pytest.approx(0.5)
    assert losses[2].item() == 0


def test_the_margin_falls_over_all_angles() -> None:
    cosines = torch.cos(torch.linspace(0, math.pi, 1000, dtype=torch.float64))
    values = with_margin(cosines, 0.15)
    assert (values.diff() < 0).all()
    assert (values < cosines).all()


def test_a_perfect_ranking_has_no_loss() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert average_precision_loss(vectors, torch.tensor([0, 0, 1, 1])).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert average_precision_loss(vectors, torch.tensor([0, 1, 0, 1])).min() > 0.2
