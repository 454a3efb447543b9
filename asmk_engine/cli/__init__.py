"""The command line: parse, call, print.

Results go to standard output, progress and messages to standard error. Exit code 0 is success, 1 an error the user can
mend, told in one line, 2 a wrong call; anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from asmk_engine import __version__
from asmk_engine.cli import (
    benchmark,
    check,
    classify,
    codebook,
    demo,
    doctor,
    evaluate,
    extract,
    global_index,
    index,
    info,
    interchange,
    networks,
    query,
    reproduce,
    train,
    weights,
    whiten_global,
)
from asmk_engine.errors import AsmkError

EPILOG = """\b
From a folder of photographs to an answer:
  asmk-engine index photos/ -o photos.index
  asmk-engine query photos.index my-photo.jpg --top 10
"""


class Commands(click.Group):
    """The commands in the order of the data flow, not of the alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names in the order they were added."""
        return list(self.commands)


@click.group(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="asmk-engine")
def commands() -> None:
    """Find the same thing in other photographs.

    Photographs become local features, features become visual words, and an inverted file of binary codes answers
    which other photographs show the same thing.
    """


for command in (
    extract.extract,
    networks.whiten,
    whiten_global.whiten_global,
    codebook.build_codebook,
    index.index,
    query.query,
    evaluate.evaluate,
    classify.classify,
    benchmark.benchmark,
    info.info,
    global_index.augment,
    index.delete,
    index.merge,
    check.check,
    check.repair,
    interchange.import_,
    interchange.export,
    weights.weights,
    train.train_how,
    train.train_delf,
    reproduce.reproduce,
    demo.demo,
    doctor.doctor,
):
    commands.add_command(command)


def main() -> None:
    """Run the command line; the entry point of the `asmk-engine` program."""
    try:
        sys.exit(commands.main(prog_name="asmk-engine", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped; what was committed stays, the same command goes on from there.", err=True)
        sys.exit(130)
    except AsmkError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # what the system refuses is no bug of ours
        _fail(f"{error.filename or 'output'}: {error.strerror or error}; give a path that can be used")


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(1)
