"""Tiny photographs, networks and runs for the tests of training."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from asmk_engine.iteration import Silent
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions

SIDE = 48


class Stopped(Exception):
    """What stands for a kill."""


class Mortal(Silent):
    """A reporter that kills its run after so many calls of its progress bars."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    @contextlib.contextmanager
    def bar(self, what: str, unit: str) -> Any:
        yield self.advance

    def advance(self, done: int, total: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped


def tiny_network(seed: int = 0, **options: object) -> LocalNetwork:
    """SqueezeNet without most of itself, with random weights, in eight dimensions."""
    chosen: dict = {"dim": 8, "skip": 9, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LocalNetwork(LocalOptions("squeezenet1_1", **chosen))
        for parameter in network.parameters():
            parameter.data.mul_(1.5)
    return network.eval()


def tiny_global(seed: int = 0, **options: object) -> GlobalNetwork:
    """SqueezeNet without most of itself, with random weights, GeM, and a layer to eight dimensions."""
    chosen: dict = {"skip": 9, "whitening": 8, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GlobalNetwork(GlobalOptions("squeezenet1_1", **chosen))
        for parameter in network.backbone.parameters():
            parameter.data.mul_(1.5)
    return network.eval()


def photograph(seed: int, side: int = SIDE) -> np.ndarray:
    """Coarse noise [side, side - 8, 3] uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side - 8, side), Image.Resampling.BICUBIC))


def write_photographs(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder of photographs for each name, alike within a folder."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            noise = np.random.default_rng(100 * number + place).integers(0, 40, (SIDE, SIDE - 8, 3))
            pixels = (photograph(seed + number) * 0.8 + noise).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{place}.png")
    return folder
