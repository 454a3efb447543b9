"""The simulator of clusters: against measured points, monotonic where it must be; and the Kubernetes manifest."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from samples import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks/scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module
    spec.loader.exec_module(module)
    return module


scale: Any = loaded()


def test_the_model_gives_what_was_measured() -> None:
    for check in scale.checks():
        within = 0.01 if check["fitted"] else 0.15
        assert math.isclose(check["model"], check["measured"], rel_tol=within), check
    assert sum(not check["fitted"] for check in scale.checks()) >= 3


def test_a_stage_is_its_work_divided_by_the_processors() -> None:
    """By hand: ten million photographs, 6.1 a second on two cores, four nodes of sixteen, a node lost now and then."""
    nodes = scale.Nodes(4)
    seconds = scale.extraction_seconds(10_000_000, nodes, np.random.default_rng(0))
    work = 10_000_000 / (6.1 / 2 * 64)
    assert work <= seconds <= work + 10 * (300 + 16 * 2 / 6.1) / 4
    quiet = scale.with_losses(3600.0 * 64, nodes, 0.0, np.random.default_rng(1))
    assert quiet in {3600.0 + lost * 300 / 4 for lost in range(5)}


def test_the_writer_is_the_limit_of_a_large_cluster() -> None:
    rng = np.random.default_rng(0)
    arriving = 1e9 * 1000 * 272 / 1e9
    assert scale.extraction_seconds(10**9, scale.Nodes(10_000), rng) == pytest.approx(arriving, rel=0.01)
    assert scale.merge_passes(1_000_000, 182) == 1 and scale.merge_passes(10, 182) == 0
    assert scale.merge_passes(10**9, 182) == int(math.log(182e9 / (1 << 24)) / math.log(8))


def test_latency_is_that_of_the_slowest_shard_and_of_a_call_for_each() -> None:
    rng = np.random.default_rng(0)
    one = scale.latencies(1_000_000, 440, scale.Nodes(1, 2), rng)
    assert np.median(one) == pytest.approx(42, rel=0.15) and np.quantile(one, 0.95) < 1.1 * 51
    few, many = (scale.latencies(10**8, 182, scale.Nodes(count), rng) for count in (16, 256))
    assert np.median(many) > 1000 * 256 * scale.constant("call_seconds") > np.median(few)
    disk = scale.predict(10**8, scale.Nodes(4))
    assert not disk.fits and disk.p50_ms > 1000
    assert scale.thread_gain(1) == 1 and scale.thread_gain(2) == 1.73 and scale.thread_gain(64) == scale.thread_gain(16)


def test_predictions_are_repeatable_and_grow_with_the_images() -> None:
    for count in (1, 16, 256):
        nodes = scale.Nodes(count)
        found = [scale.predict(images, nodes) for images in (10**6, 10**7, 10**8, 10**9)]
        assert found == [scale.predict(images, nodes) for images in (10**6, 10**7, 10**8, 10**9)]
        for name in ("extract_hours", "index_hours", "build_cost", "index_gb", "p50_ms", "writer_gb"):
            values = [getattr(one, name) for one in found]
            assert values == sorted(values), name
        assert all(one.p50_ms < one.p99_ms for one in found)


def test_what_breaks_first_comes_first() -> None:
    for count in (1, 16, 256):
        images = [limit["images"] for limit in scale.limits(scale.Nodes(count))]
        assert images == sorted(images) and images[0] > 10**7
    assert "index" in scale.limits(scale.Nodes(1))[0]["what"] and "names" in scale.limits(scale.Nodes(64))[0]["what"]


def test_the_script_prints_its_assumptions_and_ends_in_json() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/scale.py"), "--images", "1000000", "--nodes", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = {line["constant"]: line for line in lines if "constant" in line}
    assert told.keys() == scale.MEASURED.keys() | scale.ASSUMED.keys()
    assert all("measured" in told[name] for name in scale.MEASURED)
    assert all("assumed" in told[name] for name in scale.ASSUMED)
    assert {"predictions", "checks", "limits"} == lines[-1].keys() and len(lines[-1]["predictions"]) == 2


def test_the_page_has_the_table_of_the_script() -> None:
    found = [scale.predict(images, scale.Nodes(count)) for images in scale.IMAGES for count in scale.NODES]
    assert scale.table(found) in (ROOT / "docs/cluster.md").read_text(encoding="utf-8")


CONTAINER = {"name": str, "image": str, "envFrom": list, "resources": dict, "volumeMounts": list}
GROUP = {"rayStartParams": dict, "template": dict}
CLUSTER = {
    "rayVersion": str,
    "authOptions": dict,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
JOB = {
    "entrypoint": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "rayClusterSpec": dict,
}


def check_fields(found: dict[str, Any], known: dict[str, type], needed: set[str]) -> None:
    """Compare with the fields of ray.io/v1 in KubeRay's reference of its API."""
    assert needed <= found.keys() <= known.keys(), found.keys()
    for key, value in found.items():
        assert type(value) is known[key], (key, value)


def check_group(group: dict[str, Any]) -> None:
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    pod = group["template"]["spec"]
    assert pod.keys() <= {"containers", "volumes"}
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    (container,) = pod["containers"]
    check_fields(container, CONTAINER, {"name", "image", "resources"})
    assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes
    # Ray takes its processors and memory from the limits, and KubeRay advises equal requests.
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_manifest_has_the_fields_of_kuberay() -> None:
    (job,) = yaml.safe_load_all((ROOT / "docs/cluster/kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"} and job["metadata"].keys() == {"name"}
    check_fields(job["spec"], JOB, {"entrypoint", "rayClusterSpec"})
    cluster = job["spec"]["rayClusterSpec"]
    check_fields(cluster, CLUSTER, {"rayVersion", "headGroupSpec", "workerGroupSpecs"})
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"].keys() <= {"upscalingMode", "idleTimeoutSeconds"}
    assert cluster["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    check_fields(cluster["headGroupSpec"], GROUP, {"template"})
    check_group(cluster["headGroupSpec"])
    for group in cluster["workerGroupSpecs"]:
        counts = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
        check_fields(group, GROUP | counts, {"groupName", "template"})
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        check_group(group)


def test_the_command_of_the_manifest_is_one() -> None:
    from asmk_engine.cli.extract import extract

    job = yaml.safe_load((ROOT / "docs/cluster/kuberay.yaml").read_text(encoding="utf-8"))
    program, command, *arguments = job["spec"]["entrypoint"].split()
    assert (program, command) == ("asmk-engine", "extract")
    context = extract.make_context("extract", arguments)
    assert context.params["ray"] == "auto" and context.params["ray_actors"] == (2, 1024)
