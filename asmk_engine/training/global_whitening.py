"""Projections of global descriptors, learned after training: PCA whitening, and whitening from matching pairs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.features import FeatureSet
from asmk_engine.networks.global_checkpoints import Completion, open_global_network
from asmk_engine.networks.global_network import POOLINGS, GlobalNetwork, with_projection
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.training.whitening import Moments

BATCH = 4096  # number of vectors accumulated at a time
SMALLEST_REPAIR = 1e-10  # first value added to the diagonal if a Cholesky factorisation fails; then tenfold each time
HEADER = ("query", "positive")


@dataclass(frozen=True)
class Projection:
    """A projection of descriptors x to P (x - m).

    mean    m [C] float64
    matrix  P [D, C] float64
    repair  value added to the diagonal of a covariance that has no Cholesky factor; 0 if it has one
    """

    mean: torch.Tensor
    matrix: torch.Tensor
    repair: float = 0.0

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return normalised P (x - m), [n, D] float64, of vectors [n, C]."""
        return torch.nn.functional.normalize((vectors.double() - self.mean) @ self.matrix.T, dim=1)


def pca_projection(vectors: Iterable[torch.Tensor], dim: int, power: float = 1.0) -> Projection:
    """Learn PCA whitening to `dim` dimensions from batches of vectors [n, C].

    power  1 divides every direction by its standard deviation, 0 only rotates; GeM-AP uses 0.5

    Source: Jégou and Chum, ECCV 2012; GeM-AP (Revaud et al., ICCV 2019) for the power. Raises InputError for a power
    outside 0 to 1, more dimensions than the vectors have, or no more vectors than dimensions.
    """
    if not 0 <= power <= 1:
        raise InputError(f"power is {power:g}; expected 0 (rotate only) to 1 (whiten)")
    moments = _moments(vectors)
    _check_dim(dim, len(moments.mean_and_covariance()[0]))
    return Projection(*moments.whitening(dim, power))


def pair_projection(vectors: Iterable[torch.Tensor], pairs: torch.Tensor, dim: int) -> Projection:
    """Learn whitening from pairs of matching images.

    vectors  batches [n, C] of all images, which determine the order of the dimensions
    pairs    [n, 2, C]: a query and its positive

    m is the mean of the queries, S the mean of d dᵀ over the differences d of the pairs, P = Eᵀ L⁻¹ with S = L Lᵀ and E
    the eigenvectors of the covariance of L⁻¹ (x - m), largest eigenvalue first.

    Source: Mikolajczyk and Matas, ICCV 2007, as in Radenović, Tolias and Chum, TPAMI 2018, §3.3 and its code.
    Raises InputError for no pairs, or more dimensions than the vectors have.
    """
    if not len(pairs):
        raise InputError("no pairs to learn a whitening from; give pairs of images that show the same object")
    pairs = pairs.double()
    mean, differences = pairs[:, 0].mean(0), pairs[:, 0] - pairs[:, 1]
    _check_dim(dim, len(mean))
    factor, repair = cholesky_factor(differences.T @ differences / len(pairs))
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(mean), dtype=torch.float64), upper=False)
    centre, covariance = _moments(vectors).mean_and_covariance()
    spread = covariance + torch.outer(centre - mean, centre - mean)
    projected = inverse @ spread @ inverse.T
    directions = torch.linalg.eigh((projected + projected.T) / 2)[1].flip(1)[:, :dim]
    # The sign of an eigenvector is arbitrary; it is fixed so that the same pairs give the same projection everywhere.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return Projection(mean, (directions * signs).T @ inverse, repair)


def cholesky_factor(matrix: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return L with L Lᵀ = matrix + repair · I, and the repair: 0, or the smallest 1e-10 · 10^k for which L exists.

    With fewer pairs than dimensions a repair is needed. Source: the GeM code. Raises InputError for NaN and infinity.
    """
    if not torch.isfinite(matrix).all():
        raise InputError("a covariance contains NaN or infinity; check the descriptors")
    repair = 0.0
    while True:
        factor, fault = torch.linalg.cholesky_ex(matrix + repair * torch.eye(len(matrix), dtype=matrix.dtype))
        if not fault:
            return factor, repair
        repair = 10 * repair if repair else SMALLEST_REPAIR


def _check_dim(dim: int, most: int) -> None:
    if not 1 <= dim <= most:
        raise InputError(f"dim is {dim}; the descriptors have {most} dimensions: expected 1 to {most}")


def _moments(vectors: Iterable[torch.Tensor]) -> Moments:
    moments: Moments | None = None
    for batch in vectors:
        moments = moments or Moments(batch.shape[1])
        moments.add(batch)
    if moments is None:
        raise InputError("no descriptors to learn from; give more images")
    return moments


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read names of queries and positives from a CSV file of two columns, with or without header `query,positive`.

    Raises InputError, with the line number, if the file cannot be read or has another number of columns.
    """
    found: list[tuple[str, str]] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or (number == 1 and tuple(row) == HEADER):
                    continue
                if len(row) != 2:
                    raise InputError(f"{path}: line {number} has {len(row)} columns; expected two, query,positive")
                found.append((row[0], row[1]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot read the pairs ({error}); expected UTF-8 CSV, query,positive") from None
    if not found:
        raise InputError(f"{path}: contains no pairs; expected CSV lines query,positive")
    return found


def whitened_network(
    features: FeatureSet,
    weights: Path,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    dim: int | None = None,
    power: float = 1.0,
) -> tuple[GlobalNetwork, dict[str, Any]]:
    """Return the network that made a feature set, with a projection learned from it, and its origin for the checkpoint.

    features  feature set of one of the poolings, one descriptor per image
    weights   weight file with which it was extracted
    pairs     names of queries and positives, for whitening from pairs; None for PCA whitening
    dim       dimensions to keep; None keeps all, with PCA at most one less than there are descriptors
    power     power of PCA whitening, see `pca_projection`

    The scales of the network become those of the feature set. Raises MismatchError if the features were made with other
    weights, InputError for features of another kind, NotFoundError for names that are not in the feature set.
    """
    recipe = features.recipe
    if recipe.extractor not in POOLINGS:
        raise InputError(f"{features.path}: features of {recipe.extractor}; expected one of {', '.join(POOLINGS)}")
    if several := [name for name in features.names if features.count(name) != 1]:
        raise InputError(f"{features.path}: {several[0]!r} has {features.count(several[0])} descriptors; expected one")
    if file_sha256(weights) != recipe.weights:
        raise MismatchError(
            f"{weights}: not the weights of {features.path}, whose sha256 begins with {(recipe.weights or '')[:16]}; "
            "give the file with which the features were extracted"
        )
    options = recipe.options
    completion = Completion(recipe.extractor, int(options.get("skip", 0)), float(options.get("exponent", 3.0)))
    network, _ = open_global_network(weights, completion)
    if pairs is None:
        projection = pca_projection(_batches(features), dim or min(features.dim, len(features) - 1), power)
    else:
        projection = pair_projection(_batches(features), _vectors_of(features, pairs), dim or features.dim)
    scales = tuple(float(scale) for scale in options.get("scales", ()))
    projected = with_projection(network, projection.mean, projection.matrix, weights, scales=scales)
    origin = {"images": len(features), "recipe": recipe.to_json(), "repair": projection.repair}
    kind = {"method": "pca", "power": power} if pairs is None else {"method": "pairs", "pairs": len(pairs)}
    return projected, {**origin, **kind}


def _batches(features: FeatureSet) -> Iterable[torch.Tensor]:
    """Yield the descriptors of a feature set in batches [n, C] float64."""
    gathered: list[np.ndarray] = []
    for _, found in features.images():
        gathered.append(found.descriptors)
        if len(gathered) == BATCH:
            yield _stacked(gathered)
            gathered = []
    if gathered:
        yield _stacked(gathered)


def _stacked(descriptors: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(descriptors).astype(np.float64))


def _vectors_of(features: FeatureSet, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
    """Return the descriptors [n, 2, C] of pairs; raises NotFoundError, which lists missing images."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    missing = [name for name in names if name not in features]
    if missing:
        raise NotFoundError(
            f"{features.path}: {len(missing)} of {len(names)} images of the pairs are missing: "
            f"{list_names(missing)}; extract them, or leave their pairs out"
        )
    found = {name: image.descriptors[0] for name, image in features.images(names)}
    return torch.from_numpy(np.array([[found[one], found[other]] for one, other in pairs], np.float64))
