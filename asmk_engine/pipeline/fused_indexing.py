"""Several kinds of features from the same images into one index: each extracted into its own set, all added at once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_first
from asmk_engine.extraction.run import ExtractionSummary
from asmk_engine.extractors import option_names
from asmk_engine.extractors.presets import PRESETS
from asmk_engine.features import FeatureSet
from asmk_engine.flat.codec import Codec
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.kinds import POSTING_BYTES
from asmk_engine.fused.scores import shares
from asmk_engine.images.listing import ImageList
from asmk_engine.images.objects import find_anywhere
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.inverted.batch import CODEBOOK_COPIES, postings_within
from asmk_engine.inverted.index import SEGMENT_POSTINGS
from asmk_engine.pipeline.codebook_training import CodebookOptions, shipped_codebook, train_codebook
from asmk_engine.pipeline.extraction import IntakeOptions, check_prunable, run_extraction
from asmk_engine.pipeline.extractor_choice import (
    DELG_LOCAL,
    NETWORKS,
    ExtractionOptions,
    is_global,
    network_of,
)
from asmk_engine.pipeline.global_indexing import GlobalIndexOptions, make_codec, segment_bytes
from asmk_engine.pipeline.preparation import Inputs, features_beside, held_by, removed_names, sets_among, without_left
from asmk_engine.pipeline.reports import Reporter
from asmk_engine.pipeline.wording import named, plural

SEPARATOR = ","
_ONE_OWN = r":([A-Za-z_-]+)=([^:,]+)"
_OWN = re.compile(rf"(?:{_ONE_OWN})+$")
_ONE_NETWORK = ("delg", DELG_LOCAL)
"""Extractors that take the same file of weights."""
_COMPLETED = ("skip", "exponent")
"""Options that complete the network of a global descriptor, whose class does not have them."""


@dataclass(frozen=True)
class FusedJob:
    """What is asked of `index_fused`; fields as the arguments of `index_images`.

    trains  whether codebooks are to be trained, even where words come with the package
    """

    output: Path
    intake: IntakeOptions
    extraction: ExtractionOptions
    training: CodebookOptions
    smaller: GlobalIndexOptions
    codebook: Codebook | None
    weights: Sequence[float] | None
    features: Path | None
    room: int | None
    reporter: Reporter
    trains: bool
    geometry: int | None = None


@dataclass
class FusedOutcome:
    """What `index_fused` did; fields as those of `IndexingReport`.

    features    the set of each kind
    incomplete  names of images that are kept without some kinds, with the reasons
    """

    index: FusedIndex
    features: list[FeatureSet]
    addition: AddSummary
    extraction: ExtractionSummary
    removed: list[str] = field(default_factory=list)
    incomplete: dict[str, str] = field(default_factory=dict)


def several_kinds(extractor: str | None) -> list[str]:
    """Return the names of the extractors in a text such as `how-squeezenet,rootsift`; empty for one or none.

    Options of one of them alone may follow its name, as in `rootsift:max_features=500`; see `own_options`.
    """
    names = [_OWN.sub("", name.strip()) for name in (extractor or "").split(SEPARATOR)]
    if len(names) < 2:
        return []
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"extractor {extractor!r}: expected different names separated by commas, such as gem,rootsift")
    return names


def own_options(extractor: str | None) -> dict[str, dict[str, int | float | str]]:
    """Return for each extractor in a text its own options: {"rootsift": {"max_features": 500}} in the example above."""
    parts = [part.strip() for part in (extractor or "").split(SEPARATOR)]
    return {
        _OWN.sub("", part): {key.replace("-", "_"): _value(text) for key, text in re.findall(_ONE_OWN, part)}
        for part in parts
    }


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def index_fused(inputs: Inputs, target: FusedIndex | None, job: FusedJob) -> FusedOutcome:
    """Extract the images by each extractor and add them to the index, which is created if missing."""
    names = _kind_names(target, job)
    weights = _in_order(job.weights, several_kinds(job.extraction.name), names)
    _check_options(names, job.extraction)
    found = _found(inputs, job)
    removed = removed_names(target, found, job.intake, job.reporter)
    places = {name: place_of(job.features or features_beside(job.output), name) for name in names}
    summaries = {
        name: _extracted(found, place, name, target, job, prune=job.intake.prune and removed is not None)
        for name, place in places.items()
    }
    _check_any(summaries)
    left = {print_ for summary in summaries.values() for print_ in summary.intake.left}
    removed = without_left(removed or [], target, left)
    job.reporter.report_removal(removed, 0 if target is None else target.images)
    sets = {name: FeatureSet.open(places[name]).selected(summary.names) for name, summary in summaries.items()}
    if target is None:
        target = _created(sets, weights, job)
    elif weights is not None:
        target.set_weights(weights)
    if job.geometry is not None:
        target.keep_geometry(job.geometry)
    summary = _added(target, sets, removed, job)
    incomplete = _incomplete(summaries, job.reporter)
    return FusedOutcome(target, list(sets.values()), summary, _merged(summaries), removed, incomplete)


def place_of(base: Path, name: str) -> Path:
    """Return the feature set of a kind: photos.rootsift.features for photos.features and rootsift."""
    suffix = base.suffix if base.suffix in (".features", ".feature-set") else ""
    stem = base.name.removesuffix(suffix)
    return base.with_name(f"{stem}.{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}{suffix}")


def _kind_names(target: FusedIndex | None, job: FusedJob) -> list[str]:
    """Return the names of the kinds, in the order of the index; checked before any work."""
    given = several_kinds(job.extraction.name)
    if job.smaller.concatenate:
        raise InputError("--concatenate makes one kind of features of several; leave it out, or give one extractor")
    if target is None:
        return given
    known = list(target.weights)
    if job.extraction.name and set(given) != set(known):
        raise MismatchError(
            f"{target.path}: its kinds of features are {', '.join(known)}, not {job.extraction.name}; "
            "leave --extractor out, or create another index"
        )
    if job.smaller.given:
        job.reporter.remark(f"{target.path} already exists: {' and '.join(job.smaller.given)} ignored")
    return known


def _in_order(weights: Sequence[float] | None, given: Sequence[str], names: Sequence[str]) -> Sequence[float] | None:
    """Return the given weights in the order of the index; raises InputError for wrong ones, before any work."""
    if weights is None:
        return None
    shares(weights, len(names), "kinds of features")
    by_name = dict(zip(given or names, weights, strict=True))
    return [by_name[name] for name in names]


def _found(inputs: Inputs, job: FusedJob) -> ImageList:
    if sets := sets_among(inputs):
        where = sets[0].path if isinstance(sets[0], FeatureSet) else sets[0]
        raise InputError(f"{where}: several kinds of features are extracted from images, and this is a feature set")
    images = [one for one in inputs if not isinstance(one, FeatureSet)]
    found = find_anywhere(images, prefix=job.intake.prefix, every_file=job.intake.all_files)
    check_prunable(found, job.intake)
    return found


def _extracted(
    found: ImageList, place: Path, name: str, target: FusedIndex | None, job: FusedJob, *, prune: bool
) -> ExtractionSummary:
    """Extract the images by one extractor into its own set."""
    network, recipe = None, None
    if target is not None:
        number = list(target.weights).index(name)
        network, recipe = target.kind_network(number), target.snapshot.encoder.kinds[number].recipe
    summary = run_extraction(
        found, place, job.intake, _options_of(name, job.extraction), job.reporter.display,
        prune=prune, held=held_by(target), recipe=recipe, network=network, allow_none=True,
    )  # fmt: skip
    job.reporter.report_extraction(summary, place)
    job.reporter.left.note(summary.intake)
    return summary


def _options_of(name: str, given: ExtractionOptions) -> ExtractionOptions:
    """Return the options for one extractor: those of the given ones that it has; all as they are if none was named."""
    if not given.name:  # the index says how; the name in it may be that of a module, which is never imported
        return replace(given, extractor=None)
    others = {key: value for key, value in given.given.items() if _takes(name, key)}
    others |= own_options(given.name).get(name, {})
    weights = given.weights if given.weights is not None and _takes(name, "weights") else None
    return replace(given, extractor=name, weights=weights, others=others)


def _check_options(names: Sequence[str], given: ExtractionOptions) -> None:
    """Raise InputError for an option that no extractor has, and for weights that several networks would take."""
    if not given.name:
        if named_options := [*given.given, *(["weights"] if given.weights is not None else [])]:
            raise InputError(
                f"{named_options[0]} was given without extractors, and the images are described as those of the index; "
                f"leave it out, or add --extractor {SEPARATOR.join(names)}"
            )
        return
    unused = [key for key in given.given if not any(_takes(name, key) for name in names)]
    if unused:
        raise InputError(f"none of the extractors {', '.join(names)} has the option {unused[0]!r}; leave it out")
    for name, options in own_options(given.name).items():
        for key in options:
            if not _takes(name, key) or key == "weights":
                raise InputError(f"{name} has no option {key!r} of its own; leave it out of {given.name!r}")
    takers = [name for name in names if _takes(name, "weights")]
    if given.weights is not None and len({_network_name(name) for name in takers}) != 1:
        raise InputError(
            f"{given.weights}: weights for {len(takers)} of the extractors {', '.join(names)}; leave them out and use "
            f"published ones, or combine one network with extractors without, or {SEPARATOR.join(_ONE_NETWORK)}"
        )


def _network_name(extractor: str) -> str:
    """Return the network of an extractor: that of DELG describes whole images and their local features alike."""
    return _ONE_NETWORK[0] if extractor in _ONE_NETWORK else extractor


def _takes(name: str, option: str) -> bool:
    return option in option_names(name) or (is_global(name) and option in _COMPLETED)


def _check_any(summaries: dict[str, ExtractionSummary]) -> None:
    """Raise InputError if there were images and no extractor could use any of them."""
    if any(summary.names or not summary.failed or summary.intake.left for summary in summaries.values()):
        return
    failed = next(iter(summaries.values())).failed
    reasons = [f"{name}: {reason}" for name, reason in list(failed.items())[:3]]
    raise InputError(f"none of {len(failed)} images could be read: {list_first(reasons, len(failed), '; ')}")


def _created(sets: dict[str, FeatureSet], weights: Sequence[float] | None, job: FusedJob) -> FusedIndex:
    """Create the index, with a codebook or codec trained for each kind."""
    recipes = {name: features.recipe for name, features in sets.items()}
    if not any(recipe.is_global for recipe in recipes.values()):
        job.smaller.refuse(next(iter(sets.values())))
    if job.codebook is not None and job.codebook.recipe not in recipes.values():
        raise MismatchError(
            f"{job.output}: the codebook is for features of [{job.codebook.recipe}], which none of the extractors "
            "makes; leave --codebook out"
        )
    encoders = {name: _encoder(features, job) for name, features in sets.items()}
    networks = {
        name: network_of(features, _weights_for(name, job), job.reporter.remark) for name, features in sets.items()
    }
    return FusedIndex.create(job.output, encoders, weights or default_weights(list(sets)), networks, job.geometry)


def default_weights(names: Sequence[str]) -> list[float]:
    """Return the weights of new kinds: equal, but beside networks RootSIFT has half, as measured in docs/halves.md."""
    has_network = any(name in PRESETS or name in NETWORKS for name in names)
    return [0.5 if has_network and name == "rootsift" else 1.0 for name in names]


def _weights_for(name: str, job: FusedJob) -> Path | None:
    return job.extraction.weights if _takes(name, "weights") else None


def _encoder(features: FeatureSet, job: FusedJob) -> Codebook | Codec:
    if features.recipe.is_global:
        return make_codec(features, job.smaller, job.training.seed, job.reporter.display)
    if job.codebook is not None and job.codebook.recipe == features.recipe:
        return job.codebook
    display = job.reporter.display
    display.say(f"codebook of {features.path.name}:")
    return shipped_codebook(features, display, trains=job.trains) or train_codebook(
        features, job.training, display, job.extraction.machines
    )


def _added(target: FusedIndex, sets: dict[str, FeatureSet], removed: Sequence[str], job: FusedJob) -> AddSummary:
    room = _segment_postings(job.room, target)
    with job.reporter.display.bar("index", "images") as on_image:
        summary = target.add(
            dict(sets), existing=job.intake.existing, remove=removed, segment_postings=room, on_image=on_image
        )
    kinds = " and ".join(target.weights)
    job.reporter.say(f"{target.path}: {plural(target.images, 'image')} of {kinds}: {job.reporter.counts(summary)}")
    return summary


def _segment_postings(memory: int | None, target: FusedIndex) -> int:
    """Return the number of postings of a segment under a memory limit; a kind is held twice while it is encoded."""
    if memory is None:
        return SEGMENT_POSTINGS
    books = [one for one in target.encoders.values() if isinstance(one, Codebook)]
    if not books:
        return segment_bytes(memory) // POSTING_BYTES
    sizes = [CODEBOOK_COPIES * sum(array.nbytes for array in book.arrays().values()) for book in books]
    widest = max(range(len(books)), key=lambda place: books[place].dim)
    return max(1, postings_within(memory - sum(sizes) + sizes[widest], books[widest]) // 2)


def _incomplete(summaries: dict[str, ExtractionSummary], reporter: Reporter) -> dict[str, str]:
    """Report the images that are kept although some extractors failed on them; return them with the reasons."""
    reasons: dict[str, list[str]] = {}
    for kind, summary in summaries.items():
        kept = {name for other, one in summaries.items() if other != kind for name in one.names}
        lost = [name for name in summary.failed if name in kept]
        if lost:
            reporter.say(f"{plural(len(lost), 'image')} kept without {kind}, which failed on them: {named(lost)}")
        for name in lost:
            reasons.setdefault(name, []).append(f"{kind}: {summary.failed[name]}")
    return {name: "; ".join(texts) for name, texts in reasons.items()}


def _merged(summaries: dict[str, ExtractionSummary]) -> ExtractionSummary:
    """Return the summary of all kinds: the names of all, and as failed the images that none of them could use."""
    each = list(summaries.values())
    names = tuple(dict.fromkeys(name for summary in each for name in summary.names))
    failed = {name: reason for name, reason in each[0].failed.items() if all(name in one.failed for one in each)}
    return replace(
        each[0],
        extracted=max(one.extracted for one in each),
        unchanged=min(one.unchanged for one in each),
        seconds=sum(one.seconds for one in each),
        names=names,
        failed=failed,
        notes={name: note for one in each for name, note in one.notes.items()},
    )
