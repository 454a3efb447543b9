"""How the official codes name the tensors of composed networks, and the switches that follow from their shapes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asmk_engine.networks.tensor_files import Tensors

FIRST = "backbone.conv1.weight"
"""The first convolution of a ResNet, as it is called here."""
_LAYERS = {f"conv{stage}_x": f"layer{stage - 1}" for stage in (3, 4, 5)} | {"conv2_x.2": "layer1"}
_SOLAR = {
    "features.conv1.0.": "backbone.conv1.",
    "features.conv1.1.": "backbone.bn1.",
    **{f"features.{theirs}.": f"backbone.{ours}." for theirs, ours in _LAYERS.items()},
    **{
        f"features.soa{stage}.{theirs}.": f"head.attention{stage}.{ours}."
        for stage in (4, 5)
        for theirs, ours in {"f": "query", "g": "key", "h": "value", "v": "output"}.items()
    },
    "pool.p": "head.pool.exponent",
    "whiten.": "head.whitening.",
}
_DIR = {
    **{f"{name}.": f"backbone.{name}." for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")},
    "adpool.p": "head.pool.exponent",
    "fc.": "head.whitening.",
}
_DOLG = {
    "pool_g.p": "head.pool.exponent",
    "fc_t.": "head.reduction.",
    "fc.": "head.fusion.",
    "localmodel.conv1.": "head.local.convolution.",
    "localmodel.bn.": "head.local.norm.",
    "localmodel.conv2.": "head.local.attention.",
    "localmodel.aspp.aspp.": "head.local.pyramid.branches.",
    "localmodel.aspp.im_pool.1.": "head.local.pyramid.average.0.",
    "localmodel.aspp.conv_after.0.": "head.local.pyramid.joint.0.",
}
_CVNET = {"encoder_q.head.pool.p": "head.pool.exponent", "encoder_q.head.fc.": "head.whitening."}
_TOKEN = {
    "backbone.block1.0.": "backbone.conv1.",
    "backbone.block1.1.": "backbone.bn1.",
    **{f"backbone.block{stage + 1}.": f"backbone.layer{stage}." for stage in (1, 2, 3, 4)},
    "tr.query": "head.queries",
    "tr.token_norm.": "head.tokens.",
    "tr.encoder.": "head.encoders.",
    "tr.decoder.": "head.decoders.",
    "tr.conv.": "head.reduction.",
    "tr.proj.": "head.fusion.",
}
_ATTENTION = {".q.": ".query.", ".k.": ".key.", ".v.": ".value.", ".proj.": ".output."}
_ENCODER = {".attn.": ".attention.", ".bn.": ".norm.", ".mlp.": ".linear.", **_ATTENTION}
_DECODER = {
    ".cross_attn.": ".cross_attention.",
    ".self_attn.": ".self_attention.",
    ".bn1.": ".cross_norm.",
    ".bn2.": ".self_norm.",
    ".mlp.fc1.": ".perceptron.0.",
    ".mlp.fc2.": ".perceptron.3.",
    **_ATTENTION,
}
_PYCLS = re.compile(r"s(?P<stage>[1-4])\.b(?P<block>\d{1,2})\.(?P<layer>[a-z_.]+)\.(?P<part>[a-z_]+)")
_PYCLS_BLOCK = {
    "proj": "downsample.0",
    "bn": "downsample.1",
    **{f"f.{letter}": f"conv{number}" for number, letter in enumerate("abc", 1)},
    **{f"f.{letter}_bn": f"bn{number}" for number, letter in enumerate("abc", 1)},
}


@dataclass(frozen=True)
class Layout:
    """The layout of one official code.

    network   name of the network here
    code      name of the official code
    mark      beginning of the names of tensors that only this layout has
    rename    from the name of a tensor there to the name here; an unknown name stays as it is
    switches  the switches of the head, from the tensors under their names here
    left_out  prefixes of tensors that a descriptor does not need
    is_bgr    whether images are in BGR order there
    """

    network: str
    code: str
    mark: str
    rename: Callable[[str], str]
    switches: Callable[[Tensors], dict[str, Any]]
    left_out: tuple[str, ...] = ()
    is_bgr: bool = False


def _by_prefix(name: str, table: dict[str, str]) -> str:
    """Return the name with its prefix replaced, if the table has one."""
    prefix = next((prefix for prefix in table if name.startswith(prefix)), "")
    return table[prefix] + name[len(prefix) :] if prefix else name


def _solar(name: str) -> str:
    return _by_prefix(name, _SOLAR)


def _dir(name: str) -> str:
    return _by_prefix(name, _DIR)


def _dolg(name: str) -> str:
    return _pycls(name, "globalmodel.") if name.startswith("globalmodel.") else _by_prefix(name, _DOLG)


def _cvnet(name: str) -> str:
    found = _by_prefix(name, _CVNET)
    return found if found != name else _pycls(name, "encoder_q.")


CVNET_GLOBAL = _cvnet
"""Return the name here of a tensor of CVNet's global network; an unknown name stays as it is."""


def _pycls(name: str, prefix: str) -> str:
    """Return `s3.b2.f.a_bn.weight` as `backbone.layer3.1.bn1.weight`; an unknown name stays as it is."""
    within = name.removeprefix(prefix)
    if within.startswith("stem."):
        return _by_prefix(within, {"stem.conv.": "backbone.conv1.", "stem.bn.": "backbone.bn1."})
    found = _PYCLS.fullmatch(within)
    if found is None or found["layer"] not in _PYCLS_BLOCK:
        return name
    return f"backbone.layer{found['stage']}.{int(found['block']) - 1}.{_PYCLS_BLOCK[found['layer']]}.{found['part']}"


def _token(name: str) -> str:
    found = _by_prefix(name, _TOKEN)
    inner = {"head.encoders.": _ENCODER, "head.decoders.": _DECODER}
    for prefix, table in inner.items():
        if found.startswith(prefix):
            for theirs, ours in table.items():
                found = found.replace(theirs, ours)
    return found


def _length(tensors: Tensors, name: str, axis: int, otherwise: int) -> int:
    """Return one side of a tensor; a default if it is missing, so that it is reported as missing later."""
    found = tensors.get(name)
    return int(found.shape[axis]) if found is not None and found.ndim > axis else otherwise


def _linear_switches(tensors: Tensors) -> dict[str, Any]:
    return {"dim": _length(tensors, "head.whitening.bias", 0, 0)}


def _solar_switches(tensors: Tensors) -> dict[str, Any]:
    switches = _linear_switches(tensors)
    for stage, divisor in ((4, 4), (5, 2)):
        weight = tensors.get(f"head.attention{stage}.query.0.weight")
        fits = weight is not None and weight.ndim == 4 and 0 < weight.shape[0] <= weight.shape[1]
        switches[f"divisor{stage}"] = weight.shape[1] // weight.shape[0] if fits and weight is not None else divisor
        switches[f"attention{stage}"] = any(key.startswith(f"head.attention{stage}.") for key in tensors)
    return switches


def _dolg_switches(tensors: Tensors) -> dict[str, Any]:
    return {
        "pyramid": any(key.startswith("head.local.pyramid.") for key in tensors),
        "pyramid_width": _length(tensors, "head.local.pyramid.average.0.weight", 0, 0),
        "learned_exponent": "head.pool.exponent" in tensors,
        "dim": _length(tensors, "head.fusion.bias", 0, 512),
    }


def _token_switches(tensors: Tensors) -> dict[str, Any]:
    layers = {kind: {key.split(".")[2] for key in tensors if key.startswith(f"head.{kind}.")} for kind in _STACKS}
    return {
        "tokens": _length(tensors, "head.queries", 1, 4),
        "width": _length(tensors, "head.queries", 2, 1024),
        **{kind: len(found) for kind, found in layers.items()},
        "dim": _length(tensors, "head.fusion.0.bias", 0, 1024),
    }


_STACKS = ("encoders", "decoders")
LAYOUTS = (
    Layout("solar", "SOLAR", "features.conv1.", _solar, _solar_switches,
           ("features.soa4.gamma", "features.soa5.gamma")),
    Layout("gem-ap", "dirtorch", "adpool.", _dir, _linear_switches),
    Layout("dolg", "DOLG", "globalmodel.", _dolg, _dolg_switches, ("desc_cls.",), is_bgr=True),
    Layout("cvnet", "CVNet", "encoder_q.", _cvnet, _linear_switches, ("conv2ds.", "cv_learner."),
           is_bgr=True),
    Layout("token", "Token", "tr.", _token, _token_switches, ("classifier.",)),
)  # fmt: skip
"""The layouts that are read."""
