"""The task of a training of a global network, by its loss."""

from __future__ import annotations

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.delg import DelgHead
from asmk_engine.training.batch_options import BatchOptions
from asmk_engine.training.batches import BatchTask
from asmk_engine.training.contrastive import TupleOptions, TupleTask
from asmk_engine.training.delg_branch import DelgTask
from asmk_engine.training.global_trainee import GlobalTrainee
from asmk_engine.training.instances import Instances
from asmk_engine.training.momentum import MomentumTask
from asmk_engine.training.processes import Processes


def make_task(
    trainee: GlobalTrainee, data: Instances, options: TupleOptions | BatchOptions, processes: Processes | None = None
) -> TupleTask | BatchTask:
    """Return the task with these options; raises InputError for data that do not suffice.

    A network with DELG's head also trains its local branch if it is trained by classification.
    """
    if isinstance(options, TupleOptions):
        return TupleTask(trainee, data, options, processes)
    if options.loss == "momentum":
        return MomentumTask(trainee, data, options, processes)
    head = getattr(trainee.network, "head", None)
    if not isinstance(head, DelgHead) or options.loss == "ap":
        return BatchTask(trainee, data, options, processes)
    if options.loss == "curricularface" and options.micro_batch:
        raise InputError("delg with curricularface needs whole steps; leave out --micro-batch, or take arcface")
    return DelgTask(trainee, data, options, processes)
