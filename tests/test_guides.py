"""The guides of docs/ do what they say: every block is run, on photographs, and what is said of it is checked."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import guides
import scenes
from samples import ENVIRONMENT, ROOT

DOCS = scenes.ROOT / "docs"
PAGES = [DOCS / "start.md", *sorted((DOCS / "guides").glob("*.md")), DOCS / "formats.md"]
# What a guide imports besides the package and what it requires.
NEEDS = {"sfm": "pycolmap"}
SHARED = pytest.param("shared", marks=pytest.mark.skipif(not scenes.has_shared(), reason="no shared photographs"))
RENDERED = pytest.param("rendered", marks=[pytest.mark.slow] if scenes.has_shared() else [])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where photographs of each kind were written already."""
    return {"": tmp_path_factory.mktemp("photographs")}


@pytest.mark.parametrize("kind", [SHARED, RENDERED])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_guide_does_what_it_says(page: Path, kind: str, photographs: dict[str, Path], tmp_path: Path) -> None:
    if importlib.util.find_spec(needed := NEEDS.get(page.stem, "numpy")) is None:
        pytest.skip(f"needs {needed}")
    if kind not in photographs:
        photographs[kind] = photographs[""] / kind
        scenes.write_photographs(photographs[kind], shared=kind == "shared")
    folder = tmp_path / "guide"
    shutil.copytree(photographs[kind], folder)
    done = run_page(page, folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def run_page(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page in a process of its own, with the command on the path and no weights of networks at hand."""
    environment = ENVIRONMENT | guides.provide_command(folder.parent / "bin")
    environment |= {"ASMK_ENGINE_CACHE": str(folder.parent / "cache"), "PYTHONUNBUFFERED": "1"}
    del environment["ASMK_ENGINE_EXTRACTOR"]  # readers have the default
    environment["PYTHONPATH"] = os.pathsep.join([ROOT, environment["PYTHONPATH"]])
    command = [sys.executable, "-P", guides.__file__, str(page)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_every_block_is_run_or_says_why_not() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = list(guides.blocks(text))
        assert 2 * len(found) == sum(line.startswith("```") for line in text.splitlines()), page
        assert all(block.language in guides.LANGUAGES for block in found), page
        assert sum(block.check is not None for block in found) == text.count("<!-- test:"), page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\n1 / 0\n```\n", 'page.md", line 2'),
        ("```sh\nfalse\n```\n", "exit code 1"),
        ("```sh\nfalse | true\n```\n", "exit code 1"),
        ("```python\nprint(1)\n```\n<!-- test:\nassert output == '2\\n'\n-->\n", 'page.md", line 5'),
        ("```python\na = 1\n```\n\n```sh\necho b\n```\n<!-- test:\nassert (a, output) == (2, 'b\\n')\n-->\n", "line 9"),
    ],
)
def test_a_false_page_fails(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    (tmp_path / "guide").mkdir()
    done = run_page(tmp_path / "page.md", tmp_path / "guide")
    assert done.returncode == 1 and message in done.stderr


def test_a_true_page_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na = 1\nprint(a)\n```\n<!-- test:\nassert output == '1\\n'\n-->\n\n"
        '```sh test="skip: needs the network"\nfalse\n```\n\n```text\nnot run\n```\n\n'
        "```sh\nasmk-engine --version\n```\n<!-- test:\nassert output.startswith('asmk-engine') and a == 1\n-->\n"
    )
    (tmp_path / "guide").mkdir()
    done = run_page(page, tmp_path / "guide")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\nasmk-engine")
