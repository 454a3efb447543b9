"""What must be equal before a measured score is compared with the published one: the weights, the method, the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asmk_engine.networks.registry import published_weights
from asmk_engine.reproduction.experiment import Describe, PublishedRow, Test
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.reproduction.rerank_plan import Rerank, chosen, place_of
from asmk_engine.storage.user_files import file_sha256

REHEARSAL = "a rehearsal: other images than those of the publication, and a codebook of another size"


def obstacles(row: PublishedRow, test: Test, settings: Settings, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in words what makes the scores of a test others than the published ones; empty if they can be compared.

    settings  how the experiment was run: a rehearsal, the files given instead of published weights
    facts     of the journal: how many images were indexed and learned from
    """
    if settings.rehearsal:
        return (REHEARSAL,)
    return (*row.incomparable, *_other_weights(row, settings.weights), *_other_data(row, test, facts))


def _other_weights(row: PublishedRow, given: tuple[Path, ...]) -> Iterator[str]:
    for part, path in zip(row.describe, given, strict=False):
        if not is_published(part, path):
            expected = published_weights(part.weights).file if part.weights else "those of the publication"
            yield f"weights of your own, {path.name}, instead of {expected}"


def rerank_obstacles(row: PublishedRow, part: Rerank, settings: Settings) -> tuple[str, ...]:
    """Return in words what more makes re-ranked scores others than the published ones; empty if nothing does."""
    if settings.rehearsal:
        return (REHEARSAL,)
    return (*part.incomparable, *_other_networks(row, part, settings))


def _other_networks(row: PublishedRow, part: Rerank, settings: Settings) -> Iterator[str]:
    parts = chosen(row.rerank, settings.rerank, row.name)
    for kind, weights in (("local", ""), (part.by, part.weights)):
        place = place_of(parts, part, kind)
        given = settings.weights[len(row.describe) + place :][:1] if place is not None else ()
        for path in given:
            if not is_published(Describe(part.by, weights), path):
                yield f"a network of your own for {part.title}, {path.name}"


def is_published(part: Describe, path: Path) -> bool:
    """Return whether a file holds the published weights of an extractor.

    By its sha256 if that was published, else by the name of the file; nothing published can be meant without either.
    """
    if not part.weights:
        return False
    entry = published_weights(part.weights)
    if entry.sha256:
        return file_sha256(path).startswith(entry.sha256)
    return path.name == entry.file


def _other_data(row: PublishedRow, test: Test, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the datasets that were not described as a whole."""
    if dataset_of(test.dataset).kind == "landmarks":
        yield f"{test.dataset}: other landmarks and images than those of Tiny-GLD2, which was not released"
    for name in filter(None, (test.dataset, test.distractors)):
        found, whole = facts[f"index of {name}"]["images"], dataset_of(name).images
        if whole and found != whole:
            yield f"{found} of the {whole} images of {name}"
    learned = test.train or (row.train.dataset if row.train else "")
    count = facts.get(f"images of {learned} to learn from") if row.train else None
    if row.train is not None and count is not None:
        whole = row.train.images or dataset_of(learned).images
        if whole and count != whole:
            yield f"{count} of the {whole} training images of {learned}"
