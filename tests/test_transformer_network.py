"""The Reranking Transformer against its twin, and its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import naive_transformer as naive
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.networks.checkpoints import write_network
from asmk_engine.networks.reranking.transformer import RerankingTransformer, TokenBatch
from asmk_engine.networks.reranking.transformer_files import open_transformer, save_transformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions, scale_numbers, scale_unit

SMALL = TransformerOptions(global_dim=10, dim=8, layers=2, heads=4, hidden=12)


def small_network(seed=0):
    """A network with random values everywhere, biases and normalisations too."""
    torch.manual_seed(seed)
    network = RerankingTransformer(SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network


def random_image(rng, count):
    """Global descriptor, local descriptors and their scale numbers."""
    return rng.normal(size=10), rng.normal(size=(count, 8)), rng.integers(0, 7, count).tolist()


def batch_of(images):
    """The images as one batch, filled up with noise that must not count."""
    most = max(len(image[1]) for image in images)
    noise = np.random.default_rng(9).normal(size=(len(images), most, 8))
    scales, absent = np.zeros((len(images), most), np.int64), np.ones((len(images), most), bool)
    for row, (_, locals_, numbers) in enumerate(images):
        noise[row, : len(locals_)], scales[row, : len(locals_)], absent[row, : len(locals_)] = locals_, numbers, False
    wholes = np.stack([image[0] for image in images])
    return TokenBatch(
        torch.from_numpy(wholes).float(), torch.from_numpy(noise).float(), torch.from_numpy(scales),
        torch.from_numpy(absent),
    )  # fmt: skip


def arrays_of(network):
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def test_logits_are_those_of_the_twin_whatever_the_number_of_features():
    rng, network = np.random.default_rng(0), small_network()
    queries = [random_image(rng, count) for count in (5, 3, 0, 1)]
    others = [random_image(rng, count) for count in (2, 6, 4, 0)]
    with torch.no_grad():
        found = network(batch_of(queries), batch_of(others)).numpy()
    expected = [naive.logit(arrays_of(network), one, other, 2, 4) for one, other in zip(queries, others, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(expected) > 0.01


def test_gradients_reach_every_parameter_and_training_computes_the_same():
    rng, network = np.random.default_rng(1), small_network()
    query, other = batch_of([random_image(rng, 3), random_image(rng, 2)]), batch_of([random_image(rng, 2)]).repeated(2)
    with torch.no_grad():
        before = network(query, other)
    after = network.train()(query, other)
    np.testing.assert_allclose(after.detach(), before, atol=1e-5)
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_order_of_features_does_not_count_and_the_order_of_images_does():
    rng, network = np.random.default_rng(2), small_network()
    whole, locals_, scales = random_image(rng, 5)
    order = rng.permutation(5)
    turned = whole, locals_[order], [scales[number] for number in order]
    other = random_image(rng, 4)
    with torch.no_grad():
        one, same, swapped = (
            float(network(batch_of([a]), batch_of([b]))[0])
            for a, b in (((whole, locals_, scales), other), (turned, other), (other, turned))
        )
    assert one == pytest.approx(same, abs=1e-5)
    assert one != pytest.approx(swapped, abs=1e-4)


def test_descriptors_of_other_dimensions_are_refused():
    rng, network = np.random.default_rng(0), small_network()
    fits = batch_of([random_image(rng, 2)])
    other = TokenBatch(torch.zeros(1, 9), fits.locals, fits.scales, fits.absent)
    with pytest.raises(MismatchError, match="have 9 and 8 dimensions, the network expects 10 and 8"):
        network(fits, other)


def test_scale_numbers_are_those_of_the_published_code():
    inverse = np.array([0.5, 0.5**0.5, 1, 2**0.5, 2, 8**0.5, 4])
    expected = [naive.published_scale_number(one) for one in inverse]
    assert expected == [0, 0, 2, 2, 4, 4, 6]
    np.testing.assert_array_equal(scale_numbers(16 * inverse, 16.0), expected)
    np.testing.assert_array_equal(scale_numbers(16 * inverse * 1.004, 16.0), expected)
    np.testing.assert_array_equal(scale_numbers(np.array([0.0, 1e-9, 1e9]), 16.0), [0, 0, 6])
    assert len(scale_numbers(np.empty(0), 16.0)) == 0


def test_the_unit_of_scales_follows_from_how_much_an_image_was_shrunk():
    assert scale_unit(16.0, (2048, 1024), 1024) == 32.0
    assert scale_unit(16.0, (512, 400), 1024) == 16.0
    assert scale_unit(16.0, (4000, 4000), 0) == 16.0
    with pytest.raises(InputError, match="stride"):
        scale_unit(0.0, (1, 1), 0)


PAPER = {
    "remap.weight": (128, 2048), "remap.bias": (128,), "scale_encoder.weight": (7, 128), "seg_encoder.weight": (6, 128),
    "classifier.weight": (1, 128), "classifier.bias": (1,),
} | {
    f"encoder.layers.{layer}.{name}": shape
    for layer in range(6)
    for name, shape in {
        "self_attn.in_proj_weight": (384, 128), "self_attn.in_proj_bias": (384,),
        "self_attn.out_proj.weight": (128, 128), "self_attn.out_proj.bias": (128,),
        "linear1.weight": (1024, 128), "linear1.bias": (1024,), "linear2.weight": (128, 1024), "linear2.bias": (128,),
        "norm1.weight": (128,), "norm1.bias": (128,), "norm2.weight": (128,), "norm2.bias": (128,),
    }.items()
}  # fmt: skip
"""Names and shapes of the published checkpoints."""


def published(path, change=lambda state: None, prefix="", wrapped=True):
    state = {name: torch.full(shape, 0.01) for name, shape in PAPER.items()}
    change(state)
    state = {prefix + name: value for name, value in state.items()}
    torch.save({"state": state, "optim": {"param_groups": [], "state": {}}} if wrapped else state, path)
    return path


@pytest.mark.parametrize("prefix, wrapped", [("", True), ("module.", True), ("", False)])
def test_published_checkpoints_open(tmp_path, prefix, wrapped):
    network, origin = open_transformer(published(tmp_path / "r50_gldv2.pt", prefix=prefix, wrapped=wrapped))
    assert network.options == TransformerOptions()
    assert not network.training
    assert origin == {"file": "r50_gldv2.pt", "format": "RRT"}


def test_every_missing_surplus_and_misshapen_tensor_is_named(tmp_path):
    def change(state):
        del state["encoder.layers.3.norm1.bias"], state["remap.weight"]
        state["encoder.layers.5.linear1.weight"] = torch.zeros(3, 128)
        state["pos_encoder.weight"] = torch.zeros(2)

    path = published(tmp_path / "changed.pt", change)
    with pytest.raises(MismatchError) as caught:
        open_transformer(path)
    for name in (
        "encoder.layers.3.norm1.bias",
        "remap.weight",
        "encoder.layers.5.linear1.weight",
        "pos_encoder.weight",
    ):
        assert name in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = published(tmp_path / "nan.pt", lambda state: state["remap.bias"].fill_(float("nan")))
    with pytest.raises(InputError, match=r"remap\.bias"):
        open_transformer(path)


@pytest.mark.parametrize("name", ["other.pt", "other.safetensors"])
def test_other_files_are_refused(tmp_path, name):
    with pytest.raises(NotFoundError):
        open_transformer(tmp_path / name)
    torch.save({"state_dict": {"features.0.weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(FormatError, match="not a checkpoint of the RRT code"):
        open_transformer(tmp_path / "other.pt")


def test_another_network_of_the_package_is_refused(tmp_path):
    write_network(tmp_path / "other.safetensors", "asmk-engine network", small_network(), "{}", {})
    with pytest.raises(FormatError, match="not a re-ranking transformer of asmk-engine; make one"):
        open_transformer(tmp_path / "other.safetensors")


def test_a_network_comes_back_from_its_file(tmp_path):
    network = small_network()
    save_transformer(tmp_path / "own.safetensors", network, {"data": "test"})
    found, origin = open_transformer(tmp_path / "own.safetensors")
    assert found.options == SMALL and origin == {"data": "test"}
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value, found.state_dict()[name])


@pytest.mark.parametrize("text", ["", "[]", '{"dim": 7}', '{"layers": "6"}', '{"depth": 3}'])
def test_options_that_cannot_be_read_are_damage(text):
    with pytest.raises(DamagedError, match="own"):
        TransformerOptions.from_json(text, "own")


def test_options_come_back_from_json_and_are_checked():
    assert TransformerOptions.from_json(SMALL.to_json(), "") == SMALL
    with pytest.raises(InputError, match="divisible"):
        TransformerOptions(dim=10, heads=4)
