"""From feature sets to rankings, one engine per kind of experiment: ASMK on local features, or global descriptors."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook, Round
from asmk_engine.features import FeatureSet, FeatureSource
from asmk_engine.flat.codec import CENTROIDS, Codec, CodecOptions
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.manifest import NAMES
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.iteration import Display
from asmk_engine.reproduction.experiment import Codes, PublishedRow, Test
from asmk_engine.reproduction.extraction import Describer, Settings
from asmk_engine.reproduction.variants import Variant

CODEBOOK, CODEC = "codebook.h5", "codec.index"


class Engine(ABC):
    """Learns from features, indexes features, and searches.

    The codebook or codec that was learned is stored in a separate folder, the argument `kept`.

    adaptations  how a rehearsal deviates from the experiment
    variant      the seed that it learns with, and which features it indexes
    """

    def __init__(
        self, row: PublishedRow, describer: Describer, settings: Settings, display: Display, variant: Variant
    ) -> None:
        self.row, self.describer, self.settings, self.display = row, describer, settings, display
        self.variant = variant
        self.adaptations: list[str] = []

    @property
    @abstractmethod
    def learns(self) -> bool:
        """Whether there is anything to learn before images can be indexed."""

    @abstractmethod
    def take_over(self, learned: str, kept: Path) -> bool:
        """Copy what a version without stage folders learned from the dataset `learned`; returns whether it did."""

    @abstractmethod
    def learn(self, features: FeatureSet, kept: Path) -> None:
        """Learn from features."""

    @abstractmethod
    def facts(self, kept: Path) -> dict[str, Any]:
        """Describe what was learned, for the report."""

    @abstractmethod
    def index(self, features: FeatureSource, dataset: str, learned: str, kept: Path | None) -> dict[str, Any]:
        """Index those features of a dataset that are not indexed yet; returns facts for the report."""

    @abstractmethod
    def open(self, test: Test, learned: str) -> Any:
        """Return a searcher of the index of a test, joined with that of its distractors if there are any."""

    def place(self, dataset: str, learned: str) -> Path:
        """Return the path of the index of a dataset."""
        by = f"-by-{learned}" if learned else ""
        return self.settings.work / f"{dataset}{by}{self.variant.suffix}.index"


class LocalEngine(Engine):
    """ASMK: a codebook, inverted files, selective match."""

    @property
    def learns(self) -> bool:
        """Always true: a codebook is needed."""
        return True

    def take_over(self, learned: str, kept: Path) -> bool:
        """Copy the codebook from the work folder itself."""
        earlier = self.settings.work / f"{learned}.codebook.h5"
        if found := earlier.is_file():
            Codebook.open(earlier).save(kept / CODEBOOK)
        return found

    def learn(self, features: FeatureSet, kept: Path) -> None:
        """Train the codebook, and store it with the recipe of the database features.

        The recipe of the training features may differ, for example in its scales.
        """
        codebook = self._train(features)
        story = {**codebook.training, "features": json.loads(features.recipe.to_json())}
        replace(codebook, recipe=self.describer.whole.recipe, training=story).save(kept / CODEBOOK)

    def facts(self, kept: Path) -> dict[str, Any]:
        """Describe the codebook and its training."""
        codebook = Codebook.open(kept / CODEBOOK)
        return {"codebook": str(codebook), "training": codebook.training}

    def _train(self, features: FeatureSet) -> Codebook:
        wanted = self.row.codebook
        if wanted is None:
            raise ValueError("a local experiment was read without a codebook")
        words: int | str = wanted.words
        if self.settings.rehearsal:
            words = "auto"
            self.adaptations.append(f"as many words as the photographs carry instead of {wanted.words}")
        with self.display.bar("sample", "images") as on_sample, self.display.bar("k-means", "rounds") as bar:

            def on_round(done: Round) -> None:
                bar(done.number, done.rounds)

            return Codebook.train(
                features,
                words,
                seed=wanted.seed + self.variant.seed,
                rounds=wanted.rounds,
                whitening=wanted.whitening,
                backend=wanted.backend,
                assignment=wanted.assignment,
                training_per_word=wanted.training_per_word,
                on_sample=on_sample,
                on_round=on_round,
            )

    def index(self, features: FeatureSource, dataset: str, learned: str, kept: Path | None) -> dict[str, Any]:
        """Add new images to the index, which is created if it does not exist."""
        if kept is None:
            raise ValueError("an ASMK index needs a codebook")
        place = self.place(dataset, learned)
        if _is_index(place):
            index = Index.open(place)
        else:
            index = Index.create(place, Codebook.open(kept / CODEBOOK), self.describer.network)
        with self.display.bar("index", "images") as on_image:
            index.add(features, existing="update", prune=True, on_image=on_image)
        return {"images": index.images, "postings": index.postings, "bytes": _bytes(index)}

    def open(self, test: Test, learned: str) -> Searcher:
        """Return a searcher with the match parameters of the experiment, and the assignments of the test if any."""
        wanted = self.row.search
        index = Index.open(self.place(test.dataset, learned))
        others = [Index.open(self.place(test.distractors, learned))] if test.distractors else []
        match = SelectiveMatch(wanted.alpha, wanted.threshold, wanted.idf)
        joint = JointIndex([index], others) if others else index
        assignment = test.multiple_assignment or wanted.multiple_assignment
        return Searcher(joint, match, multiple_assignment=assignment, threads=self.settings.threads)


class GlobalEngine(Engine):
    """Global descriptors: a codec, and the cosine similarity with every stored vector."""

    @property
    def learns(self) -> bool:
        """Whether descriptors are projected or quantised."""
        return bool(self.row.codec.pca or self.row.codec.pq)

    def take_over(self, learned: str, kept: Path) -> bool:
        """Copy the codec of the empty index in the work folder itself."""
        earlier = self.place("codec", learned)
        if found := _is_index(earlier):
            GlobalIndex.create(kept / CODEC, GlobalIndex.open(earlier).codec)
        return found

    def learn(self, features: FeatureSet, kept: Path) -> None:
        """Train the codec, and store it in an index without images."""
        options, notes = fitted(self.row.codec, features, self.settings.rehearsal)
        self.adaptations += notes
        GlobalIndex.create(kept / CODEC, train_codec(features, replace(options, seed=self.variant.seed)))

    def facts(self, kept: Path) -> dict[str, Any]:
        """Describe the training of the codec."""
        return {"codec": GlobalIndex.open(kept / CODEC).codec.training}

    def index(self, features: FeatureSource, dataset: str, learned: str, kept: Path | None) -> dict[str, Any]:
        """Add new images to the index, which is created if it does not exist."""
        place = self.place(dataset, learned)
        if not _is_index(place):
            GlobalIndex.create(place, self._codec(features, kept))
        index = GlobalIndex.open(place)
        with self.display.bar("index", "images") as on_image:
            index.add(features, existing="update", prune=True, on_image=on_image)
        codec = index.codec
        each = codec.width * codec.dtype.itemsize
        return {"images": index.images, "bytes an image": each, "bytes": _bytes(index)}

    def _codec(self, features: FeatureSource, kept: Path | None) -> Codec:
        if kept:
            return GlobalIndex.open(kept / CODEC).codec
        return train_codec(features, CodecOptions(half=self.row.codec.half))

    def open(self, test: Test, learned: str) -> GlobalSearcher:
        """Return a searcher that compares the query with every vector."""
        index: Any = GlobalIndex.open(self.place(test.dataset, learned))
        if test.distractors:
            index = JointIndex([index], [GlobalIndex.open(self.place(test.distractors, learned))])
        return GlobalSearcher(index, device=_product_device(self.settings.device), threads=self.settings.threads)


def _bytes(index: Index | GlobalIndex) -> int:
    """Return the bytes of the segments of an index, without its codebook or codec."""
    return sum(entry.file.bytes for entry in index.snapshot.manifest.segments)


def _is_index(place: Path) -> bool:
    """Whether there is an index: at least one copy of its manifest was written."""
    return any((place / name).exists() for name in NAMES)


def _product_device(device: str) -> str:
    """Return the device as a searcher of global descriptors names it: `cuda` for `cuda:1`."""
    return "cuda" if device.startswith("cuda") else device


def fitted(codes: Codes, features: FeatureSet, rehearsal: bool) -> tuple[CodecOptions, list[str]]:
    """Return the options of a codec, lowered in a rehearsal to what its few descriptors allow, and notes about that."""
    pca, pq, count, notes = codes.pca, codes.pq, features.descriptor_count, []
    if rehearsal and pca > min(features.dim, count):
        pca = min(features.dim, count)
        pca -= pca % max(pq, 1)
        notes.append(f"{pca} dimensions instead of {codes.pca}: {count} photographs of {features.dim}")
    if rehearsal and pq and (count < CENTROIDS or (pca or features.dim) % pq):
        pq = 0
        notes.append(f"no product quantisation: {count} photographs, it takes {CENTROIDS}")
    return CodecOptions(pca or None, codes.whiten, pq or None, codes.half and not pq), notes


def make_engine(
    row: PublishedRow, describer: Describer, settings: Settings, display: Display, variant: Variant
) -> Engine:
    """Return the engine for the kind of an experiment."""
    return (LocalEngine if row.kind == "local" else GlobalEngine)(row, describer, settings, display, variant)
