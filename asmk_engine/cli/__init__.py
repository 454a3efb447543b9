"""The command line: parse arguments, call the library, print results.

Results go to standard output, progress and messages to standard error. Exit code 0 is success, 1 an error that the
user can fix, reported in one line, 2 a usage error; anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn, TextIO, cast

import click

from asmk_engine.cli import (
    ablation,
    attention,
    audit,
    benchmark,
    boxes,
    calibrate,
    check,
    classify,
    codebook,
    demo,
    diffusion,
    doctor,
    evaluate,
    extract,
    global_index,
    groups,
    index,
    info,
    interchange,
    match,
    networks,
    query,
    reproduce,
    serve,
    shards,
    train,
    train_global,
    train_rerank,
    train_rrt,
    tsne,
    weights,
    whiten_global,
)
from asmk_engine.errors import AsmkError, AsmkWarning, StorageError
from asmk_engine.escape import ESCAPES, PLAIN_ASCII, register_escapes
from asmk_engine.version import __version__

EPILOG = """\b
Index a folder of photographs and query it:
  asmk-engine index photos/ -o photos.index
  asmk-engine query photos.index my-photo.jpg --top 10
"""


class Commands(click.Group):
    """A group that lists its commands in the order of the data flow, not alphabetically."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added."""
        return list(self.commands)


@click.group(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="asmk-engine")
def commands() -> None:
    """Find the same object or place in other photographs.

    Local features of the photographs are assigned to visual words, and an inverted file of binary codes ranks the
    indexed photographs for a query by the Aggregated Selective Match Kernel (ASMK).
    """


for command in (
    extract.extract,
    networks.whiten,
    whiten_global.whiten_global,
    codebook.build_codebook,
    index.index,
    query.query,
    serve.serve,
    match.match,
    attention.attention,
    boxes.boxes,
    evaluate.evaluate,
    classify.classify,
    tsne.tsne,
    benchmark.benchmark,
    info.info,
    global_index.augment,
    diffusion.neighbours,
    groups.groups,
    groups.pairs,
    audit.audit,
    audit.judge,
    calibrate.calibrate,
    index.delete,
    index.restore,
    index.merge,
    shards.shard,
    shards.shards,
    check.check,
    check.repair,
    interchange.import_,
    interchange.export,
    weights.weights,
    train.train_how,
    train.train_delf,
    train_global.train_global,
    train_rerank.train_rerank,
    train_rrt.train_rrt,
    ablation.train_ablation,
    reproduce.reproduce,
    demo.demo,
    doctor.doctor,
):
    commands.add_command(command)


def main() -> None:
    """Run the command line: the entry point of the `asmk-engine` program."""
    _occupy_descriptors()
    _prepare_streams()
    warnings.showwarning = _show_warning
    try:
        sys.exit(commands.main(prog_name="asmk-engine", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped; committed work is kept, and the same command resumes from there.", err=True)
        sys.exit(130)
    except AsmkError as error:
        _fail(str(error))
    except _ReaderGoneError:
        sys.exit(0)
    except OSError as error:  # an error of the operating system is not a bug of this program
        _fail(f"{error.filename or 'output'}: {error.strerror or error}; give a path that can be used")


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning of this program as one line, without the place in the code; others as Python does."""
    if issubclass(category, AsmkWarning):
        click.echo(f"warning: {' '.join(str(message).split())}", err=True)
    else:
        _python_shows(message, category, *where, **more)


_python_shows = warnings.showwarning


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(1)


# -------------------------------------------------------------------------------------------------------- streams


class _ReaderGoneError(Exception):
    """The reader of standard output has closed the pipe."""


class _Stream(io.RawIOBase):
    """A standard stream that accepts all data and discards it after the first failed write.

    raw       the stream to write to, or None if it was closed when the program started
    on_error  called with the first error; an exception that it raises reaches the caller of `write`
    """

    def __init__(self, raw: io.IOBase | None, on_error: Callable[[OSError], None]) -> None:
        self._raw: Any = raw
        self._on_error = on_error
        self._is_lost = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._raw is not None and self._raw.isatty()

    def fileno(self) -> int:
        """Return the file descriptor, which is used to get the width of a terminal."""
        if self._raw is None:
            raise io.UnsupportedOperation("the stream was closed when the program started")
        return int(self._raw.fileno())

    def write(self, data: Any) -> int:
        """Write all of the data, or discard it after an error."""
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
    """Open the null device as each standard descriptor that is closed, so that no data file gets its number.

    Libraries write messages to the descriptors 1 and 2, whichever files these are.
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
    """Keep unencodable characters and write errors of standard error from ending a run.

    Characters that cannot be encoded are escaped. Results that cannot be written are an error; messages that cannot be
    written are discarded.
    """
    register_escapes()
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = _rewritten(sys.stdout, _refuse)
    sys.stderr = _rewritten(sys.stderr, lambda error: None)


def _rewritten(stream: TextIO | None, on_error: Callable[[OSError], None]) -> io.TextIOWrapper:
    if stream is not None:
        stream.flush()
    binary = getattr(stream, "buffer", None)  # bypassed, since it would keep data that could not be written
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
        errno.EBADF: "it is closed: leave it open, or redirect it to a file or to /dev/null",
        errno.ENOSPC: "free some space and run the same command again",
    }
    cure = cures.get(error.errno or 0, "redirect it to a place that can be written")
    raise StorageError(f"standard output: cannot write the results: {error.strerror or error}; {cure}") from None
