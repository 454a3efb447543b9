"""Any history of an index, kills included, against a dictionary and the slow twins: equal answers, bit for bit."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import naive
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.signatures import sign
from asmk_engine.maintenance.checking import check_index
from disks import CountedDisk, fast_disk
from histories import DIM, small_codebook, small_limits
from samples import random_images, write_features

NAMES = [f"image {number}.jpg" for number in range(8)]
VERSIONS = [list(random_images(8, DIM, seed=seed, features=6).values()) for seed in (11, 12)]
QUERIES = list(random_images(2, DIM, seed=13, features=6).values())
deeds = st.sampled_from(["add", "replace", "delete", "merge"])
versions = st.integers(0, 1)
names = st.lists(st.sampled_from(range(8)), unique=True, min_size=1, max_size=4)
# A similarity to the power of 1 is the same number in every library, so that scores can be compared to the last bit.
MATCH = SelectiveMatch(alpha=1.0)
Model = dict[int, int]


@functools.cache
def bits(version: int, number: int) -> dict[int, list[int]]:
    """word → bits of one version of an image, by the slow twins; version -1 holds the queries."""
    features, assigned = (QUERIES[number], 2) if version < 0 else (VERSIONS[version][number], 1)
    centroids = small_codebook().centroids
    words = [naive.nearest_words(descriptor, centroids, assigned) for descriptor in features.descriptors]
    sums = naive.aggregate(features.descriptors, words, centroids)
    return {word: naive.binarise(vector) for word, vector in sums.items()}


def expected(model: Model) -> list[list[tuple[str, float]]]:
    """The full answers to the queries, from the definition."""
    answers = []
    for query in range(len(QUERIES)):
        scores = {
            NAMES[number]: naive.asmk_score(bits(-1, query), bits(version, number), MATCH.alpha)
            for number, version in model.items()
        }
        found = [(name, score) for name, score in scores.items() if score > 0]
        answers.append(sorted(found, key=lambda hit: (-hit[1], hit[0].encode())))
    return answers


def found(index: Index) -> list[list[tuple[str, float]]]:
    searcher = Searcher(index, MATCH, threads=1)
    signatures = [sign(query, small_codebook(), 2) for query in QUERIES]
    return [[(hit.name, hit.score) for hit in searcher.search(signature, None)] for signature in signatures]


class Killed(BaseException):
    """The process ends here: no request after this one is done."""


class Life(RuleBasedStateMachine):
    """Deeds of users and of fate; `model` says which version of each image is in the index."""

    @initialize()
    def create(self) -> None:
        self.patch = pytest.MonkeyPatch()
        small_limits(self.patch)
        fast_disk(self.patch)
        self.folder = Path(tempfile.mkdtemp())
        self.index = Index.create(self.folder / "index", small_codebook())
        self.model: Model = {}
        self.sets = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    def _after(self, deed: str, numbers: list[int], version: int) -> Model:
        """What the model becomes."""
        if deed == "add":
            return dict.fromkeys(numbers, version) | self.model
        if deed == "replace":
            return self.model | dict.fromkeys(numbers, version)
        gone = numbers if deed == "delete" else []
        return {number: kept for number, kept in self.model.items() if number not in gone}

    def _do(self, deed: str, numbers: list[int], version: int) -> None:
        chosen = [NAMES[number] for number in numbers]
        if deed == "delete":
            self.index.delete(chosen, missing_ok=True)
        elif deed == "merge":
            self.index.merge(chunk_postings=5)
        else:
            self.sets += 1
            images = dict(zip(chosen, (VERSIONS[version][number] for number in numbers), strict=True))
            features = write_features(self.folder / f"set {self.sets}", images)
            self.index.add(features, existing="skip" if deed == "add" else "replace")

    @rule(deed=deeds, numbers=names, version=versions)
    def change(self, deed: str, numbers: list[int], version: int) -> None:
        self._do(deed, numbers, version)
        self.model = self._after(deed, numbers, version)

    @rule()
    def reopen(self) -> None:
        self.index = Index.open(self.folder / "index")

    @rule(deed=deeds, numbers=names, version=versions, last=st.integers(1, 120))
    def kill(self, deed: str, numbers: list[int], version: int, last: int) -> None:
        """The process ends before request `last` of a deed: it was done or it was not."""

        def react(count: int) -> None:
            if count >= last:
                raise Killed

        states = [self._after(deed, numbers, version)]
        with pytest.MonkeyPatch.context() as patch:
            CountedDisk(patch, react)
            try:
                self._do(deed, numbers, version)
            except Killed:
                states.append(self.model)
        self.index = Index.open(self.folder / "index")
        assert check_index(self.index.path).clean
        seen = self.index.names, found(self.index)
        self.model = next(model for model in states if seen == (sorted(NAMES[n] for n in model), expected(model)))

    @invariant()
    def answers_are_those_of_the_definition(self) -> None:
        if hasattr(self, "index"):
            assert self.index.names == sorted(NAMES[number] for number in self.model)
            assert found(self.index) == expected(self.model)


QUICK = settings(max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=400, stateful_step_count=30)


def test_any_life_answers_as_the_definition_does() -> None:
    run_state_machine_as_test(Life, settings=QUICK)


@pytest.mark.slow
def test_any_of_many_lives_answers_as_the_definition_does() -> None:
    run_state_machine_as_test(Life, settings=LONG)
