"""`asmk-engine index`, `delete`, `restore` and `merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from asmk_engine.cli.cluster_options import actor_options, machines_of
from asmk_engine.cli.codebook import training_options
from asmk_engine.cli.common import (
    PATH,
    Console,
    ImagePlace,
    SectionedCommand,
    extraction_of,
    extraction_options,
    human_bytes,
    intake_options,
    names_of,
    parse_numbers,
    plural,
    quiet_option,
    read_name_list,
    tell,
    was_given,
)
from asmk_engine.cli.global_index import global_options, global_options_of
from asmk_engine.cli.region_options import region_options, region_options_of
from asmk_engine.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from asmk_engine.pipeline.preparation import AnyIndex

_TRAINING = names_of(training_options)
_FEATURES = [name for name in names_of(extraction_options) if name != "extractor"]


class _IndexCommand(SectionedCommand):
    sections: ClassVar[dict[str, Sequence[str]]] = {
        "Common options": ["output", "extractor", "update", "prune", "prefix"],
        "Features": ["features_path", "kind_weights", "geometry", *_FEATURES, "all_files"],
        "Regions": names_of(region_options),
        "Codebook": ["codebook", *names_of(training_options)],
        "Global descriptors": names_of(global_options),
        "Cluster": names_of(actor_options),
    }


class FeatureCount(click.ParamType):
    """A number of features of 1 or more, or `all`."""

    name = "features"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or `all`; anything else is a usage error."""
        text = str(value)
        if text != "all" and not (text.isdecimal() and int(text)):
            self.fail(f"{value!r} is neither a number of features nor `all`; give --geometry=all", param, ctx)
        return text if text == "all" else int(text)


@click.command(cls=_IndexCommand)
@click.argument("inputs", nargs=-1, required=True, type=ImagePlace(), metavar="FEATURES|IMAGES...")
@click.option("-o", "--output", type=PATH, required=True, help="Index (a folder) to create or extend.")
@click.option(
    "--codebook",
    type=PATH,
    help="Codebook of a new index: a file, or the name of one that comes with the package, such as rootsift.  "
    "[default: that of how-efficientnet-lite0, else train one]",
)
@click.option(
    "--features",
    "features_path",
    type=PATH,
    help="Feature set in which the features of IMAGES are kept.  [default: next to the index]",
)
@click.option("--update", is_flag=True, help="Replace indexed images by changed or other images of the same name.")
@click.option("--replace", is_flag=True, help="Replace all images that are already indexed.")
@click.option("--prune", is_flag=True, help="Remove images whose files are gone from the given folders.")
@intake_options
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory limit of indexing, such as 800M or 4G; extraction and training are not included, and about 200 bytes "
    "per image are added. With more memory, fewer segments have to be joined.  [default: about 1G for 65 536 words]",
)
@click.option(
    "--kind-weights",
    metavar="W1,W2,...",
    callback=lambda context, parameter, value: parse_numbers(value),
    help="Weights of several kinds of features in the score, in the order of --extractor.  "
    "[default: equal, but half for rootsift beside a network]",
)
@click.option(
    "--geometry",
    type=FeatureCount(),
    is_flag=False,
    flag_value="all",
    metavar="[N]",
    help="Keep word, code and place of the strongest N local features of each image, or of all, beside the postings, "
    "for the verification of answers.  [default: as the index; a new one keeps none]",
)
@region_options
@extraction_options
@training_options
@global_options
@actor_options
@quiet_option
def index(
    inputs: tuple[Path | str, ...],
    output: Path,
    codebook: Path | None,
    features_path: Path | None,
    update: bool,
    replace: bool,
    prune: bool,
    yes: bool,
    prefix: str,
    all_files: bool,
    memory: str | None,
    kind_weights: tuple[float, ...] | None,
    geometry: int | str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Create an index of images, or add images to it.

    The input is a feature set, or image files, folders and lists, which are extracted first. Another run adds new
    images. Global descriptors, one per image, make a global index, which needs no codebook. Several extractors make an
    index of several kinds of features, whose scores are fused; an option applies to those of them that have it.

    The name of an image is its path relative to the given folder. If the index has another image of this name, or the
    file was replaced, the new image is reported and left out, with exit code 1: --prefix keeps both, --update replaces
    the old one. Unreadable images are reported and skipped, with exit code 0; --strict stops at the first of them.

    \b
    Examples:
      asmk-engine index photos/ -o photos.index
      asmk-engine index /media/card2/DCIM -o photos.index --prefix card2
      asmk-engine index photos.features --codebook my.codebook.h5 -o photos.index
      asmk-engine index photos/ -o photos.index --extractor how-squeezenet --weights squeezenet1_1-b8a52dc0.pth
      asmk-engine index photos/ -o photos.index --extractor how-squeezenet,rootsift
      asmk-engine index photos/ -o photos.index --extractor delg,delg-local --weights delg.safetensors
      asmk-engine index photos/ -o photos.index --geometry 300
      asmk-engine index photos/ -o photos.index --regions aggregate --boxes detected.csv
      asmk-engine index gem.features -o gem.index --pca 512 --half
      asmk-engine index gem.features spoc.features --concatenate -o both.index
      asmk-engine index photos.features -o photos.index --ray 10.0.0.1:6379
    """
    from asmk_engine.pipeline.codebook_training import CodebookOptions
    from asmk_engine.pipeline.extraction import IntakeOptions, existing
    from asmk_engine.pipeline.indexing import index_images

    console = Console(quiet)
    regions, boxes = region_options_of(options)
    machines = machines_of(options, console)
    training = CodebookOptions(**{key: options.pop(key) for key in _TRAINING})
    report = index_images(
        inputs,
        output,
        intake=IntakeOptions(prefix, all_files, existing(update, replace), prune, yes),
        training=training if any(was_given(key) for key in _TRAINING) else None,
        smaller=global_options_of(options),
        extraction=extraction_of(options, machines),
        codebook=codebook,
        features=features_path,
        memory=memory,
        kind_weights=kind_weights,
        geometry=geometry,
        regions=regions,
        boxes=boxes,
        display=console,
    )
    tell(report.failures)


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "list_path", type=PATH, help="Text file of names to delete, one per line.")
@click.option("--missing-ok", is_flag=True, help="Ignore names that are not in the index.")
@quiet_option
def delete(index_path: Path, names: tuple[str, ...], list_path: Path | None, missing_ok: bool, quiet: bool) -> None:
    """Delete images from an index by name.

    Takes effect at once, for all names or, if one is not in the index, for none. `merge` frees the disk space; until
    then `restore` takes it back.

    \b
    Examples:
      asmk-engine delete photos.index holiday/old.jpg
      asmk-engine delete photos.index --list gone.txt
    """
    from asmk_engine.search.opening import open_any

    wanted = _wanted(names, list_path)
    target = open_any(index_path)
    deleted = target.delete([_as_indexed(target, name) for name in wanted], missing_ok=missing_ok)
    Console(quiet).say(f"{index_path}: {plural(deleted, 'image')} deleted, {plural(target.images, 'image')} left")


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "list_path", type=PATH, help="Text file of names to restore, one per line.")
@click.option("--missing-ok", is_flag=True, help="Ignore names of which there is no deleted image.")
@quiet_option
def restore(index_path: Path, names: tuple[str, ...], list_path: Path | None, missing_ok: bool, quiet: bool) -> None:
    """Bring deleted images of an index back by name.

    That is possible until `merge`, or an addition that joins small segments, removes what is deleted. All names are
    restored or, if one has no deleted image or is in the index again, none. Of several deleted images of a name, the
    one that was added last comes back.

    \b
    Examples:
      asmk-engine restore photos.index holiday/old.jpg
      asmk-engine restore photos.index --list gone.txt
    """
    from asmk_engine.search.opening import open_any

    wanted = _wanted(names, list_path)
    target = open_any(index_path)
    restored = target.restore([_as_deleted(target, name) for name in wanted], missing_ok=missing_ok)
    Console(quiet).say(f"{index_path}: {plural(restored, 'image')} restored, {plural(target.images, 'image')} now")


def _wanted(names: Sequence[str], list_path: Path | None) -> list[str]:
    """Return the names of the arguments and of the list; a usage error if there are none."""
    wanted = [*names, *(read_name_list(list_path) if list_path else [])]
    if not wanted:
        raise click.UsageError("give names, or --list FILE")
    return wanted


def _as_deleted(target: AnyIndex, text: str) -> str:
    """Return the name of an image, deleted or not, from its printed form or another Unicode form; else the text."""
    from asmk_engine.escape import spellings

    forms = list(spellings(text))
    deleted = target.snapshot.find_deleted(forms)
    return next((form for form in forms if form in deleted or form in target), text)


def _as_indexed(target: AnyIndex, text: str) -> str:
    """Return the name of an indexed image from its printed form; NotFoundError if only another Unicode form exists."""
    import contextlib
    import unicodedata

    from asmk_engine.escape import spellings, unescape_name

    if text in target:
        return text
    with contextlib.suppress(InputError):
        if unescape_name(text) in target:
            return unescape_name(text)
    if twin := next((name for name in spellings(text) if name in target), None):
        form = "composed" if unicodedata.is_normalized("NFC", twin) else "decomposed"
        raise NotFoundError(
            f"{target.path}: {text!r} is not in the index, but another Unicode form of it is, with {form} characters: "
            f"{twin!a}; nothing was deleted: give the name as `asmk-engine info {target.path} --names` prints it"
        )
    return text


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@quiet_option
def merge(index_path: Path, quiet: bool) -> None:
    """Join the segments of an index into one.

    This frees the disk space of deleted images. It works in bounded memory, whatever the size of the index.

    \b
    Example:
      asmk-engine merge photos.index
    """
    from asmk_engine.search.opening import open_any

    target = open_any(index_path)
    before = target.snapshot.manifest
    count = target.merge()
    sizes = [sum(entry.bytes for entry in manifest.files()) for manifest in (before, target.snapshot.manifest)]
    Console(quiet).say(
        f"{index_path}: {plural(count, 'segment')} before, {len(target.snapshot.segments)} now; "
        f"{human_bytes(sizes[0])} before, {human_bytes(sizes[1])} now"
    )
