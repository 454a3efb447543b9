"""The public face: the names of the package, its version, and the names its folders are imported under."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import asmk_engine
from test_house import package_sources

PUBLIC = [
    "AsmkError",
    "AsmkWarning",
    "Codebook",
    "FeatureSet",
    "FeatureSource",
    "Features",
    "FusedIndex",
    "FusedSearcher",
    "GlobalIndex",
    "GlobalSearcher",
    "Hit",
    "Index",
    "Match",
    "Reranking",
    "Searcher",
    "SelectiveMatch",
    "Signature",
    "Verification",
    "extract_folder",
    "index_folder",
    "load_extractor",
    "open_index",
    "register_extractor",
    "scores",
    "similarity",
]


def installed() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("asmk-engine")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("a bare checkout: asmk-engine is not installed")


def test_the_public_names_are_sorted_and_complete() -> None:
    assert asmk_engine.__all__ == PUBLIC == sorted(asmk_engine._homes)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_to_what_its_home_defines(name: str) -> None:
    home = importlib.import_module(asmk_engine._homes[name])
    assert getattr(asmk_engine, name) is getattr(home, name)


def test_the_names_are_listed_before_they_are_loaded() -> None:
    assert set(PUBLIC) <= set(dir(asmk_engine))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'asmk_engine' has no attribute 'Kodebook'"):
        _ = asmk_engine.Kodebook


def test_the_version_is_the_installed_one() -> None:
    assert installed().version == asmk_engine.__version__


def test_the_installation_owns_one_import_name() -> None:
    assert (installed().read_text("top_level.txt") or "").split() == ["asmk_engine"]


def test_the_command_is_installed() -> None:
    commands = {point.name: point.value for point in installed().entry_points if point.group == "console_scripts"}
    assert commands == {"asmk-engine": "asmk_engine.cli:main"}


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(asmk_engine.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["kernels", "codebooks"])
def test_a_top_level_folder_is_loaded_under_its_mapped_name_only(folder: str, tmp_path: Path) -> None:
    code = f"""
import importlib, pkgutil, sys
package = importlib.import_module("asmk_engine.{folder}")
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module("asmk_engine.{folder}." + module.name)
print(*sorted(name for name in sys.modules if name.split(".")[0] == "{folder}"))
print(package.__name__)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(asmk_engine.__file__).parents[1])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["", f"asmk_engine.{folder}"]


def test_every_module_of_the_tree_is_installed_and_can_be_imported(tmp_path: Path) -> None:
    modules = sorted(file.module for file in package_sources() if not file.module.endswith("__main__"))
    assert len(modules) > 200
    code = "import importlib, sys\nfor module in sys.stdin.read().split():\n    importlib.import_module(module)"
    environment = {**os.environ, "PYTHONPATH": str(Path(asmk_engine.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], input="\n".join(modules), cwd=tmp_path,
                          env=environment, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
