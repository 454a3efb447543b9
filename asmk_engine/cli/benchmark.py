"""`asmk-engine benchmark`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Console, RenamedOption, plural, quiet_option, was_given
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.tradeoff.fusion import SourceFusion
    from asmk_engine.tradeoff.run import Step, TradeoffResult
    from asmk_engine.tradeoff.sources import SourcePaths


class Numbers(click.ParamType):
    """Comma-separated positive integers."""

    name = "N,N,..."

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        """Return the numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r}: expected comma-separated whole numbers above 0", param, context)
        return tuple(dict.fromkeys(int(part) for part in parts))


NUMBERS = Numbers()


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="NAME=FEATURES...")
@click.option(
    "--ground-truth",
    "ground_truth_path",
    cls=RenamedOption,
    earlier="--truth",
    type=PATH,
    required=True,
    help="Ground truth, as for `evaluate`.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Work folder, also for tables and figures.")
@click.option("--n", "strongest", type=NUMBERS, default="1000", show_default=True, help="Strongest features per image.")
@click.option("--words", type=NUMBERS, default="4096", show_default=True, help="Number of visual words.")
@click.option("--bits", type=NUMBERS, help="Bits of a code.  [default: dimensions of the descriptors]")
@click.option(
    "--assignments",
    "multiple_assignment",
    type=NUMBERS,
    default="5",
    show_default=True,
    help="Number of words per query descriptor.",
)
@click.option("--pca", type=NUMBERS, help="Dimensions of global descriptors after PCA, in addition to no PCA.")
@click.option(
    "--pq",
    type=NUMBERS,
    help="Dimensions of a sub-space in product quantisation of global descriptors, 8 or 1, in addition to none.",
)
@click.option(
    "--rerank",
    type=NUMBERS,
    help="Numbers of answers to verify and rank anew, in addition to none, in each configuration with local features.",
)
@click.option(
    "--rerank-by",
    type=click.Choice(["places", "descriptors", "both"]),
    multiple=True,
    default=["places"],
    show_default=True,
    help="What --rerank compares, as for `evaluate`: places are kept in the index, descriptors and both in its feature "
    "set. May be repeated.",
)
@click.option("--one-at-a-time", is_flag=True, help="Vary one option at a time, from the first values.")
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Number of clustering seeds.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Number of k-means rounds.")
@click.option(
    "--training-per-word",
    type=click.IntRange(min=1),
    default=80,
    show_default=True,
    help="Training descriptors per word.",
)
@click.option("--learn-on", multiple=True, metavar="NAME=FEATURES", help="Features to learn codebooks and PCA from.")
@click.option(
    "--queries", multiple=True, metavar="NAME=FEATURES", help="Features of queries that are regions or not indexed."
)
@click.option(
    "--title", default="Accuracy against memory and time", show_default=True, help="Title of the figure and the page."
)
@quiet_option
def benchmark(
    sources: tuple[str, ...],
    ground_truth_path: Path,
    output: Path,
    strongest: tuple[int, ...],
    words: tuple[int, ...],
    bits: tuple[int, ...] | None,
    multiple_assignment: tuple[int, ...],
    pca: tuple[int, ...] | None,
    pq: tuple[int, ...] | None,
    rerank: tuple[int, ...] | None,
    rerank_by: tuple[str, ...],
    one_at_a_time: bool,
    seeds: int,
    rounds: int,
    training_per_word: int,
    learn_on: tuple[str, ...],
    queries: tuple[str, ...],
    title: str,
    quiet: bool,
) -> None:
    """Measure accuracy, memory and time of many indexes.

    They differ in one option or several and contain the same images, so that figures can be compared. Each
    NAME=FEATURES is a feature set of the images of the ground truth, with local features or global descriptors.
    NAME=NAME+NAME is a fused source: one index of several of these feature sets, each with the options of the row.
    NAME=NAME:500+NAME gives a part an n of its own; an ending such as @0.67,0.33 gives weights, equal otherwise.
    --rerank adds rows whose bytes include what verification reads, and whose time includes the verification.
    Finished stages are kept in the work folder: the same command resumes an interrupted run, and retries failures.

    \b
    Example:
      asmk-engine benchmark rootsift=sift.features gem=gem.features --ground-truth gnd.json -o tradeoff \\
          --n 1000,400,2000 --words 4096,8192 --bits 128,64 --pca 128,32 --pq 8,1 --one-at-a-time
      asmk-engine benchmark deep=deep.features sift=sift.features both=deep+sift --ground-truth gnd.json -o fused \\
          --rerank 50
    """
    from asmk_engine.evaluation.ground_truth import read_ground_truth
    from asmk_engine.tradeoff.configurations import Sweep
    from asmk_engine.tradeoff.run import run
    from asmk_engine.tradeoff.writing import write_all

    sweep = Sweep(
        strongest,
        bits or (),
        words,
        multiple_assignment,
        pca or (),
        pq or (),
        one_at_a_time,
        seeds,
        rounds,
        training_per_word,
        _reranked(rerank),
        tuple(dict.fromkeys(rerank_by)),
    )
    console = Console(quiet)
    features, fusions = divided(sources)
    paths, ground_truth = source_paths(features, learn_on, queries), read_ground_truth(ground_truth_path)
    outcome = run(paths, ground_truth, sweep, output, lambda step: _show(step, console), fusions)
    if outcome.results:
        written = write_all(output, outcome, title, shlex.join(["asmk-engine", *sys.argv[1:]]))
        click.echo("\n".join(map(str, written)))
    _raise_failures(outcome, output)


def _reranked(rerank: tuple[int, ...] | None) -> tuple[int, ...]:
    if rerank is None and was_given("rerank_by"):
        raise InputError("--rerank-by needs --rerank; add --rerank 50")
    return rerank or ()


def divided(sources: Sequence[str]) -> tuple[tuple[str, ...], list[SourceFusion]]:
    """Divide the words for sources into those for feature sets and fused ones; raises as `read_fusion`."""
    from asmk_engine.tradeoff.fusion import is_fusion, read_fusion

    names = [word.partition("=")[0] for word in sources]
    fused = [word for word in sources if is_fusion(word, names)]
    features = tuple(word for word in sources if word not in fused)
    known = [word.partition("=")[0] for word in features]
    return features, [read_fusion(word, known) for word in fused]


def source_paths(sources: tuple[str, ...], learn_on: tuple[str, ...], queries: tuple[str, ...]) -> list[SourcePaths]:
    """Parse words NAME=FEATURES; raises InputError for another form, or a name that is not a source."""
    from asmk_engine.tradeoff.sources import SourcePaths

    named, learned, queried = (dict(map(_named, words)) for words in (sources, learn_on, queries))
    for name in (*learned, *queried):
        if name not in named:
            raise InputError(
                f"{name!r} is not one of the sources {', '.join(named)}; give NAME=FEATURES of one of them"
            )
    if len(named) < len(sources):
        raise InputError(f"{', '.join(sources)}: two sources have the same name; give each another name")
    return [SourcePaths(name, path, learned.get(name), queried.get(name)) for name, path in named.items()]


def _named(word: str) -> tuple[str, Path]:
    name, sign, path = word.partition("=")
    if not (name and sign and path):
        raise InputError(f"{word!r}: expected NAME=FEATURES, such as rootsift=photos.features")
    return name, Path(path)


def _show(step: Step, console: Console) -> None:
    from asmk_engine.tradeoff.results import Failure

    outcome = step.outcome
    place, left = f"[{step.number}/{step.total}] {outcome.configuration}", f"{step.seconds_left / 60:.0f} min left"
    if isinstance(outcome, Failure):
        console.say(f"{place}: failed: {outcome.reason}; {left}")
        return
    precision = 100 * outcome.precision.mean
    cost = f"{outcome.bytes_per_image:.0f} bytes per image, {outcome.query_milliseconds:.1f} ms per query"
    console.say(f"{place}: mAP {precision:.2f}, {cost}; {left}")


def _raise_failures(outcome: TradeoffResult, output: Path) -> None:
    if outcome.failures:
        count, total = len(outcome.failures), len(outcome.failures) + len(outcome.results)
        first = outcome.failures[0]
        raise InputError(
            f"{output}: {count} of {plural(total, 'configuration')} failed, first {first.configuration}: "
            f"{first.reason}; the others are written; run the same command again to retry"
        )
