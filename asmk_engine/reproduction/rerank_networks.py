"""The networks with which an experiment ranks anew: given, published, or made for a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.extractors import load_extractor
from asmk_engine.reproduction.experiment import PublishedRow
from asmk_engine.reproduction.extraction import Describer, Settings, weights_file
from asmk_engine.reproduction.rerank_plan import NetworkNeed, Rerank, chosen, place_of
from asmk_engine.storage.user_files import file_sha256


@dataclass(frozen=True)
class RerankFiles:
    """Where the networks of one part are.

    local  of its extractor of local features; None without an extractor of its own
    pairs  of the network that compares pairs; None for `gv`
    """

    local: Path | None
    pairs: Path | None

    @property
    def sums(self) -> list[str]:
        """The sha256 of each."""
        return [file_sha256(path) for path in (self.local, self.pairs) if path is not None]


def reranked_parts(row: PublishedRow, settings: Settings) -> tuple[Rerank, ...]:
    """Return the parts of an experiment that a run ranks anew by; raises InputError for an unknown name."""
    return chosen(row.rerank, settings.rerank, row.name)


def rerank_files(row: PublishedRow, part: Rerank, settings: Settings, describer: Describer) -> RerankFiles:
    """Return the files of the networks of a part; in a rehearsal made at random where none is given.

    raises  InputError for a network that was not published and is not given; and as `weights_file`
    """
    local = None
    if part.own_network:
        local = _found(row, part, "local", settings) or _stand_in(part, "local", settings)
    elif part.extractor:
        local = Path(str(getattr(describer.parts[0], "weights", "")))
    if part.by == "gv":
        return RerankFiles(local, None)
    pairs = _found(row, part, part.by, settings)
    if pairs is None:
        features = local_extractor(part, RerankFiles(local, None), settings) if part.by == "rrt" else None
        dims = (0, 0) if features is None else (describer.whole.dim, features.dim)
        pairs = _stand_in(part, part.by, settings, dims)
    return RerankFiles(local, pairs)


def local_extractor(part: Rerank, files: RerankFiles, settings: Settings) -> Any:
    """Return the extractor of the local features of a part; None for one that takes those of the experiment."""
    if not part.extractor:
        return None
    return load_extractor(part.extractor, **part.options, weights=str(files.local), device=settings.device)


def _found(row: PublishedRow, part: Rerank, kind: str, settings: Settings) -> Path | None:
    """Return the given or published file of a network; None for one that a rehearsal makes."""
    number = len(row.describe) + (place_of(reranked_parts(row, settings), part, kind) or 0)
    if number < len(settings.weights):
        return settings.weights[number]
    if settings.rehearsal:
        return None
    network = NetworkNeed(kind, part)
    if network.weights:
        return weights_file(network.weights, settings.data)
    raise InputError(
        f"{row.name}: no network of {part.title} is published; give {network.wanted}, as --weights number {number + 1}"
    )


def _stand_in(part: Rerank, kind: str, settings: Settings, dims: tuple[int, int] = (0, 0)) -> Path:
    """Return a random network; those of parts with the same published weights are one file, in the published layout.

    dims  dimensions of global and local descriptors, for `rrt`
    """
    from asmk_engine.networks.reranking.stand_in import (
        save_cvnet_stand_in,
        save_small_stand_in,
        save_transformer_stand_in,
    )
    from asmk_engine.networks.stand_in import save_stand_in

    is_official = kind == "rrt" or (kind == "cvnet" and part.weights != "")
    suffix = {"local": "safetensors", "cvnet": "pyth" if is_official else "safetensors", "rrt": "pt"}[kind]
    called = part.extractor if kind == "local" else part.weights or part.title
    place = settings.work / f"rerank-{kind}-{called}.{suffix}"
    if place.is_file():
        return place
    if kind == "local":
        save_stand_in(place, part.extractor)
    elif kind == "cvnet":
        (save_cvnet_stand_in if is_official else save_small_stand_in)(place)
    else:
        save_transformer_stand_in(place, *dims)
    return place
