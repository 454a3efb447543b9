"""Extraction on a cluster: the bytes, the resumption and the report of a local run, whatever is lost on the way."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asmk_engine.cluster import connecting, image_pool
from asmk_engine.cluster.connecting import check_found, connect, import_ray, ray_errors, told, versions
from asmk_engine.cluster.image_actor import ImageActor, ImageOrder, actor_options, order_of
from asmk_engine.cluster.image_pool import ActorPool, PoolSize
from asmk_engine.errors import AsmkError, DependencyError, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.extraction.attempts import Extracted, Failed
from asmk_engine.extraction.run import ExtractionSummary, extract_images
from asmk_engine.extractors import load_extractor
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.images.listing import ImageFile, find_images
from asmk_engine.images.objects import find_anywhere
from clusters import TestedCluster
from misbehaving import Batched, Missing, Scripted, Unmakeable

pytest.importorskip("ray", reason="ray is not installed, which runs clusters: pip install 'asmk-engine[ray]'")


def scripts(folder: Path, count: int, **others: str) -> Path:
    """Images that a `Scripted` extractor obeys: so many that are fine, and others."""
    folder.mkdir(parents=True)
    texts = {f"{number:03d}": f"fine {number % 9}" for number in range(count)} | others
    for name, text in texts.items():
        (folder / f"{name}.jpg").write_text(text)
    return folder


def content(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in part_names(path)}


def on_cluster(images: Any, output: Path, extractor: Any = None, size: PoolSize | None = None) -> ExtractionSummary:
    chosen = extractor or Scripted()
    return extract_images(
        chosen, images, output, pool=lambda given, seconds: ActorPool(connect(), given, seconds, size or PoolSize())
    )


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error) and len(str(error)) < 500, error
    return str(error)


def test_features_failures_and_resumption_are_those_of_a_local_run(cluster: TestedCluster, tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", 30, x1="broken", x2="killed", x3="nan", x4="bug", x5="exit")
    (folder / "x6.jpg").symlink_to("nowhere.jpg")
    here = extract_images(Scripted(), folder, tmp_path / "here", workers=2)
    there = on_cluster(folder, tmp_path / "there")
    assert there.failed == here.failed and len(here.failed) == 6
    assert content(tmp_path / "here") == content(tmp_path / "there")
    again = on_cluster(folder, tmp_path / "there")
    assert (again.extracted, again.unchanged, again.failed) == (0, 30, here.failed)


def test_photographs_have_the_same_bytes(cluster: TestedCluster, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (80, 100, 3), np.uint8)).save(tmp_path / f"photos/{number}.png")
    extractor = load_extractor(max_features=50)
    extract_images(extractor, tmp_path / "photos", tmp_path / "here", workers=0)
    on_cluster(tmp_path / "photos", tmp_path / "there", extractor)
    assert content(tmp_path / "here") == content(tmp_path / "there")
    assert FeatureSet.open(tmp_path / "there").descriptor_count > 50


def test_actors_with_gpus_describe_the_same_batches(cluster: TestedCluster, tmp_path: Path) -> None:
    """Ray believes that a node has a GPU; the extractor needs none."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(11):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / f"photos/{number:02d}.png")
    (tmp_path / "photos/05.png").write_bytes(b"no image")
    here = extract_images(Batched(), tmp_path / "photos", tmp_path / "here", workers=1)
    node = cluster.add_node(1, gpus=1)
    try:
        there = on_cluster(tmp_path / "photos", tmp_path / "there", Batched(), PoolSize(gpus=1.0))
    finally:
        cluster.remove_node(node)
    assert content(tmp_path / "here") == content(tmp_path / "there")
    assert there.failed == here.failed and list(here.failed) == ["05.png"]
    sizes = {
        int(FeatureSet.open(tmp_path / "here").read(f"{number:02d}.png").descriptors[0, 1]) for number in (0, 4, 10)
    }
    assert sizes == {3, 4}


def test_a_node_that_does_not_see_the_files_gets_them(
    cluster: TestedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scripts(tmp_path / "photos", 20, x1="broken")
    sent: list[bool] = []

    def elsewhere(image: ImageFile, *, whole: bool) -> ImageOrder:
        sent.append(whole)
        order = order_of(image, whole=whole)
        return ImageOrder("/nowhere" + order.path, order.stamp, order.stored)

    monkeypatch.setattr(image_pool, "order_of", elsewhere)
    there = on_cluster(folder, tmp_path / "there", size=PoolSize(1, 1))
    here = extract_images(Scripted(), folder, tmp_path / "here", workers=0)
    assert content(tmp_path / "here") == content(tmp_path / "there") and there.failed == here.failed
    assert sent.count(False) <= 2 * image_pool.HAND and sent.count(True) == 21


def test_an_actor_describes_what_it_sees_and_asks_for_the_rest(tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", 2)
    actor = ImageActor()
    with pytest.raises(InputError, match="before it was prepared"):
        actor.attempt([])
    assert actor.prepare(actor_options(Scripted(), 1, 60, 0.0, versions())) == 1
    images = find_images(folder).images
    orders = [order_of(image, whole=False) for image in images]
    stale = ImageOrder(orders[0].path, (1, 1))
    gone = order_of(ImageFile("gone.jpg", folder / "gone.jpg"), whole=True)
    first, missing, failed, second = actor.attempt([orders[0], stale, gone, order_of(images[1], whole=True)])
    assert missing is None and isinstance(failed, Failed) and "gone.jpg" in failed.reason
    for outcome, image in ((first, images[0]), (second, images[1])):
        assert isinstance(outcome, Extracted)
        assert (outcome.source.size, outcome.source.mtime) == (6, image.path.stat().st_mtime_ns)
    actor.close()
    with pytest.raises(MismatchError, match="install the same versions"):
        actor.prepare(actor_options(Scripted(), 1, 60, 0.0, versions() | {"numpy": "1.0"}))


def test_a_network_file_goes_with_the_actor_and_the_device_follows_the_gpus(tmp_path: Path) -> None:
    (tmp_path / "network.safetensors").write_bytes(b"weights")

    class Networked(Scripted):
        @property
        def origin(self) -> Any:
            from asmk_engine.extraction.attempts import Origin

            return Origin("misbehaving:Scripted", {"weights": str(tmp_path / "network.safetensors"), "device": "auto"})

    for gpus, device in ((0.0, "cpu"), (0.5, "cuda")):
        options = actor_options(Networked(), 1, 60, gpus, versions())
        assert options.files == {"network.safetensors": b"weights"} and options.origin.options["device"] == device


def test_a_lost_actor_costs_no_image(cluster: TestedCluster, tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", 40)
    extract_images(Scripted(), folder, tmp_path / "here", workers=0)
    rng = random.Random(0)
    with cluster.killing(seed=1, seconds=1.0, most=2) as killed:
        done = on_cluster(folder, tmp_path / "there", Scripted(delay=0.1 + 0.05 * rng.random()), PoolSize(2, 2))
    assert done.failed == {} and content(tmp_path / "here") == content(tmp_path / "there")
    assert killed


def test_a_lost_node_costs_no_image(cluster: TestedCluster, tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", 40)
    extract_images(Scripted(), folder, tmp_path / "here", workers=0)
    node, seen = cluster.add_node(2), []
    images = find_images(folder).images
    with ActorPool(connect(), Scripted(delay=0.05), 60, PoolSize(4, 4)) as pool:
        for outcome in pool.attempt_all(images):
            seen.append(outcome)
            if len(seen) == 6:
                cluster.remove_node(node)
    known = FeatureSet.open(tmp_path / "here")
    for image, outcome in zip(images, seen, strict=True):
        assert isinstance(outcome, Extracted)
        assert np.array_equal(outcome.features.descriptors, known.read(image.name).descriptors)


def test_an_image_that_takes_its_actor_along_fails_alone(cluster: TestedCluster, tmp_path: Path) -> None:
    folder = scripts(tmp_path / "photos", 12, **{"005a": "orphaned"})
    done = on_cluster(folder, tmp_path / "there", size=PoolSize(1, 2))
    assert list(done.failed) == ["005a.jpg"] and "leave the image out" in done.failed["005a.jpg"]
    assert done.extracted == 12


def test_what_prevents_an_actor_is_told_in_one_line(
    cluster: TestedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scripts(tmp_path / "photos", 3)
    with pytest.raises(InputError, match="refuses to be made") as refused:
        on_cluster(folder, tmp_path / "a", Unmakeable())
    one_line(refused.value)
    with pytest.raises(StorageError, match="while starting") as ended:
        on_cluster(folder, tmp_path / "b", Missing())
    one_line(ended.value)
    monkeypatch.setattr(image_pool, "START_SECONDS", 1.0)
    with pytest.raises(StorageError, match="no actor of 1 processors and 2 GPUs started") as unfit:
        on_cluster(folder, tmp_path / "c", size=PoolSize(gpus=2.0))
    one_line(unfit.value)


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("127.0.0.1:1", NotFoundError, "no cluster answers there"),
        ("ray://head:10001", InputError, "expected host:port"),
        ("head", InputError, "expected host:port"),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str, kind: type[AsmkError], message: str
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(kind, match=message) as error:
        connect(address)
    one_line(error.value)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("Version mismatch: The cluster:\n Ray: 2.0\n This process: 2.60"), MismatchError),
        (ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"), NotFoundError),
        (RuntimeError("AuthenticationError: the token is\ninvalid"), StorageError),
        (ValueError("something else"), StorageError),
    ],
)  # fmt: skip
def test_what_ray_refuses_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[AsmkError]
) -> None:
    def refuse(**options: object) -> None:
        raise raised

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(kind) as error:
        connect()
    one_line(error.value)


def test_other_versions_and_full_stores_are_told_in_one_line() -> None:
    from ray import exceptions

    with pytest.raises(MismatchError, match=r"node n7: numpy 1\.0 instead of .*install the same versions") as error:
        check_found(versions(), versions() | {"numpy": "1.0"}, "n7")
    one_line(error.value)
    for full in (exceptions.ObjectStoreFullError("long\ntext"), exceptions.OutOfDiskError("long\ntext")):
        assert re.search("object store of a node is full.*what was written is kept", one_line(told(full, "features")))
    assert "no answer in time" in one_line(told(exceptions.GetTimeoutError("late"), "node"))


def test_errors_of_a_process_of_a_node_are_told_in_one_line(cluster: TestedCluster) -> None:
    ray = connect()

    def fail(kind: str) -> None:
        from ray import exceptions

        known: dict[str, Exception] = {
            "disk": OSError(28, "No space left on device"),
            "package": ImportError("No module named 'openvino'"),
            "store": exceptions.ObjectStoreFullError("long\ntext"),
            "ours": InputError("what an image says"),
            "bug": ZeroDivisionError("one by none"),
        }
        raise known[kind]

    expected = {
        "disk": (StorageError, "No space left"),
        "package": (DependencyError, "same extras on all nodes"),
        "store": (StorageError, "object store of a node is full"),
        "ours": (InputError, "^what an image says$"),
    }
    task = ray.remote(max_retries=0)(fail)
    for kind, (error, message) in expected.items():
        with pytest.raises(error, match=message) as found, ray_errors("a task"):
            ray.get(task.remote(kind))
        one_line(found.value)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"), ray_errors("a task"):
        ray.get(task.remote("bug"))


def test_a_node_with_other_versions_is_named(cluster: TestedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "__version__", "0.0")
    with pytest.raises(MismatchError, match=r"node .*: asmk-engine .* instead of 0\.0") as error:
        connect()
    one_line(error.value)


def test_without_ray_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(DependencyError, match=r"asmk-engine\[ray\]"):
        import_ray()


def test_images_in_memory_are_described_on_the_cluster(cluster: TestedCluster, tmp_path: Path) -> None:
    import fsspec

    folder = scripts(tmp_path / "photos", 10, x1="broken")
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe(f"/{tmp_path.name}/{path.name}", path.read_bytes())
    here = extract_images(Scripted(), folder, tmp_path / "here", workers=0)
    there = on_cluster(find_anywhere(f"memory://{tmp_path.name}"), tmp_path / "there")
    assert there.failed == here.failed and there.extracted == here.extracted
    ours, theirs = FeatureSet.open(tmp_path / "here"), FeatureSet.open(tmp_path / "there")
    for name in ours.names:
        assert np.array_equal(ours.read(name).descriptors, theirs.read(name).descriptors)
        assert ours.source(name).fingerprint == theirs.source(name).fingerprint
    again = on_cluster(find_anywhere(f"memory://{tmp_path.name}"), tmp_path / "there")
    assert (again.extracted, again.unchanged) == (0, 10)


def test_objects_of_s3_are_read_by_the_nodes(cluster: TestedCluster, tmp_path: Path) -> None:
    server = pytest.importorskip("moto.server", reason="moto is not installed, which serves s3://")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed, which reads s3://")
    from urllib.parse import urlsplit

    address = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    serving = server.ThreadedMotoServer(address.hostname, address.port, verbose=False)
    serving.start()
    try:
        storage = s3fs.S3FileSystem(skip_instance_cache=True)
        storage.mkdir("photographs")
        folder = scripts(tmp_path / "photos", 6, x1="broken")
        for path in folder.iterdir():
            storage.pipe_file(f"photographs/all/{path.name}", path.read_bytes())
        here = extract_images(Scripted(), folder, tmp_path / "here", workers=0)
        there = on_cluster(find_anywhere("s3://photographs/all"), tmp_path / "there", size=PoolSize(1, 1))
        assert there.failed == here.failed
        ours, theirs = FeatureSet.open(tmp_path / "here"), FeatureSet.open(tmp_path / "there")
        assert ours.names == theirs.names
        for name in ours.names:
            assert np.array_equal(ours.read(name).descriptors, theirs.read(name).descriptors)
            assert ours.source(name).fingerprint == theirs.source(name).fingerprint
        again = extract_images(Scripted(), find_anywhere("s3://photographs/all"), tmp_path / "there", workers=0)
        assert (again.extracted, again.unchanged) == (0, 6)
    finally:
        serving.stop()
    with pytest.raises(StorageError, match="the storage cannot be read") as error:
        find_anywhere("s3://photographs/other")
    one_line(error.value)
