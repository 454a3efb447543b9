"""The text path: classes whose name contains a word, such as the city of a test set.

The names of Google Landmarks v2 are in `train_label_to_category.csv`: `landmark_id,category`, a URL of Wikimedia
Commons, of which the last part is shown.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from asmk_engine.audit.model import NamedClass
from asmk_engine.errors import DamagedError, FormatError
from asmk_engine.images.listing import shown
from asmk_engine.storage.user_files import read_file

MAX_BYTES = 2**31
_CATEGORY = "Category:"


def read_class_names(path: Path) -> dict[str, str]:
    """Read the name of each class, of a CSV with a header: the class in the first column, its name in the second.

    Raises FormatError for a table of another shape, DamagedError for text that is not UTF-8, and what `read_file` does.
    """
    try:
        text = read_file(path, "a table of class names", MAX_BYTES).decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DamagedError(f"{shown(path)}: not a UTF-8 CSV table ({error}); write it again") from None
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        raise FormatError(f"{shown(path)}: expected a header and two columns, the class and its name")
    return {row[0].strip(): category_of(row[1]) for row in rows[1:]}


def category_of(name: str) -> str:
    """Return a name as people read it; of a URL of Wikimedia Commons the category."""
    place = name.find(_CATEGORY)
    return unquote(name[place + len(_CATEGORY) :]).replace("_", " ").strip() if place >= 0 else name.strip()


def named_classes(counts: Mapping[str, int], names: Mapping[str, str], words: Sequence[str]) -> tuple[NamedClass, ...]:
    """Return the classes whose name contains a word, in letters of either case, in the order of the training set.

    counts  number of images of each class
    names   name of a class; a class that has none is called by its label
    """
    wanted = [word.casefold() for word in words]
    named = ((label, names.get(label, label), count) for label, count in counts.items())
    return tuple(
        NamedClass(label, name, count)
        for label, name, count in named
        if any(word in name.casefold() for word in wanted)
    )
