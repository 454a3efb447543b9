"""Compiled kernels are kept between processes, also when several of them start together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from samples import ENVIRONMENT

# A search by hand: two words of four images each.
PROGRAM = """
import json
import numpy as np
from asmk_engine.kernels import elias_fano, match, rank
starts = np.array([0, 4, 8])
id_starts = elias_fano.list_starts(np.diff(starts), 9)
ids = np.zeros(int(id_starts[-1]) + elias_fano.PADDING, np.uint8)
elias_fano.encode(np.array([0, 3, 4, 8, 1, 3, 7, 8], np.uint32), starts, id_starts, 9, ids)
codes = np.arange(16, dtype=np.uint64).reshape(8, 2)
scores, numbers, normal = np.zeros(256), np.zeros(9, np.uint32), np.zeros(9)
digests, seen = np.zeros(2, np.uint32), np.zeros(2, np.uint8)
match.digest_lists(starts, id_starts, ids, codes, digests)
table = 1.0 - np.arange(129) / 128
query = codes[:2].copy()
match.match(np.array([0, 1]), query, np.ones(2), starts, id_starts, ids, codes, digests, seen, table, 9, scores)
found = rank.normalise(scores[:9].copy(), np.ones(9), 1.0, 0.5, numbers, normal)
kernels = (match.match, elias_fano.encode, rank.normalise)
hits = [sum(kernel.compiled.stats.cache_hits.values()) for kernel in kernels]
print(json.dumps([numbers[:found].tolist(), normal[:found].tolist(), hits]))
"""


def start(cache: Path) -> subprocess.Popen[str]:
    environment = {**ENVIRONMENT, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_processes_that_start_together_share_a_cold_cache(tmp_path: Path) -> None:
    together = [start(tmp_path / "cache") for _ in range(3)]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in together]
    assert all(process.returncode == 0 for process in together)
    later = json.loads(start(tmp_path / "cache").communicate(timeout=300)[0])
    assert later[0] == [0, 1, 3, 4, 7, 8] and later[2] == [1, 1, 1]
    assert all(answer[:2] == later[:2] for answer in answers)
