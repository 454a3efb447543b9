"""Recognition on Google Landmarks v2: one label with a confidence per image, evaluated over all images together.

Predictions of all images are sorted by confidence, ties by the id of the image, and µAP is their average precision; a
prediction for an image without a landmark counts as wrong. Source: Weyand et al., CVPR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.landmarks import Recognition
from asmk_engine.evaluation.metrics import micro_average_precision
from asmk_engine.evaluation.model import Prediction
from asmk_engine.evaluation.protocol import format_rows, in_percent
from asmk_engine.evaluation.runs import submitted_id, submitted_word


@dataclass(frozen=True)
class RecognitionScores:
    """The scores of the predictions for one part of the images.

    micro_average_precision  µAP in [0, 1], NaN if no image has a label
    accuracy                 share of the labelled images whose label was predicted, NaN if there are none
    images, labelled         number of images, and of those that have a label
    """

    micro_average_precision: float
    accuracy: float
    images: int
    labelled: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return µAP and accuracy in percent, None for NaN, and the numbers of images."""
        named = {"µAP": self.micro_average_precision, "accuracy": self.accuracy}
        return {**in_percent(named), "labelled": self.labelled, "images": self.images}


@dataclass(frozen=True)
class RecognitionReport:
    """Part (`private`, `public` or `all`) → scores."""

    scores: dict[str, RecognitionScores]

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Return part → µAP and accuracy in percent, and the numbers of labelled and of all images."""
        return {part: scores.as_dict() for part, scores in self.scores.items()}

    def table(self) -> str:
        """Format the same as text, one line per part."""
        return format_rows(self.as_dict())


def evaluate_labels(
    ground_truth: Mapping[str, frozenset[str]], guesses: Mapping[str, Prediction | None]
) -> RecognitionScores:
    """Score predictions; images without one count as not recognised, images outside the ground truth are ignored."""
    made = [(image, guess) for image in ground_truth if (guess := guesses.get(image)) is not None]
    made.sort(key=lambda one: (-one[1].confidence, one[0]))
    correct = [guess.label in ground_truth[image] for image, guess in made]
    labelled = sum(map(bool, ground_truth.values()))
    accuracy = sum(correct) / labelled if labelled else math.nan
    return RecognitionScores(micro_average_precision(correct, labelled), accuracy, len(ground_truth), labelled)


def evaluate_recognition(
    ground_truth: Recognition, guesses: Mapping[str, Prediction | None], *, allow_missing: bool = False
) -> RecognitionReport:
    """Evaluate a submission against a solution, each part separately.

    raises  NotFoundError if images of the solution are not in the submission, unless allowed, or if none is;
            InputError for images that are not in the solution
    """
    images = {image for part in ground_truth.parts.values() for image in part}
    missing = sorted(images - guesses.keys())
    if missing and (not allow_missing or len(missing) == len(images)):
        raise NotFoundError(
            f"{len(missing)} of {len(images)} images of the solution are not in the submission: {list_names(missing)}; "
            "classify them too, or allow missing ones, which then count as not recognised"
        )
    if unknown := sorted(guesses.keys() - images - ground_truth.ignored):
        raise InputError(
            f"{len(unknown)} images of the submission are not in the solution: {list_names(unknown)}; give the "
            "solution that was made for these images"
        )
    return RecognitionReport(
        {part: evaluate_labels(labels, guesses) for part, labels in sorted(ground_truth.parts.items())}
    )


def submission_lines(predictions: Iterable[tuple[str, list[Prediction]]]) -> Iterator[str]:
    """Yield the lines of a recognition submission, header first: image, its first label, and the full confidence.

    raises  InputError for ids and labels that the CSV cannot represent, and for repeated ids
    """
    yield "id,landmarks"
    seen: set[str] = set()
    for image, found in predictions:
        known = submitted_id(image)
        if known in seen:
            raise InputError(f"the id {known!r} of {image!r} is used twice; a submission needs distinct ids")
        seen.add(known)
        yield f"{known},{_best(found)}"


def _best(found: list[Prediction]) -> str:
    if not found:
        return ""
    label = found[0].label
    return f"{submitted_word('label', label, empty=not label)} {found[0].confidence!r}"
