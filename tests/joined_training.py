"""A program for the tests: trains by every loss, in as many processes as `torchrun` started; each run in a folder.

joined_training.py PHOTOGRAPHS FEATURES OUTPUT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from asmk_engine.features import FeatureSet
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.reranking.network import RerankOptions, seeded_rerank_network
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.training.batch_options import BatchOptions, MomentumOptions
from asmk_engine.training.contrastive import TupleOptions
from asmk_engine.training.crops import CropOptions
from asmk_engine.training.global_tasks import make_task
from asmk_engine.training.global_trainee import GlobalTrainee, TraineeOptions
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.kept_descriptors import KeptDescriptors
from asmk_engine.training.loop import TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.neighbour_triplets import NeighbourOptions
from asmk_engine.training.processes import Processes, join_processes
from asmk_engine.training.rerank_task import RerankTask, RerankTaskOptions
from asmk_engine.training.rerank_trainee import RerankTrainee
from asmk_engine.training.transformer_task import (
    PairedFeatures,
    TransformerTask,
    TransformerTrainee,
    TransformerTraining,
    new_transformer,
    transformer_loop,
)
from trainings import SIDE, tiny_global

BATCH = BatchOptions(
    batch_size=4, learning_rate=0.01, max_side=SIDE, crop=CropOptions(side=32), contrast=MomentumOptions(12, 0.5)
)
TASKS = {
    "arcface": BATCH,
    "curricularface": replace(BATCH, loss="curricularface", micro_batch=1),
    "ap": replace(BATCH, loss="ap", sampling="classes", per_class=2),
    "momentum": replace(BATCH, loss="momentum"),
    "triplet": TupleOptions(pairs=8, pool=50, negatives=2, max_side=SIDE, learning_rate=1e-3, loss="triplet"),
}


PAIRS = ("rerank", "rrt")
"""Trainings of networks that compare two images."""


def rerank_task(photographs: Path, kept: Path, processes: Processes) -> RerankTask:
    """Triplets of crops, all of whose negatives are hard ones in the second epoch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone("squeezenet1_1").eval()
    network = seeded_rerank_network(RerankOptions("squeezenet1_1", 8, 2, untrained_seed=0), backbone)
    options = RerankTaskOptions(epochs=2, pairs=8, hard=(0.5, 1.0), hardest=2, crop=CropOptions(side=48), max_side=SIDE)
    data = read_instances(photographs)
    return RerankTask(RerankTrainee(network), data, options, processes, KeptDescriptors(kept, ""))


def transformer_task(photographs: Path, features: Path) -> TransformerTask:
    """Triplets of the features in two sets."""
    data = read_instances(photographs)
    paired = PairedFeatures(FeatureSet.open(features / "local"), FeatureSet.open(features / "whole"), data)
    network = new_transformer(TransformerOptions(6, 8, layers=1, heads=2, hidden=16), 0)
    options = TransformerTraining(NeighbourOptions(12, 3), learning_rate=1e-3, micro_batch=2)
    return TransformerTask(TransformerTrainee(network), paired, data, options)


def main(photographs: Path, features: Path, output: Path) -> None:
    """Train for two epochs by each loss."""
    torch.set_num_threads(1)
    processes, _ = join_processes("cpu")
    data = read_instances(photographs)
    for name, options in TASKS.items():
        task = make_task(GlobalTrainee(tiny_global(), "gem", TraineeOptions()), data, options, processes)
        loop = LoopOptions(epochs=2, batch_size=4, optimizer="sgd", clip=5.0)
        TrainingRun(output / name, task, loop, {}, processes=processes).run()
    loop = LoopOptions(epochs=2, batch_size=4, optimizer="sgd", schedule="cosine")
    rerank = rerank_task(photographs, output / "negatives", processes)
    TrainingRun(output / "rerank", rerank, loop, {}, processes=processes).run()
    transformer = transformer_task(photographs, features)
    TrainingRun(output / "rrt", transformer, transformer_loop(2, batch_size=4), {}, processes=processes).run()
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
