"""The errors a caller can act upon.

    AsmkError
    ├── InputError        what was given cannot be used: an image, a box, an option, a name
    ├── NotFoundError     a path or a name that was asked for does not exist
    ├── MismatchError     two things that must agree do not: recipe, dimension, codebook
    ├── FormatError       a file is of another kind or version than this program reads
    ├── DamagedError      a stored file is broken: cut, altered, contradicting itself
    ├── StorageError      the operating system refused: read-only, full, locked
    └── DependencyError   an optional package is needed and not installed

Every message is one line: what was found, what was expected, the cure, and the path where there is one.
Anything else that is raised is a bug.
"""


class AsmkError(Exception):
    """Root of every error that this package raises for a caller to act upon."""


class InputError(AsmkError):
    """What was given cannot be used."""


class NotFoundError(AsmkError):
    """A path or a name that was asked for does not exist."""


class MismatchError(AsmkError):
    """Two things that must agree do not."""


class FormatError(AsmkError):
    """A file is of another kind or version than this program reads."""


class DamagedError(AsmkError):
    """A stored file is broken."""


class StorageError(AsmkError):
    """The operating system refused to read or write."""


class DependencyError(AsmkError):
    """An optional package is needed and not installed."""
