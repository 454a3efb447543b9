"""`asmk-engine train-how` and `asmk-engine train-delf`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, RenamedOption, json_option, option_group, quiet_option
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.training.instances import Instances
    from asmk_engine.training.loop import LoopOptions, TrainingResult
    from asmk_engine.training.task import TrainingTask
    from asmk_engine.training.validation import Validation

data_options = option_group(
    click.argument("data", type=PATH),
    click.option("-o", "--output", type=PATH, required=True, help="The folder of the run; made, or resumed."),
    click.option(
        "--layout",
        type=click.Choice(["auto", "folders", "csv", "photos", "sfm120k"]),
        default="auto",
        help="How DATA says what shows the same.  [default: by its kind]",
    ),
    click.option("--images", type=PATH, help="Folder of the photographs that a table or SfM-120k's pickle names."),
    click.option(
        "--background", multiple=True, type=PATH, help="Folder of photographs that show no instance; may be repeated."
    ),
)

run_options = option_group(
    click.option("--decay", type=float, default=0.99, show_default=True, help="Factor of the learning rate per epoch."),
    click.option("--weight-decay", type=float, default=1e-4, show_default=True, help="Of Adam."),
    click.option(
        "--max-side",
        type=click.IntRange(min=16),
        default=1024,
        show_default=True,
        help="Shrink photographs to N pixels.",
    ),
    click.option("--validate", type=PATH, help="A ground truth; the network of the best ASMK mAP is kept."),
    click.option("--validate-images", type=PATH, help="The folder of its photographs."),
    click.option("--validate-side", type=click.IntRange(min=16), help="Their longer side.  [default: --max-side]"),
    click.option(
        "--validate-scales",
        default="2,1.414,1,0.707,0.5,0.353,0.25",
        show_default=True,
        help="Scales they are described at; fewer are faster.",
    ),
    click.option(
        "--every", type=click.IntRange(min=1), default=5, show_default=True, help="Epochs between two validations."
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Of convolutions.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:0."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random."),
    json_option,
    quiet_option,
)


@click.command("train-how")
@data_options
@click.option("--weights", type=PATH, required=True, help="The network to begin with, .safetensors.")
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True, help="In all.")
@click.option("--pairs", type=click.IntRange(min=1), default=2000, show_default=True, help="Tuples of an epoch.")
@click.option(
    "--pool", type=click.IntRange(min=1), default=20000, show_default=True, help="Photographs that negatives are among."
)
@click.option("--negatives", type=click.IntRange(min=1), default=5, show_default=True, help="Of a tuple.")
@click.option("--tuples", type=click.IntRange(min=1), default=5, show_default=True, help="Tuples of a step.")
@click.option("--margin", type=float, default=0.8, show_default=True, help="Distance that negatives are pushed to.")
@click.option(
    "--augmented-pairs",
    cls=RenamedOption,
    earlier="--self-made",
    type=click.FloatRange(0, 1),
    help="Part of the pairs that are two random views of one photograph.  [default: 1 for --layout photos, else 0]",
)
@click.option(
    "--skip",
    type=click.IntRange(min=0),
    help="Nearest instances that are no negatives, as they may show it.  [default: 10 for --layout photos, else 0]",
)
@click.option(
    "--learning-rate",
    type=float,
    help="Of the first epoch.  [default: of HOW's code: 5e-6; 1e-6 for ResNet-50 and 101, where the paper has 1e-5]",
)
@run_options
def train_how(
    data: Path,
    output: Path,
    weights: Path,
    layout: str,
    images: Path | None,
    background: tuple[Path, ...],
    augmented_pairs: float | None,
    skip: int | None,
    learning_rate: float | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network on DATA as HOW was: tuples of anchor, positive and hard negatives, contrastive loss.

    DATA is a folder with one folder of photographs for each instance, a CSV with the header image,instance or
    image,instance,group, the pickle of SfM-120k, or, with --layout photos, any folder of photographs, which then are
    compared with views of themselves. Photographs of one group are never negatives of each other.

    The folder gets best.safetensors and last.safetensors, networks for `--extractor how --weights`, besides log.jsonl
    and curves.png. The same command goes on with a run that was stopped; more --epochs prolong it.

    \b
    Examples:
      asmk-engine train-how instances/ --weights whitened.safetensors -o run
      asmk-engine train-how photos/ --layout photos --weights whitened.safetensors -o run --max-side 512
    """
    from asmk_engine.networks.checkpoints import open_checkpoint
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.contrastive import TupleOptions, TupleTask, default_rate
    from asmk_engine.training.instance_layouts import read_instances
    from asmk_engine.training.photographs import place_network

    found = read_instances(data, layout, images, background)
    network, origin = open_checkpoint(weights)
    unlabelled = layout == "photos"
    made = TupleOptions(
        options["pairs"],
        options["pool"],
        options["negatives"],
        options["margin"],
        options["max_side"],
        augmented_pairs=float(unlabelled) if augmented_pairs is None else augmented_pairs,
        skip=10 * unlabelled if skip is None else skip,
        learning_rate=default_rate(network.options.backbone) if learning_rate is None else learning_rate,
        precision=options["precision"],
        seed=options["seed"],
    )
    task = TupleTask(place_network(network, options["device"]), found, made)
    loop = _loop(options, options["epochs"], options["tuples"])
    outcome = _run(output, task, found, loop, origin, file_sha256(weights), options, Console(quiet))
    _print(outcome, as_json)


@click.command("train-delf")
@data_options
@click.option(
    "--weights", type=PATH, required=True, help="ImageNet weights of the backbone, or a network, .safetensors."
)
@click.option(
    "--backbone",
    cls=RenamedOption,
    earlier="--trunk",
    help="What ImageNet weights are of, such as resnet18; a network says so itself.",
)
@click.option(
    "--backbone-skip",
    cls=RenamedOption,
    earlier="--trunk-skip",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Last parts it is without.",
)
@click.option("--dim", type=click.IntRange(min=1), default=128, show_default=True, help="Of the reduced descriptors.")
@click.option("--smoothing", type=int, default=1, show_default=True, help="Side of the average pooling; 1 is none.")
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="In all.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Photographs of a step.")
@click.option(
    "--learning-rate", type=float, default=1e-5, show_default=True, help="Of the backbone, in the first epoch."
)
@click.option("--head-rate", type=float, default=1e-3, show_default=True, help="Of attention and classifier.")
@click.option(
    "--freeze-backbone",
    cls=RenamedOption,
    earlier="--freeze-trunk",
    is_flag=True,
    help="Let only attention and classifier learn.",
)
@click.option("--augment", is_flag=True, help="Look at a random view of each photograph.")
@run_options
def train_delf(
    data: Path,
    output: Path,
    weights: Path,
    layout: str,
    images: Path | None,
    background: tuple[Path, ...],
    backbone: str | None,
    backbone_skip: int,
    dim: int,
    smoothing: int,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network on DATA as DELF was: attention and backbone learn to tell the instances apart, by cross-entropy.

    DATA is as for `train-how`. The reduction to --dim dimensions is learned from the photographs at the end of each
    epoch. The folder gets the files that `train-how` writes; its networks are for `--extractor delf --weights`.

    \b
    Example:
      asmk-engine train-delf instances/ --weights resnet18-f37072fd.pth --backbone resnet18 -o run
    """
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.classification import ClassOptions, ClassTask, delf_network
    from asmk_engine.training.instance_layouts import read_instances
    from asmk_engine.training.photographs import place_network

    found = read_instances(data, layout, images, background)
    network, origin = delf_network(weights, backbone, backbone_skip, dim, options["seed"], smoothing)
    chosen = ("max_side", "learning_rate", "head_rate", "freeze_backbone", "augment", "precision", "seed")
    made = ClassOptions(**{key: options[key] for key in chosen})
    task = ClassTask(place_network(network, options["device"]), found, made)
    loop = _loop(options, options["epochs"], options["batch"])
    outcome = _run(output, task, found, loop, origin, file_sha256(weights), options, Console(quiet))
    _print(outcome, as_json)


def _loop(options: dict[str, Any], epochs: int, items: int) -> LoopOptions:
    from asmk_engine.training.loop import LoopOptions

    return LoopOptions(epochs, items, options["decay"], options["weight_decay"], options["every"], options["precision"])


def _run(
    output: Path,
    task: TrainingTask,
    data: Instances,
    loop: LoopOptions,
    origin: dict[str, Any],
    start: str,
    options: dict[str, Any],
    console: Console,
) -> TrainingResult:
    from asmk_engine.training.loop import TrainingRun
    from asmk_engine.training.photographs import check_photographs

    console.say(f"{len(data)} photographs, {data.count} instances")
    validation = _validation(options)
    if validation and (shared := validation.shared(data.images)):
        console.say(f"{shared} photographs of the validation are trained with too; its mAP will flatter the network")
    run = TrainingRun(output, task, loop, origin, start, validation, console)

    def check() -> None:
        with console.bar("check the photographs", "images") as progress:
            check_photographs(data.images, task.max_side, task.network.backbone.least_side, progress)

    return run.run(check)


def _validation(options: dict[str, Any]) -> Validation | None:
    from asmk_engine.training.validation import Validation, ValidationOptions

    if options["validate"] is None:
        return None
    if options["validate_images"] is None:
        raise InputError(f"{options['validate']}: give the folder of its photographs with --validate-images")
    side = options["validate_side"] or options["max_side"]
    chosen = ValidationOptions(side, scales=_scales(options["validate_scales"]), precision=options["precision"])
    return Validation(options["validate"], options["validate_images"], chosen, options["device"])


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--validate-scales {text!r}: expected numbers such as 1,0.707,0.5") from None


def _print(outcome: TrainingResult, as_json: bool) -> None:
    if as_json:
        content = {"kind": "training", "best": str(outcome.best), "last": str(outcome.last)}
        click.echo(json.dumps({**content, "score": outcome.score, "epoch": outcome.epoch}))
        return
    told = f"mAP {100 * outcome.score:.2f}, " if outcome.score is not None else ""
    click.echo(f"{outcome.best}  ({told}epoch {outcome.epoch})")
