"""A small collection with hostile names, served in a child process, for the tests of the search page."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data

import asmk_engine

SHORT_SIDE = 300
HOSTILE = (
    "odd/<img src=x onerror=alert(1)>.jpg",
    "odd/100% #1? a&b=c+d;\"quoted'.jpg",
    "odd/\u202egpj.exe שלום.jpg",
    "odd/=1+1, пример 例 🙂.jpg",
    f"odd/{'long-name-' * 24}.jpg",
)
TURN = 20.0


def photographs() -> dict[str, np.ndarray]:
    """Photographs [h, w, 3] uint8 by name: some of scikit-image, parts and rotations of them, and hostile names."""
    things = {
        "coffee": data.coffee(),
        "chelsea": data.chelsea(),
        "rocket": data.rocket(),
        "astronaut": data.astronaut(),
    }
    others = {"textures/brick": data.brick(), "textures/grass": data.grass(), "camera": data.camera()}
    found = {f"{name}.png": shrunk(pixels) for name, pixels in {**things, **others}.items()}
    for name in things:
        found[f"views/{name}/part.png"] = part(found[f"{name}.png"])
        found[f"views/{name}/turned.png"] = turned(found[f"{name}.png"])
    for number, name in enumerate(HOSTILE):
        found[name] = shrunk(data.coins())[:, 20 * number :]
    return found


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Grey or RGB pixels as [h, w, 3], the shorter side SHORT_SIDE pixels."""
    colours = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    scale = SHORT_SIDE / min(colours.shape[:2])
    return cv2.resize(colours, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def part(pixels: np.ndarray) -> np.ndarray:
    """The middle of a photograph, from a fifth to four fifths of both sides."""
    height, width = pixels.shape[:2]
    return pixels[height // 5 : 4 * height // 5, width // 5 : 4 * width // 5]


def turned(pixels: np.ndarray) -> np.ndarray:
    """The photograph turned by TURN degrees about its middle, on black."""
    height, width = pixels.shape[:2]
    return cv2.warpAffine(pixels, cv2.getRotationMatrix2D((width / 2, height / 2), TURN, 0.9), (width, height))


def quarter(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Corners x1, y1, x2, y2 of the part of `part`."""
    height, width = pixels.shape[:2]
    return width // 5, height // 5, math.ceil(4 * width / 5), math.ceil(4 * height / 5)


def write_collection(folder: Path) -> None:
    """Write the photographs as files."""
    for name, pixels in photographs().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def write_metadata(path: Path) -> None:
    """Write a table with a title for each photograph of coffee."""
    rows = [f'{name},"A cup, seen <b>again</b>"' for name in photographs() if "coffee" in name]
    path.write_text("\n".join(["name,title", *rows]), encoding="utf-8")


def environment() -> dict[str, str]:
    """The environment of a child process that runs the package under test."""
    paths = [str(Path(asmk_engine.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@contextlib.contextmanager
def served(*arguments: str | Path) -> Iterator[str]:
    """Run `asmk-engine serve` with these arguments; yields the address that it prints, without what follows #."""
    command = [sys.executable, "-m", "asmk_engine", "serve", *map(str, arguments), "--port", "0", "--no-browser"]
    server = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    assert server.stdout is not None
    try:
        lines = iter(server.stdout)
        address = next((line.strip() for line in lines if line.startswith("http://")), "")
        assert address, "the server printed no address"
        yield address.partition("#")[0].rstrip("/")
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
