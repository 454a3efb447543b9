"""`asmk-engine match`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import (
    PATH,
    Console,
    as_written,
    describing_options,
    extraction_of,
    plural,
    quiet_option,
)
from asmk_engine.errors import InputError
from asmk_engine.escape import escape_name

if TYPE_CHECKING:
    from asmk_engine.pipeline.comparing import PhotographComparison


@click.command()
@click.argument("one", metavar="A", type=PATH)
@click.argument("other", metavar="B", type=PATH)
@click.option("-o", "--output", type=PATH, help="Also draw what they have in common into this file (JPEG or PNG).")
@click.option(
    "--codebook",
    type=PATH,
    help="Codebook file, or name of a vocabulary of the package.  [default: the vocabulary of the package that fits "
    "the extractor]",
)
@click.option(
    "--assignments",
    "multiple_assignment",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of visual words to which each feature of A is assigned.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of the output; json also lists the matched features.",
)
@describing_options
@quiet_option
def match(
    one: Path,
    other: Path,
    output: Path | None,
    codebook: Path | None,
    multiple_assignment: int,
    form: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare two photographs without an index.

    The numbers are those of a query with A of an index that holds B: the ASMK similarity, the visual words in common,
    the pairs of similar features, and how many of them one affine map explains. Global descriptors have a cosine only.

    \b
    Examples:
      asmk-engine match query.jpg photos/0001.jpg -o why.jpg
      asmk-engine match query.jpg photos/0001.jpg --extractor rootsift --format json
      asmk-engine match query.jpg photos/0001.jpg --codebook my.codebook
    """
    from asmk_engine.pictures.encoding import check_picture_name
    from asmk_engine.pipeline.comparing import compare_photographs

    if output is not None:
        check_picture_name(output)
    console = Console(quiet)
    found = compare_photographs(
        one, other, extraction_of(options), console, codebook=codebook, multiple_assignment=multiple_assignment
    )
    if form == "json":
        entry = {"query": str(one), "image": str(other), **found.as_dict(contributions=True)}
        line = json.dumps(entry, ensure_ascii=False)
        click.echo(as_written(line, sys.stdout))
    else:
        for line in _table(found, one, other):
            click.echo(line)
    if output is not None:
        _draw(found, one, other, output)
    elif found.match is None:
        console.say("global descriptors have no places, so there is nothing to verify")


def _draw(found: PhotographComparison, one: Path, other: Path, output: Path) -> None:
    from asmk_engine.pictures.encoding import write_picture
    from asmk_engine.pictures.match_picture import Caption, draw_match
    from asmk_engine.pictures.photographs import ShownPhotograph

    if found.match is None:
        raise InputError(
            f"{output}: not drawn, since global descriptors have no places; leave -o out, or give an extractor of "
            "local features, such as --extractor rootsift"
        )
    photographs = [ShownPhotograph.open(path) for path in (one, other)]
    caption = Caption(str(one), str(other), ("ASMK similarity", found.similarity))
    write_picture(output, draw_match(photographs[0], photographs[1], found.match, caption))


def _table(found: PhotographComparison, one: Path, other: Path) -> Iterator[str]:
    yield f"# {escape_name(str(one))} {escape_name(str(other))}"
    if found.match is None:
        yield f"cosine      {found.similarity:.6f}"
        return
    match, words = found.match, found.words or (0, 0)
    yield f"similarity  {found.similarity:.6f}"
    yield f"features    {found.features[0]} and {found.features[1]}"
    yield f"words       {found.common_words} in common, of {words[0]} and {words[1]}"
    yield f"pairs       {match.pairs}"
    yield f"inliers     {match.inliers} at {plural(match.places, 'place')}"
    yield f"overlap     {match.overlap[0]:.1f} % of the first, {match.overlap[1]:.1f} % of the second"
    yield f"copy        {'yes' if match.is_copy else 'no'}"
    if not match.pairs:
        yield "nothing in common"
