"""A small network that compares two images by the set of their mutual nearest neighbours, for `set_reranking.py`.

The neighbours of a pair attend to each other, and a bias of each head tells how well two of them agree on one change of
scale and place, so a group that moves together can strengthen itself. What is pooled over the neighbours, and numbers
of the whole pair, give one number, which is added to the weight-free score. The last layer begins at 0, so an untrained
network changes nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from set_pairs import ABSENT, FACTS, NEGATIVE, TOKEN, RankedPairs
from torch import nn

AGREEMENTS = 5
INPUTS = 10
MOST_POSITIVES, MOST_NEGATIVES = 8, 16  # of a query in one step
QUERIES = 4  # in one step
SHARPNESS = 10.0  # of the difference of two scores
MOST_LOSS = 8.0  # of two images; a wrong label must not lead the training
DROPPED = 0.3  # largest share of the neighbours that are left out of a pair


@dataclass(frozen=True)
class SetTraining:
    """How a network is made and trained.

    penalty  weight of the variance of what is added, over the images of a query
    """

    dim: int = 16
    heads: int = 2
    layers: int = 1
    epochs: int = 20
    rate: float = 2e-3
    penalty: float = 3.0


class SetLayer(nn.Module):
    """Self-attention with a bias for each head and two neighbours, and a feed-forward layer, both residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias = nn.Sequential(nn.Linear(AGREEMENTS, 4 * heads), nn.GELU(), nn.Linear(4 * heads, heads))
        self.mixed, self.joined = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.before_attention, self.before_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.forward_layers = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, states: torch.Tensor, agreements: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        """Return the states [b, m, d] after the layer."""
        count, length, dim = states.shape
        parts = self.mixed(self.before_attention(states)).view(count, length, 3, self.heads, dim // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        logits = queries @ keys.transpose(-1, -2) / math.sqrt(dim // self.heads)
        logits = logits + self.bias(agreements).permute(0, 3, 1, 2) - 1e4 * absent[:, None, None]
        attended = (logits.softmax(-1) @ values).transpose(1, 2).reshape(count, length, dim)
        states = states + self.joined(attended)
        return states + self.forward_layers(self.before_forward(states))


class SetNetwork(nn.Module):
    """From the mutual neighbours of pairs of images to what is added to their scores."""

    def __init__(self, options: SetTraining) -> None:
        super().__init__()
        dim = options.dim
        self.entry = nn.Sequential(nn.Linear(INPUTS, dim), nn.GELU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(SetLayer(dim, options.heads) for _ in range(options.layers))
        self.norm, self.share = nn.LayerNorm(dim), nn.Linear(dim, 1)
        self.whole = nn.Sequential(nn.Linear(FACTS, dim), nn.GELU())
        self.exit = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, 1))
        nn.init.zeros_(self.exit[-1].weight)
        nn.init.zeros_(self.exit[-1].bias)

    def forward(self, tokens: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        """Return [b] float32 for tokens [b, m, TOKEN] and facts [b, FACTS] of `set_pairs`."""
        absent = tokens[..., ABSENT] < 0
        agreements = agreements_of(tokens)
        states = self.entry(inputs_of(tokens))
        for layer in self.layers:
            states = layer(states, agreements, absent.float())
        states = self.norm(states)
        shares = torch.sigmoid(self.share(states)) * ~absent[..., None]
        pooled = (shares * states).sum(1) / 8
        found: torch.Tensor = self.exit(torch.cat([pooled, self.whole(even(facts))], -1))[:, 0]
        return found


def inputs_of(tokens: torch.Tensor) -> torch.Tensor:
    """Return what each neighbour is by itself, [b, m, INPUTS]: nothing of where it is."""
    of_query, of_other = tokens[..., 9:10], tokens[..., 10:11]
    residual = tokens[..., 12:13] / 10
    return torch.cat([tokens[..., :5], of_other - of_query, of_query, of_other, tokens[..., 11:12], residual], -1)


def agreements_of(tokens: torch.Tensor) -> torch.Tensor:
    """Return how two neighbours agree, [b, m, m, AGREEMENTS].

    In order: how far the ratio of their distances in the two images is from the ratio of their scales; the cosine of
    the directions from one to the other; how far their ratios of scales are from each other; nearness in each image.
    """
    steps = [tokens[:, None, :, part] - tokens[:, :, None, part] for part in (slice(5, 7), slice(7, 9))]
    distances = [step.norm(dim=-1) for step in steps]
    scales = tokens[..., 10] - tokens[..., 9]
    ratio = torch.log((distances[1] + 0.01) / (distances[0] + 0.01))
    stretched = (ratio - (scales[:, None] + scales[:, :, None]) / 2).abs().clamp(max=3)
    cosine = (steps[0] * steps[1]).sum(-1) / (distances[0] * distances[1] + 1e-4)
    scaled = (scales[:, None] - scales[:, :, None]).abs().clamp(max=3)
    return torch.stack([stretched, cosine, scaled, *(torch.exp(-10 * distance) for distance in distances)], -1)


def even(facts: torch.Tensor) -> torch.Tensor:
    """Return the facts of pairs in one order of magnitude."""
    places, places_weight, inliers, weight, pairs, mass, features, other_features = facts.unbind(-1)
    sizes = [count.clamp(min=1).log() / 7 for count in (features, other_features)]
    numbers = [places.log1p(), places_weight, inliers.log1p(), weight, pairs.log1p(), 50 * mass, *sizes]
    return torch.stack(numbers, -1)


def train(rankings: Sequence[RankedPairs], options: SetTraining, seed: int) -> SetNetwork:
    """Train a network on rankings whose first images hold a positive and a negative; prints the loss of each epoch."""
    torch.manual_seed(seed)
    draws = np.random.default_rng(seed)
    network = SetNetwork(options)
    usable = [one for one in rankings if (one.first_labels > NEGATIVE).any() and (one.first_labels == NEGATIVE).any()]
    if not options.epochs:
        return network
    if not usable:
        sys.exit(f"none of {len(rankings)} rankings to train on has a positive and a negative that were compared")
    steps = options.epochs * -(-len(usable) // QUERIES)
    optimizer = torch.optim.AdamW(network.parameters(), options.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps + 1, pct_start=0.1)
    for epoch in range(options.epochs):
        draws.shuffle(usable)  # type: ignore[arg-type]
        total = 0.0
        for begin in range(0, len(usable), QUERIES):
            chosen = usable[begin : begin + QUERIES]
            loss = torch.stack([loss_of(network, one, draws, options.penalty) for one in chosen]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += len(chosen) * loss.item()
        print(f"network {seed}: epoch {epoch}, loss {total / len(usable):.4f}", file=sys.stderr, flush=True)
    return network


def loss_of(network: SetNetwork, one: RankedPairs, draws: np.random.Generator, penalty: float) -> torch.Tensor:
    """Return how far positives of a query are from lying above its negatives, and the variance of what is added."""
    positives = some(np.flatnonzero(one.first_labels > NEGATIVE), MOST_POSITIVES, draws)
    negatives = some(np.flatnonzero(one.first_labels == NEGATIVE), MOST_NEGATIVES, draws)
    rows = np.concatenate([positives, negatives])
    added = network(varied(torch.from_numpy(one.tokens[rows].astype(np.float32)), draws), torch.tensor(one.facts[rows]))
    scores = torch.from_numpy(one.totals[rows].astype(np.float32)) + added
    differences = scores[: len(positives), None] - scores[None, len(positives) :]
    ordered = nn.functional.softplus(-SHARPNESS * differences).clamp(max=MOST_LOSS).mean()
    return ordered + penalty * added.var()


def some(rows: np.ndarray, most: int, draws: np.random.Generator) -> np.ndarray:
    """Return at most so many of the rows, drawn."""
    return draws.choice(rows, most, replace=False) if len(rows) > most else rows


def varied(tokens: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
    """Leave out a random share of the neighbours, and mirror both images half of the time."""
    dropped = torch.from_numpy(draws.random(tokens.shape[:2]) < DROPPED * draws.random())
    tokens[..., ABSENT] = tokens[..., ABSENT].masked_fill(dropped, -1.0)
    if draws.random() < 0.5:
        tokens[..., [5, 7]] *= -1
    return tokens


@torch.no_grad()
def added_by(network: SetNetwork, one: RankedPairs) -> np.ndarray:
    """Return what the network adds to the scores of the first images, [k] float64."""
    tokens = torch.from_numpy(one.tokens.astype(np.float32)).reshape(-1, one.tokens.shape[1], TOKEN)
    return network(tokens, torch.from_numpy(one.facts)).numpy().astype(np.float64)


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
