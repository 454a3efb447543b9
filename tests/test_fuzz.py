"""Altered files of every kind, read by a process with little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from samples import ENVIRONMENT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="memory is limited through the resource module")
CASES, MANY_CASES = 60, 3000


def _fuzz(seed: int, cases: int, folder: Path) -> dict[str, int]:
    program = Path(__file__).parent / "fuzzing.py"
    command = [sys.executable, program, str(seed), str(cases), folder]
    limited = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread reserves memory
    result = subprocess.run(command, capture_output=True, text=True, env=limited, timeout=60 + cases)
    assert result.returncode == 0, result.stderr[-3000:]
    refused: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    return refused


def test_altered_files_are_read_or_refused(tmp_path: Path) -> None:
    refused = _fuzz(0, CASES, tmp_path)
    assert len(refused) == 8 and all(count > CASES // 8 for count in refused.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_altered_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    print(_fuzz(seed, MANY_CASES, tmp_path), "refused of", MANY_CASES, "each")
