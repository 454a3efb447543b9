"""Files of composed networks, what completes a backbone, their options, and the extractors that use them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError
from asmk_engine.extractors import load_extractor
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.checkpoints import write_network
from asmk_engine.networks.composed.checkpoints import (
    KIND,
    HeadCompletion,
    open_composed_checkpoint,
    open_composed_network,
    save_composed_checkpoint,
)
from asmk_engine.networks.composed.delg_local import local_options
from asmk_engine.networks.composed.network import (
    ComposedOptions,
    build_composed,
    default_options,
    seeded_network,
)
from asmk_engine.networks.composed.table import NETWORKS, network_kind
from asmk_engine.networks.global_checkpoints import save_global_checkpoint
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.stand_in import save_stand_in
from asmk_engine.recipes import COMPOSED_EXTRACTORS
from tiny_networks import picture, randomised, tiny_checkpoint, tiny_composed, tiny_composed_checkpoint

# ---- options and files


def test_options_survive_their_text() -> None:
    options = default_options("cider", "efficientnet_lite0", thresholds=[0.2, 0.7], context="aspp", dim=12)
    changed = dataclasses.replace(options, projection=7, scales=(0.5, 1.0), untrained_seed=4)
    assert ComposedOptions.from_json(changed.to_json(), "here") == changed
    assert options.mean == (127 / 255,) * 3 and options.own_scales == NETWORKS["cider"].scales
    assert changed.own_scales == (0.5, 1.0) and changed.skip == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "sun"}, "unknown network 'sun'; choose one of agem"),
        ({"backbone": "tree"}, "unknown backbone 'tree'"),
        ({"head": network_kind("dolg").options()}, "solar takes SolarOptions, not DolgOptions"),
        ({"projection": -1}, "projection is -1; expected 0"),
        ({"scales": (9.0,)}, "scales are"),
        ({"untrained_seed": -1}, "untrained_seed is -1"),
        ({"std": (1.0, 0.0, 1.0)}, "std is"),
    ],
)
def test_options_that_are_not_allowed_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(default_options("solar", "resnet18"), **change)


@pytest.mark.parametrize(
    ("name", "switches", "message"),
    [
        ("solar", {"k": 2}, "unknown switch k; this network has: attention4, attention5, dim"),
        ("solar", {"attention4": 1}, "attention4 is 1; choose one of True, False"),
        ("solar", {"divisor4": 2.5}, "divisor4 is 2.5; expected a whole number, 1 to 64"),
        ("cider", {"context": "tea"}, "context is 'tea'; choose one of none, aspp, sk"),
        ("cider", {"thresholds": [2.0]}, "thresholds is 2.0; expected a number, 0.0 to 1.0"),
        ("cider", {"background_spread": float("nan")}, "background_spread is nan"),
        ("dplg", {"kernels": (1, 3)}, "kernels, dilations and widths differ in number"),
        ("dplg", {"kernels": (1, 2, 5)}, "a kernel is 2; expected odd"),
        ("dplg", {"kernels": ()}, "kernels is (); expected one or more"),
        ("token", {"width": 10}, "width is 10; expected a multiple of attention_heads, 8"),
    ],
)  # fmt: skip
def test_switches_that_are_not_allowed_are_refused(name: str, switches: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        build_composed(name, "squeezenet1_1", **switches)
    assert message in str(refused.value)


def test_a_kernel_of_glam_is_odd() -> None:
    with pytest.raises(InputError, match="kernel is 4; expected an odd number"):
        build_composed("glam", "squeezenet1_1", kernel=4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_gives_the_same_network(name: str, tmp_path: Path) -> None:
    network = tiny_composed(name, 3)
    digest = save_composed_checkpoint(tmp_path / "a.safetensors", network, {"batch_size": 3})
    assert digest == save_composed_checkpoint(tmp_path / "b.safetensors", network, {"batch_size": 3})
    found, origin = open_composed_checkpoint(tmp_path / "a.safetensors")
    assert found.options == network.options and origin == {"batch_size": 3} and not found.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value, rtol=0, atol=0)


def test_files_that_are_not_composed_networks_are_refused(tmp_path: Path) -> None:
    path = Path(tiny_composed_checkpoint(tmp_path / "a.safetensors", "solar"))
    with pytest.raises(MismatchError, match="a network of solar, expected dolg; use --extractor solar"):
        open_composed_network(path, HeadCompletion("dolg"))
    with pytest.raises(InputError, match="has its own head, but untrained_seed 7 was given"):
        open_composed_network(path, HeadCompletion("solar", 7))
    local = tiny_checkpoint(tmp_path / "local.safetensors")
    with pytest.raises(FormatError, match="not a composed network"):
        open_composed_checkpoint(local)
    with pytest.raises(MismatchError, match="its backbone lacks its last 8 parts, and solar needs all"):
        open_composed_network(local, HeadCompletion("solar"))
    broken = tiny_composed("solar")
    broken.head.pool.exponent.data.fill_(-1)  # type: ignore[union-attr,operator]
    save_composed_checkpoint(path, broken, {})
    with pytest.raises(DamagedError, match="a GeM exponent is not greater than 0"):
        open_composed_checkpoint(path)
    write_network(path, KIND, tiny_composed("solar"), '{"network": "sun"}', {})
    with pytest.raises(DamagedError, match="its network options are not readable"):
        open_composed_checkpoint(path)


def backbone_file(path: Path) -> Path:
    torch.save(randomised(build_backbone("squeezenet1_1")).state_dict(), path)
    return path


def test_a_backbone_gets_the_same_random_head_from_the_same_seed(tmp_path: Path) -> None:
    path = backbone_file(tmp_path / "backbone.pth")
    one, complete = open_composed_network(path, HeadCompletion("dolg", 5))
    assert not complete and one.options.untrained_seed == 5 and not one.training
    torch.manual_seed(99)
    again, other = (open_composed_network(path, HeadCompletion("dolg", seed))[0] for seed in (5, 6))
    torch.testing.assert_close(one.head.state_dict(), again.head.state_dict(), rtol=0, atol=0)
    assert not torch.equal(one.head.fusion.weight, other.head.fusion.weight)  # type: ignore[arg-type,union-attr]
    torch.testing.assert_close(one.backbone.state_dict(), torch.load(path, weights_only=True), rtol=0, atol=0)
    assert seeded_network(one.options, one.backbone).head.dim == 512


def test_the_backbone_of_a_global_network_is_used(tmp_path: Path) -> None:
    other = GlobalNetwork(GlobalOptions("squeezenet1_1", mean=(0.1, 0.2, 0.3)))
    save_global_checkpoint(tmp_path / "gem.safetensors", other, {})
    found, complete = open_composed_network(tmp_path / "gem.safetensors", HeadCompletion("solar"))
    assert not complete and found.options.mean == (0.1, 0.2, 0.3)
    torch.testing.assert_close(found.backbone.state_dict(), other.backbone.state_dict(), rtol=0, atol=0)


def test_a_backbone_without_its_last_parts_is_refused(tmp_path: Path) -> None:
    torch.save(build_backbone("squeezenet1_1", 2).state_dict(), tmp_path / "part.pth")
    with pytest.raises(MismatchError, match="squeezenet1_1 without its last 2 parts, and token needs all"):
        open_composed_network(tmp_path / "part.pth", HeadCompletion("token"))


# ---- extractors


def test_there_is_an_extractor_for_every_network() -> None:
    assert set(NETWORKS) == COMPOSED_EXTRACTORS


def test_the_recipe_says_that_a_head_is_not_trained(tmp_path: Path) -> None:
    untrained = load_extractor("solar", weights=str(backbone_file(tmp_path / "a.pth")), untrained_seed=3)
    assert untrained.recipe.options["untrained_seed"] == 3 and untrained.recipe.is_global
    assert untrained.recipe.options["scales"] == list(NETWORKS["solar"].scales)
    network = tiny_composed("solar", 4)
    save_composed_checkpoint(tmp_path / "b.safetensors", network, {})
    kept = load_extractor("solar", weights=str(tmp_path / "b.safetensors"))
    assert kept.recipe.options["untrained_seed"] == 4
    network.mark_trained()
    save_composed_checkpoint(tmp_path / "c.safetensors", network, {})
    described = load_extractor("solar", weights=str(tmp_path / "c.safetensors"))
    assert "untrained_seed" not in described.recipe.options


def test_local_features_of_delg_are_its_codes_where_its_attention_is_strongest(tmp_path: Path) -> None:
    network = tiny_composed("delg", code=16)
    save_composed_checkpoint(tmp_path / "delg.safetensors", network, {})
    extractor: Any = load_extractor(
        "delg-local", weights=str(tmp_path / "delg.safetensors"), scales=[1.0], max_features=7
    )
    photo = picture(60, 84)
    features = extractor.extract(photo)
    pixels = ((torch.from_numpy(photo).float() / 255 - torch.tensor(network.options.mean))
              / torch.tensor(network.options.std)).permute(2, 0, 1)[None]  # fmt: skip
    found = network.head.local(network.backbone.early(pixels))  # type: ignore[operator]
    scores, order = found.scores[0].flatten().sort(descending=True)
    codes = functional.normalize(found.codes[0].flatten(1).T, dim=1)[order[:7]]
    np.testing.assert_allclose(features.descriptors.astype(np.float32), codes.numpy(), atol=2e-3)
    np.testing.assert_allclose(features.scores, scores[:7].numpy(), rtol=1e-4)
    assert extractor.dim == 16 and features.descriptors.shape == (7, 16)
    rows, columns = np.divmod(order[:7].numpy(), found.scores.shape[2])
    np.testing.assert_allclose(features.keypoints[:, :2], np.stack([columns, rows], 1) * 8 + 7, atol=1e-4)


def test_locations_of_delg_below_the_threshold_are_dropped(tmp_path: Path) -> None:
    path = tiny_composed_checkpoint(tmp_path / "delg.safetensors", "delg")
    photo = picture(60, 84)
    everything = load_extractor("delg-local", weights=path).extract(photo)
    threshold = float(np.median(everything.scores))
    kept = load_extractor("delg-local", weights=path, score_threshold=threshold).extract(photo)
    assert len(kept) == (everything.scores >= threshold).sum() < len(everything)


def test_only_delg_has_local_features(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="a network of dolg, expected delg"):
        load_extractor("delg-local", weights=tiny_composed_checkpoint(tmp_path / "a.safetensors", "dolg")).extract(
            picture(40, 40)
        )
    with pytest.raises(InputError, match="delg-local needs weights"):
        load_extractor("delg-local")
    with pytest.raises(InputError, match="delg on vgg16 has no local branch"):
        local_options(default_options("delg", "vgg16"))


@pytest.mark.parametrize("name", ["solar", "delg-local"])
def test_a_stand_in_for_rehearsals_is_the_same_for_the_same_seed(name: str, tmp_path: Path) -> None:
    one, again = (save_stand_in(tmp_path / f"{place}.safetensors", name) for place in "ab")
    assert one == again != save_stand_in(tmp_path / "c.safetensors", name, 1)
    assert len(load_extractor(name, weights=str(tmp_path / "a.safetensors")).extract(picture(40, 50))) > 0
