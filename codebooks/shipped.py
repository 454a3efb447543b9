"""The vocabularies that come with the package, so that nothing has to be trained: see `codebooks/shipped/`.

Each is a codebook file with a card beside it, a line of JSON for `info` and `weights list`: what it is for, what it was
learned from, its licence, how it is made again, and the sha256 of the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from asmk_engine.codebooks.codebook import Codebook
from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.recipes import Recipe
from asmk_engine.storage.user_files import file_sha256

FOLDER = Path(__file__).parent / "shipped"
SUFFIX = ".codebook.h5"
SELECTION = frozenset({"max_features", "max_side", "scales", "precision", "dtype"})
"""Options of extractors that select features or change them little: a vocabulary fits whatever their values."""


@dataclass(frozen=True)
class VocabularyCard:
    """What is known of a vocabulary.

    name          its name, for `--codebook`
    purpose       the features it is for, in a few words
    words         number of words
    sha256        sha256 of its file
    recipe        the recipe of the features it was learned from, one line of JSON
    learned_from  the photographs it was learned from, and their terms
    licence       terms of the vocabulary
    made_by       how it is made again
    """

    name: str
    purpose: str
    words: int
    sha256: str
    recipe: str
    learned_from: str
    licence: str
    made_by: str

    @property
    def path(self) -> Path:
        """The file of the vocabulary."""
        return FOLDER / f"{self.name}{SUFFIX}"


def vocabularies() -> dict[str, VocabularyCard]:
    """Return the cards of all vocabularies that come with the package, by name."""
    cards = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json")))
    return {card["name"]: VocabularyCard(**card) for card in cards}


def open_vocabulary(name: str) -> Codebook:
    """Open a vocabulary of the package; raises NotFoundError, which lists all, and DamagedError if it was altered."""
    cards = vocabularies()
    if name not in cards:
        raise NotFoundError(f"no vocabulary is called {name!r}; there are {', '.join(cards)}")
    path = cards[name].path
    if (digest := file_sha256(path)) != cards[name].sha256:
        raise DamagedError(
            f"{path}: its sha256 begins with {digest[:8]}, expected {cards[name].sha256[:8]}; install asmk-engine again"
        )
    return Codebook.open(path)


def vocabulary_of(recipe: Recipe, name: str) -> Codebook | None:
    """Return a vocabulary as the codebook of a recipe, None if it is of other features.

    It fits features of the same extractor, network and descriptors, however many there are of an image and at
    whatever size: the options of SELECTION may differ.
    """
    card = vocabularies().get(name)
    if card is None or _essence(Recipe.from_json(card.recipe, card.path)) != _essence(recipe):
        return None
    codebook = open_vocabulary(name)
    return codebook if codebook.recipe == recipe else replace(codebook, recipe=recipe)


def _essence(recipe: Recipe) -> Recipe:
    options = {key: value for key, value in recipe.options.items() if key not in SELECTION}
    return replace(recipe, options=options)
