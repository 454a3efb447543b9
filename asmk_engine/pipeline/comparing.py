"""Single photographs described, and two of them compared, without an index."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.shipped import vocabularies, vocabulary_of
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extractors import Extractor, network_file
from asmk_engine.extractors.presets import DEFAULT, PRESETS
from asmk_engine.features import Features
from asmk_engine.images.listing import PathLike
from asmk_engine.inverted.located import query_geometry
from asmk_engine.inverted.pairwise import similarity
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import sign
from asmk_engine.iteration import Display
from asmk_engine.pipeline.codebook_training import fitted_codebook, opened_codebook
from asmk_engine.pipeline.extractor_choice import VARIABLE, ExtractionOptions, choose_extractor
from asmk_engine.recipes import Recipe
from asmk_engine.verification.geometry import image_geometry
from asmk_engine.verification.match import Match, Verification, match


@dataclass(frozen=True, eq=False)
class PhotographComparison:
    """Two photographs, compared as a search with the first compares an indexed one.

    recipe        the recipe of the features
    similarity    their ASMK similarity; the cosine for global descriptors
    features      number of features of each
    words         distinct words of each, the first with several words for a feature; None for global descriptors
    common_words  words that both have; None for global descriptors
    match         where they match; None for global descriptors, which have no places
    """

    recipe: Recipe
    similarity: float
    features: tuple[int, int]
    words: tuple[int, int] | None = None
    common_words: int | None = None
    match: Match | None = None

    def as_dict(self, *, contributions: bool = False) -> dict[str, Any]:
        """Return all numbers as plain values for JSON; `contributions` adds those of each matched feature."""
        found: dict[str, Any] = {"extractor": self.recipe.extractor, "similarity": round(self.similarity, 6)}
        found["features"] = list(self.features)
        if self.match is None:
            return found
        matched = self.match.as_dict()
        if contributions:
            matched["features"] = self.match.contributions()
        return found | {"words": list(self.words or ()), "common_words": self.common_words, "match": matched}


def compare_photographs(
    one: PathLike,
    other: PathLike,
    extraction: ExtractionOptions,
    display: Display,
    *,
    codebook: PathLike | None = None,
    selectivity: SelectiveMatch | None = None,
    multiple_assignment: int = 5,
    verification: Verification | None = None,
) -> PhotographComparison:
    """Compare two photographs without an index.

    codebook             file of a codebook, or name of a vocabulary of the package; by default the vocabulary of the
                         package that fits the extractor
    selectivity          as in a search, without IDF
    multiple_assignment  words of a feature of the first photograph

    Raises InputError if no vocabulary fits, or a photograph cannot be used; NotFoundError; MismatchError for a codebook
    of other features.
    """
    book = None if codebook is None else opened_codebook(codebook)
    if codebook is not None and str(codebook) in vocabularies() and extraction.name is None:
        extraction = replace(extraction, extractor=str(codebook))
    with single_extractor(extraction, display, recipe=book.recipe if book else None) as extractor:
        if extractor.recipe.is_global:
            return _compared_vectors(extractor, one, other)
        book = _fitting(extractor.recipe, book, codebook)
        features = extractor.extract(Path(one)), extractor.extract(Path(other))
    each = min(multiple_assignment, book.words)
    signatures = sign(features[0], book, each), sign(features[1], book)
    return PhotographComparison(
        extractor.recipe,
        similarity(*signatures, selectivity),
        (len(features[0]), len(features[1])),
        (len(signatures[0]), len(signatures[1])),
        len(np.intersect1d(signatures[0].words, signatures[1].words)),
        match(query_geometry(features[0], book, each), image_geometry(features[1], book), verification),
    )


def _compared_vectors(extractor: Extractor, one: PathLike, other: PathLike) -> PhotographComparison:
    vectors = [_unit(extractor.extract(Path(path))) for path in (one, other)]
    return PhotographComparison(extractor.recipe, float(vectors[0] @ vectors[1]), (1, 1))


def _unit(features: Features) -> np.ndarray:
    vector = features.descriptors[0].astype(np.float64)
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def _fitting(recipe: Recipe, book: Codebook | None, codebook: PathLike | None) -> Codebook:
    """Return the codebook for features of a recipe; raises InputError and MismatchError."""
    if book is None:
        fitting = (vocabulary_of(recipe, name) for name in vocabularies())
        found = next((one for one in fitting if one is not None), None)
        if found is None:
            raise InputError(
                f"no vocabulary that comes with the package is for features of [{recipe}]; give one with --codebook, "
                "which `asmk-engine build-codebook` learns from a feature set"
            )
        return found
    book = fitted_codebook(book, codebook, recipe)
    if book.recipe != recipe:
        raise MismatchError(
            f"{codebook}: learned from features of [{book.recipe}], the photographs are described by [{recipe}]; leave "
            "the options of the extractor out, or give a codebook of such features"
        )
    return book


@contextlib.contextmanager
def single_extractor(
    extraction: ExtractionOptions, display: Display, *, recipe: Recipe | None = None
) -> Iterator[Extractor]:
    """Yield the extractor that the options ask for; its network is in a temporary folder meanwhile.

    recipe  the recipe that is used if no option is given
    Raises InputError for weights that must first be whitened, for which one photograph is too little.
    """
    _refuse_unwhitened(extraction)
    with tempfile.TemporaryDirectory(prefix="asmk-engine-") as folder:
        network = None if recipe is None or extraction.weights else _shipped_for(recipe, Path(folder))
        place = Path(folder) / "photographs.features"
        yield choose_extractor([], place, extraction, display, recipe=recipe, network=network)


def name_of(extraction: ExtractionOptions, recipe: Recipe) -> str:
    """Return what the extractor of the options is called, by whose recipe a photograph was described."""
    if extraction.name or extraction.weights:
        return extraction.name or recipe.extractor
    is_default = recipe.extractor == PRESETS[DEFAULT].extractor
    return os.environ.get(VARIABLE) or (DEFAULT if is_default else recipe.extractor)


def _shipped_for(recipe: Recipe, folder: Path) -> Path | None:
    """Return a file of the network that comes with the package, if a recipe may need it."""
    from asmk_engine.networks.cache import find_packaged
    from asmk_engine.networks.registry import published_weights
    from asmk_engine.networks.shipped import write_shipped_network

    if recipe.weights is None or network_file(recipe) is not None:
        return None
    backbone = find_packaged(published_weights(PRESETS[DEFAULT].published))
    return None if backbone is None else write_shipped_network(DEFAULT, backbone, folder / "shipped.safetensors")


def _refuse_unwhitened(extraction: ExtractionOptions) -> None:
    from asmk_engine.networks.checkpoints import is_checkpoint
    from asmk_engine.networks.shipped import whitening_file

    preset = PRESETS.get(extraction.name or "")
    if preset is None or preset.extractor not in ("how", "delf") or preset.published.startswith("how-r"):
        return
    if is_checkpoint(extraction.weights) if extraction.weights else whitening_file(extraction.name or ""):
        return
    raise InputError(
        f"{extraction.name}: its network has to be whitened on photographs first; make it with `asmk-engine whiten` "
        f"and give it as --extractor {preset.extractor} --weights FILE"
    )
