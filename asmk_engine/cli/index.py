"""`asmk-engine index`, `delete` and `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.codebook import train, training_options
from asmk_engine.cli.common import (
    PATH,
    Console,
    extraction_options,
    human_bytes,
    parse_size,
    plural,
    quiet_option,
    read_name_list,
    )
from asmk_engine.cli.extract import is_feature_set, run_extraction
from asmk_engine.cli.global_index import KEYS, GlobalOptions, add_global, concatenated, global_options
from asmk_engine.cli.networks import network_of
from asmk_engine.errors import InputError, MismatchError

if TYPE_CHECKING:
    from asmk_engine.codebooks import Codebook
    from asmk_engine.descriptors import GlobalIndex
    from asmk_engine.features import FeatureSet
    from asmk_engine.index import Index
    from asmk_engine.recipes import Recipe

_TRAINING = ("words", "seed", "rounds", "whitening", "backend", "assignment")


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=PATH, metavar="FEATURES|IMAGES...")
@click.option("-o", "--output", type=PATH, required=True, help="The index; made, or added to.")
@click.option("--codebook", type=PATH, help="The codebook of a new index; without it one is trained.")
@click.option(
    "--features", "features_path", type=PATH, help="Where features of IMAGES are kept.  [default: beside the index]"
)
@click.option("--update", is_flag=True, help="Also replace images whose content changed.")
@click.option("--replace", is_flag=True, help="Replace all images that are there already.")
@click.option("--prune", is_flag=True, help="Remove images that are no longer there.")
@click.option(
    "--memory",
    metavar="SIZE",
    help="Make the index within so much memory, such as 800M or 4G; extraction and training are apart, and some 200 "
    "bytes an image come on top. More memory, fewer segments to join.  [default: 1G with 65 536 words]",
)
@extraction_options
@training_options
@global_options
@quiet_option
def index(
    inputs: tuple[Path, ...],
    output: Path,
    codebook: Path | None,
    features_path: Path | None,
    update: bool,
    replace: bool,
    prune: bool,
    memory: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Make photographs searchable, or add new ones to an index.

    Takes a feature set, or image files, folders and lists, which are extracted first. A second run adds what is new.
    Features that are one descriptor of a whole image make a global index, which needs no codebook.

    \b
    Examples:
      asmk-engine index photos/ -o photos.index
      asmk-engine index photos.features --codebook my.codebook.h5 -o photos.index
      asmk-engine index photos/ -o photos.index --extractor how-squeezenet --weights squeezenet1_1-b8a52dc0.pth
      asmk-engine index gem.features -o gem.index --pca 512 --half
      asmk-engine index gem.features spoc.features --concatenate -o both.index
    """
    from asmk_engine.descriptors import GlobalIndex
    from asmk_engine.index import Index, check_fits

    console = Console(quiet)
    allowed = None if memory is None else parse_size(memory)
    training = {key: options.pop(key) for key in _TRAINING}
    smaller = GlobalOptions(**{key: options.pop(key) for key in KEYS})
    target, book = _existing(output, codebook)
    if book is not None and any(_was_given(key) for key in _TRAINING):
        console.say("there is a codebook already: --words and the other options of training are not used")
    if book is not None:
        _segment_postings(allowed, book)  # too little memory is said before any work
    if smaller.concatenate:
        features = concatenated(inputs, features_path or features_beside(output), smaller, console)
    else:
        features = _features(inputs, output, features_path, target, book, prune, console, options)
    existing = "replace" if replace else "update" if update else "skip"
    if isinstance(target, GlobalIndex) or (target is None and features.recipe.is_global):
        network = network_of(features, options["weights"], console) if target is None else None
        made = {"network": network, "seed": training["seed"], "memory": allowed, "codebook": codebook}
        add_global(features, target, output, smaller, console, **made, existing=existing, prune=prune)
        return
    smaller.refuse(features)
    book = book or train(features, console, **training)
    room = _segment_postings(allowed, book)
    if target is None:
        check_fits(features, book, output)
        target = Index.create(output, book, network_of(features, options["weights"], console))
    with console.bar("index", "images") as on_image:
        summary = target.add(features, existing=existing, prune=prune, segment_postings=room, on_image=on_image)
    console.say(
        f"{output}: {plural(target.images, 'image')}, {plural(target.postings, 'posting')}: {summary.added} added, "
        f"{summary.replaced} replaced, {summary.unchanged} there already, {summary.removed} removed"
    )


def _segment_postings(memory: int | None, book: Codebook) -> int:
    """Postings of a segment under a limit on memory."""
    from asmk_engine.batch import postings_within
    from asmk_engine.index import SEGMENT_POSTINGS

    return SEGMENT_POSTINGS if memory is None else postings_within(memory, book)


def _existing(output: Path, path: Path | None) -> tuple[Index | GlobalIndex | None, Codebook | None]:
    """The index at `output` if there is one, and the codebook to be used if it is known; checked before any work."""
    from asmk_engine.codebooks import Codebook
    from asmk_engine.collection import check_vacant
    from asmk_engine.descriptors import GlobalIndex, open_index
    from asmk_engine.manifest import NAMES
    from asmk_engine.store import Folder

    given = Codebook.open(path) if path else None
    if not any((output / name).exists() for name in NAMES):
        check_vacant(Folder(output))
        return None, given
    target = open_index(output)
    if isinstance(target, GlobalIndex):
        return target, given
    if given and given.fingerprint != target.codebook.fingerprint:
        raise MismatchError(
            f"{output}: made with another codebook ({target.codebook}) than {path} ({given}); "
            "leave --codebook out, or make another index"
        )
    return target, target.codebook


def _was_given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def _features(
    inputs: tuple[Path, ...],
    output: Path,
    path: Path | None,
    target: Index | GlobalIndex | None,
    book: Codebook | None,
    prune: bool,
    console: Console,
    options: dict[str, Any],
) -> FeatureSet:
    """The features of the inputs; photographs are extracted as index or codebook want them, unless told otherwise."""
    from asmk_engine.features import FeatureSet

    sets = [entry for entry in inputs if is_feature_set(entry)]
    if not sets:
        recipe: Recipe | None = None if book is None else book.recipe
        if target is not None:
            recipe, options = target.recipe, {**options, "network": target.network}
        return run_extraction(inputs, path or features_beside(output), console, prune=prune, recipe=recipe, **options)
    if len(inputs) > 1:
        raise InputError(f"{sets[0]}: a feature set stands alone; index several one after the other")
    return FeatureSet.open(sets[0])


def features_beside(index: Path) -> Path:
    """Where the features of an index are kept by default: photos.features for photos.index."""
    whole = index.resolve()
    return whole.with_name(whole.name.removesuffix(".index") + ".features")


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("names", nargs=-1)
@click.option("--list", "list_path", type=PATH, help="A text file of names, one a line.")
@click.option("--missing-ok", is_flag=True, help="Pass over names that are not in the index.")
@quiet_option
def delete(index_path: Path, names: tuple[str, ...], list_path: Path | None, missing_ok: bool, quiet: bool) -> None:
    """Delete images from INDEX by NAME; at once, and all or none.

    \b
    Examples:
      asmk-engine delete photos.index holiday/old.jpg
      asmk-engine delete photos.index --list gone.txt
    """
    from asmk_engine.descriptors import open_index

    wanted = [*names, *(read_name_list(list_path) if list_path else [])]
    if not wanted:
        raise click.UsageError("give names, or --list FILE")
    target = open_index(index_path)
    deleted = target.delete(wanted, missing_ok=missing_ok)
    Console(quiet).say(f"{index_path}: {plural(deleted, 'image')} deleted, {plural(target.images, 'image')} left")


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@quiet_option
def merge(index_path: Path, quiet: bool) -> None:
    """Join the segments of INDEX into one and give back the space of deleted images."""
    from asmk_engine.descriptors import open_index

    target = open_index(index_path)
    before = target.snapshot.manifest
    count = target.merge()
    sizes = [sum(entry.bytes for entry in manifest.files()) for manifest in (before, target.snapshot.manifest)]
    Console(quiet).say(
        f"{index_path}: {plural(count, 'segment')} before, {len(target.snapshot.segments)} now; "
        f"{human_bytes(sizes[0])} before, {human_bytes(sizes[1])} now"
    )
