"""What does a pair cost in CVNet-Rerank? Random weights and levels of the published width, 256.

    OMP_NUM_THREADS=1 python benchmarks/cvnet_pairs.py [--sides 64,64] [--precision fp32]

The last line is JSON: operations of a pair and seconds of the processor for it, on one thread; the speed of a product
of matrices, which is the most that the processor computes; and how much levels in 8 bits change the score.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from asmk_engine.networks.reranking.network import RerankOptions, seeded_rerank_network
from asmk_engine.networks.reranking.pyramid import level_sides
from asmk_engine.networks.reranking.scoring import LevelComparer

SIDE = 2048  # of the matrices


def main() -> None:
    """Parse the arguments, measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="64,64", help="places of the local map, 64,64 at 1024 pixels")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    height, width = (int(side) for side in options.sides.split(","))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    comparer = LevelComparer(seeded_rerank_network(RerankOptions("resnet18")).eval(), options.precision, "cpu")
    query = [torch.randn(1, 256, *sides) for sides in level_sides((height, width), 3)]
    key = [level + 0.5 * torch.randn_like(level) for level in query]
    score = comparer.scores(query, [key])[0]
    coded = [comparer.decoded(comparer.encoded(levels)) for levels in (query, key)]
    with FlopCounterMode(display=False) as counted:
        in_8_bits = comparer.scores(coded[0], [coded[1]])[0]
    found = {
        "operations": counted.get_total_flops(),
        "seconds": seconds(lambda: comparer.scores(query, [key])),
        "product_per_second": product_speed(options.precision),
        "score": score,
        "change_in_8_bits": abs(score - in_8_bits),
        "bytes_of_levels_in_8_bits": sum(code.nbytes for code in comparer.encoded(key)),
    }
    print(json.dumps(found))


def seconds(function: Callable[[], object]) -> float:
    """Return the least seconds of the processor of three calls."""
    found = []
    for _ in range(3):
        begun = time.process_time()
        function()
        found.append(time.process_time() - begun)
    return min(found)


def product_speed(precision: str) -> float:
    """Return operations in a second of a product of two matrices."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(SIDE, SIDE, dtype=kind), torch.randn(SIDE, SIDE, dtype=kind)
    return 2 * SIDE**3 / seconds(lambda: one @ other)


if __name__ == "__main__":
    main()
