"""Training of a codec: PCA of a sample of descriptors, and the centroids of product quantisation."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec

import numpy as np

from asmk_engine.codebooks.sample import sample_descriptors
from asmk_engine.codebooks.whitening import learn_whitening
from asmk_engine.errors import DependencyError, InputError, MismatchError
from asmk_engine.features import ArrayFeatures, FeatureSource, descriptor_count, label, recipe_of_arrays
from asmk_engine.flat.codec import CENTROIDS, Codec, CodecOptions
from asmk_engine.iteration import Progress
from asmk_engine.recipes import GLOBAL_ARRAYS, Recipe
from asmk_engine.threads import call_library

SAMPLE = 100_000
ROUNDS = 25


def train_codec(
    features: FeatureSource | np.ndarray,
    options: CodecOptions,
    progress: Progress | None = None,
    *,
    recipe: Recipe | str | None = None,
) -> Codec:
    """Make a codec for the descriptors of a feature set, trained on a sample of them if the options require it.

    features  a source of global descriptors, or a matrix [n, D0] of them
    recipe    recipe of a matrix, or its name, as for `GlobalIndex.add_matrix`

    Raises InputError for too few descriptors, MismatchError for options that do not fit their dimension, and
    DependencyError if `pq` is given and faiss is not installed.

    progress  receives (done, total) in images while the sample is drawn
    """
    if isinstance(features, np.ndarray):
        features = ArrayFeatures.of_matrix(None, features, recipe_of_arrays(recipe, GLOBAL_ARRAYS))
    elif recipe is not None:
        raise InputError(f"{label(features)}: has its own recipe [{features.recipe}]; leave out the one for a matrix")
    check_global(features)
    if not options.is_trained:
        return Codec(features.recipe, features.dim, options.precision)
    check_trainable(options, features.dim, descriptor_count(features), label(features))
    sample = sample_descriptors(features, SAMPLE, np.random.default_rng(options.seed), progress)
    return train_on(sample, features.recipe, options)


def train_on(sample: np.ndarray, recipe: Recipe, options: CodecOptions) -> Codec:
    """Train a codec on descriptors [n, D0] of a recipe; raises as `train_codec`."""
    check_trainable(options, sample.shape[1], len(sample), "the sample")
    story = {"descriptors": len(sample), **{key: value for key, value in asdict(options).items() if value is not None}}
    codec = Codec(recipe, sample.shape[1], training=story)
    vectors = codec.apply(sample)
    if options.pca is not None:
        mean, projection = learn_projection(vectors, options.pca, options.whiten)
        codec = replace(codec, mean=mean, projection=projection)
        vectors = codec.apply(sample)
    if options.pq is not None:
        return replace(codec, precision="product", centroids=learn_centroids(vectors, options.pq, options.seed))
    return replace(codec, precision=options.precision)


def check_global(features: FeatureSource) -> None:
    """Raise MismatchError unless a source holds global descriptors."""
    if not features.recipe.is_global:
        raise MismatchError(
            f"{label(features)}: features of [{features.recipe}], with many descriptors per image; expected global "
            "descriptors, one per image, such as those of `asmk-engine extract --extractor gem`"
        )


def check_trainable(options: CodecOptions, dim: int, count: int, where: str) -> None:
    """Raise MismatchError or InputError unless `count` descriptors of `dim` dimensions suffice for the options."""
    kept = dim if options.pca is None else options.pca
    if kept > dim:
        raise MismatchError(f"{where}: PCA to {kept} dimensions, the descriptors have {dim}; give {dim} or fewer")
    if options.pq is not None and kept % options.pq:
        raise MismatchError(
            f"{where}: {kept} dimensions do not divide into sub-spaces of {options.pq}; "
            f"add PCA to a multiple, such as {max(kept // options.pq, 1) * options.pq}, or use sub-spaces of 1"
        )
    if options.pca is not None and count < kept:
        raise InputError(
            f"{where}: {count} training descriptors for PCA to {kept} dimensions; give at least {kept}, or train on "
            "another feature set"
        )
    if options.pq is not None and count < CENTROIDS:
        raise InputError(
            f"{where}: {count} training descriptors for {CENTROIDS} centroids; product quantisation needs at least "
            f"{CENTROIDS}: train on another feature set, or leave it out"
        )


def learn_projection(vectors: np.ndarray, dim: int, whiten: bool) -> tuple[np.ndarray, np.ndarray]:
    """Learn the mean [D0] and the first `dim` principal directions [dim, D0] of vectors [n, D0], all float32.

    whiten  divide each direction by the standard deviation along it (Jegou and Chum, ECCV 2012)
    """
    mean, projection = learn_whitening(vectors)
    kept = projection[:dim].astype(np.float64)
    if not whiten:
        kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    return mean, np.ascontiguousarray(kept, np.float32)


def learn_centroids(vectors: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Train 256 centroids for each sub-space of `width` dimensions with faiss, [M, 256, width] float32.

    vectors  [n, D] float32, n at least 256 and D a multiple of the width
    """
    found = find_spec("faiss")
    if found is None or found.submodule_search_locations is None:  # a single module is the stand-in of `compat`
        raise DependencyError("faiss, which trains product quantisation, is missing: pip install 'asmk-engine[cpu]'")
    import faiss

    dim = vectors.shape[1]
    quantiser = faiss.ProductQuantizer(dim, dim // width, 8)
    quantiser.cp.seed, quantiser.cp.niter, quantiser.cp.min_points_per_centroid = seed + 1, ROUNDS, 1
    call_library(lambda: quantiser.train(np.ascontiguousarray(vectors, np.float32)))
    return faiss.vector_to_array(quantiser.centroids).reshape(dim // width, CENTROIDS, width).copy()
