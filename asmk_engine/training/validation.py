"""Validation of a network on a ground truth and its images: the mAP of ASMK, or of a global network's descriptors.

By default the codebook is learned from the database itself, which is small; the mAP then only serves to compare epochs
with each other. HOW's paper (Tolias et al., ECCV 2020, §5.1) learns 65 536 words from 20 000 training images instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Report
from asmk_engine.extraction.attempts import Extractor
from asmk_engine.extraction.run import extract_images
from asmk_engine.extractors import load_extractor
from asmk_engine.features import Features, FeatureSet
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.images.listing import ImageFile, ImageList
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.iteration import Display, evenly
from asmk_engine.networks.devices import choose_device
from asmk_engine.networks.locations import SCALES
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.training.validation_images import ValidationImages, digest_of

LOCAL = ("how", "delf")
"""The extractors whose features are indexed by ASMK; others describe an image by one vector."""


@dataclass(frozen=True)
class ValidationOptions:
    """How the images of a validation are described and indexed.

    max_side, max_features, scales, precision  as in the extractors `how` and `delf`
    words                                      size of the codebook, or `auto`
    codebook_images                            number of training images to learn it from; 0 for the database instead
    with_global                                also measure HOW's global descriptor, as Fig. 5 of the paper does
    """

    max_side: int = 1024
    max_features: int = 1000
    scales: tuple[float, ...] = SCALES
    precision: str = "fp32"
    words: int | str = "auto"
    codebook_images: int = 0
    with_global: bool = False

    def __post_init__(self) -> None:
        if self.codebook_images < 0:
            raise InputError(f"codebook_images is {self.codebook_images}; give 0 or more (the paper uses 20000)")


class Validation:
    """A ground truth and its images, which are located before the first epoch.

    ground_truth  path of a ground truth, see `read_ground_truth`
    images        folder of all images, including those of the queries; whatever their extension, as SfM-120k has none
    device        device the network runs on
    trained       training images, of which `codebook_images` evenly spread ones are used for the codebook

    Raises NotFoundError for missing images, InputError for a ground truth without positives, and what
    `read_ground_truth` raises.
    """

    def __init__(
        self,
        ground_truth: Path,
        images: Path,
        options: ValidationOptions | None = None,
        device: str = "auto",
        trained: Sequence[ImageFile] = (),
    ) -> None:
        self.options = options or ValidationOptions()
        self._device = device
        self.images, self._root = ValidationImages(ground_truth, images), str(images)
        chosen = evenly(trained, self.options.codebook_images) if self.options.codebook_images else []
        if self.options.codebook_images and not chosen:
            raise InputError("no training images to learn the codebook of the validation from; give some")
        self._for_codebook = [ImageFile(f"{place}/{image.name}", image.path) for place, image in enumerate(chosen)]

    @property
    def ground_truth(self) -> GroundTruth:
        """The ground truth, with the names of the photographs."""
        return self.images.ground_truth

    def shared(self, trained: Iterable[ImageFile]) -> int:
        """Return the number of images and queries of the validation that are also in the training data."""
        return self.images.shared(trained)

    def described(self) -> dict[str, Any]:
        """Return the options and the sha256 of the ground truth, as JSON values."""
        digest = digest_of(self.ground_truth)
        options = {**asdict(self.options), "scales": list(self.options.scales), "ground_truth": digest}
        for added in ("codebook_images", "with_global"):
            if not options[added]:
                del options[added]  # as runs from before there was a choice describe themselves
        return options

    def report(self, weights: Path, name: str, reporter: Display) -> Report:
        """Evaluate the network of a file as extractor `name`: by ASMK if it is in `LOCAL`, else by `global_report`."""
        if name not in LOCAL:
            return self.global_report(weights, reporter, name)
        extractor = self._extractor(name, weights, max_features=self.options.max_features)
        with tempfile.TemporaryDirectory(prefix="asmk-engine-") as folder:
            features = self._extract(extractor, self.images.database, Path(folder) / "features", reporter)
            sample = features
            if self._for_codebook:
                sample = self._extract(extractor, self._for_codebook, Path(folder) / "sample", reporter)
            index = Index.create(Path(folder) / "index", Codebook.train(sample, self.options.words, whitening="none"))
            index.add(features)
            return evaluate_index(
                self.ground_truth, Searcher(index), partial(self._query_features, extractor, features)
            )

    def global_report(self, weights: Path, reporter: Display, name: str = "how-global") -> Report:
        """Evaluate the multi-scale global descriptor of a file's network, which a training by pairs optimises.

        name  of an extractor of one vector for each image

        Raises MismatchError for a network with learned attention.
        """
        extractor = self._extractor(name, weights)
        with tempfile.TemporaryDirectory(prefix="asmk-engine-") as folder:
            features = self._extract(extractor, self.images.database, Path(folder) / "features", reporter)
            index = GlobalIndex.create(Path(folder) / "index", Codec(features.recipe, features.dim))
            index.add(features)
            query_features = partial(self._query_features, extractor, features)
            return evaluate_index(self.ground_truth, GlobalSearcher(index), query_features)

    def global_score(self, weights: Path, reporter: Display) -> float | None:
        """Return the mAP of `global_report` if it is measured beside, else None."""
        return main_score(self.global_report(weights, reporter)) if self.options.with_global else None

    def _extractor(self, name: str, weights: Path, **options: Any) -> Extractor:
        chosen = self.options
        shared = {"max_side": chosen.max_side, "scales": chosen.scales, "precision": chosen.precision}
        return load_extractor(name, weights=str(weights), device=self._device, **shared, **options)

    def _extract(self, extractor: Extractor, images: list[ImageFile], output: Path, reporter: Display) -> FeatureSet:
        wanted = ImageList(images, self._root if images is self.images.database else "", {})
        with reporter.bar("validate", "images") as progress:

            def advance(done: int, total: int, failed: int) -> None:
                progress(done, total)

            alone = choose_device(self._device).type == "cpu"  # a GPU would wait for images to be decoded
            workers = 0 if alone else None
            extract_images(extractor, wanted, output, workers=workers, strict=True, progress=advance)
        return FeatureSet.open(output)

    def _query_features(self, extractor: Extractor, features: FeatureSet, query: GroundTruthQuery) -> Features:
        if query.in_database and query.box is None:
            return features.read(query.name)
        return extractor.extract(self.images.path(query.name), box=query.box)


def main_score(report: Report) -> float:
    """Return the score by which epochs are compared: mAP of the main row, 0 to 1."""
    return report.scores[report.main].mean_average_precision
