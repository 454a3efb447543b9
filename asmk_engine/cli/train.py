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
    from asmk_engine.training.loop import TrainingResult
    from asmk_engine.training.loop_options import LoopOptions
    from asmk_engine.training.processes import Processes
    from asmk_engine.training.task import EpochValidation, TrainingTask
    from asmk_engine.training.validation import Validation

data_options = option_group(
    click.argument("data", type=PATH),
    click.option("-o", "--output", type=PATH, required=True, help="Folder of the run to start or resume."),
    click.option(
        "--layout",
        type=click.Choice(["auto", "folders", "csv", "photos", "sfm120k", "gldv2", "list"]),
        default="auto",
        help="Layout of DATA.  [default: auto, which detects all but photos]",
    ),
    click.option("--images", type=PATH, help="Folder of the images named in a CSV or in the pickle of SfM-120k."),
    click.option(
        "--background", multiple=True, type=PATH, help="Folder of images that show no instance; may be repeated."
    ),
)

verified_option = click.option(
    "--verified",
    type=PATH,
    help="Verified matches, the only positives then: the folder of `groups`, its groups.json or groups.csv; or a list "
    "of pairs, as `pairs --verified` writes it, or of Google Landmarks v2.  [default: any two images of a class]",
)

pair_validation_options = (
    click.option("--validate", type=PATH, help="Ground truth for validation; the network of the best mAP is kept."),
    click.option(
        "--validate-rerank",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="Images of each ranking, from the first, that the network ranks anew in a validation.",
    ),
    click.option(
        "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Epochs between two validations."
    ),
)

run_options = option_group(
    click.option("--decay", type=float, default=0.99, show_default=True, help="Factor of the learning rate per epoch."),
    click.option("--weight-decay", type=float, default=1e-4, show_default=True, help="Weight decay of Adam."),
    click.option(
        "--max-side",
        type=click.IntRange(min=16),
        default=1024,
        show_default=True,
        help="Shrink training images whose longer side exceeds this number of pixels.",
    ),
    click.option(
        "--validate", type=PATH, help="Ground truth for validation; the network with the best ASMK mAP is kept."
    ),
    click.option("--validate-images", type=PATH, help="Folder of the validation images."),
    click.option(
        "--validate-side",
        type=click.IntRange(min=16),
        help="Maximum longer side of the validation images, in pixels.  [default: --max-side]",
    ),
    click.option(
        "--validate-scales",
        default="2,1.414,1,0.707,0.5,0.353,0.25",
        show_default=True,
        help="Scales of the validation images; fewer are faster.",
    ),
    click.option(
        "--validate-codebook-images",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Learn the codebook of the validation from this number of training images, 20000 in HOW's paper, and not "
        "from the validation images.",
    ),
    click.option(
        "--validate-global",
        is_flag=True,
        help="Also validate HOW's multi-scale global descriptor, as in Fig. 5 of its paper; takes twice as long.",
    ),
    click.option(
        "--every", type=click.IntRange(min=1), default=5, show_default=True, help="Epochs between two validations."
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Precision of the convolutions.",
    ),
    click.option("--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda or cuda:0."),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random choices."
    ),
    json_option,
    quiet_option,
)

tuple_options = option_group(
    click.option(
        "--pairs", type=click.IntRange(min=1), default=2000, show_default=True, help="Number of tuples per epoch."
    ),
    click.option(
        "--pool",
        type=click.IntRange(min=1),
        default=20000,
        show_default=True,
        help="Number of images among which hard negatives are mined in each epoch.",
    ),
    click.option(
        "--negatives", type=click.IntRange(min=1), default=5, show_default=True, help="Number of negatives per tuple."
    ),
)

backbone_skip_option = click.option(
    "--backbone-skip",
    cls=RenamedOption,
    earlier="--trunk-skip",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of final backbone stages (ResNet) or layers (SqueezeNet) to leave out.",
)


@click.command("train-how")
@data_options
@click.option("--weights", type=PATH, required=True, help="Network to start from, .safetensors.")
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True, help="Total number of epochs.")
@tuple_options
@click.option("--tuples", type=click.IntRange(min=1), default=5, show_default=True, help="Number of tuples per step.")
@click.option(
    "--margin", type=float, default=0.8, show_default=True, help="Distance beyond which negatives have no loss."
)
@click.option(
    "--augmented-pairs",
    cls=RenamedOption,
    earlier="--self-made",
    type=click.FloatRange(0, 1),
    help="Fraction of pairs that are two random views of one image.  [default: 1 for --layout photos, else 0]",
)
@click.option(
    "--skip",
    type=click.IntRange(min=0),
    help="Number of nearest instances not used as negatives, since they may show the same object.  [default: 10 for "
    "--layout photos, else 0]",
)
@click.option(
    "--learning-rate",
    type=float,
    help="Learning rate of Adam in the first epoch.  [default: that of HOW's code, 5e-6, or 1e-6 for ResNet-50 and "
    "ResNet-101, where the paper has 1e-5]",
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
    """Train a HOW network with tuples and hard negatives.

    The contrastive loss compares tuples of an anchor, a positive and hard negatives. DATA is a folder with one folder
    of images per instance, a CSV with the header image,instance or image,instance,group, the pickle of SfM-120k, or,
    with --layout photos, any folder of images, which are then compared with views of themselves. Images of one group
    are never negatives of each other.

    The output folder gets best.safetensors and last.safetensors, networks for `--extractor how --weights`, and
    log.jsonl and curves.png. The same command resumes an interrupted run; a larger --epochs extends it.

    \b
    Examples:
      asmk-engine train-how instances/ --weights whitened.safetensors -o run
      asmk-engine train-how photos/ --layout photos --weights whitened.safetensors -o run --max-side 512
    """
    from asmk_engine.networks.checkpoints import open_checkpoint
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.contrastive import TupleOptions, TupleTask, default_rate
    from asmk_engine.training.instance_layouts import read_instances
    from asmk_engine.training.local_trainee import LocalTrainee
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
    task = TupleTask(LocalTrainee(place_network(network, options["device"])), found, made)
    loop = loop_options(options, options["epochs"], options["tuples"])
    result = run_training(output, task, found, loop, origin, file_sha256(weights), options, Console(quiet))
    print_result(result, as_json)


@click.command("train-delf")
@data_options
@click.option(
    "--weights", type=PATH, required=True, help="ImageNet weights of the backbone, or a network file, .safetensors."
)
@click.option(
    "--backbone",
    cls=RenamedOption,
    earlier="--trunk",
    help="Backbone of the ImageNet weights, such as resnet18; not needed for a network file.",
)
@backbone_skip_option
@click.option(
    "--dim", type=click.IntRange(min=1), default=128, show_default=True, help="Dimensions of the reduced descriptors."
)
@click.option(
    "--smoothing",
    type=int,
    default=1,
    show_default=True,
    help="Window size of the average pooling of the feature map; 1 for none.",
)
@click.option(
    "--reduction",
    type=click.Choice(["post", "post-whitening"]),
    default="post",
    show_default=True,
    help="PCA of unit vectors that reduces the descriptors, learned at the end of each epoch. post: a rotation (DELF). "
    "post-whitening: with whitening (the post-reduction of HOW's paper).",
)
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Total number of epochs.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Number of images per step.")
@click.option(
    "--learning-rate",
    type=float,
    default=1e-5,
    show_default=True,
    help="Learning rate of the backbone in the first epoch.",
)
@click.option(
    "--head-rate",
    type=float,
    default=1e-3,
    show_default=True,
    help="Learning rate of attention and classifier in the first epoch.",
)
@click.option(
    "--freeze-backbone",
    cls=RenamedOption,
    earlier="--freeze-trunk",
    is_flag=True,
    help="Train only attention and classifier.",
)
@click.option("--augment", is_flag=True, help="Train on a random view of each image.")
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
    reduction: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a DELF network by classification of instances.

    Attention and backbone are trained with cross-entropy. DATA is as for `train-how`. The reduction to --dim dimensions
    is learned from the images at the end of each epoch. The output folder gets the same files as that of `train-how`;
    the networks are for `--extractor delf --weights`.

    \b
    Example:
      asmk-engine train-delf instances/ --weights resnet18-f37072fd.pth --backbone resnet18 -o run
    """
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.classification import ClassOptions, ClassTask, delf_network
    from asmk_engine.training.instance_layouts import read_instances
    from asmk_engine.training.local_trainee import LocalTrainee
    from asmk_engine.training.photographs import place_network

    found = read_instances(data, layout, images, background)
    network, origin = delf_network(weights, backbone, backbone_skip, dim, options["seed"], smoothing, reduction)
    chosen = ("max_side", "learning_rate", "head_rate", "freeze_backbone", "augment", "precision", "seed")
    made = ClassOptions(**{key: options[key] for key in chosen})
    task = ClassTask(LocalTrainee(place_network(network, options["device"])), found, made)
    loop = loop_options(options, options["epochs"], options["batch"])
    result = run_training(output, task, found, loop, origin, file_sha256(weights), options, Console(quiet))
    print_result(result, as_json)


def classes_or_matches(data: Path, options: dict[str, Any]) -> Instances:
    """Return the data of a command with `verified_option`."""
    from asmk_engine.training.instance_layouts import read_instances
    from asmk_engine.training.verified_pairs import with_verified_pairs

    found = read_instances(data, options["layout"], options["images"], options["background"])
    if options["verified"]:
        return with_verified_pairs(found, options["verified"])
    if options["layout"] == "photos":
        raise InputError("--layout photos has no classes: give the images that show the same thing with --verified")
    return found


def is_validated(options: dict[str, Any], *needs: str) -> bool:
    """Return whether a command with `pair_validation_options` validates; raises InputError for options without it.

    needs  names of its options that are of use only then
    """
    given = [name for name in needs if options[name] is not None]
    if options["validate"] is None and given:
        raise InputError(f"--{given[0].replace('_', '-')} without --validate; give the ground truth")
    return options["validate"] is not None


def loop_options(options: dict[str, Any], epochs: int, items: int) -> LoopOptions:
    """Return the options of the training loop that a command was given."""
    from asmk_engine.training.loop_options import LoopOptions

    return LoopOptions(epochs, items, options["decay"], options["weight_decay"], options["every"], options["precision"])


def run_training(
    output: Path,
    task: TrainingTask,
    data: Instances,
    loop: LoopOptions,
    origin: dict[str, Any],
    start: str,
    options: dict[str, Any],
    console: Console,
    processes: Processes | None = None,
    pairs: EpochValidation | None = None,
) -> TrainingResult:
    """Start or resume a training, with its validation and a check of its images first.

    options  of the command; those that it does not have are off
    pairs    the validation of a network that compares pairs, whose options are not those of `validate`
    """
    from asmk_engine.training.loop import TrainingRun
    from asmk_engine.training.photographs import check_photographs

    console.say(f"{len(data)} images, {data.count} instances")
    validation = None if pairs else _validation(options, data, task.trainee.extractor)
    if validation and (shared := validation.shared(data.images)):
        console.say(f"{shared} validation images are also training images; the validation mAP will be too high")
    run = TrainingRun(
        output,
        task,
        loop,
        origin,
        start,
        pairs or validation,
        console,
        processes=processes,
        workers=options.get("workers"),
    )

    def check() -> None:
        with console.bar("check", "images") as progress:
            check_photographs(data.images, task.max_side, task.least_side, progress)

    return run.run(None if options.get("check") == "files" else check)


def _validation(options: dict[str, Any], data: Instances, extractor: str) -> Validation | None:
    from asmk_engine.training.validation import Validation, ValidationOptions

    if options["validate"] is None:
        names = ("images", "side", "codebook_images", "global")
        if unused := [name for name in names if options.get(f"validate_{name}")]:
            raise InputError(f"--validate-{unused[0].replace('_', '-')} without --validate; give the ground truth")
        return None
    if options.get("validate_global") and extractor != "how":
        raise InputError(
            "--validate-global with learned attention: the global descriptor of HOW is that of a network whose "
            "attention is the norm; leave the option out"
        )
    if options["validate_images"] is None:
        raise InputError(f"{options['validate']}: give the folder of its images with --validate-images")
    side = options["validate_side"] or options["max_side"]
    chosen = ValidationOptions(
        side,
        scales=_scales(options["validate_scales"]),
        precision=options["precision"],
        codebook_images=options.get("validate_codebook_images", 0),
        with_global=options.get("validate_global", False),
    )
    return Validation(options["validate"], options["validate_images"], chosen, options["device"], data.images)


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--validate-scales {text!r}: expected numbers such as 1,0.707,0.5") from None


def print_result(result: TrainingResult, as_json: bool) -> None:
    """Print where the best network is, or one JSON object."""
    if as_json:
        content = {"kind": "training", "best": str(result.best), "last": str(result.last)}
        click.echo(json.dumps({**content, "score": result.score, "epoch": result.epoch}))
        return
    score = f"mAP {100 * result.score:.2f}, " if result.score is not None else ""
    click.echo(f"{result.best}  ({score}epoch {result.epoch})")
