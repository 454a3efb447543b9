"""Which number of words is best, for a thousand images and for many? Learns vocabularies and searches with each.

    python benchmarks/vocabulary.py --learn FEATURES... --search FEATURES --ground-truth gnd.json --pool FEATURES...
        [--learn-from-pool] [--words 4096,8192,16384] [--distractors 0,1000,10000] [--seeds 2] [--rounds 10]
        [--per-word 80]

A vocabulary of each size is learned from --learn, its words rounded to half precision as those of the package. With it
the photographs of --search are indexed with a growing number of distractors, and the queries of the ground truth, which
are whole photographs, are answered. All words are compared with each descriptor.

A distractor is composed of three different photographs of --pool: the features of the left third of the first, of the
middle third of the second, and of the right third of the third, in numbers of features. So it has as many features as a
photograph and repeats its patterns as one does, but it shows nothing that a query shows: the pool has no photograph
that the ground truth names for a query. Photographs that words were learned from have fewer words than others, the more
so the more words there are; so of the photographs that are both in --learn and in --pool, every second one is learned
from and the others are composed, but for --learn-from-pool. The features of the pool are assigned to words once for
each vocabulary. Descriptors come back in other distractors, which those of real photographs do not.

Prints a line of JSON for each vocabulary, a table, and the same as one line of JSON. Differences are to the first size,
paired by query, as means over the seeds with a bootstrap interval over the queries (95 %). Times are processor time:
medians over queries of the best of some repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.training import LEAST_PER_WORD
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.evaluation.names import resolve
from asmk_engine.features import Features, FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.signatures import Signature, make_signature
from asmk_engine.iteration import evenly
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.tradeoff.measure import TIMED_QUERIES, disk_bytes, milliseconds, scoring_milliseconds

ROWS = ("easy", "medium", "hard")
PARTS = 3  # photographs of which a distractor is composed
ASSIGNMENTS = 5  # words per descriptor of a query
HELD_OUT_IMAGES = 40  # of the searched photographs, for the recall of a graph of words


@dataclass(frozen=True)
class Material:
    """What is learned from, searched and composed.

    learned  the descriptors of each image that the words are learned from
    pool     the features of the images that distractors are composed of
    """

    learned: list[np.ndarray]
    searched: FeatureSet
    ground_truth: GroundTruth
    queries: dict[str, Features]
    pool: list[Features]

    @classmethod
    def read(cls, options: argparse.Namespace) -> Material:
        """Read and check everything; ends the program if the parts do not fit each other."""
        searched = FeatureSet.open(options.search)
        learn, pool = ([FeatureSet.open(path) for path in paths] for paths in (options.learn, options.pool))
        if len({one.recipe for one in [searched, *learn, *pool]}) > 1:
            raise SystemExit("the feature sets have different recipes; extract all of them in one way")
        ground_truth = resolve(read_ground_truth(options.ground_truth), searched.names).ground_truth
        if any(query.box is not None for query in ground_truth.queries):
            raise SystemExit(f"{options.ground_truth}: a query has a region; give queries that are whole photographs")
        names, to_learn = parted(pool, learn, options.learn_from_pool)
        check_pool({name for some in names for name in some}, ground_truth)
        return cls(
            [image.descriptors for one, some in zip(learn, to_learn, strict=True) for _, image in one.images(some)],
            searched,
            ground_truth,
            {query.name: searched.read(query.name) for query in ground_truth.queries},
            [image for one, some in zip(pool, names, strict=True) for _, image in one.images(some)],
        )


def parted(
    pool: Sequence[FeatureSet], learn: Sequence[FeatureSet], learn_from_pool: bool
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the names of the pool and those to learn from, of each feature set: every second one of those in both."""
    both = sorted({name for one in pool for name in one.names} & {name for one in learn for name in one.names})
    learned, composed = (set(), set()) if learn_from_pool else (set(both[0::2]), set(both[1::2]))
    return (
        [[name for name in one.names if name not in learned] for one in pool],
        [[name for name in one.names if name not in composed] for one in learn],
    )


def check_pool(names: set[str], ground_truth: GroundTruth) -> None:
    """End the program if the photographs of the pool are too few, or if it has photographs of what the queries show."""
    if len(names) < PARTS:
        raise SystemExit(f"--pool has {len(names)} photographs; a distractor is composed of {PARTS}")
    shown = {name for query in ground_truth.queries for name in (query.name, *query.easy, *query.hard, *query.junk)}
    if shared := len(names & shown):
        raise SystemExit(f"the ground truth names {shared} photographs of --pool for a query; give others")


class Distractors:
    """Composes distractors of the features of a pool, which are assigned to the words of a codebook once."""

    def __init__(self, pool: Sequence[Features], codebook: Codebook, seed: int) -> None:
        self._codebook, self._seed = codebook, seed
        self._projected = [codebook.project(image.descriptors) for image in pool]
        self._words = [codebook.assign_projected(one) for one in self._projected]
        self._thirds = [thirds(image) for image in pool]

    def signatures(self, begin: int, end: int) -> Iterator[tuple[str, Signature]]:
        """Yield names and signatures of the distractors of these numbers."""
        for number in range(begin, end):
            yield f"distractor {number:09d}", self._signature(number)

    def _signature(self, number: int) -> Signature:
        photographs = chosen(self._seed, number, len(self._thirds))
        parts = [(one, self._thirds[one][place]) for place, one in enumerate(photographs)]
        projected, words = (
            np.concatenate([arrays[one][rows] for one, rows in parts]) for arrays in (self._projected, self._words)
        )
        return make_signature(projected, words, self._codebook)


def thirds(image: Features) -> list[np.ndarray]:
    """Divide the features of an image, from left to right, into parts of equal numbers, give or take one."""
    return np.array_split(np.argsort(image.keypoints[:, 0], kind="stable"), PARTS)


def chosen(seed: int, number: int, photographs: int) -> list[int]:
    """Choose the different photographs of a distractor, which depend on nothing but the arguments."""
    found: list[int] = np.random.default_rng((seed, number)).choice(photographs, PARTS, replace=False).tolist()
    return found


def measured(material: Material, words: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Learn a vocabulary and measure it with each number of distractors."""
    recipe = material.searched.recipe
    codebook = Codebook.train(
        material.learned,
        words,
        recipe=recipe,
        seed=seed,
        rounds=options.rounds,
        training_per_word=options.per_word,
        assignment="exact",
    ).rounded()
    signatures = {name: signed(codebook, features) for name, features in material.queries.items()}
    index = Index.in_memory(codebook)
    index.add(material.searched)
    return {
        "words": words,
        "seed": seed,
        "file_bytes": file_bytes(codebook),
        "descriptors_per_word": codebook.training["descriptors"] / words,
        "imbalance": imbalance(index.snapshot.list_lengths),
        "words_per_image": index.postings / index.images,
        **assignment_times(codebook, material),
        "searches": list(searches(index, Distractors(material.pool, codebook, seed), material, signatures, options)),
    }


def signed(codebook: Codebook, features: Features) -> Signature:
    """Return the signature of a query."""
    projected = codebook.project(features.descriptors)
    return make_signature(projected, codebook.assign_projected(projected, ASSIGNMENTS), codebook)


def file_bytes(codebook: Codebook) -> int:
    """Return the bytes of the file of a codebook with words of half precision."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codebook.h5"
        codebook.save(path, half=True)
        return path.stat().st_size


def imbalance(lengths: np.ndarray) -> float:
    """Return the imbalance factor, the number of words times the sum of their squared frequencies; 1 if all are equal.

    Source: Jégou, Douze and Schmid, "Improving bag-of-features for large scale image search", IJCV 2010.
    """
    return float(len(lengths) * np.sum((lengths / lengths.sum()) ** 2))


def assignment_times(codebook: Codebook, material: Material) -> dict[str, float | None]:
    """Measure the milliseconds of assigning a query on one thread, and through a graph if `auto` builds one."""
    queries = evenly(list(material.queries.values()), TIMED_QUERIES)
    names = evenly(material.searched.names, HELD_OUT_IMAGES)
    held_out = np.concatenate([image.descriptors for _, image in material.searched.images(names)])
    linked = codebook.with_assignment("auto", held_out)
    times: dict[str, float | None] = {"assign_ms": None, "graph_ms": None}
    for key, one in (("assign_ms", codebook), ("graph_ms", linked if linked.graph else None)):
        if one is not None:
            tasks = [partial(one.assign, features.descriptors, ASSIGNMENTS, threads=1) for features in queries]
            times[key] = milliseconds(tasks)
    return times


def searches(
    index: Index,
    distractors: Distractors,
    material: Material,
    signatures: Mapping[str, Signature],
    options: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    """Evaluate the index with each number of distractors, which are added to those that are there."""
    searcher = Searcher(index, threads=1)
    photographs, postings, there = index.images, index.postings, 0
    for count in options.distractors:
        index.add_signatures(distractors.signatures(there, count))
        index.merge()
        there = count
        report = evaluate_index(material.ground_truth, searcher, lambda query: signatures[query.name])
        yield {
            "distractors": count,
            "words_per_distractor": (index.postings - postings) / count if count else None,
            "bytes_per_image": disk_bytes(index)["segments"] / (photographs + count),
            "score_ms": scoring_milliseconds(searcher, evenly(list(signatures.values()), TIMED_QUERIES)),
            "map": {row: 100 * report.scores[row].mean_average_precision for row in ROWS},
            "per_query": {row: report.per_query[row] for row in ROWS},
        }


def summarised(vocabularies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each size and number of distractors the means over the seeds and the differences to the first size."""
    sizes = list(dict.fromkeys(one["words"] for one in vocabularies))
    of_size = {size: [one for one in vocabularies if one["words"] == size] for size in sizes}
    found = []
    for size in sizes:
        for place, search in enumerate(of_size[size][0]["searches"]):
            here = [one["searches"][place] for one in of_size[size]]
            first = [one["searches"][place] for one in of_size[sizes[0]]]
            found.append(
                {
                    "words": size,
                    "distractors": search["distractors"],
                    **mean_of(of_size[size], "imbalance", "words_per_image", "assign_ms", "graph_ms"),
                    **mean_of(here, "bytes_per_image", "words_per_distractor", "score_ms"),
                    "map": {row: statistics.fmean(one["map"][row] for one in here) for row in ROWS},
                    "difference": {row: difference(here, first, row) for row in ROWS},
                }
            )
    return found


def mean_of(measurements: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, float | None]:
    """Return the mean of some numbers of the seeds, None where a seed has none."""
    values = {key: [one[key] for one in measurements] for key in keys}
    return {key: None if None in numbers else statistics.fmean(numbers) for key, numbers in values.items()}


def difference(here: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]], row: str) -> list[float]:
    """Return mean, low and high of the difference in mAP, in percent, paired by query and averaged over the seeds."""
    pairs = [(one["per_query"][row], two["per_query"][row]) for one, two in zip(here, first, strict=True)]
    found = bootstrap([statistics.fmean(one[name] - two[name] for one, two in pairs) for name in pairs[0][0]])
    return [100 * found.mean, 100 * found.low, 100 * found.high]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each size and number of distractors."""
    print(
        "  words distractors   words/image  bytes/image  score ms    E / M / H             M, H against the first size"
    )
    for row in rows:
        scores = " / ".join(f"{row['map'][name]:.1f}" for name in ROWS)
        against = ", ".join("{:+.1f} ({:+.1f} to {:+.1f})".format(*row["difference"][name]) for name in ROWS[1:])
        print(
            f"{row['words']:7}{row['distractors']:12}{row['words_per_image']:14.0f}{row['bytes_per_image']:13.0f}"
            f"{row['score_ms']:10.2f}    {scores:20}  {against}"
        )


def numbers(text: str) -> list[int]:
    """Return whole numbers that are separated by commas."""
    return [int(part) for part in text.split(",")]


def parsed() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn", type=Path, nargs="+", required=True, help="feature sets that words are learned from")
    parser.add_argument("--search", type=Path, required=True, help="feature set of the images of the ground truth")
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--pool", type=Path, nargs="+", required=True, help="feature sets that distractors are made of")
    parser.add_argument("--learn-from-pool", action="store_true", help="learn from images that are composed, too")
    parser.add_argument("--words", type=numbers, default=[4096, 8192, 16384])
    parser.add_argument("--distractors", type=numbers, default=[0, 1000, 10000])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of k-means")
    parser.add_argument("--per-word", type=int, default=80, help="most descriptors per word in training")
    options = parser.parse_args()
    options.distractors = sorted(set(options.distractors))
    if options.seeds < 1 or options.distractors[0] < 0:
        parser.error("give 1 or more --seeds, and numbers of 0 or more for --distractors")
    return options


def main() -> None:
    """Parse the arguments, measure every size and seed, and print the results."""
    options = parsed()
    material = Material.read(options)
    most = sum(map(len, material.learned)) // LEAST_PER_WORD
    if max(options.words) > most:
        raise SystemExit(f"--words {max(options.words)} are too many for --learn, which has enough for {most}")
    vocabularies = []
    for seed in range(options.seeds):
        for words in options.words:
            vocabularies.append(measured(material, words, seed, options))
            shown = [{key: one[key] for key in one if key != "per_query"} for one in vocabularies[-1]["searches"]]
            print(json.dumps({**vocabularies[-1], "searches": shown}), flush=True)
    rows = summarised(vocabularies)
    print_table(rows)
    print(
        json.dumps(
            {
                "seeds": options.seeds,
                "photographs": len(material.searched.names),
                "pool": len(material.pool),
                "rows": rows,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
