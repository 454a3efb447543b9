"""The options of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from asmk_engine.errors import DamagedError, InputError

PLACES, SIFT = "places", "sift"
METHODS = (PLACES, SIFT)


@dataclass(frozen=True)
class AuditOptions:
    """Which pairs of a test query and a training image are shown to people, and what their answers remove.

    Parameters
    ----------
    top : int, default 100
        Number of training images that are verified for each query, the most similar ones.
    verification : str, default "places"
        How: `places` by the package's own verification of local features, `sift` by SIFT, a kd-tree and RANSAC.
    evidence : float, optional
        Least evidence of a pair that is shown. With `places` that of a verdict, by default of `maybe`; with `sift` the
        number of inliers, by default 12.
    every_class : bool, default False
        Whether all confirmed classes of a query are removed, and not only the most frequent one.
    words : tuple of str
        Classes whose name contains one of these words, in letters of either case, are shown to people as well.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    top: int = 100
    verification: str = PLACES
    evidence: float | None = None
    every_class: bool = False
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"top is {self.top}; give 1 or more (100 is the default)")
        if self.verification not in METHODS:
            raise InputError(f"verification is {self.verification!r}; choose one of {', '.join(METHODS)}")
        if self.evidence is not None and not self.evidence > 0:
            raise InputError(f"evidence is {self.evidence}; give a number above 0, or leave it out")
        if not all(word.strip() for word in self.words):
            raise InputError("a word of the names of classes is empty; leave it out")

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values for JSON."""
        return {**asdict(self), "words": list(self.words)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditOptions:
        """Return the options of `as_dict`; raises DamagedError for anything else."""
        try:
            return cls(**{**content, "words": tuple(content["words"])})
        except (TypeError, KeyError, InputError) as error:
            raise DamagedError(f"the options of the audit cannot be read ({error}); run it again") from None
