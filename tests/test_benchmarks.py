"""Every benchmark runs in its small size and ends in one line of JSON with the keys it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asmk_engine.demo import bundled_photos
from asmk_engine.images.decoding import view_image
from audit_samples import save
from samples import ENVIRONMENT
from scenes import render

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
KEYS = {
    "match": {"images", "postings", "ns_per_posting", "over_code_pass", "bandwidth_fraction", "two_thread_speedup"},
    "memory": {"bytes_per_posting", "id_bytes_per_posting", "heap_mb"},
    "opening": {"seconds", "first_query_cold_s", "first_query_warm_s"},
    "query": {"images", "median_ms", "p95_ms"},
    "assignment": {"exact_ms", "graph_ms", "speedup", "recall_at_1", "recall_at_5", "words", "descriptors", "beam"},
    "dropin": {
        "exact_images_per_second",
        "graph_images_per_second",
        "assignment_over_product",
        "build_over_product",
        "graph_recall",
    },
    "flat": {"share_of_bandwidth", "share_of_arithmetic", "half_one_ms", "product_quantised_one_ms"},
    "evaluation": {
        "images",
        "queries",
        "array_s",
        "names_s",
        "interval_s",
        "search_and_evaluate_s_per_query",
        "peak_mb",
    },
    "build": {
        "images_per_second",
        "end_to_end_images_per_second",
        "add_one_ms",
        "merge_mb_per_second",
        "write_mb_per_second",
    },
    "extraction": {"images_per_second", "decode_ms", "network_ms", "convolutions_ms", "write_ms", "share_of_peak"},
    "codebook": {"descriptors", "words", "seconds", "distortion_ratio", "exact_seconds_estimated", "peak_mb"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", KEYS)
def test_a_benchmark_runs_small_and_reports(name: str, data: Path) -> None:
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--data", data, "--small"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.keys() >= KEYS[name]
    assert all(value > 0 for value in found.values())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, as on Linux")
def test_the_load_test_runs_small_and_finds_no_error(data: Path) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, BENCHMARKS / "serving.py", "--work", data, "--small"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    names = {"p50_ms", "p95_ms", "p99_ms", "answers_per_second", "cpu_ms_per_answer", "memory_growth_mb"}
    names |= {"upload_p50_ms"}
    assert found.keys() >= {*names, "describe_floor_ms", "floor_ms", "paced_p95_ms", "rough_p95_ms", "rough_commits"}
    assert [found[f"{phase}errors"] for phase in ("", "paced_", "upload_", "rough_")] == [0, 0, 0, 0], result.stdout


def test_actors_answer_as_one_process_in_the_benchmark(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, BENCHMARKS / "cluster.py", "--data", tmp_path, "--small", "--actors", "2"]
    result = subprocess.run([*command, "--queries", "3"], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.keys() == {"images", "shards", "local_ms", "sharded_ms", "overhead_ms", "equal"}
    assert found["equal"] is True and (found["images"], found["shards"]) == (20_000, 2)
    assert found["overhead_ms"] == pytest.approx(found["sharded_ms"] - found["local_ms"])


def test_the_share_of_the_backbone_is_measured_beside_the_share_that_operations_allow() -> None:
    command = [sys.executable, BENCHMARKS / "global_extraction.py", "--small"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.keys() == {f"{name}_{key}" for name in ("cvnet", "dplg") for key in ("ms", "share", "allowed")}
    assert found["dplg_allowed"] < found["cvnet_allowed"] < 1 and all(value > 0 for value in found.values())


def test_a_training_of_global_networks_runs_small_and_keeps_its_results(data: Path) -> None:
    command = [sys.executable, BENCHMARKS / "global_training.py", "--check", "--work", data / "global"]
    command += ["--networks", "how-asmk,gem"]
    first, again = (
        subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr[-3000:]
    assert again.stdout == first.stdout and "epoch" not in again.stderr  # nothing was trained again
    assert [one.split()[0] for one in first.stdout.splitlines()[:-1]] == ["how-asmk", "gem"]
    found = json.loads(first.stdout.splitlines()[-1])
    assert len(found.pop("how-asmk")["map_after"]) == 3
    for result in found.values():
        assert result["parameters"] > 0 and len(result["losses"]) >= 2 and result["minutes"] >= 0
        assert len(result["map_before"]) == len(result["map_after"]) == 3
        gains = [result["gain"][row][0] for row in ("easy", "medium", "hard")]
        differences = zip(result["map_after"], result["map_before"], strict=True)
        assert gains == pytest.approx([after - before for after, before in differences])


def test_a_learned_reranker_runs_small_and_is_the_sum_without_weights_until_it_is_trained(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "set_reranking.py", "--small", "--work", tmp_path, "--seeds", "1"]
    untrained, trained = (
        subprocess.run([*command, *more], capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
        for more in (["--epochs", "0"], ["--self-made", "2"])
    )
    assert untrained.returncode == trained.returncode == 0, untrained.stderr[-3000:] + trained.stderr[-3000:]
    before, after = (json.loads(one.stdout.splitlines()[-1]) for one in (untrained, trained))
    assert "test." not in trained.stderr and "no self-made pairs" in trained.stderr  # compared rankings are kept
    for kind in ("deep", "rootsift"):
        assert before[kind]["set"] == before[kind]["both"] == after[kind]["both"] > before[kind]["none"]
        assert set(before[kind]["set_against_both"]["hard"]) == {0.0}
        gain = [one - two for one, two in zip(after[kind]["set"], after[kind]["both"], strict=True)]
        compared = [after[kind]["set_against_both"][row][0] for row in ("medium", "hard")]
        assert gain[1:] == pytest.approx(compared) and 0 < after[kind]["parameters"] <= 100_000


def test_the_audit_of_a_known_overlap_runs_small_and_keeps_its_results(tmp_path: Path) -> None:
    write_rooms(tmp_path / "photos")
    command = [sys.executable, BENCHMARKS / "audit.py", tmp_path / "photos", "--work", tmp_path / "work"]
    command += ["--ways", "rootsift:places", "rootsift:sift", "--top", "5", "--workers", "0"]
    first, again = (
        subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr[-3000:]
    assert again.stdout == first.stdout
    places, sift = json.loads(first.stdout.splitlines()[-1]).values()
    assert places["queries"] == {"view, easy": 3, "view, hard": 3, "encoded": 3, "cropped": 3, "shrunk": 3}
    for found in (places, sift):
        assert found["whole"] >= 0.8 and found["matched"] >= 0.95
        assert found["right"] <= found["pairs"] and found["wrongly"] == 0 and found["removed"] == 1


def write_rooms(folder: Path) -> None:
    """Four drawn rooms, of which three are put on both sides, and other photographs, as the benchmark expects them."""
    textures = [view_image(photo.path, 360).pixels for photo in bundled_photos()]
    queries = []
    for number in range(4):
        names = [f"images/room-{number}/{view}.jpg" for view in range(4)]
        for view, name in zip((2, 5, 3, 7), names, strict=True):
            save(folder / name, render([textures[(3 * number + place) % 12] for place in range(3)], view))
        queries.append({"query": names[2], "easy": names[:1]})
    for number, texture in enumerate(textures[12:]):
        save(folder / "images" / "_distractors" / f"{number}.jpg", texture)
    (folder / "gnd.json").write_text(json.dumps({"queries": queries}))
