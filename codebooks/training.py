"""Learning the arrays of a codebook from a uniform sample of descriptors: mean and projection, then centroids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.codebooks.graph import is_linked_for
from asmk_engine.codebooks.kmeans import Round, Spread, choose_backend, kmeans
from asmk_engine.codebooks.recall import HELD_OUT
from asmk_engine.codebooks.sample import sample_and_hold_out
from asmk_engine.codebooks.whitening import learn_projection, project_in_place
from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSource, descriptor_count, label
from asmk_engine.iteration import Progress

DESCRIPTORS_PER_WORD = 200  # least number per word with `auto`
LEAST_PER_WORD = 39  # with fewer, a centroid fits only its own few descriptors (the bound below which faiss warns)
TRAINING_PER_WORD = 80  # more take longer and change mAP by less than another seed does
MAX_WORDS = 65_536
WHITENING = ("auto", "pca", "none")


@dataclass(frozen=True)
class TrainingOptions:
    """The options of `Codebook.train`; raises InputError for an invalid one."""

    words: int | str = "auto"
    seed: int = 0
    rounds: int = 10
    whitening: str = "auto"
    backend: str = "auto"
    training_per_word: int = TRAINING_PER_WORD
    assignment: str = "auto"

    def __post_init__(self) -> None:
        is_linked_for(self.assignment, 1)
        if self.whitening not in WHITENING:
            raise InputError(f"whitening {self.whitening!r} is unknown; choose one of {', '.join(WHITENING)}")
        if self.rounds < 1 or self.training_per_word < 1:
            raise InputError(
                f"rounds is {self.rounds} and training_per_word {self.training_per_word}; both must be 1 or more"
            )


@dataclass(frozen=True, eq=False)
class LearnedWords:
    """The arrays of a codebook, as there, how they were learned, as JSON values, and descriptors they did not see.

    held_out  [n, D0] float32, raw, for measuring the recall of a graph of words; empty if there will be none
    """

    mean: np.ndarray
    projection: np.ndarray
    centroids: np.ndarray
    training: dict[str, Any]
    held_out: np.ndarray


def learn_words(
    features: FeatureSource,
    options: TrainingOptions,
    on_sample: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    spread: Spread | None = None,
) -> LearnedWords:
    """Learn mean, projection and centroids; raises as `Codebook.train`.

    on_sample  receives progress of the sampling as (done, total) in images
    on_round   receives the `Round` after each round of k-means
    spread     as for `kmeans.kmeans`
    """
    whitening = options.whitening
    if whitening == "auto":
        whitening = "none" if features.recipe.is_reduced else "pca"
    count = choose_words(options.words, descriptor_count(features), label(features))
    backend = choose_backend(options.backend, count)
    rng = np.random.default_rng(options.seed)
    apart = HELD_OUT if is_linked_for(options.assignment, count) else 0
    sample, held_out = sample_and_hold_out(features, count * options.training_per_word, apart, rng, on_sample)
    mean, projection = learn_projection(sample, whitening)
    project_in_place(sample, mean, projection)
    centroids, history = kmeans(
        sample, count, rounds=options.rounds, seed=options.seed, backend=backend, on_round=on_round, spread=spread
    )
    training = {
        "images": len(features.names),
        "descriptors": len(sample),
        "seed": options.seed,
        "rounds": options.rounds,
        "whitening": whitening,
        "backend": backend,
        "distortion": history[-1].distortion,
    }
    return LearnedWords(mean, projection, centroids, training, held_out)


def choose_words(words: int | str, descriptors: int, where: object) -> int:
    """Return the number of words, resolving `auto` for this number of descriptors.

    Raises InputError, with the maximum and the choice of `auto`, if there are too few descriptors.

    where  names the descriptors in messages
    """
    chosen = 1
    while 2 * chosen * DESCRIPTORS_PER_WORD <= descriptors and 2 * chosen <= MAX_WORDS:
        chosen *= 2
    if words == "auto":
        return chosen
    if not isinstance(words, int) or words < 1:
        raise InputError(f"words is {words!r}; give a whole number of 1 or more, or auto")
    if words > 1 and words * LEAST_PER_WORD > descriptors:
        raise InputError(
            f"{where}: {descriptors} descriptors are too few for {words} words, which need at least {LEAST_PER_WORD} "
            f"each; give at most {max(1, descriptors // LEAST_PER_WORD)}, or auto, which takes {chosen}"
        )
    return words
