"""The exceptions of this package.

    AsmkError
    ├── InputError        an argument cannot be used: an image, a box, an option, a name
    ├── NotFoundError     a path or name does not exist
    ├── MismatchError     two things that must agree do not: recipe, dimension, codebook
    ├── FormatError       a file has another format or version than this program reads
    ├── DamagedError      a stored file is damaged: truncated, altered, inconsistent
    ├── StorageError      the operating system refused: read-only, full, locked
    └── DependencyError   an optional package is needed but not installed

    AsmkWarning           what was left out of a result that is returned nevertheless

Every message is one line: what was found, what was expected, the cure, and the path if there is one.
Any other exception is a bug.
"""


class AsmkWarning(UserWarning):
    """What was left out of a result that is returned all the same, such as images that cannot be read."""


class AsmkError(Exception):
    """Base class of all exceptions that this package raises on purpose.

    Catch it to handle every expected failure; any other exception is a bug.

    Notes
    -----
    The subclasses are in `asmk_engine.errors`: `InputError`, `NotFoundError`, `MismatchError`, `FormatError`,
    `DamagedError`, `StorageError` and `DependencyError`. The message is one line: what was found, what was expected,
    the cure, and the path if there is one.
    """


class InputError(AsmkError):
    """An argument cannot be used."""


class NotFoundError(AsmkError):
    """A path or name does not exist."""


class MismatchError(AsmkError):
    """Two things that must agree do not."""


class FormatError(AsmkError):
    """A file has another format or version than this program reads."""


class DamagedError(AsmkError):
    """A stored file is damaged."""


class StorageError(AsmkError):
    """The operating system refused to read or write."""


class DependencyError(AsmkError):
    """An optional package is needed but not installed."""
