"""The command line: parse, call, print.

Results go to standard output, progress and messages to standard error. Exit code 0 is success, 1 an error the user can
mend, told in one line, 2 a wrong call; anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn, TextIO, cast

import click

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
from asmk_engine.errors import AsmkError, StorageError
from asmk_engine.escape import ESCAPES, PLAIN_ASCII, register_escapes
from asmk_engine.version import __version__

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
    _occupy_descriptors()
    _prepare_streams()
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
    except _ReaderGoneError:
        sys.exit(0)
    except OSError as error:  # what the system refuses is no bug of ours
        _fail(f"{error.filename or 'output'}: {error.strerror or error}; give a path that can be used")


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(1)


# -------------------------------------------------------------------------------------------------------- streams


class _ReaderGoneError(Exception):
    """Whoever reads our output has seen enough."""


class _Stream(io.RawIOBase):
    """A standard stream that takes everything and loses it once it could not be written.

    raw       what is written to, or None for a stream that was closed when the program began
    on_error  called with the first error; what it raises reaches whoever writes
    """

    def __init__(self, raw: io.IOBase | None, on_error: Callable[[OSError], None]) -> None:
        self._raw: Any = raw
        self._on_error = on_error
        self._is_lost = False

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._raw is not None and self._raw.isatty()

    def fileno(self) -> int:
        """The descriptor, for those who ask a terminal for its width."""
        if self._raw is None:
            raise io.UnsupportedOperation("this stream was closed when the program began")
        return int(self._raw.fileno())

    def write(self, data: Any) -> int:
        """Write all of the data, or lose it."""
        left = memoryview(data).cast("B")
        count = left.nbytes
        try:
            while left.nbytes and not self._is_lost:
                if self._raw is None:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                left = left[self._raw.write(left) or 0 :]
        except OSError as error:
            self._is_lost = True
            self._on_error(error)
        return count


def _occupy_descriptors() -> None:
    """Open the null device as each standard descriptor that is closed: no file of data shall get its number.

    Libraries write messages to the descriptors 1 and 2, whatever they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


def _prepare_streams() -> None:
    """Let no character and no full disk, pipe or terminal behind standard error end a run.

    What cannot be encoded is escaped. Results that cannot be written are an error; messages are lost.
    """
    register_escapes()
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = _rewritten(sys.stdout, _refuse)
    sys.stderr = _rewritten(sys.stderr, lambda error: None)


def _rewritten(stream: TextIO | None, on_error: Callable[[OSError], None]) -> io.TextIOWrapper:
    if stream is not None:
        stream.flush()
    binary = getattr(stream, "buffer", None)  # below its buffer, which would keep what could not be written
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        cast(BinaryIO, _Stream(getattr(binary, "raw", binary), on_error)),
        encoding=PLAIN_ASCII if codecs.lookup(encoding).name == "ascii" else encoding,
        errors=ESCAPES,
        write_through=True,
    )


def _refuse(error: OSError) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        raise _ReaderGoneError from None
    cures = {
        errno.EBADF: "it is closed: leave it open, or direct it to a file or to /dev/null",
        errno.ENOSPC: "free some space and run the same command again",
    }
    cure = cures.get(error.errno or 0, "direct it to where it can be written")
    raise StorageError(f"standard output: cannot write the results: {error.strerror or error}; {cure}") from None
