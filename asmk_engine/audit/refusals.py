"""Extractors that an audit cannot use, or that would have no effect, refused before anything is described."""

from __future__ import annotations

from asmk_engine.audit.options import SIFT, AuditOptions
from asmk_engine.errors import InputError
from asmk_engine.extractors import option_names
from asmk_engine.extractors.presets import PRESETS
from asmk_engine.pipeline.extractor_choice import ExtractionOptions, is_global
from asmk_engine.pipeline.fused_indexing import several_kinds
from asmk_engine.recipes import Recipe


def refuse_extractors(options: AuditOptions, extraction: ExtractionOptions, local: ExtractionOptions) -> None:
    """Raise InputError for extractors that do not fit.

    extraction  how images are described to find candidates
    local       how candidates of global descriptors are described to verify them
    """
    for one in (extraction, local):
        if several_kinds(one.name):
            raise InputError(f"{one.name}: an audit takes one extractor at a place; give one of these")
        if one.name is not None:
            option_names(one.name)  # which refuses unknown names, before hours of work
    if local.name is None:
        return
    if is_global(local.name):
        raise InputError(
            f"{local.name}: one vector of an image cannot be verified; give local features, such as "
            "--local-extractor rootsift"
        )
    if options.verification == SIFT:
        raise InputError(
            f"{local.name}: --verify sift describes candidates by RootSIFT; leave --local-extractor out, or verify by "
            "places"
        )
    if extraction.name in PRESETS and not is_global(extraction.name):
        raise _without_effect(local.name, extraction.name)


def refuse_second_features(recipe: Recipe, local: ExtractionOptions) -> None:
    """Raise InputError if candidates are of local features, recipe, and others are given for the verification."""
    if local.name is not None and not recipe.is_global:
        raise _without_effect(local.name, recipe.extractor)


def refuse_vectors(recipe: Recipe) -> None:
    """Raise InputError for features that are to be verified and are one vector of an image."""
    if recipe.is_global:
        raise InputError(
            f"{recipe.extractor}: one vector of an image cannot be verified; give local features, such as "
            "--local-extractor rootsift"
        )


def _without_effect(local: str, extractor: str) -> InputError:
    return InputError(
        f"{local}: local features of {extractor} find the candidates, and verify them too; leave --local-extractor "
        "out, or find candidates by a global descriptor, such as --extractor gem-resnet50"
    )
