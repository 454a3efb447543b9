"""What several commands share: options, progress bars, messages."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TextIO, TypeVar, cast

import click

from asmk_engine.errors import AsmkError, InputError, StorageError
from asmk_engine.escape import unencodable, unescape_name
from asmk_engine.images.boxes import Box
from asmk_engine.iteration import Bar

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path, readable=False)  # whoever opens a path says what is wrong with it

quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress and no messages.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")
threads_option = click.option("--threads", type=click.IntRange(min=1), help="Threads; all available by default.")


class RenamedOption(click.Option):
    """An option that is still taken under an earlier spelling, which no help shows.

    earlier  the spelling, such as `--truth`
    """

    def __init__(self, *arguments: Any, earlier: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.earlier = earlier

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser know both spellings; help and errors name the present one alone."""
        present = self.opts
        self.opts = [*present, self.earlier]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = present


class SectionedCommand(click.Command):
    """A command of many options whose help shows them in sections.

    sections  title → names of parameters, in this order; what no section names stands under "More options" before help
    """

    sections: ClassVar[dict[str, Sequence[str]]] = {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        left = {str(option.name): option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        chosen = {title: [left.pop(name) for name in names] for title, names in self.sections.items()}
        for title, options in {**chosen, "More options": list(left.values())}.items():
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(title):
                formatter.write_dl(records)


def names_of(options: Callable[[Command], Command]) -> list[str]:
    """The names of the parameters that a decorator adds to a command."""

    def command() -> None: ...

    decorated: Any = options(cast(Any, command))
    return [str(option.name) for option in reversed(decorated.__click_params__)]


def option_group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


extraction_options = option_group(
    click.option(
        "--extractor",
        help="How features are found and described: rootsift, how-r18, how-r50-, how-squeezenet and more; or gem, "
        "spoc, mac, rmac, crow for one descriptor of a whole image; a wrong name lists them.  [default: a how- network "
        "whose weights were fetched, else rootsift]",
    ),
    click.option(
        "--weights",
        type=PATH,
        help="Weights of the extractor's network: a network of this program, an official HOW checkpoint, or ImageNet "
        "weights of its backbone, which are whitened on the images.",
    ),
    click.option(
        "--max-features",
        type=click.IntRange(min=1),
        help="Keep the strongest N features.  [default: 2000 of rootsift, 1000 of a network]",
    ),
    click.option(
        "--max-side", type=click.IntRange(min=16), help="Shrink the longer side to N pixels.  [default: 1024]"
    ),
    click.option(
        "--scales",
        callback=lambda c, p, value: parse_numbers(value),
        help="Scales of a network, such as 1.414,1,0.707.  [default: 2 to 0.25, seven]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        help="Precision of a network's convolutions; bf16 is faster where the hardware has it, and changes features a "
        "little.  [default: fp32]",
    ),
    click.option(
        "--exponent", type=click.FloatRange(0.1, 100), help="p of GeM upon weights of a backbone.  [default: 3]"
    ),
    click.option(
        "--skip", type=click.IntRange(0, 10), help="Last parts of a backbone to leave out, for whole-image descriptors."
    ),
    click.option("--score-threshold", type=click.FloatRange(min=0), help="Least attention of a DELF feature."),
    click.option("--device", help="Where a network runs: auto, cpu, cuda or cuda:0.  [default: auto]"),
    click.option("--contrast-threshold", type=click.FloatRange(min=0), help="Least contrast of a SIFT keypoint."),
    click.option("--workers", type=click.IntRange(min=0), help="Worker processes; one per processor by default."),
    click.option("--strict", is_flag=True, help="Stop at the first image that cannot be read."),
)

images_option = click.option(
    "--images",
    "images_roots",
    type=PATH,
    multiple=True,
    help="A folder of the photographs, when they have moved; may be given again.",
)
intake_options = option_group(
    click.option(
        "--prefix",
        default="",
        metavar="NAME",
        help="Let the names of these images begin with NAME/, so that a folder with names that are taken goes in, too.",
    ),
    click.option(
        "--all-files",
        is_flag=True,
        help="Also take files of a folder without the extension of an image that begin as one.",
    ),
    click.option(
        "--yes", is_flag=True, help="Let --prune remove more than half, and what lay in folders that are empty now."
    ),
)

match_options = option_group(
    click.option("--alpha", type=float, default=3.0, show_default=True, help="Power of the selectivity function."),
    click.option(
        "--threshold", type=float, default=0.0, show_default=True, help="Least similarity that counts, 0 to 1."
    ),
    click.option(
        "--assignments",
        "multiple_assignment",
        type=click.IntRange(min=1),
        default=5,
        show_default=True,
        help="Words per query feature.",
    ),
    click.option("--idf", is_flag=True, help="Weight words by their inverse document frequency."),
    threads_option,
)


def was_given(option: str) -> bool:
    """Whether an option of the command that runs was typed, or came from the environment."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


class Failures:
    """What could not be done, and why; it keeps nothing else from being done and told."""

    def __init__(self) -> None:
        self._errors: dict[str, AsmkError] = {}

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note an error of this package inside the block, or one of the system; it goes no further."""
        try:
            yield
        except AsmkError as error:
            self._errors[what] = error
        except OSError as error:
            self._errors[what] = StorageError(f"{error.filename or what}: {error.strerror or error}")

    def add(self, reason: str) -> None:
        """Note a reason."""
        self._errors[reason] = InputError(reason)

    def __len__(self) -> int:
        return len(self._errors)

    @property
    def reasons(self) -> list[str]:
        """The errors, in their order."""
        return [str(error) for error in self._errors.values()]

    def tell(self) -> None:
        """Raise the error, where there is one; of several, tell each on a line, also under --quiet, and raise one."""
        if len(self) == 1:
            raise next(iter(self._errors.values()))
        for reason in self.reasons:
            click.echo(reason, err=True)
        if self._errors:
            raise InputError(f"{len(self)} of what was asked could not be done; the first: {self.reasons[0]}")


class Console:
    """Messages and progress bars on standard error, or nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def say(self, message: str) -> None:
        """One line for the person at the terminal."""
        if not self.quiet:
            click.echo(message, err=True)

    @contextmanager
    def bar(self, what: str, unit: str, *, by_last: bool = False) -> Iterator[Bar]:
        """A progress bar with rate and ETA, as a callback (done, total); shown on terminals only.

        by_last  the last unit alone says how long the others will take, since the first ones take longer
        """
        from tqdm import tqdm

        hidden, smoothing = self.quiet or None, 1.0 if by_last else 0.3
        with tqdm(
            desc=what, unit=f" {unit}", disable=hidden, smoothing=smoothing, file=sys.stderr, dynamic_ncols=True
        ) as bar:

            def advance(done: int, total: int, failed: int = 0) -> None:
                bar.total = total
                if failed:
                    bar.set_postfix(skipped=failed, refresh=False)
                bar.update(done - bar.n)

            yield advance


def as_written(line: str, stream: TextIO) -> str:
    """A line of JSON as a stream can write it: in ASCII where its encoding lacks a letter of the line."""
    return json.dumps(json.loads(line)) if unprintable([line], stream) else line


def unprintable(names: Iterable[str], stream: TextIO) -> list[str]:
    """Those of the names that a stream cannot write as they are, in byte order; tables and TREC runs escape them."""
    return unencodable(names, getattr(stream, "encoding", None) or "utf-8")


def plural(count: int, noun: str) -> str:
    """`1 image`, `1 234 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")


def human_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise ValueError(count)


def parse_size(text: str) -> int:
    """`800M` or `1.5G` in bytes, the units being powers of 1024; InputError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise InputError(f"{text!r} is no size: give a number with K, M, G or T, such as 800M or 1.5G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def parse_numbers(text: str | None) -> tuple[float, ...] | None:
    """`2,1.414,1` as numbers; InputError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r}: expected numbers with commas between them, such as 1.414,1,0.707") from None


def parse_box(text: str | None) -> Box | None:
    """`x1,y1,x2,y2` as numbers; InputError for anything else."""
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"box {text!r}: expected four numbers x1,y1,x2,y2 in pixels, such as 10,20,300,400") from None
    return x1, y1, x2, y2


def check_network_name(output: Path) -> None:
    """InputError unless a network can be written under this name."""
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: networks are written as .safetensors files; give a name that ends so")


def read_name_list(path: Path) -> list[str]:
    """The names in a text file, one a line as `info --names` prints them; InputError when it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        return [unescape_name(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot read the list of names ({error}); expected UTF-8 text, one name a line"
        ) from None
