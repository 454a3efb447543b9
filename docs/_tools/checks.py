"""Leaves what only tests/test_guides.py reads out of the pages: checks, marks, and what stands after a language."""

import logging
import re
from typing import Any

_HIDDEN = re.compile(r"^<!-- (?:test|api):.*?-->\n", re.MULTILINE | re.DOTALL)
_SKIPPED = re.compile(r'^(```\w+) test="[^"\n]*"$', re.MULTILINE)
_STRANGE = re.compile(r"^```(?!\w*$).*$", re.MULTILINE)
_LOG = logging.getLogger("mkdocs.hooks.checks")


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Remove them from a page; mkdocs calls this with every page.

    Warns of other words after a language, with which a block would be shown as text; with --strict that is an error.
    """
    shown = _SKIPPED.sub(r"\1", _HIDDEN.sub("", markdown))
    for line in _STRANGE.findall(shown):
        _LOG.warning("%s: a fenced block begins with %r; expected a language and nothing else", page.file.src_uri, line)
    return shown
