"""The reference of the command line, written from the commands themselves: what `--help` says, in its order."""

import contextlib
import html
import inspect
import textwrap
from collections.abc import Iterator, Sequence

import click

from asmk_engine.cli import commands

MARK = "<!-- commands -->"
PROGRAM = "asmk-engine"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the reference where a page has the mark; mkdocs calls this with every page."""
    return markdown.replace(MARK, "\n".join(reference(commands, PROGRAM))) if MARK in markdown else markdown


def reference(group: click.Group, path: str, level: int = 2) -> Iterator[str]:
    """The Markdown of each command of a group, in the order of the program's help, and of the commands below it."""
    above = click.Context(group, info_name=path)
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        if command is None or command.hidden:
            continue
        place = f"{path} {name}"
        yield f"{'#' * level} {place.removeprefix(PROGRAM).strip()}\n"
        yield from described(command, place)
        if isinstance(command, click.Group):
            yield from reference(command, place, level + 1)


def described(command: click.Command, path: str) -> Iterator[str]:
    """What the help of a command says: usage, text, examples, tables of options."""
    context = click.Context(command, info_name=path)
    first, *rest = inspect.cleandoc(command.help or "").split("\n\n")
    yield f"{_escaped(first)}\n"
    yield f"```\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    for paragraph in rest:
        yield from _examples(paragraph) if paragraph.startswith("\b") else [f"{_escaped(paragraph)}\n"]
    if not isinstance(command, click.Group):
        tables = _Tables()
        command.format_options(context, tables)
        yield from tables.lines


def _examples(paragraph: str) -> Iterator[str]:
    """A paragraph that keeps its line ends: a title, and what is to be typed."""
    _, title, *lines = paragraph.splitlines()
    yield f"**{title.strip().rstrip(':')}**\n"
    yield f"```sh\n{textwrap.dedent(chr(10).join(lines))}\n```\n"


def _escaped(text: str) -> str:
    for sign in "\\*_|[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("<", "&lt;")


class _Tables(click.HelpFormatter):
    """Takes the sections of a help text as Markdown tables."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A title above a table."""
        self.lines.append(f"| {name} | |\n|---|---|")
        yield
        self.lines.append("")

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """The rows of a table: an option, and what it does."""
        for option, text in rows:
            typed = html.escape(option).replace("|", "&#124;")
            self.lines.append(f"| <code>{typed}</code> | {_escaped(' '.join(text.split()))} |")
