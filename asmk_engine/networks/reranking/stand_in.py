"""Re-ranking networks with random weights, for rehearsals, also as checkpoints in the layouts of the official codes.

They rank at random; what they show is that published files are read and every stage runs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from asmk_engine.networks.reranking.checkpoints import save_rerank_checkpoint
from asmk_engine.networks.reranking.network import RerankNetwork, RerankOptions
from asmk_engine.networks.reranking.official import renamed
from asmk_engine.networks.reranking.transformer import RerankingTransformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.storage.folder import Folder

WIDTH = 8
"""Channels of a level, 256 in published networks."""
_BACKBONE, _BLOCKS = "resnet50", (3, 4, 6)
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_UNITS = (1, 2, 3, 3)


def save_cvnet_stand_in(path: Path, seed: int = 0) -> None:
    """Write a random CVNet-Rerank on ResNet-50 with few channels as a checkpoint of CVNet's official code."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RerankNetwork(RerankOptions(_BACKBONE, WIDTH))
    ours = network.state_dict()
    state = {name: ours[renamed(name)] for name in official_names(network.options.levels)}
    state["encoder_q.stem.conv.weight"] = state["encoder_q.stem.conv.weight"].flip(1)  # BGR there
    _save(path, {"model_state": state})


def save_small_stand_in(path: Path, seed: int = 0) -> None:
    """Write a random CVNet-Rerank on SqueezeNet with two levels as `train-rerank` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RerankNetwork(RerankOptions("squeezenet1_1", WIDTH, 2))
    save_rerank_checkpoint(path, network, {"made": "at random, for a rehearsal"})


def save_transformer_stand_in(path: Path, global_dim: int, dim: int, seed: int = 0) -> None:
    """Write a random Reranking Transformer of one layer as a checkpoint of the RRT code.

    global_dim, dim  dimensions of the global and local descriptors that it compares, dim divisible by 4
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RerankingTransformer(TransformerOptions(global_dim, dim, layers=1, hidden=dim))
    _save(path, {"state": network.state_dict()})


def official_names(levels: int) -> Iterator[str]:
    """Yield the names of the tensors of CVNet-Rerank on ResNet-50 in its official checkpoints."""
    yield from _normalised("encoder_q.stem.conv", "encoder_q.stem.bn")
    for stage, blocks in enumerate(_BLOCKS, start=1):
        for block in range(1, blocks + 1):
            name = f"encoder_q.s{stage}.b{block}"
            if block == 1:
                yield from _normalised(f"{name}.proj", f"{name}.bn")
            for letter in "abc":
                yield from _normalised(f"{name}.f.{letter}", f"{name}.f.{letter}_bn")
    yield from (f"conv2ds.{level}.weight" for level in range(levels))
    for block, units in enumerate(_UNITS, start=1):
        for unit in range(units):
            name = f"cv_learner.block{block}"
            layers = (f"{3 * unit}.conv1", f"{3 * unit}.conv2", f"{3 * unit + 1}")
            yield from (f"{name}.{layer}.{part}" for layer in layers for part in ("weight", "bias"))
    yield from (f"cv_learner.mlp.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias"))


def _normalised(convolution: str, norm: str) -> Iterator[str]:
    yield f"{convolution}.weight"
    yield from (f"{norm}.{part}" for part in _NORM)


def _save(path: Path, content: Mapping[str, object]) -> None:
    data = io.BytesIO()
    torch.save(dict(content), data)
    folder = Folder(path.parent)
    folder.write(path.name, [data.getvalue()])
    folder.sync()
