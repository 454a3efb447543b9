"""Which options of an extractor are best? Feature sets and parts of them, searched with several codebooks, compared.

    python benchmarks/variants.py NAME=FEATURES[:PART,...] ... --ground-truth gnd.json [--words 4096] [--seeds 3]
        [--cache FILE]

The first one is the standard. Each is searched with words of its own for every seed of k-means. A line gives the mAP of
each row of the protocol, means over the seeds, the words of an image, and the difference of Medium and Hard from the
standard with its 95 % bootstrap interval over the queries, each with the mean over the seeds. `--cache` keeps what was
measured, so that a longer list of variants costs only the new ones. A PART of a feature set is

    features=N      its strongest N features, of those that the other parts leave
    dim=N           the first N dimensions, which a whitening by PCA sorts by their variance
    levels=A-B      features of these levels of the pyramid, 0 being the largest image, levels differing by sqrt(2)
    attention=norm  the features sorted by the norms of their descriptors, not by their scores
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import Codebook, Features, FeatureSet, Index, Searcher
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import GroundTruth, read_ground_truth
from asmk_engine.evaluation.names import resolve
from asmk_engine.features.arrays import ArrayFeatures
from asmk_engine.features.source import FeatureSource
from asmk_engine.search.evaluation import evaluate_index

ROWS = ("easy", "medium", "hard")
PARTS = ("features", "dim", "levels", "attention")
SMALLEST = 7.4  # log2 of the scale of the smallest features, times two, in an image of 1024 pixels or less
Measured = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A feature set, and which part of it is searched.

    name   of the variant
    path   of the feature set
    parts  see the head of this file
    """

    name: str
    path: Path
    parts: Mapping[str, str]

    @classmethod
    def parsed(cls, text: str) -> Variant:
        """Parse NAME=FEATURES[:PART,...]; ends the program for another form."""
        name, _, rest = text.partition("=")
        path, _, given = rest.partition(":")
        parts = dict(part.partition("=")[::2] for part in given.split(",") if part)
        if not path or set(parts) - set(PARTS):
            raise SystemExit(f"{text!r}: expected NAME=FEATURES[:PART,...] with parts {', '.join(PARTS)}")
        return cls(name, Path(path), parts)

    def of(self, features: Features) -> Features:
        """Return the part of the features of an image."""
        if "levels" in self.parts:
            first, last = (int(number) for number in self.parts["levels"].split("-"))
            found = levels(features)
            features = chosen(features, np.flatnonzero((found >= first) & (found <= last)))
        if self.parts.get("attention") == "norm":
            norms = np.linalg.norm(features.descriptors.astype(np.float32), axis=1)
            features = chosen(features, np.argsort(-norms, kind="stable"))
        features = features.strongest(int(self.parts.get("features", 1000)))
        dim = int(self.parts.get("dim", features.descriptors.shape[1]))
        return replace(features, descriptors=np.ascontiguousarray(features.descriptors[:, :dim]))


def chosen(features: Features, rows: np.ndarray) -> Features:
    """Return features by their numbers."""
    return Features(features.descriptors[rows], features.keypoints[rows], features.scores[rows], features.image_size)


def levels(features: Features) -> np.ndarray:
    """Return the level of the pyramid of each feature, [n] int64."""
    shrunk = max(1.0, max(features.image_size) / 1024)
    return np.rint(2 * np.log2(features.keypoints[:, 2] / shrunk) - SMALLEST).astype(np.int64)


class PartOfSet:
    """The same part of the features of every image of a feature set, as a feature source in memory."""

    def __init__(self, variant: Variant) -> None:
        self._set = FeatureSet.open(variant.path)
        self.images = {name: variant.of(self._set.read(name)) for name in self._set.names}

    def source(self) -> FeatureSource:
        """Return the source."""
        dim = next(iter(self.images.values())).descriptors.shape[1]
        return ArrayFeatures(self.images, self._set.recipe, dim)


def measured(variant: Variant, ground_truth: GroundTruth, words: int, seeds: int) -> Measured:
    """Search with a codebook of each seed; returns mAP for each query, row and seed, and the words of an image."""
    part = PartOfSet(variant)
    found: Measured = {"queries": [], "words": 0.0}
    for seed in range(seeds):
        source = part.source()
        codebook = Codebook.train(source, words, seed=seed, rounds=4, training_per_word=40, assignment="exact")
        index = Index.in_memory(codebook)
        index.add(source)
        known = resolve(ground_truth, index.names).ground_truth
        report = evaluate_index(known, Searcher(index), lambda query: queried(part, variant, query))
        found["queries"].append({row: report.per_query[row] for row in ROWS})
        found["words"] += index.postings / index.images / seeds
    return found


def queried(part: PartOfSet, variant: Variant, query: Any) -> Features:
    """Return the features of a query, those inside its box."""
    features = part.images[query.name]
    if query.box is None:
        return features
    raise SystemExit(f"{query.name}: has a box; give a ground truth of whole photographs")


def summary(found: Measured, standard: Measured) -> str:
    """Return the line of a variant."""
    means = [100 * np.mean([np.mean(list(seed[row].values())) for seed in found["queries"]]) for row in ROWS]
    seeds = ", ".join(
        " / ".join(f"{100 * np.mean(list(seed[row].values())):.1f}" for row in ROWS[1:]) for seed in found["queries"]
    )
    gains = "  ".join(f"{row} {gain(found, standard, row)}" for row in ROWS[1:])
    return f"{' / '.join(f'{mean:.1f}' for mean in means)}  {found['words']:.0f} words  {gains}  ({seeds})"


def gain(found: Measured, standard: Measured, row: str) -> str:
    """Return the difference from the standard and its interval."""
    names = standard["queries"][0][row]
    each = [np.mean([100 * (one[row][name] - two[row][name]) for one, two in pairs(found, standard)]) for name in names]
    interval = bootstrap(each)
    return f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


def pairs(found: Measured, standard: Measured) -> Iterator[tuple[Any, Any]]:
    """Yield what two variants gave with the same seed."""
    return zip(found["queries"], standard["queries"], strict=True)


def main() -> None:
    """Parse the arguments, measure every variant, and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", type=Variant.parsed)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    ground_truth = read_ground_truth(options.ground_truth)
    cache = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    for variant in options.variants:
        if variant.name not in cache:
            cache[variant.name] = measured(variant, ground_truth, options.words, options.seeds)
            if options.cache:
                options.cache.write_text(json.dumps(cache))
        standard = cache[options.variants[0].name]
        print(f"{variant.name:<16} {summary(cache[variant.name], standard)}", flush=True)


if __name__ == "__main__":
    main()
