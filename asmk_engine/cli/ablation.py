"""`asmk-engine train-ablation`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console
from asmk_engine.cli.train import (
    backbone_skip_option,
    data_options,
    loop_options,
    print_result,
    run_options,
    run_training,
    tuple_options,
)

if TYPE_CHECKING:
    from asmk_engine.networks.local import LocalNetwork
    from asmk_engine.training.ablation import AblationRow
    from asmk_engine.training.instances import Instances
    from asmk_engine.training.task import TrainingTask

START = "start.safetensors"
_ROW_NAMES = (*"123456789", "star")


@click.command("train-ablation")
@click.argument("row", type=click.Choice(_ROW_NAMES), metavar="ROW")
@data_options
@click.option("--weights", type=PATH, required=True, help="ImageNet weights of the backbone.")
@click.option("--backbone", default="resnet18", show_default=True, help="Backbone of the weights.")
@backbone_skip_option
@click.option("--dim", type=click.IntRange(min=1), default=128, show_default=True, help="Dimensions of a descriptor.")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.  [default: 20 contrastive, 10 otherwise]")
@tuple_options
@click.option(
    "--learning-rate",
    type=float,
    help="Learning rate of Adam in the first epoch.  [default: that of `train-how` or of `train-delf`]",
)
@run_options
def train_ablation(
    row: str,
    data: Path,
    output: Path,
    weights: Path,
    layout: str,
    images: Path | None,
    background: tuple[Path, ...],
    backbone: str,
    backbone_skip: int,
    dim: int,
    epochs: int | None,
    learning_rate: float | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a row of the ablation of HOW's paper.

    ROW is 1 to 9 of Table 1 (Tolias et al., ECCV 2020), or star, the curve of Fig. 4 whose projection is random at the
    start and learned. Rows 1 to 4 and star are trained with tuples (--pairs, --pool, --negatives), 5 to 9 by
    classification. The start network is made from ImageNet weights, with a whitening learned from the training images
    where the row has one in the network. DATA is as for `train-how`, the output folder too; the same command resumes an
    interrupted run.

    \b
    Example:
      asmk-engine train-ablation 4 retrieval-SfM-120k.pkl --images ims --weights resnet18-f37072fd.pth -o row4
    """
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.ablation import CONTRASTIVE, ablation_row, start_network
    from asmk_engine.training.instance_layouts import read_instances

    made, console = ablation_row(row, backbone, backbone_skip, dim), Console(quiet)
    found = read_instances(data, layout, images, background)
    with console.bar("start network", "images") as progress:
        network, origin = start_network(
            made,
            weights,
            found.images,
            output / START,
            seed=options["seed"],
            max_side=options["max_side"],
            device=options["device"],
            progress=progress,
        )
    task = _task(made, network, found, learning_rate, options)
    contrastive = made.loss == CONTRASTIVE
    loop = loop_options(options, epochs or (20 if contrastive else 10), 5 if contrastive else 64)
    about = {**origin, "ablation": row}
    result = run_training(output, task, found, loop, about, file_sha256(output / START), options, console)
    print_result(result, as_json)


def _task(
    row: AblationRow, network: LocalNetwork, data: Instances, learning_rate: float | None, options: dict[str, Any]
) -> TrainingTask:
    from asmk_engine.training.ablation import CONTRASTIVE
    from asmk_engine.training.classification import ClassOptions, ClassTask
    from asmk_engine.training.contrastive import TupleOptions, TupleTask, default_rate
    from asmk_engine.training.local_trainee import LocalTrainee
    from asmk_engine.training.photographs import place_network

    placed = place_network(network, options["device"])
    common = {key: options[key] for key in ("max_side", "precision", "seed")}
    if row.loss == CONTRASTIVE:
        rate = default_rate(row.options.backbone) if learning_rate is None else learning_rate
        counts = {key: options[key] for key in ("pairs", "pool", "negatives")}
        made = TupleOptions(**counts, **common, learning_rate=rate, learn_reduction=row.learn_reduction)
        return TupleTask(LocalTrainee(placed, learn_reduction=row.learn_reduction), data, made)
    if learning_rate is not None:
        common["learning_rate"] = learning_rate
    return ClassTask(LocalTrainee(placed), data, ClassOptions(**common))
