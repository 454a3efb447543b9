"""EfficientNet-Lite: what the networks see in photographs, and their layers written anew."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from asmk_engine.errors import NotFoundError
from asmk_engine.images.decoding import view_image
from asmk_engine.networks.backbones import build_backbone, load_backbone, read_torch
from asmk_engine.networks.cache import weights_path
from asmk_engine.networks.efficientnet_lite_plan import ENDS, PIXELS, SCALING, LitePlan
from asmk_engine.networks.registry import published_weights
from asmk_engine.networks.tensor_files import Tensors
from tiny_networks import randomised

SEEN = {  # photographs of scikit-image, and the labels of ImageNet that fit
    "cat": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {504, 967, 968},  # coffee mug, espresso, cup
    "camera": {447, 732, 759, 872},  # binoculars, Polaroid camera, reflex camera, tripod
}


PARAMETERS = {  # with the classifier, as published
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}


def photograph(name: str) -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.asarray(getattr(data, name)())


def tensors() -> Tensors:
    try:
        return dict(read_torch(weights_path(published_weights("efficientnet_lite0"))))
    except NotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", SEEN)
def test_photographs_are_what_imagenet_calls_them(name: str) -> None:
    """Proves layers, names of tensors and preprocessing at once: any fault in them gives other labels."""
    content = tensors()
    backbone = load_backbone(weights_path(published_weights("efficientnet_lite0")), "efficientnet_lite0")
    pixels = torch.from_numpy(view_image(photograph(name), 320).pixels).float()[None] / 255
    normalised = ((pixels - torch.tensor(PIXELS[0])) / torch.tensor(PIXELS[1])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        pooled = backbone(normalised).mean((2, 3))
        label = functional.linear(pooled, content["_fc.weight"], content["_fc.bias"]).argmax().item()
    assert label in SEEN[name]


def naive(x: np.ndarray, state: dict[str, np.ndarray], plan: LitePlan) -> np.ndarray:
    """The map of one image [C, H, W], location by location, from the papers: MobileNet v2's blocks, "same" padding."""

    def layer(x: np.ndarray, name: str, norm: str, stride: int = 1, clamps: bool = True) -> np.ndarray:
        weight = state[f"{name}.weight"]
        side, alone = weight.shape[2], weight.shape[1] == 1 and x.shape[0] > 1
        height, width = (math.ceil(length / stride) for length in x.shape[1:])
        before = [
            max((n - 1) * stride + side - length, 0) // 2
            for n, length in zip((height, width), x.shape[1:], strict=True)
        ]
        result = np.zeros((len(weight), height, width))
        for row in range(height):
            for column in range(width):
                for dy in range(side):
                    for dx in range(side):
                        y, z = row * stride + dy - before[0], column * stride + dx - before[1]
                        if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                            part = weight[:, :, dy, dx]
                            result[:, row, column] += part[:, 0] * x[:, y, z] if alone else part @ x[:, y, z]
        scale, shift, mean, variance = (
            state[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        result = (result - mean) / np.sqrt(variance + 0.001) * scale + shift
        return np.clip(result, 0, 6) if clamps else result

    x = layer(x, "_conv_stem", "_bn0", 2)
    blocks = [*plan.blocks, *([plan.expanded] if plan.expanded else [])]
    for number, block in enumerate(blocks):
        before, prefix = x, f"_blocks.{number}."
        if block.expansion > 1:
            x = layer(x, f"{prefix}_expand_conv", f"{prefix}_bn0")
        if number == len(plan.blocks):
            break
        x = layer(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", block.stride)
        x = layer(x, f"{prefix}_project_conv", f"{prefix}_bn2", clamps=False)
        if block.stride == 1 and before.shape == x.shape:
            x = x + before
    return layer(x, "_conv_head", "_bn1") if plan.has_head else x


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 14), (16, 33)])
@pytest.mark.parametrize("skip", range(len(ENDS)))
def test_maps_are_those_of_the_layers_written_anew(skip: int, height: int, width: int) -> None:
    backbone = randomised(build_backbone("efficientnet_lite0", skip)).double().eval()
    state = {key: value.numpy() for key, value in backbone.state_dict().items()}
    pixels = torch.from_numpy(np.random.default_rng(width).normal(size=(1, 3, height, width)))
    with torch.inference_mode():
        found = backbone(pixels)[0].numpy()
    expected = naive(pixels[0].numpy(), state, backbone.plan)
    assert (
        found.shape
        == expected.shape
        == (backbone.channels, -(-height // backbone.stride), -(-width // backbone.stride))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_plans_are_those_of_the_published_networks() -> None:
    """Channels and blocks as tensorflow/tpu's table of EfficientNet-Lite has them."""
    channels = {
        0: [16, 24, 40, 80, 112, 192, 320],
        2: [16, 24, 48, 88, 120, 208, 352],
        4: [24, 32, 56, 112, 160, 272, 448],
    }
    for number, expected in channels.items():
        found = [block.outputs for block in LitePlan.of(f"efficientnet_lite{number}").blocks]
        assert list(dict.fromkeys(found)) == expected
    sizes = {name: sum(math.prod(shape) for key, shape in LitePlan.of(name).shapes().items() if "running" not in key)
             for name in SCALING}  # fmt: skip
    assert {name: size + 1281 * 1000 for name, size in sizes.items()} == PARAMETERS
    assert [LitePlan.of("efficientnet_lite0", skip).stride for skip in range(len(ENDS))] == [32, 16, 16, 8, 8]
    assert [LitePlan.of("efficientnet_lite0", skip).channels for skip in range(len(ENDS))] == [1280, 672, 112, 240, 40]


def test_published_files_have_the_planned_tensors() -> None:
    planned = LitePlan.of("efficientnet_lite0").shapes() | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    given = {key: tuple(value.shape) for key, value in tensors().items() if not key.endswith("num_batches_tracked")}
    assert given == planned
