"""Training of a codebook with its progress shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from asmk_engine.codebooks import Codebook, Round
from asmk_engine.codebooks.graph import ASSIGNMENTS
from asmk_engine.codebooks.kmeans import BACKENDS
from asmk_engine.codebooks.shipped import open_vocabulary, vocabularies, vocabulary_of
from asmk_engine.codebooks.training import WHITENING
from asmk_engine.errors import InputError
from asmk_engine.extractors.presets import DEFAULT
from asmk_engine.features import FeatureSet
from asmk_engine.images.listing import PathLike
from asmk_engine.iteration import Display
from asmk_engine.pipeline.machines import Machines
from asmk_engine.pipeline.wording import plural
from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class CodebookOptions:
    """How a codebook is trained; see `Codebook.train`. The seed is also that of the codec of a global index."""

    words: int | str = "auto"
    seed: int = 0
    rounds: int = 10
    whitening: str = "auto"
    backend: str = "auto"
    assignment: str = "auto"

    def check(self) -> None:
        """Raise InputError for a value that there is not, before anything is extracted."""
        choices = {"whitening": WHITENING, "backend": ("auto", *BACKENDS), "assignment": ASSIGNMENTS}
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise InputError(f"{key} {getattr(self, key)!r} is unknown; choose one of {', '.join(known)}")
        for key, least in (("words", 1), ("rounds", 1), ("seed", 0)):
            value = getattr(self, key)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not is_count and (key, value) != ("words", "auto"):
                auto = "auto or " if key == "words" else ""
                raise InputError(f"{key} is {value!r}; expected {auto}a whole number, {least} or more")


def opened_codebook(codebook: PathLike) -> Codebook:
    """Open a codebook file, or the vocabulary of the package that has this name, if there is no such file."""
    return open_vocabulary(str(codebook)) if _is_vocabulary(codebook) else Codebook.open(codebook)


def fitted_codebook(book: Codebook, codebook: Codebook | PathLike | None, recipe: Recipe) -> Codebook:
    """Return an opened codebook for features of a recipe: a vocabulary fits however many there are of an image.

    codebook  what was opened: a vocabulary by its name, or any other, which is returned as it is
    """
    if codebook is None or isinstance(codebook, Codebook) or not _is_vocabulary(codebook):
        return book
    return vocabulary_of(recipe, str(codebook)) or book


def _is_vocabulary(codebook: PathLike) -> bool:
    return not Path(codebook).exists() and str(codebook) in vocabularies()


def shipped_codebook(features: FeatureSet, display: Display, *, trains: bool) -> Codebook | None:
    """Return the vocabulary of the package for the default extractor, unless training was asked for."""
    book = None if trains else vocabulary_of(features.recipe, DEFAULT)
    if book is not None:
        display.say(f"codebook: {book.words} words that come with the package; --train learns others")
    return book


def train_codebook(
    features: FeatureSet, options: CodebookOptions, display: Display, machines: Machines | None = None
) -> Codebook:
    """Train a codebook, here or on other machines, and show the sampling and each round with its distortion."""
    spread = None if machines is None else machines.spread
    with display.bar("sample", "images") as on_sample, display.bar("k-means", "rounds", by_last=True) as bar:

        def on_round(done: Round) -> None:
            bar(done.number, done.rounds)
            note = f", {plural(done.reseeded, 'empty word')} re-seeded" if done.reseeded else ""
            display.say(f"round {done.number}/{done.rounds}: distortion {done.distortion:.4f}{note}")

        codebook = Codebook.train(features, **asdict(options), on_sample=on_sample, on_round=on_round, spread=spread)
    if codebook.graph_recall is not None:
        display.say(f"{codebook.assignment} assignment: the graph of words has {codebook.graph_recall}")
    return codebook
