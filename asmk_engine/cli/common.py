"""Options, messages and parsers that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO, TypeVar, cast

import click

from asmk_engine.errors import InputError
from asmk_engine.escape import unencodable, unescape_name
from asmk_engine.images.boxes import Box
from asmk_engine.images.objects import is_url
from asmk_engine.pipeline.display import Console as Console
from asmk_engine.pipeline.failures import Failures as Failures
from asmk_engine.pipeline.wording import plural as plural

if TYPE_CHECKING:
    from asmk_engine.pipeline.extractor_choice import ExtractionOptions
    from asmk_engine.pipeline.machines import Machines

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path, readable=False)  # not checked here: the code that opens a path reports errors


class ImagePlace(click.ParamType):
    """A path, or the URL of images in object storage, which a path would change."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """Return a URL as it is, anything else as a path."""
        return value if is_url(value) else Path(value)


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress bars and no messages.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Number of threads.  [default: all available]"
)


class RenamedOption(click.Option):
    """An option that also accepts an earlier spelling, which no help page shows.

    earlier  the earlier spelling, such as `--truth`
    """

    def __init__(self, *arguments: Any, earlier: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.earlier = earlier

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register both spellings with the parser; help and errors show only the present one."""
        present = self.opts
        self.opts = [*present, self.earlier]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = present


class SectionedCommand(click.Command):
    """A command whose help shows its options in sections.

    sections  title → names of parameters, in this order; the remaining options and --help follow under "More options"
    """

    sections: ClassVar[dict[str, Sequence[str]]] = {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options section by section."""
        left = {str(option.name): option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        chosen = {title: [left.pop(name) for name in names] for title, names in self.sections.items()}
        for title, options in {**chosen, "More options": list(left.values())}.items():
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(title):
                formatter.write_dl(records)


def names_of(options: Callable[[Command], Command]) -> list[str]:
    """Return the names of the parameters that a decorator adds to a command."""

    def command() -> None: ...

    decorated: Any = options(cast(Any, command))
    return [str(option.name) for option in reversed(decorated.__click_params__)]


def option_group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine several options into one decorator; help shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_described_by = option_group(
    click.option(
        "--weights",
        type=PATH,
        help="Weights of the extractor's network: a network file of this program, an official checkpoint, or ImageNet "
        "weights of the backbone; with these, how learns a whitening from the images, gem pools, and solar, dolg and "
        "others get an untrained head. Of several extractors, for the only one with a network, or for delg and "
        "delg-local, which share it.",
    ),
    click.option(
        "--max-features",
        type=click.IntRange(min=1),
        help="Maximum number of features per image; the strongest are kept.  [default: 2000 for rootsift, 1000 for "
        "networks]",
    ),
    click.option(
        "--max-side",
        type=click.IntRange(min=16),
        help="Shrink images whose longer side exceeds this number of pixels.  [default: 1024]",
    ),
    click.option(
        "--scales",
        callback=lambda c, p, value: parse_numbers(value),
        help="Image scales at which a network runs, such as 1.414,1,0.707.  [default: seven scales from 2 "
        "to 0.25, for how-efficientnet-lite from 1.25 to 0.156]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        help="Precision of a network's convolutions. bf16 is faster on hardware that supports it and changes features "
        "slightly.  [default: bf16 for how-efficientnet-lite, else fp32]",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        help="Type of the stored descriptors of local features.  [default: float16, which takes half the space]",
    ),
    click.option(
        "--exponent",
        type=click.FloatRange(0.1, 100),
        help="Exponent p of GeM pooling when --weights is a backbone.  [default: 3]",
    ),
    click.option(
        "--skip",
        type=click.IntRange(0, 10),
        help="Number of final backbone stages (ResNet) or layers (SqueezeNet) to leave out, for global descriptors.",
    ),
    click.option(
        "--untrained-seed",
        type=click.IntRange(0, 2**31 - 1),
        help="Seed of the random head of solar, dolg and others when --weights is a backbone.  [default: 0]",
    ),
    click.option(
        "--score-threshold", type=click.FloatRange(min=0), help="Minimum attention score of a DELF or DELG feature."
    ),
    click.option("--device", help="Device that runs the network: auto, cpu, cuda or cuda:0.  [default: auto]"),
    click.option("--contrast-threshold", type=click.FloatRange(min=0), help="Minimum contrast of a SIFT keypoint."),
)
describing_options = option_group(
    click.option(
        "--extractor",
        help="Extractor of the features: how-efficientnet-lite0, rootsift, how-r18 and others for local features; gem, "
        "rmac and others for one global descriptor of each photograph. An unknown name lists all.  [default: "
        "$ASMK_ENGINE_EXTRACTOR, else how-efficientnet-lite0, or rootsift where its network is not installed]",
    ),
    _described_by,
)
"""How single photographs are described: `extraction_options` without those of runs over many."""
extraction_options = option_group(
    click.option(
        "--extractor",
        help="Extractor of the features: how-efficientnet-lite0, rootsift, how-r18, how-r50- and others for local "
        "features; gem, spoc, mac, rmac, crow, solar, dolg and others for one global descriptor per image. An unknown "
        "name lists all. `index` takes several, separated by commas, for an index of several kinds of features; "
        "rootsift:max_features=500 among them has an option of its own. auto: that of the "
        "index, codebook or feature set if there is one, else $ASMK_ENGINE_EXTRACTOR, else how-efficientnet-lite0, or "
        "rootsift where its network is not installed.  [default: auto]",
    ),
    _described_by,
    click.option(
        "--workers", type=click.IntRange(min=0), help="Number of worker processes.  [default: one per processor]"
    ),
    click.option("--strict", is_flag=True, help="Stop at the first image that cannot be read."),
    click.option(
        "--train",
        is_flag=True,
        help="Learn the whitening of the network, and for an index the visual words, from these images, instead of "
        "taking those that come with the package.",
    ),
)


def _register(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from asmk_engine.extractors.registry import import_extractor

        for name in value.split(","):
            import_extractor(name)


own_extractor_option = click.option(
    "--extractor",
    metavar="MODULE:CLASS,...",
    expose_value=False,
    callback=_register,
    help="Class of the extractor that made the index, if it is neither built in nor installed.",
)


def extraction_of(options: dict[str, Any], machines: Machines | None = None) -> ExtractionOptions:
    """Return the values of `extraction_options` or `describing_options` as the pipeline takes them."""
    from asmk_engine.pipeline.extractor_choice import ExtractionOptions

    known = ("extractor", "weights", "device", "workers", "strict", "train")
    run = {key: options[key] for key in known if key in options}
    others = {key: value for key, value in options.items() if key not in run}
    return ExtractionOptions(**run, others=others, machines=machines)


images_option = click.option(
    "--images",
    "images_roots",
    type=PATH,
    multiple=True,
    help="Folder that contains the indexed images, if they have moved; may be repeated.",
)
intake_options = option_group(
    click.option(
        "--prefix",
        default="",
        metavar="NAME",
        help="Prepend NAME/ to the names of these images, so that a folder whose file names are already in use can be "
        "added.",
    ),
    click.option(
        "--all-files",
        is_flag=True,
        help="Also include files without an image extension whose first bytes are those of an image.",
    ),
    click.option(
        "--yes",
        is_flag=True,
        help="Allow --prune to remove more than half of the images, and images of folders that are now empty.",
    ),
)

match_options = option_group(
    click.option("--alpha", type=float, default=3.0, show_default=True, help="Exponent of the selectivity function."),
    click.option(
        "--threshold",
        type=float,
        default=0.0,
        show_default=True,
        help="Similarity, from 0 to 1, below which a match does not count.",
    ),
    click.option(
        "--assignments",
        "multiple_assignment",
        type=click.IntRange(min=1),
        default=5,
        show_default=True,
        help="Number of visual words to which each query feature is assigned.",
    ),
    click.option("--idf", is_flag=True, help="Weight words by their inverse document frequency."),
    threads_option,
)


def was_given(option: str) -> bool:
    """Return whether an option of the running command was given on the command line or in the environment."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def tell(failures: Failures) -> None:
    """Raise the error, if there is one; print several, also under --quiet, and raise InputError."""
    if len(failures) > 1:
        for reason in failures.reasons:
            click.echo(reason, err=True)
    failures.check()


def as_written(line: str, stream: TextIO) -> str:
    """Return a line of JSON as a stream can write it: in ASCII if its encoding lacks a character of the line."""
    return json.dumps(json.loads(line)) if unprintable([line], stream) else line


def unprintable(names: Iterable[str], stream: TextIO) -> list[str]:
    """Return the names that a stream cannot write unchanged, in byte order; tables and TREC runs escape them."""
    return unencodable(names, getattr(stream, "encoding", None) or "utf-8")


def human_bytes(count: float) -> str:
    """Return bytes in the largest unit that gives a number of at least 1."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise ValueError(count)


def parse_numbers(text: str | None) -> tuple[float, ...] | None:
    """Return `2,1.414,1` as numbers; raises InputError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r}: expected numbers separated by commas, such as 1.414,1,0.707") from None


def parse_box(text: str | None) -> Box | None:
    """Return `x1,y1,x2,y2` as numbers; raises InputError for anything else."""
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"box {text!r}: expected four numbers x1,y1,x2,y2 in pixels, such as 10,20,300,400") from None
    return x1, y1, x2, y2


def check_network_name(output: Path) -> None:
    """Raise InputError unless the name of a network file ends in .safetensors."""
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: networks are written as .safetensors files; give a name with this extension")


def read_name_list(path: Path) -> list[str]:
    """Return the names in a text file, one per line as `info --names` prints them; raises InputError if unreadable."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        return [unescape_name(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot read the list of names ({error}); expected UTF-8 text, one name per line"
        ) from None
