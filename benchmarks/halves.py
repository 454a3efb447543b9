"""Does training help on unseen instances? Splits images and ground truth into two halves by instance.

    python benchmarks/halves.py PHOTOS --ground-truth gnd.json -o HALVES [--seed 0]

PHOTOS has a folder for each instance and one of distractors, as in the names of the ground truth. Instances and
distractors are assigned to two halves at random. HALVES gets `train/photos` and `test/photos`, folders of links to the
images, and `train/gnd.json` and `test/gnd.json`, the queries of each half with their positives and junk in that half.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path, PurePosixPath
from typing import Any

HALVES = ("train", "test")


def main() -> None:
    """Parse the arguments, split, write both halves, and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distractors", default="_distractors", help="folder of the images of no instance")
    options = parser.parse_args()
    ground_truth = json.loads(options.ground_truth.read_text())
    halves = split(ground_truth["imlist"], options.seed, options.distractors)
    for half, names in zip(HALVES, halves, strict=True):
        write_half(options.output / half, options.photos, names, ground_truth["queries"])
        instances = {instance(name) for name in names} - {options.distractors}
        print(f"{half}: {len(names)} images, {len(instances)} instances")


def instance(name: str) -> str:
    """Return the folder of an image, which names its instance."""
    return PurePosixPath(name).parent.name


def split(names: list[str], seed: int, distractors: str) -> tuple[list[str], list[str]]:
    """Split the names into two halves, without splitting instances; distractors are split one by one."""
    shuffler = random.Random(seed)
    instances = sorted({instance(name) for name in names} - {distractors})
    shuffler.shuffle(instances)
    first = set(instances[: len(instances) // 2])
    others = sorted(name for name in names if instance(name) == distractors)
    shuffler.shuffle(others)
    first_others = set(others[: len(others) // 2])
    in_first = [name in first_others or instance(name) in first for name in names]
    return (
        [name for name, here in zip(names, in_first, strict=True) if here],
        [name for name, here in zip(names, in_first, strict=True) if not here],
    )


def write_half(folder: Path, photos: Path, names: list[str], queries: list[dict[str, Any]]) -> None:
    """Write links to the images of a half, and its ground truth with names relative to the folder of links."""
    kept = set(names)
    for name in names:
        link = folder / "photos" / instance(name) / PurePosixPath(name).name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to((photos / instance(name) / PurePosixPath(name).name).resolve())
    own = [query for query in queries if query["query"] in kept]
    content = {"imlist": [short(name) for name in names], "queries": [shortened(query, kept) for query in own]}
    (folder / "gnd.json").write_text(json.dumps(content))


def short(name: str) -> str:
    """Return `barn/a.jpg` for `images/barn/a.jpg`."""
    return f"{instance(name)}/{PurePosixPath(name).name}"


def shortened(query: dict[str, Any], kept: set[str]) -> dict[str, Any]:
    """Return the query with the names of `short`, without images of the other half."""
    lists = {key: [short(name) for name in query[key] if name in kept] for key in ("easy", "hard", "junk")}
    return {"query": short(query["query"]), "bbox": query["bbox"], **lists}


if __name__ == "__main__":
    main()
