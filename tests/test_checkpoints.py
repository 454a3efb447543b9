"""Network files: they are read back unchanged, and altered files are distinguished from incompatible ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asmk_engine.errors import AsmkError, DamagedError, FormatError, MismatchError, NotFoundError, StorageError
from asmk_engine.networks.checkpoint_files import KIND
from asmk_engine.networks.checkpoints import is_checkpoint, open_checkpoint, save_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.tensor_files import read_safetensors
from asmk_engine.storage.arrays import CHECKSUMS, write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import file_sha256
from tiny_networks import randomised, tiny_network, tiny_options

ORIGIN = {"backbone_sha256": "ab" * 32, "images": 12, "note": "zürich ✓", "scales": [1.0, 0.5], "nothing": None}


@pytest.fixture
def network() -> LocalNetwork:
    """Of one convolution and a reduction: 1800 numbers."""
    return tiny_network(skip=10, dim=4)


@pytest.fixture
def path(tmp_path: Path, network: LocalNetwork) -> Path:
    save_checkpoint(tmp_path / "net.safetensors", network, ORIGIN)
    return tmp_path / "net.safetensors"


def tensors(network: LocalNetwork) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in network.state_dict().items()}


def written(path: Path, arrays: dict[str, np.ndarray], **metadata: str) -> Path:
    """A file of this content, with right checksums."""
    whole = {"kind": KIND, "network": tiny_options(skip=10, dim=4).to_json(), "origin": "{}"} | metadata
    write_arrays(Folder(path.parent), path.name, arrays, whole)
    return path


def plain(path: Path, header: object, data: bytes = b"") -> Path:
    """A safetensors file of this header, or bytes in its place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


# ---------------------------------------------------------------------------------------------------------- the way


@pytest.mark.parametrize(
    "options",
    [
        tiny_options(skip=10, dim=4),
        tiny_options(skip=10, attention="learned", smoothing=1, reduction="post", dim=5, mean=(0.1, 0.2, 0.3)),
        tiny_options(skip=9, reduction="none", smoothing=5),
        LocalOptions("resnet18", 3, dim=16),
        LocalOptions("resnet50v2", 3, dim=16),
    ],
    ids=lambda options: f"{options.backbone} {options.attention} {options.reduction}",
)
def test_a_network_comes_back_as_it_was(tmp_path: Path, options: LocalOptions) -> None:
    network = LocalNetwork(options)
    randomised(network)
    save_checkpoint(tmp_path / "new folder" / "net.safetensors", network, ORIGIN)
    found, origin = open_checkpoint(tmp_path / "new folder" / "net.safetensors")
    assert found.options == options and origin == ORIGIN and not found.training
    assert found.state_dict().keys() == network.state_dict().keys()
    assert not [key for key in read_safetensors(tmp_path / "new folder" / "net.safetensors")[0] if "num_batches" in key]
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(found.state_dict()[key], value), key
    pixels = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for one, other in zip(found(pixels), network(pixels), strict=True):
        assert torch.equal(one, other)


def test_the_hash_is_that_of_the_bytes_and_the_same_for_the_same_network(tmp_path: Path, path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file_sha256(path) == found
    network, origin = open_checkpoint(path)
    reordered = dict(reversed(origin.items()))
    assert save_checkpoint(tmp_path / "again.safetensors", network, reordered) == found
    assert save_checkpoint(tmp_path / "other.safetensors", network, {}) != found


def test_a_file_that_is_there_is_replaced(path: Path) -> None:
    other = tiny_network(seed=5, skip=10, dim=4)
    save_checkpoint(path, other, {})
    found, origin = open_checkpoint(path)
    assert origin == {} and torch.equal(found.reduction.weight, other.reduction.weight)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_weights_in_half_precision_are_kept_in_single(tmp_path: Path, network: LocalNetwork) -> None:
    network.half()
    save_checkpoint(tmp_path / "half.safetensors", network, {})
    found = open_checkpoint(tmp_path / "half.safetensors")[0]
    assert found.reduction.weight.dtype == torch.float32
    assert torch.equal(found.reduction.weight, network.reduction.weight.float())


def test_the_tensors_can_be_read_by_anyone(path: Path, network: LocalNetwork) -> None:
    """By the published layout of safetensors: a length, a header of JSON, the bytes."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header["__metadata__"]["kind"] == "asmk-engine network"
    assert json.loads(header["__metadata__"]["network"])["trunk"] == "squeezenet1_1"
    begin, end = header["reduction.weight"]["data_offsets"]
    found = np.frombuffer(raw[8 + length :][begin:end], "<f4").reshape(header["reduction.weight"]["shape"])
    np.testing.assert_array_equal(found, network.reduction.weight.detach().numpy())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, network: LocalNetwork) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="file"):
        save_checkpoint(tmp_path / "file" / "net.safetensors", network, {})


# ----------------------------------------------------------------------------------------------------------- damage


def test_every_altered_byte_is_told(path: Path) -> None:
    """Of the header all, of the tensors and checksums some."""
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    places = [*range(header), *range(header, len(raw), 97), *range(len(raw) - 8, len(raw))]
    for place in places:
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        with pytest.raises((DamagedError, FormatError, MismatchError)) as error:
            open_checkpoint(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(str(path)), place


def test_an_altered_byte_far_behind_the_header_is_told(tmp_path: Path) -> None:
    """Checksums are of a MiB each, and only that of the header is compared when a file is mapped."""
    path = tmp_path / "large.safetensors"
    save_checkpoint(path, tiny_network(skip=2, dim=4), {})
    raw = bytearray(path.read_bytes())
    assert len(raw) > 5 << 18
    raw[-40_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match=r"bytes 1048576 to .* were altered"):
        open_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_is_damaged(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DamagedError, match=r"net\.safetensors"):
        open_checkpoint(path)
    assert not is_checkpoint(path)


def test_surplus_missing_and_misshapen_tensors_are_all_named(tmp_path: Path, network: LocalNetwork) -> None:
    arrays = tensors(network)
    del arrays["backbone.features.0.bias"]
    arrays["reduction.weight"] = arrays["reduction.weight"][:, :7]
    arrays["attention.0.bias"] = np.zeros(3, np.float32)
    with pytest.raises(MismatchError) as error:
        open_checkpoint(written(tmp_path / "a.safetensors", arrays))
    for part in ("3 tensors do not fit", "missing backbone.features.0.bias", "surplus attention.0.bias",
                 "reduction.weight is [4, 7, 1, 1], expected [4, 64, 1, 1]", "get it again"):  # fmt: skip
        assert part in str(error.value)


def test_another_kind_of_file_is_told_with_what_makes_a_network(tmp_path: Path, network: LocalNetwork) -> None:
    for kind in ("asmk-engine index", ""):
        path = written(tmp_path / "a.safetensors", tensors(network), kind=kind)
        with pytest.raises(FormatError, match=r"not a network of asmk-engine; make one .* with `asmk-engine whiten`"):
            open_checkpoint(path)
        assert not is_checkpoint(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(NotFoundError, match="no such weight file; `asmk-engine weights list`"):
            open_checkpoint(path)
        assert not is_checkpoint(path)


@pytest.mark.parametrize("origin", ["", "{", "3", "[1]", "[" * 100_000, "9" * 5000])
def test_an_origin_that_cannot_be_read_is_told(tmp_path: Path, network: LocalNetwork, origin: str) -> None:
    path = written(tmp_path / "a.safetensors", tensors(network), origin=origin)
    with pytest.raises(DamagedError, match="its origin is not readable"):
        open_checkpoint(path)
    assert is_checkpoint(path)  # its kind is all that is asked


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"backbone": "resnet18", "skip": "all"}'])
def test_options_that_cannot_be_read_are_told(tmp_path: Path, network: LocalNetwork, text: str) -> None:
    with pytest.raises(DamagedError, match=r"a\.safetensors: its network options are not readable") as error:
        open_checkpoint(written(tmp_path / "a.safetensors", tensors(network), network=text))
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------- files of others


def test_safetensors_of_others_are_read_without_checksums(tmp_path: Path) -> None:
    halves, wide = np.arange(6, dtype=np.float16).reshape(2, 3), np.array([0.5, -2.0])
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "F64", "shape": [2], "data_offsets": [12, 28]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [28, 36]},
    }
    data = halves.tobytes() + wide.tobytes() + np.int64(7).tobytes()
    found, metadata = read_safetensors(plain(tmp_path / "a.safetensors", header, data))
    assert metadata == {"format": "pt"}
    assert {key: value.dtype for key, value in found.items()} == dict.fromkeys("abc", torch.float32)
    np.testing.assert_array_equal(found["a"], halves)
    np.testing.assert_array_equal(found["b"], wide)
    assert found["c"].shape == () and found["c"] == 7


def test_checksums_are_compared_where_there_are_some_and_are_no_tensor(path: Path) -> None:
    assert CHECKSUMS not in read_safetensors(path)[0]
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match=r"bytes 0 to .* were altered"):
        read_safetensors(path)


def entry(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 40,
        b"[" * 100_000,
        [],
        {"__metadata__": 3} | entry(),
        entry(shape=[1 << 62]),
        entry(shape=[-2]),
        entry(shape=[2.0]),
        entry(shape=None),
        entry(dtype="BOOL"),
        entry(dtype=["F32"]),
        entry(data_offsets=[0, 1 << 60]),
        entry(data_offsets=[8, 0]),
        entry(data_offsets=[-8, 0]),
        entry(data_offsets=[4, 12]),
        entry(data_offsets=None),
        entry() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        entry() | {"b": "words"},
    ],
    ids=str,
)
def test_hostile_headers_are_refused(tmp_path: Path, header: object) -> None:
    path = plain(tmp_path / "a.safetensors", header, bytes(8))
    for read in (open_checkpoint, read_safetensors):
        with pytest.raises(DamagedError) as error:
            read(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
    assert not is_checkpoint(path)


def test_values_beyond_single_precision_are_refused(tmp_path: Path, network: LocalNetwork) -> None:
    arrays = {key: value.astype(np.float64) for key, value in tensors(network).items()}
    arrays["reduction.bias"][0] = 1e300
    with pytest.raises(AsmkError, match=r"reduction\.bias contains NaN or infinity"):
        open_checkpoint(written(tmp_path / "a.safetensors", arrays))
