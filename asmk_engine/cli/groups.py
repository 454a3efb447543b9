"""`asmk-engine groups` and `pairs`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from asmk_engine.cli.common import (
    PATH,
    Console,
    images_option,
    option_group,
    own_extractor_option,
    plural,
    quiet_option,
    threads_option,
)
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.groups import Groups, Notice, Pairs

SHOWN = 5
"""Notices of each kind that are shown; the files have all of them."""
WORK = "work"

verification_options = option_group(
    click.option(
        "--places",
        type=click.IntRange(min=4),
        default=8,
        show_default=True,
        help="Least number of distinct places that two images have in common, in both directions.",
    ),
    click.option(
        "--weight",
        type=click.FloatRange(min=0),
        default=0.8,
        show_default=True,
        help="Least sum of their weights, each place and each word counted once: the greater, the surer.",
    ),
    click.option(
        "--keep-overlays",
        "overlays",
        is_flag=True,
        help="Also join images by what lies in the same place of many: watermarks, frames, dates.",
    ),
)


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--neighbours",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    metavar="K",
    help="Number of nearest images with which each image is compared.",
)
@verification_options
@click.option(
    "--mirror", is_flag=True, help="Also find mirrored copies; describes every photograph again, which takes longer."
)
@click.option(
    "--sheets",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Draw contact sheets of the N largest groups.",
)
@images_option
@own_extractor_option
@threads_option
@quiet_option
def groups(
    index_path: Path,
    output: Path,
    sheets: int,
    images_roots: tuple[Path, ...],
    threads: int | None,
    quiet: bool,
    **limits: Any,
) -> None:
    """Find which indexed images belong together.

    Each image is compared with the K images nearest to it by the places of their features, as --rerank does. Two that
    match in both directions are joined; a group is what is joined directly or through others. OUTPUT gets groups.json,
    with all matches; groups.csv, a line for each image, which tells copies from other views; and in sheets/ a picture
    of each group. An interrupted run resumes from OUTPUT/work, which also makes a run with other limits fast.

    \b
    Examples:
      asmk-engine groups photos.index -o groups/
      asmk-engine groups photos.index -o groups/ --weight 2 --mirror
    """
    from asmk_engine.groups import Grouping, find_groups
    from asmk_engine.groups.writing import write_groups, write_sheets
    from asmk_engine.indexes.named_images import NamedImages
    from asmk_engine.search.opening import open_index

    options, console, index = Grouping(**limits), Console(quiet), open_index(index_path)
    found = find_groups(index, options, work=output / WORK, images_roots=images_roots, threads=threads, display=console)
    write_groups(found, output)
    files = NamedImages(cast(Any, index), images_roots=images_roots)
    with console.bar("contact sheets", "groups") as on_sheet:
        drawn = write_sheets(found, output, files, most=sheets, on_sheet=on_sheet)
    _tell_groups(found, drawn, output, console)


def _tell_groups(found: Groups, drawn: int, output: Path, console: Console) -> None:
    grouped = sum(map(len, found.groups))
    copies = grouped - sum(len(group.photographs) for group in found)
    console.say(
        f"{output}: {plural(len(found), 'group')} of {plural(grouped, 'image')}, {copies} of them copies; "
        f"{plural(len(found.alone), 'image')} alone; {plural(drawn, 'contact sheet')}"
    )
    if found.unplaced:
        console.say(
            f"{plural(found.unplaced, 'image')} without geometry or features could not be compared; index with "
            "--geometry, or bring the feature set back"
        )
    if found.unread:
        name, reason = next(iter(found.unread.items()))
        console.say(f"{plural(len(found.unread), 'image')} without a readable photograph, such as {name!r}: {reason}")
    _tell_notices(found.notices, console, "groups.json")
    if found.words:
        first = found.words[0]
        console.say(f"{plural(len(found.words), 'word')} in most images, such as {first.word}, in {first.share:.0%}")


def _tell_notices(notices: Sequence[Notice], console: Console, where: str) -> None:
    counts: Counter[str] = Counter()
    for notice in notices:
        counts[notice.kind] += 1
        if counts[notice.kind] <= SHOWN:
            console.say(f"note: {notice}")
    left = sum(max(0, count - SHOWN) for count in counts.values())
    if left:
        console.say(f"note: {left} more such notes" + (f", see {where}" if where else ""))


def _number_or_auto(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise click.BadParameter(f"{value!r} is neither 'auto' nor a number of 1 or more")
    return int(value)


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option(
    "--pairs-per-image",
    "per_image",
    default="auto",
    show_default=True,
    metavar="N|auto",
    callback=_number_or_auto,
    help="Pairs of each image, its best ones. auto: 10 + 10 log10(images).",
)
@click.option(
    "--minimum-score", type=float, default=0.0, show_default=True, help="Least similarity of two images in the index."
)
@click.option("--verified", is_flag=True, help="Only pairs that the places of their features confirm.")
@verification_options
@click.option(
    "--skip-neighbours",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Leave out pairs whose names are at most N places apart, in byte order: the next ones of a sequence.",
)
@click.option(
    "--look-alikes",
    type=PATH,
    help="Also write pairs that may show two different things, as a table with tabs: similar images that nothing "
    "confirms, and pairs that alone join two groups.",
)
@click.option("--scores", is_flag=True, help="Add a column with the similarity, or with --verified the weight.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["colmap", "hloc"]),
    default="colmap",
    show_default=True,
    help="Reader of the file: both read lines of two names, only COLMAP ignores the column of --scores.",
)
@threads_option
@quiet_option
def pairs(
    index_path: Path,
    output: Path,
    per_image: int | None,
    minimum_score: float,
    verified: bool,
    skip_neighbours: int,
    look_alikes: Path | None,
    scores: bool,
    form: str,
    threads: int | None,
    quiet: bool,
    **limits: Any,
) -> None:
    """Write image pairs for structure from motion.

    A line has the names of two images, each pair once, in byte order of the first, its best pairs first. An interrupted
    run resumes from OUTPUT.work, which is removed at the end.

    \b
    Examples:
      asmk-engine pairs photos.index -o pairs.txt
      asmk-engine pairs photos.index -o pairs.txt --verified --look-alikes doubtful.tsv
      asmk-engine pairs video.index -o loops.txt --verified --skip-neighbours 10
    """
    from asmk_engine.groups import Grouping, Pairing, find_pairs, write_look_alikes, write_pairs
    from asmk_engine.search.opening import open_index
    from asmk_engine.storage.pieces import discard

    if scores and form == "hloc":
        raise InputError("--scores adds a column that hloc refuses; leave it out, or give --format colmap")
    options = Pairing(per_image, minimum_score, verified, skip_neighbours, Grouping(**limits))
    console, work = Console(quiet), output.with_name(f"{output.name}.{WORK}")
    found = find_pairs(
        open_index(index_path), options, look_alikes=look_alikes is not None, work=work, threads=threads,
        display=console,
    )  # fmt: skip
    write_pairs(found, output, scores=scores)
    if look_alikes:
        write_look_alikes(found.notices, look_alikes)
    discard(work)
    _tell_pairs(found, output, look_alikes, console)


def _tell_pairs(found: Pairs, output: Path, look_alikes: Path | None, console: Console) -> None:
    console.say(f"{output}: {plural(len(found.pairs), 'pair')}, at most {found.per_image} of an image")
    if found.lonely:
        console.say(f"{plural(len(found.lonely), 'image')} without a pair, such as {found.lonely[0]!r}")
    _tell_notices(found.notices, console, str(look_alikes or ""))
