"""The process that runs a command on a cluster is killed: the same command goes on, and ends as if it never was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.demo import bundled_photos
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.maintenance.checking import check_index
from clusters import TestedCluster
from samples import ENVIRONMENT

pytest.importorskip("ray", reason="ray is not installed, which runs clusters: pip install 'asmk-engine[ray]'")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
LONGEST = 120.0


def killed(cluster: TestedCluster, words: list[str], seen: Path, after: float) -> bool:
    """Run a command on the cluster and kill its process some time after a file is there; returns whether it ran."""
    command = [sys.executable, "-m", "asmk_engine", *words, "--ray", cluster.cluster.address, "-q"]
    process = subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    end = time.monotonic() + LONGEST
    while not seen.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode == -signal.SIGKILL


def done(words: list[str]) -> None:
    result = CliRunner().invoke(commands, [*words, "-q"])
    assert result.exit_code == 0, result.output


def test_a_killed_command_is_carried_on(cluster: TestedCluster, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in bundled_photos():
        shutil.copy(photo.path, folder / Path(photo.name).name)
    words = ["extract", str(folder), "--extractor", "rootsift", "-o"]
    done([*words, str(tmp_path / "here")])
    there = tmp_path / "there"
    hits = [killed(cluster, [*words, str(there)], there, after) for after in (0.1, 0.6)]
    assert any(hits)
    done([*words, str(there), "--ray", cluster.cluster.address])
    one, other = FeatureSet.open(tmp_path / "here"), FeatureSet.open(there)
    assert one.names == other.names
    for name in one.names:
        assert one.read(name).descriptors.tobytes() == other.read(name).descriptors.tobytes()
        assert one.source(name) == other.source(name)
    assert not list(there.glob("*.tmp")) and part_names(there)
    codebook = tmp_path / "codebook.h5"
    done(["build-codebook", str(there), "--words", "64", "-o", str(codebook)])
    index = tmp_path / "photos.index"
    build = ["index", str(there), "--codebook", str(codebook), "-o", str(index)]
    assert killed(cluster, build, index / "manifest.json", 0.0)
    assert check_index(index).clean
    done([*build, "--ray", cluster.cluster.address])
    single = tmp_path / "single.index"
    done(["index", str(there), "--codebook", str(codebook), "-o", str(single)])
    asked = ["query", "--all", "--format", "jsonl", "-q"]
    answers = [CliRunner().invoke(commands, [asked[0], str(path), *asked[1:]]) for path in (index, single)]
    assert answers[0].stdout == answers[1].stdout != "" and check_index(index).clean
