"""Hard negatives of CVNet-Rerank: by which descriptors they are chosen, and that these are computed once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import official_files
from asmk_engine.errors import InputError
from asmk_engine.extractors import load_extractor
from asmk_engine.iteration import Silent
from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
from asmk_engine.networks.composed.network import build_composed
from asmk_engine.networks.global_checkpoints import save_global_checkpoint
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.storage.pieces import PieceFolder, discard
from asmk_engine.training import kept_descriptors
from asmk_engine.training.global_describer import GlobalDescriber, trained_global_network
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.kept_descriptors import ImageDescriber, KeptDescriptors
from asmk_engine.training.log import read_log
from asmk_engine.training.processes import Processes
from asmk_engine.training.rerank_task import RerankTask
from asmk_engine.training.rerank_trainee import RerankTrainee
from test_rerank_training import OPTIONS, tiny, train
from trainings import Mortal, Stopped, tiny_global, write_photographs

NAMES = [f"{name}/{number}.png" for name, count in (("a", 3), ("b", 3), ("c", 2), ("d", 2)) for number in range(count)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), {"a": 3, "b": 3, "c": 2, "d": 2})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A global network on the backbone of `tiny`, whose layer after the pooling changes which images are near."""
    path, network = tmp_path_factory.mktemp("weights") / "gem.safetensors", tiny()
    made = GlobalNetwork(GlobalOptions("squeezenet1_1", whitening=8), network.backbone)
    with torch.no_grad():
        made.whitening.weight.copy_(torch.randn(8, 512, generator=torch.Generator().manual_seed(2)))
        made.whitening.bias.zero_()
    save_global_checkpoint(path, made, {})
    return path


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)


def hardest(vectors: np.ndarray, query: int) -> int:
    others = [number for number in range(len(NAMES)) if NAMES[number][0] != NAMES[query][0]]
    products = {other: sum(float(a) * float(b) for a, b in zip(vectors[query], vectors[other], strict=True))
                for other in others}  # fmt: skip
    return max(others, key=lambda other: products[other])


def negatives(task: RerankTask) -> dict[int, int]:
    """The negatives of the last epoch, in which all are hard ones: the one nearest image of other classes."""
    return {int(query): int(negative) for query, _, negative in task.plan(2, Silent()).items}


def test_the_descriptors_of_a_trained_network_choose_the_hard_negatives(photographs: Path, weights: Path) -> None:
    data = read_instances(photographs)
    assert [image.name for image in data.images] == NAMES
    network = trained_global_network(weights)
    assert network is not None
    described = negatives(RerankTask(RerankTrainee(tiny(), GlobalDescriber(network, "cpu")), data, OPTIONS))
    pooled = negatives(RerankTask(RerankTrainee(tiny()), data, OPTIONS))
    extractor = load_extractor("gem", weights=str(weights), max_side=64, device="cpu")
    vectors = np.concatenate([extractor.extract(photographs / name).descriptors for name in NAMES])
    assert described == {query: hardest(vectors, query) for query in described}
    assert described.keys() == pooled.keys() and described != pooled


def test_only_a_trained_network_describes(weights: Path, tmp_path: Path) -> None:
    head = build_composed("cvnet", "squeezenet1_1", dim=8)
    save_composed_checkpoint(tmp_path / "untrained.safetensors", head, {})
    assert trained_global_network(tmp_path / "untrained.safetensors") is None
    head.mark_trained()
    save_composed_checkpoint(tmp_path / "trained.safetensors", head, {})
    found = trained_global_network(tmp_path / "trained.safetensors")
    assert found is not None and GlobalDescriber(found, "cpu", "sum").described() == {
        "network": "cvnet", "dim": 8, "scales": list(found.options.own_scales), "sha256": "sum"}  # fmt: skip
    backbone = {key: value.numpy() for key, value in tiny().backbone.state_dict().items()}
    np.savez(tmp_path / "squeezenet.npz", **backbone)
    assert trained_global_network(tmp_path / "squeezenet.npz") is None
    torch.save(official_files.content("CVNet", official_files.cvnet("resnet50")), tmp_path / "official.pth")
    official = trained_global_network(tmp_path / "official.pth")  # with layers for re-ranking, as the published ones
    assert official is not None and official.dim == 2048


def test_the_command_tells_what_chooses(photographs: Path, weights: Path, tmp_path: Path) -> None:
    small = ["--width", 8, "--levels", 1, "--hard", "1,1"]
    result = train(photographs, tmp_path / "run", weights, *small, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    assert read_log(tmp_path / "run")[0]["negatives"]["network"] == "gem"
    assert not (tmp_path / "run" / "negatives").exists()
    best = Path(json.loads(result.stdout)["best"])
    result = train(photographs, tmp_path / "plain", best, *small)
    assert result.exit_code == 0 and "negatives" not in read_log(tmp_path / "plain")[0]
    result = train(photographs, tmp_path / "further", best, *small, "--global-weights", weights)
    assert result.exit_code == 0 and read_log(tmp_path / "further")[0]["negatives"]["dim"] == 8
    result = train(photographs, tmp_path / "bad", weights, *small, "--global-weights", best)
    assert isinstance(result.exception, InputError) and "holds no trained global network" in str(result.exception)


def test_descriptors_are_computed_once(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the run is stopped between: what is kept is taken, what is damaged or of other options is not."""
    monkeypatch.setattr(kept_descriptors, "PIECE", 3)
    seen: list[float] = []
    images, kept, alone = read_instances(photographs).images, KeptDescriptors(tmp_path / "kept", "start"), Processes()

    def vector(pixels: np.ndarray) -> torch.Tensor:
        seen.append(float(pixels.mean()))
        return torch.tensor([seen[-1], 1.0])

    describer = ImageDescriber(vector, images, 64, torch.device("cpu"))

    def found(made_of: dict[str, Any], stop: int = 99) -> np.ndarray:
        with kept.pieces(made_of, alone) as pieces:
            return describer.described(alone, pieces, Mortal(stop).advance)

    expected = describer.described(alone, None, Mortal(99).advance)
    assert expected.shape == (len(NAMES), 2) and len(seen) == len(NAMES)
    seen.clear()
    with pytest.raises(Stopped):
        found({"side": 64}, stop=9)  # after two pieces, in the third
    assert np.array_equal(found({"side": 64}), expected)
    assert len(seen) == len(NAMES) + 2  # only the two images of the piece that was not whole are described again
    seen.clear()
    assert np.array_equal(found({"side": 64}), expected) and not seen
    files = sorted((tmp_path / "kept" / "0").glob("*.safetensors"))
    damaged = bytearray(files[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    files[1].write_bytes(damaged)
    files[2].write_bytes(files[2].read_bytes()[:100])
    assert np.array_equal(found({"side": 64}), expected) and len(seen) == 6
    seen.clear()
    assert np.array_equal(found({"side": 32}), expected) and len(seen) == len(NAMES)
    kept.discard(alone)
    assert not (tmp_path / "kept").exists()


def test_pieces_leave_what_is_not_theirs(tmp_path: Path) -> None:
    with PieceFolder(tmp_path, {"kind": "a test"}) as pieces:
        pieces.piece("stage", 0, lambda: {"x": np.arange(3)})
    (tmp_path / "stage-000001.safetensors.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    with PieceFolder(tmp_path, {"kind": "a test"}) as pieces:
        assert pieces.piece("stage", 0, dict)["x"].tolist() == [0, 1, 2]
        assert not list(tmp_path.glob("*.tmp"))
    discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_shares_of_processes_cover_all_items() -> None:
    for count in (1, 2, 3, 5):
        for total in (1, 4, 7):
            shares = []
            for rank in range(count):
                one = Processes()
                one.rank, one.count = rank, count
                shares.append(one.split(total).tolist())
            joined = [number for share in shares for number in share]
            assert joined[:total] == list(range(total)) and len({len(share) for share in shares}) == 1


def test_a_network_of_small_images(photographs: Path) -> None:
    describer = GlobalDescriber(tiny_global(), "cpu")
    assert describer.vector(np.zeros((9, 7, 3), np.uint8), "fp32").shape == (8,)
