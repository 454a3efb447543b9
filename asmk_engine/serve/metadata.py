"""What a table of the user says of the images: titles, years, places."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine.errors import FormatError
from asmk_engine.storage.user_files import read_file

MOST_BYTES = 1 << 28
LONGEST = 1 << 17
NAME_COLUMNS = ("name", "image", "filename", "file")


@dataclass(frozen=True)
class Metadata:
    """A table of the images.

    columns  titles of the columns besides the name
    rows     values by column, by name
    """

    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, str]:
        """Return the values of an image, none if the table lacks it."""
        return self.rows.get(name, {})


def read_metadata(path: Path) -> Metadata:
    """Read a CSV with a line of titles, one of which is `name`, `image`, `filename` or `file`.

    Commas, semicolons or tabs separate values. Raises FormatError for other content, NotFoundError and StorageError.
    """
    try:
        text = read_file(path, "a table of metadata", MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 ({error.reason}); save the table as CSV in UTF-8") from None
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        titles = [title.strip() for title in next(reader, [])]
        place = next((titles.index(title) for title in titles if title.casefold() in NAME_COLUMNS), None)
        if place is None:
            found = ", ".join(titles[:5]) or "nothing"
            raise FormatError(
                f"{path}: no column of names; expected {', '.join(NAME_COLUMNS)} in the first line, found {found}"
            )
        rows = {row[place]: _values(titles, row, place) for row in _short(reader) if len(row) > place and row[place]}
    except csv.Error as error:
        raise FormatError(f"{path}: line {reader.line_num} is no CSV ({error}); save the table again") from None
    columns = dict.fromkeys(title for number, title in enumerate(titles) if number != place and title)
    return Metadata(tuple(columns), rows)


def _short(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yield the rows; raises csv.Error for a value that no table has, such as after a quote without an end.

    The module has such a limit too, which whatever else runs in the process may have raised.
    """
    for row in rows:
        if any(len(value) > LONGEST for value in row):
            raise csv.Error(f"a value of more than {LONGEST} characters")
        yield row


def _values(titles: list[str], row: list[str], place: int) -> dict[str, str]:
    pairs = zip(titles, row, strict=False)
    return {title: value for number, (title, value) in enumerate(pairs) if number != place and title and value}
