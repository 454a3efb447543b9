"""Formulas of the pages as MathML, which browsers show by themselves: no script is loaded, from here or elsewhere."""

import html
import re

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves for a script to find, with `generic: true`.
_FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace every formula of a page; mkdocs calls this when a page is rendered."""
    return _FORMULA.sub(_rendered, content)


def _rendered(found: re.Match[str]) -> str:
    display = "block" if found["tag"] == "div" else "inline"
    formula = convert(html.unescape(found["latex"]).strip(), display=display)
    return f'<{found["tag"]} class="formula">{formula}</{found["tag"]}>'
