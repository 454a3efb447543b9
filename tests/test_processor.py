"""Networks on processors without torch: the same maps, locations and descriptors as torch's, and the same refusals."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError
from asmk_engine.extractors import load_extractor
from asmk_engine.networks import processor
from asmk_engine.networks.checkpoints import open_checkpoint, save_checkpoint, write_network
from asmk_engine.networks.efficientnet_lite_plan import ENDS, PIXELS, LitePlan
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.locations import SCALES, LocalDescriptors
from asmk_engine.networks.multiscale import describe, normalise_pixels
from asmk_engine.networks.processor import ProcessorNetwork, runs_on_processor
from asmk_engine.networks.processor_multiscale import describe_on_processor
from samples import ENVIRONMENT
from tiny_networks import randomised

pytest.importorskip("openvino")


def options(**changes: Any) -> LocalOptions:
    given = {"skip": 3, "dim": 16, "mean": PIXELS[0], "std": PIXELS[1], **changes}
    return LocalOptions("efficientnet_lite0", **given)


def write(path: Path, **changes: Any) -> Path:
    save_checkpoint(path, randomised(LocalNetwork(options(**changes))), {"from": "a test"})
    return path


def parts(found: LocalDescriptors) -> tuple[np.ndarray, ...]:
    return found.positions, found.sizes, found.descriptors


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(height * 1000 + width).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return np.kron(noise, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)


@pytest.mark.parametrize("skip", range(len(ENDS)))
@pytest.mark.parametrize("size", [(1, 1), (33, 50), (64, 48)])
def test_maps_are_those_of_torch(skip: int, size: tuple[int, int], tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", skip=skip)
    pixels = torch.from_numpy(picture(*size))[None]
    network = open_checkpoint(path)[0]
    normalised = normalise_pixels(pixels, network.options)
    with torch.inference_mode():
        expected = network.backbone(normalised)[0].permute(1, 2, 0).numpy()
    found = ProcessorNetwork.open(path).map(normalised[0].permute(1, 2, 0).numpy())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize(("smoothing", "reduction"), [(3, "network"), (5, "network"), (1, "none")])
@pytest.mark.parametrize(("size", "count"), [((75, 100), 1000), ((96, 64), 20), ((9, 200), 1000), ((1, 1), 3)])
def test_descriptors_are_those_of_torch(
    multiple: int, smoothing: int, reduction: str, size: tuple[int, int], count: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "net.safetensors", smoothing=smoothing, reduction=reduction, side_multiple=multiple)
    pixels, network = picture(*size), open_checkpoint(path)[0]
    with torch.inference_mode():
        normalised = normalise_pixels(torch.from_numpy(pixels)[None], network.options)
        expected = describe(network, normalised, SCALES, count)[0]
    found = describe_on_processor(ProcessorNetwork.open(path), pixels, SCALES, count)
    assert len(found.scores) == len(expected.scores) == min(count, len(expected.scores))
    assert (np.diff(found.scores) <= 0).all() and found.scores[0] == 1
    ours, theirs = (
        {(*map(float, place), float(size)): row for place, size, row in zip(*parts(one), strict=True)}
        for one in (found, expected)
    )
    assert len(ours.keys() & theirs.keys()) >= 0.98 * len(theirs)  # scores that nearly tie change places
    for place in ours.keys() & theirs.keys():
        one, other = ours[place], theirs[place]
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9999


def test_the_sides_of_resampled_images_are_multiples(tmp_path: Path) -> None:
    """So that every location of a scale is padded alike: the first one is centred where the plan says, at any size."""
    plan = LitePlan.of("efficientnet_lite0", 2)
    assert {plan.offset_of(side) for side in range(16, 500, 16)} == {15.0}
    path = write(tmp_path / "net.safetensors", skip=2, side_multiple=16)
    found = describe_on_processor(ProcessorNetwork.open(path), picture(70, 100), (1.0,), 1000)
    assert len(found.scores) == 4 * 6  # 70 × 100 becomes 64 × 96
    first = found.positions[np.lexsort(found.positions.T)][0]
    np.testing.assert_allclose(first, [(15 + 0.5) * 100 / 96 - 0.5, (15 + 0.5) * 70 / 64 - 0.5], rtol=1e-6)


def test_half_precision_is_near(tmp_path: Path) -> None:
    path, pixels = write(tmp_path / "net.safetensors"), picture(64, 64)
    exact, rough = (
        ProcessorNetwork.open(path, precision).map(pixels / np.float32(128) - 1).copy()
        for precision in ("fp32", "bf16")
    )
    cosines = (exact * rough).sum(2) / np.linalg.norm(exact, axis=2) / np.linalg.norm(rough, axis=2)
    assert cosines.min() > 0.95


def test_the_extractor_uses_it_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pixels = write(tmp_path / "net.safetensors"), picture(80, 60)
    extractor = load_extractor("how", weights=str(path), max_side=64)
    found = extractor.extract(pixels)
    assert extractor.processor is not None and "network" not in vars(extractor) and extractor.dim == 16
    monkeypatch.setattr(processor.importlib.util, "find_spec", lambda name: None)
    other = load_extractor("how", weights=str(path), max_side=64)
    by_torch = other.extract(pixels)
    assert other.processor is None and other.recipe == extractor.recipe
    assert len(by_torch) == len(found)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(by_torch.scores), atol=1e-3)


def test_what_else_runs_by_torch() -> None:
    assert runs_on_processor(options(), "fp32") and runs_on_processor(options(reduction="none"), "bf16")
    assert not runs_on_processor(options(), "fp16")
    assert not runs_on_processor(options(attention="learned"), "fp32")
    assert not runs_on_processor(options(reduction="post"), "fp32")
    assert not runs_on_processor(LocalOptions("resnet18"), "fp32")


def test_an_image_is_described_without_importing_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors")
    program = (
        "import sys, numpy as np\n"
        "from asmk_engine.extractors import load_extractor\n"
        f"extractor = load_extractor('how', weights={str(path)!r}, device='auto')\n"
        "assert len(extractor.extract(np.zeros((40, 40, 3), np.uint8))) and extractor.recipe.weights\n"
        "assert 'torch' not in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=ENVIRONMENT, timeout=120)


def test_other_and_altered_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors")
    network = open_checkpoint(path)[0]
    with torch.no_grad():
        network.reduction.bias[0] = float("nan")
    save_checkpoint(tmp_path / "nan.safetensors", network, {})
    with pytest.raises(InputError, match=r"reduction.bias contains NaN or infinity"):
        ProcessorNetwork.open(tmp_path / "nan.safetensors")
    write_network(tmp_path / "few.safetensors", "asmk-engine network", network.backbone, options().to_json(), {})
    with pytest.raises(MismatchError, match=r"missing backbone._blocks.0._bn1.bias.*surplus _bn0.bias"):
        ProcessorNetwork.open(tmp_path / "few.safetensors")
    write_network(tmp_path / "kind.safetensors", "another", network, options().to_json(), {})
    with pytest.raises(FormatError, match="not a network of asmk-engine"):
        ProcessorNetwork.open(tmp_path / "kind.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        ProcessorNetwork.open(path)
