"""Leaves the checks of tests/test_guides.py and the marks of blocks out of the pages that readers get."""

import re

_HIDDEN = re.compile(r"^<!-- (?:test|api):.*?-->\n", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Remove the comments; mkdocs calls this with every page."""
    return _HIDDEN.sub("", markdown)
