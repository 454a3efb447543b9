"""`asmk-engine train-global`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from asmk_engine.cli.common import PATH, Console, SectionedCommand, json_option, names_of, option_group, quiet_option
from asmk_engine.cli.train import data_options, print_result, run_training, tuple_options
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.training.batch_options import BatchOptions
    from asmk_engine.training.contrastive import TupleOptions
    from asmk_engine.training.global_trainee import TraineeOptions
    from asmk_engine.training.instances import Instances
    from asmk_engine.training.loop_options import LoopOptions
    from asmk_engine.training.loss_defaults import LossDefaults

LOSSES = ("contrastive", "triplet", "triplet-squared", "arcface", "curricularface", "cross-entropy", "ap", "momentum")
_POSITIVE = click.IntRange(min=1)


def number_option(name: str, default: float | None, text: str, kind: Any = float) -> Callable[[Any], Any]:
    """Return an option that takes a number; its default is shown in the help, if there is one."""
    return click.option(name, type=kind, default=default, show_default=default is not None, help=text)


class_options = option_group(
    click.option(
        "--exclude",
        multiple=True,
        type=PATH,
        help="List of classes to leave out, one a line or in the first column of a CSV, as for RGLDv2-clean; may be "
        "repeated.",
    ),
    number_option("--least-images", 1, "Leave out classes of fewer images.", _POSITIVE),
    click.option(
        "--sampling",
        type=click.Choice(["images", "classes"]),
        help="images: every image once in an epoch; classes: every class equally often.  [default: images; of ap "
        "classes]",
    ),
    number_option("--per-class", 4, "Of --sampling classes: images of one class after each other.", _POSITIVE),
    number_option(
        "--epoch-images", None, "Of --sampling classes: images of an epoch.  [default: all there are]", _POSITIVE
    ),
)
network_options = option_group(
    number_option("--dim", None, "Dimensions of the linear layer at the end, if the head is new.", _POSITIVE),
    click.option("--switch", multiple=True, metavar="NAME=VALUE", help="Switch of a new head; may be repeated."),
    click.option(
        "--batch-norm",
        type=click.Choice(["frozen", "batch"]),
        help="Statistics of batch normalisation: those of the weights, or of each step.  [default: batch by classes, "
        "else frozen]",
    ),
    click.option(
        "--freeze",
        multiple=True,
        metavar="PART[@EPOCHS]",
        help="backbone or head, and in which epochs it does not learn, such as head@1-10 or backbone@11-; may be "
        "repeated.",
    ),
    number_option("--head-factor", 1.0, "Learning rate of all but the backbone, as a factor."),
    number_option("--class-factor", 1.0, "Learning rate of the classifier, as a factor."),
    number_option(
        "--exponent-factor", None, "Learning rate of GeM's p, as a factor.  [default: 10 with tuples, else 1]"
    ),
)
loss_options = option_group(
    number_option(
        "--margin", None, "Margin, by classes in radians.  [default: 0.85 contrastive, 0.5 triplet, else 0.15]"
    ),
    number_option("--scale", 30.0, "Scale of the cosines."),
    number_option("--smoothing", 0.0, "Label smoothing."),
    number_option("--bins", 25, "Of ap: number of quantised similarities.", click.IntRange(min=2)),
    number_option("--second-order", 0.0, "Of tuples: weight of the second-order similarity loss, 10 in SOLAR."),
    number_option(
        "--skip",
        None,
        "Of tuples: nearest instances that are not used as negatives.  [default: 10 for --layout photos, else 0]",
        click.IntRange(min=0),
    ),
    number_option(
        "--queue",
        None,
        "Of momentum: number of descriptors that are kept.  [default: 73728, at most the number of images]",
        _POSITIVE,
    ),
    number_option(
        "--momentum-rate", 0.999, "Of momentum: part of its parameters that the second network keeps in a step."
    ),
    number_option("--class-weight", 0.5, "Of momentum: weight of the classification."),
    number_option("--contrast-weight", 0.5, "Of momentum: weight of the contrast with the queue."),
)
decoding_options = (
    number_option(
        "--max-side", 1024, "Shrink images whose longer side exceeds this number of pixels.", click.IntRange(min=16)
    ),
    number_option("--workers", None, "Number of threads that decode images.  [default: all processors]", _POSITIVE),
    click.option(
        "--check",
        type=click.Choice(["all", "files"]),
        default="all",
        show_default=True,
        help="all: decode every image before the first epoch; files: only see that it exists.",
    ),
)
image_options = option_group(
    number_option("--crop", 512, "Side of the crops, in pixels; tuples are not cropped.", click.IntRange(min=16)),
    number_option("--least-area", 0.08, "Smallest area of a crop, as a part of the image."),
    number_option("--aspect", 1.333, "Largest ratio of the sides of a crop before it becomes a square."),
    number_option("--flip", 0.5, "Probability of a mirrored crop."),
    number_option("--colour", 0.0, "Largest change of contrast, saturation, brightness and gains."),
    *decoding_options,
)
step_options = option_group(
    number_option("--epochs", None, "Total number of epochs.  [default: that of the loss]", _POSITIVE),
    number_option(
        "--batch", None, "Images or tuples of a step, of all processes.  [default: that of the loss]", _POSITIVE
    ),
    number_option(
        "--micro-batch", 0, "Images that pass through the network at a time; 0 for all.", click.IntRange(min=0)
    ),
    click.option("--optimizer", type=click.Choice(["adam", "sgd"]), help="[default: adam for tuples and ap, else sgd]"),
    number_option(
        "--learning-rate", None, "Learning rate of the backbone at the beginning.  [default: that of the loss]"
    ),
    number_option("--weight-decay", None, "Weight decay.  [default: that of the loss]"),
    number_option("--momentum", 0.9, "Momentum of sgd."),
    click.option("--nesterov", is_flag=True, help="Nesterov's momentum."),
    click.option(
        "--schedule",
        type=click.Choice(["exponential", "constant", "cosine", "polynomial", "linear"]),
        help="Course of the learning rate.  [default: exponential for tuples, linear for ap, else cosine]",
    ),
    number_option("--decay", 0.99, "Of exponential: factor of the learning rate per epoch."),
    number_option("--power", 0.9, "Of polynomial: its power."),
    number_option("--warm-up", 0.0, "First epochs over which the learning rate rises from a tenth."),
    number_option("--clip", 0.0, "Largest norm of the gradient; 0 for no limit."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Precision of the backbone.",
    ),
    click.option("--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda or cuda:0."),
    number_option("--seed", 0, "Seed of the random choices.", click.IntRange(min=0)),
)
validation_options = option_group(
    click.option("--validate", type=PATH, help="Ground truth for validation; the network of the best mAP is kept."),
    click.option("--validate-images", type=PATH, help="Folder of the validation images."),
    number_option("--validate-side", None, "Longer side of the validation images.  [default: --max-side]", _POSITIVE),
    click.option(
        "--validate-scales", default="", help="Scales of the validation images.  [default: the network's own]"
    ),
    number_option("--every", 1, "Epochs between two validations.", _POSITIVE),
)


class _TrainGlobalCommand(SectionedCommand):
    sections: ClassVar[dict[str, Sequence[str]]] = {
        "Common options": ["network", "weights", "loss", *names_of(data_options)[1:]],
        "Classes": names_of(class_options),
        "Network": names_of(network_options),
        "Loss": [*names_of(loss_options), *names_of(tuple_options)],
        "Images": names_of(image_options),
        "Steps": names_of(step_options),
        "Validation": names_of(validation_options),
    }


@click.command("train-global", cls=_TrainGlobalCommand)
@data_options
@click.option(
    "--network", required=True, help="Network to train, such as gem, solar or cvnet; an unknown name lists all."
)
@click.option(
    "--weights", type=PATH, required=True, help="ImageNet weights of a backbone, or a network to train further."
)
@click.option(
    "--loss", type=click.Choice(LOSSES), required=True, help="Loss; each comes with the settings of its paper."
)
@class_options
@network_options
@loss_options
@tuple_options
@image_options
@step_options
@validation_options
@json_option
@quiet_option
def train_global(data: Path, output: Path, weights: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Train a network of global descriptors.

    DATA is a folder with one folder of images per class, a CSV with the header image,instance, train.csv or
    train_clean.csv of Google Landmarks v2 next to its tree train/a/b/c/ID.jpg, a text file with an image and its class
    on each line as that of NC-clean, or the pickle of SfM-120k. Contrastive and triplet losses train on tuples with
    mined negatives, the others on random crops.

    The output folder gets best.safetensors and last.safetensors, networks for `--extractor NETWORK --weights`, and
    log.jsonl and curves.png. The same command resumes an interrupted run. Under torchrun the processes share the steps.

    \b
    Examples:
      asmk-engine train-global landmarks/ --network gem --weights resnet50.pth --loss arcface -o run
      asmk-engine train-global train_clean.csv --network cvnet --weights resnet50.pth --loss momentum -o run \\
          --exclude overlap.txt --validate gnd_roxford5k.pkl --validate-images jpg --precision bf16
      asmk-engine train-global retrieval-SfM-120k.pkl --images ims --network solar --weights gem.pth -o run \\
          --loss triplet-squared --margin 1.25 --second-order 10 --freeze backbone
      torchrun --nproc-per-node 8 -m asmk_engine train-global train_clean.csv --network dolg --weights resnet50.pth \\
          --loss curricularface -o run --warm-up 5 --crop 512
    """
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.global_networks import open_network
    from asmk_engine.training.global_tasks import make_task
    from asmk_engine.training.global_trainee import GlobalTrainee
    from asmk_engine.training.loss_defaults import DEFAULTS
    from asmk_engine.training.photographs import place_network
    from asmk_engine.training.processes import join_processes

    usual = DEFAULTS[options["loss"]]
    loop, trainee_options = _loop(options, usual), _trainee(options, usual)
    found = _classes_of(data, options)
    made = _tuples(options, usual) if options["loss"] in LOSSES[:3] else _batches(options, usual, len(found))
    network, origin = open_network(weights, _start(options))
    processes, options["device"] = join_processes(options["device"])
    trainee = GlobalTrainee(place_network(network, options["device"]), options["network"], trainee_options)
    task = make_task(trainee, found, made, processes)
    console = Console(quiet or not processes.is_first)
    result = run_training(output, task, found, loop, origin, file_sha256(weights), options, console, processes)
    if processes.is_first:
        print_result(result, as_json)


def _classes_of(data: Path, options: dict[str, Any]) -> Instances:
    from asmk_engine.training.class_selection import read_class_list, with_images, without_classes
    from asmk_engine.training.instance_layouts import read_instances

    found = read_instances(data, options["layout"], options["images"], options["background"])
    for path in options["exclude"]:
        found = without_classes(found, read_class_list(path), path)
    return with_images(found, options["least_images"]) if options["least_images"] > 1 else found


def _start(options: dict[str, Any]) -> Any:
    from asmk_engine.training.global_networks import StartOptions

    switches = dict(_switch(text) for text in options["switch"])
    return StartOptions(options["network"], options["dim"] or 0, switches, options["seed"])


def _switch(text: str) -> tuple[str, Any]:
    """Return name and value of a switch: a JSON value, or else a word."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InputError(f"--switch {text!r}: expected NAME=VALUE, such as multi_atrous=true")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _or(value: Any, usual: Any) -> Any:
    return usual if value is None else value


def _trainee(options: dict[str, Any], usual: LossDefaults) -> TraineeOptions:
    from asmk_engine.training.freezing import check_freezes, parse_freeze
    from asmk_engine.training.global_trainee import TraineeOptions

    freezes = tuple(parse_freeze(text) for text in options["freeze"])
    check_freezes(freezes, _or(options["epochs"], usual.epochs))
    return TraineeOptions(
        options["head_factor"],
        _or(options["exponent_factor"], usual.exponent_factor),
        _or(options["batch_norm"], usual.batch_norm),
        freezes,
    )


def _loop(options: dict[str, Any], usual: LossDefaults) -> LoopOptions:
    from asmk_engine.training.loop_options import LoopOptions

    given = {name: _or(options[name], getattr(usual, name)) for name in ("epochs", "optimizer", "schedule")}
    given |= {name: options[name] for name in ("decay", "every", "precision", "nesterov", "power", "warm_up", "clip")}
    decay = _or(options["weight_decay"], usual.weight_decay)
    return LoopOptions(**given, momentum=options["momentum"], weight_decay=decay, batch_size=_batch(options, usual))


def _batch(options: dict[str, Any], usual: LossDefaults) -> int:
    return int(_or(options["batch"], usual.batch))


def _tuples(options: dict[str, Any], usual: LossDefaults) -> TupleOptions:
    from asmk_engine.training.contrastive import TupleOptions

    if options["micro_batch"]:
        raise InputError("--micro-batch with tuples: their images pass through the network one by one; leave it out")
    names = ("pairs", "pool", "negatives", "max_side", "precision", "seed", "loss", "second_order")
    unlabelled = options["layout"] == "photos"
    return TupleOptions(
        **{name: options[name] for name in names},
        skip=_or(options["skip"], 10 * unlabelled),
        margin=_or(options["margin"], usual.margin),
        augmented_pairs=float(unlabelled),
        learning_rate=_or(options["learning_rate"], usual.learning_rate),
    )


def _batches(options: dict[str, Any], usual: LossDefaults, images: int) -> BatchOptions:
    from asmk_engine.training.batch_options import BatchOptions, MomentumOptions
    from asmk_engine.training.crops import CropOptions

    if options["second_order"]:
        raise InputError(f"--second-order with {options['loss']}: it is computed from tuples; take a triplet loss")
    names = ("micro_batch", "scale", "smoothing", "bins", "per_class", "class_factor", "max_side", "precision", "seed")
    crop = CropOptions(options["crop"], *(options[name] for name in ("least_area", "aspect", "flip", "colour")))
    weights = (options["class_weight"], options["contrast_weight"])
    queue = _or(options["queue"], max(1, min(MomentumOptions.queue, images)))
    return BatchOptions(
        **{name: options[name] for name in names},
        loss=options["loss"],
        batch_size=_batch(options, usual),
        margin=_or(options["margin"], usual.margin),
        sampling=_or(options["sampling"], usual.sampling),
        images=options["epoch_images"] or 0,
        learning_rate=_or(options["learning_rate"], usual.learning_rate),
        crop=crop,
        contrast=MomentumOptions(queue, options["momentum_rate"], *weights),
    )
