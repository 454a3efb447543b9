"""Make `import naive` work however the tests are run, and report which copy of the package is tested."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from asmk_engine.serve.service import Service
    from clusters import TestedCluster
    from serving import Client

# The first call of a kernel compiles it.
settings.register_profile("asmk-engine", deadline=None)
settings.load_profile("asmk-engine")

# RootSIFT needs no network: tests that do not name an extractor are about something else.
os.environ["ASMK_ENGINE_EXTRACTOR"] = "rootsift"

sys.path.insert(0, str(Path(__file__).parent))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser for all tests of pages: a process can drive one at a time."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed, which this test drives")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed, which drives chromium")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[TestedCluster]:
    """A local cluster of Ray, to which this process is connected."""
    from clusters import cluster_of_the_session

    with cluster_of_the_session() as started:
        yield started


def pytest_report_header() -> str:
    import asmk_engine

    return f"asmk_engine: {Path(asmk_engine.__file__).parent}"


@pytest.fixture(scope="session")
def served_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, an index of them, and a folder of others: see `serving.make_place`."""
    from serving import make_place

    return make_place(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def library(served_place: Path) -> Iterator[tuple[Service, Client]]:
    """A server of all of these indexes that changes nothing, and a client in this process."""
    from serving import serving, titles

    with serving([served_place / "photos.index", served_place / "others"], titles()) as found:
        yield found


@pytest.fixture(scope="session")
def client(library: tuple[Service, Client]) -> Client:
    """The client of `library`."""
    return library[1]
