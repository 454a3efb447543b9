"""Recipes: the extractor, options and weights that made a set of descriptors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from asmk_engine.errors import DamagedError

ARRAYS = "arrays"
"""The extractor in the recipes of descriptors that a caller gave as arrays, any number per image."""
GLOBAL_ARRAYS = "global-arrays"
"""The extractor in the recipes of descriptors that a caller gave as arrays, one per image."""
COMPOSED_EXTRACTORS = frozenset({"agem", "cider", "cvnet", "delg", "dolg", "dplg", "gem-ap", "glam", "solar", "token"})
"""The extractors whose networks have more than a pooling after the backbone."""
GLOBAL_EXTRACTORS = COMPOSED_EXTRACTORS | frozenset(
    {"gem", "spoc", "mac", "rmac", "crow", "how-global", "concatenation", GLOBAL_ARRAYS}
)
"""The extractors of this package that make one descriptor per image; files do not repeat it for them."""

IMPORTED = "imported"
"""The extractor in the recipes of features that another program made."""

_STORED_IMPORTED = "hloc"  # its name in files, for any program: codebooks store a digest of this text


@dataclass(frozen=True)
class Recipe:
    """How a descriptor was made: two descriptors are comparable if their recipes are equal.

    extractor  name of the extractor, such as `rootsift`
    options    every option that affects the descriptors or their selection, JSON values only
    weights    sha256 of the network's weights, or None
    is_global  whether there is one descriptor per image, rather than many of its parts
    """

    extractor: str
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    is_global: bool = False

    def __post_init__(self) -> None:
        if self.extractor in GLOBAL_EXTRACTORS:
            object.__setattr__(self, "is_global", True)

    @property
    def is_reduced(self) -> bool:
        """Whether a network whitened or reduced the descriptors, so that a codebook uses them unchanged."""
        return self.weights is not None

    def as_dict(self) -> dict[str, Any]:
        """Return extractor, options and weights for `info`."""
        return {"extractor": self.extractor, "options": self.options, "weights": self.weights}

    def to_json(self) -> str:
        """Return the recipe as one canonical line of JSON: equal recipes give equal text."""
        extractor = _STORED_IMPORTED if self.extractor == IMPORTED else self.extractor
        content: dict[str, Any] = {"extractor": extractor, "options": self.options, "weights": self.weights}
        if self.is_global and self.extractor not in GLOBAL_EXTRACTORS:
            content["is_global"] = True
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: object = "recipe") -> Recipe:
        """Return the recipe in a line of JSON; `where` names the file in a `DamagedError`."""
        try:
            content = json.loads(text)
            weights = None if content["weights"] is None else str(content["weights"])
            extractor = str(content["extractor"])
            extractor = IMPORTED if extractor == _STORED_IMPORTED else extractor
            return cls(extractor, dict(content["options"]), weights, content.get("is_global") is True)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError(f"{where}: the recipe is not readable ({error}); extract the features again") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def is_of_arrays(self) -> bool:
        """Whether a caller gave the descriptors as arrays, so that no extractor can make more of them."""
        return self.extractor in (ARRAYS, GLOBAL_ARRAYS)

    def __str__(self) -> str:
        options = " ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        weights = f" weights={self.weights[:12]}" if self.weights else ""
        return f"{self.extractor} {options}{weights}".strip()
