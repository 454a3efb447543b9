"""Docstrings that list parameters as `name  text` columns, as Markdown lists; numpydoc sections are left to griffe."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

# A column: one or more names, two or more spaces, text. What belongs to it is indented.
_COLUMN = re.compile(r"(?P<names>[\w*]+(?:(?:, | / )[\w*]+)*) {2,}(?P<text>\S.*)")


class Columns(griffe.Extension):
    """Rewrites the docstrings of a package as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None and "\n----" not in obj.docstring.value:
            obj.docstring.value = "\n".join(as_lists(obj.docstring.value.splitlines()))


def as_lists(lines: list[str]) -> Iterator[str]:
    """The lines, with columns as items of a list, and indented blocks as code."""
    in_list = False
    for line in lines:
        column = _COLUMN.fullmatch(line)
        if column is not None:
            names = ", ".join(f"`{name}`" for name in re.split(r", | / ", column["names"]))
            yield from ([] if in_list else [""])
            yield f"- {names}: {column['text']}"
        elif in_list and line[:1] == " ":
            yield f"    {line.strip()}"
        else:
            yield from ([""] if in_list and line else [])
            yield line
        in_list = column is not None or (in_list and line[:1] == " ")
