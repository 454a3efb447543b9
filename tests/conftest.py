"""Make `import naive` work however the tests are run, and report which copy of the package is tested."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# The first call of a kernel compiles it.
settings.register_profile("asmk-engine", deadline=None)
settings.load_profile("asmk-engine")

# RootSIFT needs no network: tests that do not name an extractor are about something else.
os.environ["ASMK_ENGINE_EXTRACTOR"] = "rootsift"

sys.path.insert(0, str(Path(__file__).parent))


def pytest_report_header() -> str:
    import asmk_engine

    return f"asmk_engine: {Path(asmk_engine.__file__).parent}"
