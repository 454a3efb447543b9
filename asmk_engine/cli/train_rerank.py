"""`asmk-engine train-rerank`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from asmk_engine.cli.common import (
    PATH,
    Console,
    SectionedCommand,
    json_option,
    names_of,
    option_group,
    parse_numbers,
    quiet_option,
)
from asmk_engine.cli.train import (
    classes_or_matches,
    data_options,
    is_validated,
    pair_validation_options,
    print_result,
    run_training,
    verified_option,
)
from asmk_engine.cli.train_global import decoding_options
from asmk_engine.cli.train_global import number_option as _number
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.training.global_describer import GlobalDescriber
    from asmk_engine.training.instances import Instances
    from asmk_engine.training.loop_options import LoopOptions
    from asmk_engine.training.pair_validation import PairValidation
    from asmk_engine.training.rerank_task import RerankTaskOptions
    from asmk_engine.training.rerank_trainee import RerankTrainee

NEGATIVES = "negatives"
"""Folder in that of a run with the descriptors that choose hard negatives, until the last epoch is over."""
_POSITIVE = click.IntRange(min=1)


def _ends(name: str, default: str, text: str) -> Any:
    return click.option(
        name,
        default=default,
        show_default=True,
        metavar="FIRST,LAST",
        callback=lambda c, p, v: _pair(name, v),
        help=text,
    )


def _pair(name: str, text: str) -> tuple[float, float]:
    found = parse_numbers(text) or ()
    if len(found) != 2:
        raise InputError(f"{name} is {text!r}; expected two numbers such as 0.2,1")
    return found[0], found[1]


network_options = option_group(
    _number("--width", 256, "Channels of a level of the pyramid, of a network that is not complete.", _POSITIVE),
    _number("--levels", 3, "Levels of the pyramid, likewise; 1 compares at one scale only.", click.IntRange(1, 5)),
)
pair_options = option_group(
    verified_option,
    _number(
        "--triplets", None, "Query, positive and negative: number in an epoch.  [default: one an image]", _POSITIVE
    ),
    _ends("--hard", "0.2,1", "Fraction of hard negatives in the first epoch and in the last, rising linearly."),
    _number("--hardest", 10, "A hard negative is one of so many most similar images of other classes.", _POSITIVE),
    click.option(
        "--global-weights",
        type=PATH,
        help="Global network whose descriptors choose hard negatives.  [default: that in --weights if it is a trained "
        "one, else GeM of the feature map]",
    ),
    _ends("--hidden", "0,0.2", "Probability that a place of a feature map is hidden, in the first and the last epoch."),
)
image_options = option_group(
    _number("--crop", 512, "Side of the crops, in pixels.", click.IntRange(min=16)),
    _number("--least-area", 0.08, "Smallest area of a crop, as a part of the image."),
    _number("--aspect", 1.333, "Largest ratio of the sides of a crop before it becomes a square."),
    _number("--flip", 0.0, "Probability of a mirrored crop."),
    *decoding_options,
)
step_options = option_group(
    _number("--epochs", 200, "Total number of epochs.", _POSITIVE),
    _number(
        "--batch", 96, "Triplets of a step, of all processes; they pass through the network one by one.", _POSITIVE
    ),
    _number("--learning-rate", 0.00375, "Learning rate at the beginning; it follows a cosine."),
    _number("--weight-decay", 1e-4, "Weight decay."),
    _number("--momentum", 0.9, "Momentum."),
    _number("--clip", 0.0, "Largest norm of the gradient; 0 for no limit."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Precision of the convolutions.",
    ),
    click.option("--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda or cuda:0."),
    _number("--seed", 0, "Seed of the random choices, and of layers that the weights lack.", click.IntRange(min=0)),
)


validation_options = option_group(
    *pair_validation_options,
    click.option("--validate-images", type=PATH, help="Folder of the validation images."),
)


class _TrainRerankCommand(SectionedCommand):
    sections: ClassVar[dict[str, Sequence[str]]] = {
        "Common options": ["weights", *names_of(data_options)[1:]],
        "Pairs": names_of(pair_options),
        "Network": names_of(network_options),
        "Images": names_of(image_options),
        "Steps": names_of(step_options),
        "Validation": names_of(validation_options),
    }


@click.command("train-rerank", cls=_TrainRerankCommand)
@data_options
@click.option(
    "--weights",
    type=PATH,
    required=True,
    help="Global network or ImageNet weights, whose ResNet or SqueezeNet gives the feature maps and does not learn; or "
    "a re-ranking network to train further.",
)
@pair_options
@network_options
@image_options
@step_options
@validation_options
@json_option
@quiet_option
def train_rerank(data: Path, output: Path, weights: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Train the network of `--reranker cvnet`, CVNet-Rerank.

    It learns which pairs show the same thing, on triplets of a query, a positive and a negative, which become harder
    from epoch to epoch. DATA is as for `train-global`: a folder with one folder of images per class, a table, or a
    list; with --verified also, with --layout photos, any folder of images. Hard negatives are the nearest images of
    other classes by descriptors of the global network in --weights.

    The output folder gets best.safetensors and last.safetensors, networks for --reranker-weights, and log.jsonl and
    curves.png; best is the epoch of the lowest loss, with --validate of the best mAP after re-ranking. The same command
    resumes an interrupted run. Under torchrun the processes share the steps.

    \b
    Examples:
      asmk-engine train-rerank landmarks/ --weights run/best.safetensors -o rerank
      asmk-engine groups photos.index -o groups/
      asmk-engine train-rerank photos/ --layout photos --verified groups/ --weights squeezenet1.1.npz -o rerank \\
          --crop 256 --width 64 --batch 8 --epochs 10
    """
    from asmk_engine.networks.reranking.checkpoints import start_rerank_network
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.kept_descriptors import KeptDescriptors
    from asmk_engine.training.photographs import place_network
    from asmk_engine.training.processes import join_processes
    from asmk_engine.training.rerank_task import RerankTask
    from asmk_engine.training.rerank_trainee import RerankTrainee

    found = classes_or_matches(data, options)
    network, origin = start_rerank_network(weights, options["seed"], width=options["width"], levels=options["levels"])
    processes, options["device"] = join_processes(options["device"])
    console, start = Console(quiet or not processes.is_first), file_sha256(weights)
    trainee = RerankTrainee(place_network(network, options["device"]), _describer(weights, options, console))
    kept = KeptDescriptors(output / NEGATIVES, start)
    given = {**options, "validate": None}
    task = RerankTask(trainee, found, _task_options(options), processes, kept)
    validation = _validation(options, trainee, found, console)
    result = run_training(output, task, found, _loop(options), origin, start, given, console, processes, validation)
    kept.discard(processes)
    if processes.is_first:
        print_result(result, as_json)


def _describer(weights: Path, options: dict[str, Any], console: Console) -> GlobalDescriber | None:
    """Return what chooses hard negatives; None for GeM of the feature map."""
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.global_describer import GlobalDescriber, trained_global_network

    path = options["global_weights"] or weights
    network = trained_global_network(path)
    if network is None and options["global_weights"]:
        raise InputError(f"{path}: holds no trained global network; give one, as `asmk-engine train-global` makes them")
    if network is None:
        console.say("hard negatives are chosen by GeM of the feature map")
        return None
    found = GlobalDescriber(network, options["device"], file_sha256(path))
    console.say(f"hard negatives are chosen by the descriptors of {path} ({found.described()['network']})")
    return found


def _validation(
    options: dict[str, Any], trainee: RerankTrainee, data: Instances, console: Console
) -> PairValidation | None:
    from asmk_engine.training.pair_validation import PhotographPairs, photograph_validation
    from asmk_engine.training.validation_images import ValidationImages

    if not is_validated(options, "validate_images"):
        return None
    if options["validate_images"] is None:
        raise InputError(f"{options['validate']}: give the folder of its images with --validate-images")
    images = ValidationImages(options["validate"], options["validate_images"])
    if shared := images.shared(data.images):
        console.say(f"{shared} validation images are also training images; the validation mAP will be too high")
    how = PhotographPairs(options["max_side"], options["validate_rerank"], options["precision"], options["device"])
    return photograph_validation(images, trainee, how)


def _task_options(options: dict[str, Any]) -> RerankTaskOptions:
    from asmk_engine.training.crops import CropOptions
    from asmk_engine.training.rerank_task import RerankTaskOptions

    names = ("epochs", "hard", "hidden", "hardest", "max_side", "learning_rate", "precision", "seed")
    crop = CropOptions(*(options[name] for name in ("crop", "least_area", "aspect", "flip")))
    return RerankTaskOptions(**{name: options[name] for name in names}, pairs=options["triplets"] or 0, crop=crop)


def _loop(options: dict[str, Any]) -> LoopOptions:
    from asmk_engine.training.loop_options import LoopOptions

    names = ("epochs", "weight_decay", "precision", "momentum", "clip")
    given = {name: options[name] for name in names}
    return LoopOptions(batch_size=options["batch"], every=options["every"], optimizer="sgd", schedule="cosine", **given)
