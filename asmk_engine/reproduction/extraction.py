"""The extractors of an experiment with their networks, and the features of databases and queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.extraction.attempts import Extractor, read_source
from asmk_engine.extraction.run import ExtractionSummary, extract_images
from asmk_engine.extractors import load_extractor
from asmk_engine.extractors.concatenation import ConcatenatedExtractor
from asmk_engine.extractors.presets import PRESETS
from asmk_engine.features import FeatureSet, FeatureWriter, part_names
from asmk_engine.flat.concatenation import concatenate
from asmk_engine.images.listing import ImageList
from asmk_engine.iteration import Display
from asmk_engine.networks.cache import weights_folder, weights_path
from asmk_engine.networks.registry import published_weights
from asmk_engine.networks.tensor_files import SUFFIX
from asmk_engine.reproduction.datasets import Query
from asmk_engine.reproduction.experiment import Describe, PublishedRow
from asmk_engine.reproduction.files import NOT_PUBLISHED, WITHOUT_NETWORK, weights_place
from asmk_engine.storage.user_files import file_sha256


@dataclass(frozen=True)
class Settings:
    """How an experiment is run.

    work         output folder; an interrupted run resumes from it
    data         folder of the published datasets, see `files`; None in a rehearsal
    distractors  also run the tests with distractors
    weights      files instead of the published ones, in the order of `describe`, then of `rerank_plan.networks_of`
    device       device of the networks
    workers      worker processes, see `extract_images`
    threads      threads of a search
    seeds        how many seeds codebooks and codecs are learned with, from that of the experiment on
    rerank       names of the parts of the experiment by which the first images are ranked anew, or `all`
    """

    work: Path
    data: Path | None = None
    distractors: bool = False
    weights: tuple[Path, ...] = ()
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    seeds: int = 1
    rerank: tuple[str, ...] = ()

    @property
    def rehearsal(self) -> bool:
        """Whether the run is a rehearsal, without published data."""
        return self.data is None


@dataclass(frozen=True)
class Describer:
    """The extractors of an experiment.

    parts      one extractor, or several whose descriptors are concatenated
    training   the extractor of the training images if it differs, else None
    network    the network file of a local extractor, which the index stores, else None
    stand_ins  whether any network has random weights
    """

    parts: tuple[Extractor, ...]
    training: Extractor | None
    network: Path | None
    stand_ins: bool

    @property
    def whole(self) -> Any:
        """One extractor with the recipe, dimension and features of all parts together."""
        if len(self.parts) == 1:
            return self.parts[0]
        return ConcatenatedExtractor(self.parts, (1.0,) * len(self.parts))


def make_describer(
    row: PublishedRow, settings: Settings, images: Callable[[], ImageList], display: Display
) -> Describer:
    """Load the extractors of an experiment.

    images  training images for the whitening of a network, used if the weights are those of a backbone only
    raises  the errors of loading an extractor and its weights
    """
    made = [_make(row, number, settings, images, display) for number in range(len(row.describe))]
    training = None
    if row.train is not None and row.train.options:
        training = _load(row.describe[0], settings, made[0][1], row.train.options)
    network = made[0][1] if row.kind == "local" else None
    stand_ins = settings.rehearsal and any(path is not None for _, path in made[len(settings.weights) :])
    return Describer(tuple(extractor for extractor, _ in made), training, network, stand_ins)


def _make(
    row: PublishedRow, number: int, settings: Settings, images: Callable[[], ImageList], display: Display
) -> tuple[Extractor, Path | None]:
    part = row.describe[number]
    network = _network(part, number, settings, images, display)
    return _load(part, settings, network, {}), network


def _load(part: Describe, settings: Settings, network: Path | None, others: dict[str, Any]) -> Extractor:
    name = _family(part.extractor) if settings.rehearsal else part.extractor
    apart = {} if network is None else {"weights": str(network), "device": settings.device}
    return load_extractor(name, **{**part.options, **others}, **apart)


def _family(name: str) -> str:
    """Return the extractor of a preset, which accepts any network of its kind."""
    return PRESETS[name].extractor if name in PRESETS else name


def _network(
    part: Describe, number: int, settings: Settings, images: Callable[[], ImageList], display: Display
) -> Path | None:
    """Return the network file of an extractor, or None if it has no network."""
    if part.extractor == WITHOUT_NETWORK:
        return None
    place = settings.work / f"network-{number + 1}.safetensors"
    given = settings.weights[number] if number < len(settings.weights) else None
    if given is None and settings.rehearsal:
        from asmk_engine.networks.stand_in import save_stand_in

        if not place.is_file():
            save_stand_in(place, _family(part.extractor), seed=number)
        return place
    if given is None and not part.weights:
        raise InputError(f"{part.extractor}: {NOT_PUBLISHED}")
    weights = given or weights_file(part.weights, settings.data)
    if part.projection and weights.suffix != SUFFIX:
        return _projected(weights, part.projection, place)
    if part.extractor not in PRESETS:
        return weights
    from asmk_engine.training.initial import complete_network

    with display.bar("whiten", "images") as progress:
        return complete_network(
            part.extractor,
            PRESETS[part.extractor],
            weights,
            lambda: images().images,
            place,
            max_side=part.options.get("max_side", 1024),
            device=settings.device,
            progress=progress,
        )


def _projected(weights: Path, projection: str, place: Path) -> Path:
    """Convert a published checkpoint, with one of the whitenings in it, to a network file at `place`."""
    from asmk_engine.networks.global_checkpoints import save_global_checkpoint
    from asmk_engine.networks.official_global import read_official_global

    save_global_checkpoint(place, *read_official_global(weights, projection))
    return place


def weights_file(name: str, data: Path | None) -> Path:
    """Return the file of published weights, in the data folder or the cache of fetched weights; nothing is fetched.

    raises  NotFoundError, InputError for weights that are not supported, DamagedError if the checksum differs
    """
    entry = published_weights(name)
    path = weights_place(entry, data) if data else None
    if path is None or not path.is_file() or path.parent == weights_folder():
        return weights_path(entry)
    if not file_sha256(path).startswith(entry.sha256):
        raise DamagedError(f"{path}: its sha256 does not begin with the published {entry.sha256}; download it again")
    return path


def describe_images(
    parts: Sequence[Extractor],
    images: ImageList,
    place: Path,
    workers: int | None,
    display: Display,
    allow_none: bool = False,
) -> tuple[FeatureSet, dict[str, str]]:
    """Return the feature set of images at `place`, extracting missing ones, and the failed images with the reasons.

    Several extractors write separate sets next to it (`place` with -1, -2, …), which are then concatenated.

    allow_none  of one extractor: whether it is no error that no image is readable
    """
    if len(parts) == 1:
        return _extracted(parts[0], images, place, workers, display, allow_none)
    sets, failed = [], {}
    for number, part in enumerate(parts, start=1):
        beside = place.with_name(f"{place.stem}-{number}{place.suffix}")
        features, reasons = _extracted(part, images, beside, workers, display)
        sets.append(features)
        failed.update(reasons)
    return _joined(sets, place), failed


def _extracted(
    extractor: Extractor,
    images: ImageList,
    place: Path,
    workers: int | None,
    display: Display,
    allow_none: bool = False,
) -> tuple[FeatureSet, dict[str, str]]:
    with display.bar("extract", "images") as progress:
        done: ExtractionSummary = extract_images(
            extractor, images, place, workers=workers, allow_none=allow_none, progress=progress
        )
    display.say(f"{place.name}: {done.extracted} images described, {done.unchanged} there, {len(done.failed)} skipped")
    return FeatureSet.open(place).selected(done.names), done.failed


def _joined(sets: Sequence[FeatureSet], place: Path) -> FeatureSet:
    """Concatenate the descriptors of images that all sets have; those already at `place` are kept."""
    common = [name for name in sets[0].names if all(name in features for features in sets)]
    return concatenate([features.selected(common) for features in sets], place)


def describe_queries(extractor: Any, queries: Iterable[Query], place: Path, display: Display) -> FeatureSet:
    """Return the feature set of queries at `place`, each of its region only; those already there are kept."""
    queries = list(queries)
    known = FeatureSet.open(place) if part_names(place) else None
    with display.bar("queries", "images") as progress, FeatureWriter(place, extractor.recipe, extractor.dim) as writer:
        for done, query in enumerate(queries, start=1):
            if known is None or query.name not in known:
                writer.add(query.name, extractor.extract(query.path, box=query.box), read_source(query.path))
            progress(done, len(queries))
    return FeatureSet.open(place)
