"""The tools that build docs/: formulas, columns of docstrings, the reference of the command line, hidden checks."""

import importlib.util
import re
from types import ModuleType, SimpleNamespace

import pytest

from scenes import ROOT

TOOLS = ROOT / "docs/_tools"


def tool(name: str, needed: str) -> ModuleType:
    """A module of docs/_tools; the test is skipped where the extra `docs` is not installed."""
    pytest.importorskip(needed)
    specification = importlib.util.spec_from_file_location(f"docs_{name}", TOOLS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_formulas_become_mathml() -> None:
    formulas = tool("formulas", "latex2mathml")
    page = r'<p>a <span class="arithmatex">\(x &lt; \tau\)</span></p><div class="arithmatex">\[\frac{1}{2}\]</div>'
    found = formulas.on_page_content(page)
    assert "arithmatex" not in found and "\\" not in found
    assert found.startswith('<p>a <span class="formula"><math') and 'display="inline"' in found
    assert '<div class="formula"><math' in found and "<mfrac>" in found and 'display="block"' in found


def test_every_formula_of_the_pages_is_understood() -> None:
    """What the converter does not know stays as a command with a backslash."""
    formulas = tool("formulas", "latex2mathml")
    count = 0
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^```.*?^```|^<!--.*?-->|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for latex in [*re.findall(r"\\\((.+?)\\\)", text, re.S), *re.findall(r"\$\$(.+?)\$\$", text, re.S)]:
            found = formulas.on_page_content(rf'<span class="arithmatex">\({latex}\)</span>')
            assert "\\" not in found and found.startswith('<span class="formula"><math'), f"{path.name}: {latex}"
            count += 1
    assert count > 40


def test_columns_become_lists() -> None:
    docstring = """Return it.

path        the folder
top, count  how many, or
            all of them
More text.

    code  here"""
    expected = """Return it.


- `path`: the folder
- `top`, `count`: how many, or
    all of them

More text.

    code  here"""
    assert "\n".join(tool("columns", "griffe").as_lists(docstring.splitlines())) == expected


def test_the_reference_has_every_command_and_option() -> None:
    commands = tool("commands", "click")
    text = commands.on_page_markdown(f"# Commands\n\n{commands.MARK}\n")
    headings = re.findall(r"^#+ (.+)$", text, re.M)[1:]
    assert headings[: len(commands.commands.commands)][0] == next(iter(commands.commands.commands))
    assert {heading.split()[0] for heading in headings} == set(commands.commands.commands)
    for command in commands.commands.commands.values():
        options = [option for option in command.params if option.param_type_name == "option"]
        assert all(option.opts[-1] in text for option in options), command.name
    assert "\b" not in text and "Sentinel" not in text


def test_readers_do_not_get_the_checks(caplog: pytest.LogCaptureFixture) -> None:
    page, checks = SimpleNamespace(file=SimpleNamespace(src_uri="a.md")), tool("checks", "re")
    text = "a\n```sh\nb\n```\n<!-- test:\nassert c\n-->\n\n<!-- api: d -->\n\n<!-- e -->\n"
    text += '```python test="skip: f"\n```\n'
    assert checks.on_page_markdown(text, page) == "a\n```sh\nb\n```\n\n\n<!-- e -->\n```python\n```\n"
    assert not caplog.records
    checks.on_page_markdown("```sh linenums\n```\n", page)
    assert "a.md: a fenced block begins with '```sh linenums'" in caplog.text
