"""How close is the match kernel to the time of only reading the codes?

    python benchmarks/match.py --data DIR [--small]

The same run measures two references: a vectorised pass that reads the codes of the same lists and counts bits, and the
best of five sums over the mapped codes (eight accumulators), which is the sequential read bandwidth of one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import synthetic
from numba import njit, types
from numba.core import cgutils
from numba.core.cgutils import ir
from numba.extending import intrinsic
from timing import alternate, medians, show

from asmk_engine import threads
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.signatures import Signature
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.kernels.match import find_lists

LANES = 8  # codes per vector


@intrinsic
def ones(typing_context, word):
    """Count the bits that are set in a 64-bit word."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def code_pass_of(width: int):
    """Return a function that only reads every code of some lists once and counts differing bits.

    It processes eight codes at a time, in LLVM vectors as in the kernel; counts are added to a row that stays in cache.
    """

    @intrinsic
    def add_differing(typing_context, codes, row, query, q, counts):
        def generate(context, builder, signature, arguments):
            codes, row, query, q, counts = arguments
            vector = ir.VectorType(ir.IntType(64), LANES * width)
            stride = ir.Constant(row.type, width)

            def address(place, array, begin):
                data = context.make_array(signature.args[place])(context, builder, array).data
                return builder.gep(data, [begin])

            one = address(2, query, builder.mul(q, stride))
            spread = ir.Constant(vector, ir.Undefined)
            for lane in range(LANES * width):
                part = builder.load(builder.gep(one, [ir.Constant(row.type, lane % width)]))
                spread = builder.insert_element(spread, part, ir.Constant(ir.IntType(32), lane))
            pointer = builder.bitcast(address(0, codes, builder.mul(row, stride)), vector.as_pointer())
            differing = builder.xor(builder.load(pointer, align=8), spread)
            kind = ir.FunctionType(vector, [vector])
            name = f"llvm.ctpop.v{LANES * width}i64"
            ones = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [differing])
            total = builder.bitcast(address(4, counts, ir.Constant(row.type, 0)), vector.as_pointer())
            builder.store(builder.add(builder.load(total, align=8), ones), total, align=8)
            return context.get_dummy_value()

        return types.void(codes, types.int64, query, types.int64, counts), generate

    @njit(nogil=True)
    def code_pass(lists, query, posting_starts, codes):
        counts = np.zeros(LANES * width, np.uint64)
        for q in range(lists.shape[0]):
            if lists[q] < 0:
                continue
            p, end = posting_starts[lists[q]], posting_starts[lists[q] + 1]
            while p + LANES <= end:
                add_differing(codes, p, query, q, counts)
                p += LANES
            while p < end:
                for w in range(width):
                    counts[w] += ones(codes[p, w] ^ query[q, w])
                p += 1
        return counts.sum()

    return code_pass


@njit(nogil=True)
def sum_words(words):
    """Sum 64-bit words with eight accumulators."""
    total = np.zeros(8, np.uint64)
    a = b = c = d = e = f = g = h = np.uint64(0)
    for i in range(0, words.shape[0] - 7, 8):
        a += words[i]
        b += words[i + 1]
        c += words[i + 2]
        d += words[i + 3]
        e += words[i + 4]
        f += words[i + 5]
        g += words[i + 6]
        h += words[i + 7]
    total[0] = a + b + c + d + e + f + g + h
    return total[0]


def lists_of(segment: Segment, query: Signature) -> np.ndarray:
    """Return the lists of the query's words in all ranges, concatenated."""
    found = []
    for r in range(segment.ranges):
        first, last = int(segment.range_starts[r]), int(segment.range_starts[r + 1])
        lists = np.empty(len(query), np.int64)
        find_lists(segment.list_words[first:last], query.words, lists)
        lists[lists >= 0] += first
        found.append(lists)
    return np.concatenate(found)


def whole_match(snapshot: Snapshot, query: Signature, table: np.ndarray, weights: np.ndarray, count: int) -> None:
    """Score every range of every segment."""
    tasks = [(segment, r) for segment in snapshot.segments for r in range(segment.ranges)]
    threads.run(lambda task: task[0].score(task[1], query.words, query.codes, weights, table), tasks, count)


def bandwidth(codes: np.ndarray) -> float:
    """Measure the bytes per second of the best of five sums over 2.5 GiB of codes, or all codes if fewer."""
    words = codes.reshape(-1)[: (5 << 30) // 16]
    sum_words(words[:64])
    best = 0.0
    for _ in range(5):
        begun = time.perf_counter()
        sum_words(words)
        best = max(best, words.nbytes / (time.perf_counter() - begun))
    return best


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--query-words", type=int, default=1500)
    parser.add_argument("--bits", type=int, default=synthetic.DIM, help="bits of a code; 128 by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial in seconds")
    arguments = parser.parse_args()
    images, words = (20_000, 4096) if arguments.small else (arguments.images, synthetic.WORDS)
    snapshot = synthetic.open_index(arguments.data, images, words, dim=arguments.bits).snapshot
    (segment,) = snapshot.segments
    (query,) = synthetic.queries(1, min(arguments.query_words, words // 4), words, dim=arguments.bits)
    code_pass = code_pass_of(query.codes.shape[1])
    lists = lists_of(segment, query)
    postings = int((segment.posting_starts[lists[lists >= 0] + 1] - segment.posting_starts[lists[lists >= 0]]).sum())
    table, weights = SelectiveMatch().table(arguments.bits, query.codes.shape[1]), np.ones(len(query))
    repeated = np.tile(query.codes, (segment.ranges, 1))
    seconds = alternate(
        {
            "code_pass": lambda: code_pass(lists, repeated, segment.posting_starts, segment.codes),
            "match": lambda: whole_match(snapshot, query, table, weights, 1),
            "two_threads": lambda: whole_match(snapshot, query, table, weights, 2),
        },
        arguments.rounds,
    )
    median = medians(seconds)
    speed = bandwidth(segment.codes)
    result = {
        "images": images,
        "bits": arguments.bits,
        "postings": postings,
        "ns_per_posting": median["match"] / postings * 1e9,
        "over_code_pass": median["match"] / median["code_pass"],
        "bandwidth_fraction": 8 * query.codes.shape[1] * postings / median["match"] / speed,
        "two_thread_speedup": median["match"] / median["two_threads"],
        "code_pass_ns": median["code_pass"] / postings * 1e9,
        "best_match_ns": min(seconds["match"]) / postings * 1e9,
        "best_code_pass_ns": min(seconds["code_pass"]) / postings * 1e9,
        "bandwidth_gb_per_s": speed / 1e9,
    }
    show(result, "the index is in memory (warm); medians of alternating rounds")


if __name__ == "__main__":
    main()
