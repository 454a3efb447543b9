"""`asmk-engine demo`: every step is run as a command, as a user would type it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Console, plural, quiet_option
from asmk_engine.errors import InputError
from asmk_engine.iteration import evenly

if TYPE_CHECKING:
    from asmk_engine.demo import QueryViews
    from asmk_engine.images.listing import ImageFile

MOST_PHOTOS = 2000
VIEWS_PER_PHOTO = 12
RANKINGS_PRINTED = 3
SHEET_COLUMNS = 8
VERIFIED = 50  # answers that the second evaluation verifies and ranks anew


@click.command()
@click.argument("photos", required=False, type=PATH)
@click.option("-o", "--output", type=PATH, default=Path("demo"), show_default=True, help="Output folder.")
@click.option("--queries", type=click.IntRange(min=1), default=24, show_default=True, help="Number of query images.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the altered views.")
@click.option("--serve", "serves", is_flag=True, help="Open the search page on the photographs at the end.")
@quiet_option
def demo(photos: Path | None, output: Path, queries: int, seed: int, serves: bool, quiet: bool) -> None:
    """Run all steps on a small collection of photographs.

    PHOTOS is a folder of your own, which is only read; by default, the photographs that come with scikit-image are
    used. Altered views (warped, cropped, re-lit) of some photographs are added, and a query for the original should
    find them. Indexing, search and evaluation are run and timed: as ranked by the index, with the first answers
    verified and ranked anew, and with RootSIFT instead of the default extractor.

    \b
    Examples:
      asmk-engine demo
      asmk-engine demo my-photos/ -o demo-of-mine
      asmk-engine demo --serve
    """
    steps = _Steps(Console(quiet))
    _check_apart(photos, output)
    chosen = _collect(photos, output, queries, seed, steps)
    _search(output, chosen, steps)
    _draw(output, chosen, photos is None, steps)
    _close(output, photos is None, steps)
    if serves:  # a demo of photographs of the user holds links to them
        steps.run("serve", output / "photos.index", *([] if photos is None else ["--follow-links"]))


@dataclass
class _Steps:
    """Runs commands of this program, prints them, and records the time of each."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record the time of a block."""
        start = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def run(self, *arguments: str | Path, into: Path | None = None) -> None:
        """Run a command, with its results on standard output or in a file; if it fails, exit with its exit code."""
        command, *rest = map(str, arguments)
        words = [command, *(["--quiet"] if self.console.quiet else []), *rest]
        redirected = f" > {shlex.quote(str(into))}" if into else ""
        self.console.say(f"\n$ asmk-engine {shlex.join(words)}{redirected}")
        with self.timed(command):
            done = subprocess.run(
                [sys.executable, "-P", "-m", "asmk_engine", *words],
                env=_environment(),
                stdout=subprocess.PIPE if into else None,
                check=False,
            )
        if done.returncode:
            self.console.say(f"The demo ends here: `asmk-engine {command}` failed.")
            sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
        if into:
            _write(into, done.stdout)


def _environment() -> dict[str, str]:
    """Return the environment, with a checkout that is not installed on the path for the child process."""
    parent = Path(__file__).resolve().parents[2]
    if parent.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(parent), os.environ.get("PYTHONPATH")]))}


def _write(path: Path, data: bytes) -> None:
    from asmk_engine.storage.folder import Folder

    Folder(path.parent).write(path.name, [data])


def _check_apart(photos: Path | None, output: Path) -> None:
    if photos is None:
        return
    here, there = photos.resolve(), output.resolve()
    if there.is_relative_to(here) or here.is_relative_to(there):
        raise InputError(f"{output}: the output folder and {photos} must not contain each other; give another with -o")


def _collect(photos: Path | None, output: Path, most: int, seed: int, steps: _Steps) -> list[QueryViews]:
    """Place the photographs and views, and nothing else, below one root; return the queries with their views."""
    from asmk_engine import demo as collection

    root, say = output / "photos", steps.console.say
    with steps.timed("collect"), steps.console.bar("views", "photographs") as progress:
        found = _own_photos(photos, say) if photos else collection.bundled_photos()
        subjects = [photo for photo in found if photos or not collection.is_second_photo(photo)]
        chosen = collection.choose_queries(subjects, most)
        collection.claim_folder(output)
        placed = collection.place_photos(found, root, link=photos is not None)
        below = collection.free_name(found)
        queries = collection.make_views(chosen, root, VIEWS_PER_PHOTO, seed, below=below, progress=progress)
        queries = queries if photos else collection.add_second_photos(queries, placed)
        collection.remove_others(root, {photo.name for photo in placed}.union(*(query.answers for query in queries)))
    if len(placed) < len(found):
        say(f"{photos}: {plural(len(found) - len(placed), 'photograph')} left out, since they cannot be opened")
    count = f"{plural(len(placed), 'photograph')}, and {VIEWS_PER_PHOTO} altered views of each of {len(queries)}"
    say(f"{root}: {count}, the first half mild (easy), the rest severe (hard)")
    return queries


def _own_photos(photos: Path, say: Callable[[str], None]) -> list[ImageFile]:
    from asmk_engine.images.listing import find_images

    images = find_images([photos]).images
    if len(images) > MOST_PHOTOS:
        say(f"{photos}: {plural(len(images), 'photograph')}, of which the demo uses {MOST_PHOTOS}, evenly spread")
    return evenly(images, MOST_PHOTOS)


def _search(output: Path, queries: Sequence[QueryViews], steps: _Steps) -> None:
    """Index, query and evaluate with the default extractor, also re-ranked, and evaluate RootSIFT beside it."""
    from asmk_engine.demo import write_ground_truth
    from asmk_engine.search.opening import open_index

    index, ground_truth = output / "photos.index", output / "gnd.json"
    _index(output, "photos", steps)
    write_ground_truth(ground_truth, open_index(index).names, queries)
    names = [query.name for query in queries]
    few = names[:: -(-len(names) // RANKINGS_PRINTED)]
    steps.run("query", index, "--top", "5", *_as_arguments(few))
    more = ("--top", str(SHEET_COLUMNS), "--format", "jsonl")
    steps.run("query", index, *more, *_as_arguments(names), into=output / "answers.jsonl")
    steps.run("evaluate", index, "--ground-truth", ground_truth)
    steps.run("evaluate", index, "--ground-truth", ground_truth, "--rerank", str(VERIFIED))
    if open_index(index).recipe.extractor != "rootsift":
        _index(output, "rootsift", steps, "--extractor", "rootsift")
        steps.run("evaluate", output / "rootsift.index", "--ground-truth", ground_truth)


def _index(output: Path, name: str, steps: _Steps, *options: str) -> None:
    """Index the photographs; in a folder of an earlier demo, they replace those of then."""
    index = output / f"{name}.index"
    removal = ("--update", "--prune", "--yes") if (index / "manifest.json").exists() else ()
    steps.run("index", output / "photos", "-o", index, *options, *removal)


def _as_arguments(names: Sequence[str]) -> list[str]:
    return ["--", *names] if any(name.startswith("-") for name in names) else list(names)


def _draw(output: Path, queries: Sequence[QueryViews], all_known: bool, steps: _Steps) -> None:
    """Write the contact sheet; in the user's own folder, an image that is not a view may also be correct."""
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.pictures.contact_sheet import write_contact_sheet

    root, right = output / "photos", {query.name: set(query.answers) for query in queries}

    def correct(query: Path, hit: Hit) -> bool | None:
        return True if hit.name in right[query.relative_to(root).as_posix()] else False if all_known else None

    with steps.timed("sheet"):
        answers = [json.loads(line) for line in (output / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
        rows = [
            (root / answer["query"], [(root / hit["name"], Hit(hit["name"], hit["score"])) for hit in answer["hits"]])
            for answer in answers
        ]
        write_contact_sheet(output / "sheet.png", rows, SHEET_COLUMNS, correct=correct)


def _close(output: Path, all_known: bool, steps: _Steps) -> None:
    say = steps.console.say
    if not all_known:
        say("Only the altered views count as correct in the evaluation, not other photographs of the same object.")
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.seconds.items())
    say(f"\nTime: {parts}; {sum(steps.seconds.values()):.1f} s in total")
    say(f"Contact sheet of all queries: {output / 'sheet.png'}")
    command = shlex.join(
        ["asmk-engine", "query", str(output / "photos.index"), "PHOTO", "--contact-sheet", "answer.png"]
    )
    say(f"To query with a photograph of your own: {command}")
