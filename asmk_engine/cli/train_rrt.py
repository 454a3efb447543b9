"""`asmk-engine train-rrt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from asmk_engine.cli.common import PATH, Console, SectionedCommand, json_option, names_of, option_group, quiet_option
from asmk_engine.cli.train import (
    classes_or_matches,
    data_options,
    is_validated,
    pair_validation_options,
    print_result,
    verified_option,
)
from asmk_engine.cli.train_global import number_option

if TYPE_CHECKING:
    from asmk_engine.networks.reranking.transformer import RerankingTransformer
    from asmk_engine.training.loop_options import LoopOptions
    from asmk_engine.training.pair_validation import PairValidation
    from asmk_engine.training.transformer_task import PairedFeatures, TransformerTraining

_POSITIVE = click.IntRange(min=1)

network_options = option_group(
    click.option(
        "--weights", type=PATH, help="Network to train further, or a checkpoint of its code.  [default: a new network]"
    ),
    number_option("--layers", 6, "Encoder layers of a new network.", click.IntRange(1, 64)),
    number_option("--hidden", 1024, "Dimensions between the linear layers of an encoder layer, likewise.", _POSITIVE),
    number_option("--features", 500, "Strongest local features of an image that count, likewise.", _POSITIVE),
)
triplet_options = option_group(
    verified_option,
    number_option("--neighbours", 100, "Nearest images of an anchor, from which both others are drawn.", _POSITIVE),
    number_option("--least-positives", 5, "Least number of an anchor's class among them.", _POSITIVE),
    number_option("--stride", 16.0, "Scale in pixels of a local feature found at the image scale 1."),
    number_option(
        "--max-side", 1024, "Longer side to which the extractor shrank images; 0 for none.", click.IntRange(min=0)
    ),
)
step_options = option_group(
    number_option("--epochs", 15, "Total number of epochs.", _POSITIVE),
    number_option("--batch", 12, "Triplets of a step, of all processes.", _POSITIVE),
    number_option("--micro-batch", 12, "Triplets that pass through the network at a time.", _POSITIVE),
    number_option("--learning-rate", 1e-4, "Learning rate."),
    number_option("--weight-decay", 5e-4, "Weight decay."),
    number_option("--clip", 0.0, "Largest norm of the gradient, 0.1 in the paper's recipe for GLDv1; 0 for no limit."),
    click.option("--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda or cuda:0."),
    number_option("--seed", 0, "Seed of the random choices.", click.IntRange(min=0)),
)


validation_options = option_group(
    *pair_validation_options,
    click.option(
        "--validate-local",
        type=PATH,
        help="Feature set of local features of the images and, under their names, of the queries: of their regions, if "
        "these were described.  [default: --local]",
    ),
    click.option(
        "--validate-global", type=PATH, help="Feature set of their global descriptors, likewise.  [default: --global]"
    ),
)


class _TrainRrtCommand(SectionedCommand):
    sections: ClassVar[dict[str, Sequence[str]]] = {
        "Common options": ["local_path", "global_path", *names_of(data_options)[1:]],
        "Network": names_of(network_options),
        "Triplets": names_of(triplet_options),
        "Steps": names_of(step_options),
        "Validation": names_of(validation_options),
    }


@click.command("train-rrt", cls=_TrainRrtCommand)
@data_options
@click.option("--local", "local_path", type=PATH, required=True, help="Feature set of local features of the images.")
@click.option("--global", "global_path", type=PATH, required=True, help="Feature set of their global descriptors.")
@network_options
@triplet_options
@step_options
@validation_options
@json_option
@quiet_option
def train_rrt(
    data: Path, output: Path, local_path: Path, global_path: Path, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Train a Reranking Transformer, for `--reranker rrt`.

    It learns from features alone which images show the same thing. DATA names the images and their classes, as for
    `train-global`; --local and --global have their features, under the same names. An anchor's positive and negative
    are drawn from its nearest images by global descriptors.

    The output folder gets best.safetensors and last.safetensors, networks for --reranker-weights, and log.jsonl and
    curves.png; best is the epoch of the lowest loss, with --validate of the best mAP after re-ranking. The same command
    resumes an interrupted run. Under torchrun the processes share the steps.

    \b
    Examples:
      asmk-engine extract landmarks/ -o local.features --extractor how-r50-
      asmk-engine extract landmarks/ -o global.features --extractor gem-resnet50
      asmk-engine train-rrt landmarks/ --local local.features --global global.features -o rrt
    """
    from asmk_engine.features import FeatureSet
    from asmk_engine.training.loop import TrainingRun
    from asmk_engine.training.photographs import place_network
    from asmk_engine.training.processes import join_processes
    from asmk_engine.training.transformer_task import (
        PairedFeatures,
        TransformerTask,
        TransformerTrainee,
    )

    found = classes_or_matches(data, options)
    features = PairedFeatures(FeatureSet.open(local_path), FeatureSet.open(global_path), found)
    network, origin, start = _start(features, options)
    processes, options["device"] = join_processes(options["device"])
    console = Console(quiet or not processes.is_first)
    trainee = TransformerTrainee(place_network(network, options["device"]))
    task = TransformerTask(trainee, features, found, _training(options))
    validation = _validation(features, options)
    console.say(f"{len(found)} images, {found.count} instances, {task.anchors} anchors")
    run = TrainingRun(output, task, _loop(options), origin, start, validation, console, processes=processes)
    result = run.run()
    if processes.is_first:
        print_result(result, as_json)


def _loop(options: dict[str, Any]) -> LoopOptions:
    from asmk_engine.training.transformer_task import transformer_loop

    every = {"every": options["every"]} if options["validate"] else {}
    given = {name: options[name] for name in ("weight_decay", "clip")}
    return transformer_loop(options["epochs"], batch_size=options["batch"], **given, **every)


def _validation(features: PairedFeatures, options: dict[str, Any]) -> PairValidation | None:
    from asmk_engine.features import FeatureSet
    from asmk_engine.networks.reranking.image_tokens import ScaleUnit
    from asmk_engine.training.pair_validation import feature_validation

    if not is_validated(options, "validate_local", "validate_global"):
        return None
    names = (("validate_local", features.local), ("validate_global", features.whole))
    local, whole = (FeatureSet.open(options[name]) if options[name] else usual for name, usual in names)
    unit = ScaleUnit(options["stride"], options["max_side"])
    return feature_validation(options["validate"], local, whole, unit, options["validate_rerank"], options["device"])


def _start(features: PairedFeatures, options: dict[str, Any]) -> tuple[RerankingTransformer, dict[str, Any], str]:
    """Return the network at the beginning, the origin of its weights, and the sha256 of their file."""
    from asmk_engine.networks.reranking.transformer_files import open_transformer
    from asmk_engine.networks.reranking.transformer_options import TransformerOptions
    from asmk_engine.storage.user_files import file_sha256
    from asmk_engine.training.transformer_task import new_transformer

    if options["weights"] is not None:
        return *open_transformer(options["weights"]), file_sha256(options["weights"])
    sizes = {name: options[name] for name in ("layers", "hidden", "features")}
    made = TransformerOptions(features.whole.dim, features.local.dim, **sizes)
    return new_transformer(made, options["seed"]), {}, ""


def _training(options: dict[str, Any]) -> TransformerTraining:
    from asmk_engine.networks.reranking.image_tokens import ScaleUnit
    from asmk_engine.training.neighbour_triplets import NeighbourOptions
    from asmk_engine.training.transformer_task import TransformerTraining

    near = NeighbourOptions(options["neighbours"], options["least_positives"])
    unit = ScaleUnit(options["stride"], options["max_side"])
    return TransformerTraining(near, unit, options["learning_rate"], options["micro_batch"], options["seed"])
