"""A program for the tests: trains by every loss, in as many processes as `torchrun` started; each run in a folder.

joined_training.py PHOTOGRAPHS OUTPUT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from asmk_engine.training.batch_options import BatchOptions, MomentumOptions
from asmk_engine.training.contrastive import TupleOptions
from asmk_engine.training.crops import CropOptions
from asmk_engine.training.global_tasks import make_task
from asmk_engine.training.global_trainee import GlobalTrainee, TraineeOptions
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.loop import TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.processes import join_processes
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


def main(photographs: Path, output: Path) -> None:
    """Train for two epochs by each loss."""
    torch.set_num_threads(1)
    processes, _ = join_processes("cpu")
    data = read_instances(photographs)
    for name, options in TASKS.items():
        task = make_task(GlobalTrainee(tiny_global(), "gem", TraineeOptions()), data, options, processes)
        loop = LoopOptions(epochs=2, batch_size=4, optimizer="sgd", clip=5.0)
        TrainingRun(output / name, task, loop, {}, processes=processes).run()
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
