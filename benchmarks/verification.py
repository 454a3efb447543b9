"""How fast are answers verified, and does the map found explain the right pairs? Beside OpenCV's and PoseLib's RANSAC.

    python benchmarks/verification.py [--images 100] [--features 1000] [--small]

Two measurements on one thread. First a hundred answers of an index with geometry, mapped from disk: one in five shows
the query's plane under another homography, the others nothing of it. Then pairs of points of known homographies, among
10 to 90 per cent of wrong pairs and with noisy keypoints: all methods get the same pairs, most similar first, and the
same tolerance. Recall is the share of the right pairs that a method marks; precision the share of right pairs among
those marked. OpenCV's MAGSAC++ and PROSAC, and PoseLib if it is installed (`pip install poselib`), estimate
homographies; this program an affine map.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asmk_engine import Codebook, Features, Index
from asmk_engine.inverted.located import LocatedImages, query_geometry
from asmk_engine.kernels import geometry as kernels
from asmk_engine.verification.match import Verification, match_all

SIZE = 1024, 768
NOISE = 1.0  # standard deviation of a keypoint in pixels
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)  # of wrong pairs
TOLERANCE = 0.01 * SIZE[0]
REPEATS = 5
OPTIONS = Verification()

Estimate = Callable[["Points"], np.ndarray]


@dataclass(frozen=True)
class Points:
    """Pairs of points of two images, most similar first.

    ones, others  [n, 4] float32: x, y, scale, angle
    weights       [n] float64, similarity cubed
    right         [n] bool, whether the homography maps one to within the tolerance of the other
    """

    ones: np.ndarray
    others: np.ndarray
    weights: np.ndarray
    right: np.ndarray


def homography(rng: np.random.Generator) -> np.ndarray:
    """Return a random view of a plane: turned by up to 20 degrees, from half to twice the size, in mild perspective."""
    angle, scale = rng.uniform(-0.35, 0.35), 2.0 ** rng.uniform(-1, 1)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    stretch = rng.uniform(0.8, 1.25)
    linear = np.array([[cos * stretch, -sin], [sin * stretch, cos]])
    shift = np.array(SIZE) / 2 - linear @ (np.array(SIZE) / 2) + rng.uniform(-60, 60, 2)
    perspective = rng.uniform(-5e-5, 5e-5, 2)
    return np.array([[*linear[0], shift[0]], [*linear[1], shift[1]], [*perspective, 1.0]])


def mapped(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Map points [n, 2] by a homography."""
    ends = np.c_[points, np.ones(len(points))] @ truth.T
    return ends[:, :2] / ends[:, 2:]


def scale_of(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return how much a homography enlarges the surroundings of each point."""
    right, down = (mapped(points + step, truth) - mapped(points, truth) for step in ((1, 0), (0, 1)))
    return np.sqrt(np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]))


def pairs_of_points(rng: np.random.Generator, count: int, wrong: float) -> Points:
    """Return pairs of a random homography, a share of them wrong; right pairs are more similar on average."""
    truth = homography(rng)
    ones, others = np.zeros((count, 4), np.float32), np.zeros((count, 4), np.float32)
    ones[:, :2] = rng.random((count, 2)) * SIZE
    ones[:, 2] = 2.0 ** rng.uniform(1, 5, count)
    exact = mapped(ones[:, :2].astype(float), truth)
    is_wrong = np.arange(count) < round(wrong * count)
    others[:, :2] = exact + rng.normal(0, NOISE, (count, 2))
    others[:, 2] = ones[:, 2] * scale_of(ones[:, :2].astype(float), truth) * 2.0 ** rng.normal(0, 0.15, count)
    others[is_wrong, :2] = rng.random((int(is_wrong.sum()), 2)) * SIZE
    others[is_wrong, 2] = 2.0 ** rng.uniform(1, 5, int(is_wrong.sum()))
    similarity = np.clip(rng.normal(np.where(is_wrong, 0.3, 0.5), 0.1), 0.2, 1.0)
    order = np.argsort(-similarity, kind="stable")
    near = np.linalg.norm(others[:, :2] - exact, axis=1) <= TOLERANCE
    return Points(ones[order], others[order], similarity[order] ** 3, (near & ~is_wrong)[order])


def ours(points: Points) -> np.ndarray:
    """Mark the inliers of this program."""
    affine, inside = np.empty(6), np.empty(len(points.weights), np.bool_)
    tolerances = OPTIONS.reach * points.others[:, 2].astype(np.float64) + TOLERANCE
    kernels.verify(
        points.ones, points.others, points.weights, tolerances, OPTIONS.proposals, OPTIONS.stretch, OPTIONS.uneven,
        affine, inside,
    )  # fmt: skip
    return inside


def of_opencv(method: int) -> Estimate:
    """Return what marks the inliers of one of OpenCV's methods."""

    def estimate(points: Points) -> np.ndarray:
        _, marks = cv2.findHomography(
            points.ones[:, :2].astype(np.float64), points.others[:, :2].astype(np.float64), method, TOLERANCE,
            maxIters=2000, confidence=0.999,
        )  # fmt: skip
        return np.zeros(len(points.weights), bool) if marks is None else marks.ravel().astype(bool)

    return estimate


def of_poselib(points: Points) -> np.ndarray:
    """Mark the inliers of PoseLib's LO-RANSAC."""
    import poselib

    options = {"max_reproj_error": TOLERANCE, "max_iterations": 2000, "success_prob": 0.999}
    found = poselib.estimate_homography(
        points.ones[:, :2].astype(np.float64), points.others[:, :2].astype(np.float64), options, {}
    )
    return np.array(found[1]["inliers"], bool)


def methods() -> dict[str, Estimate]:
    """Return the methods by name."""
    found = {"ours": ours, "magsac": of_opencv(cv2.USAC_MAGSAC), "prosac": of_opencv(cv2.USAC_PROSAC)}
    if importlib.util.find_spec("poselib"):
        found["poselib"] = of_poselib
    return found


def compare(count: int, problems: int) -> dict[str, dict[str, float]]:
    """Measure all methods on the same problems, alternating; prints a line for each share of wrong pairs."""
    rng = np.random.default_rng(0)
    total: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods()}
    for share in SHARES:
        lines = {name: [] for name in total}
        for points in [pairs_of_points(rng, count, share) for _ in range(problems)]:
            for name, estimate in methods().items():
                times = []
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    inside = estimate(points)
                    times.append(time.perf_counter() - start)
                hits = float((inside & points.right).sum())
                recall = hits / max(1.0, float(points.right.sum()))
                lines[name].append((float(np.median(times)), recall, hits / max(1.0, float(inside.sum()))))
        for name, measured in lines.items():
            total[name] += measured
            seconds, recall, precision = np.array(measured).T
            line = {
                "wrong": share,
                "method": name,
                "ms": round(1e3 * float(np.median(seconds)), 4),
                "recall": round(float(recall.mean()), 4),
                "precision": round(float(precision.mean()), 4),
            }
            print(json.dumps(line), flush=True)
    return {
        name: {"per_second": 1 / float(np.mean([one[0] for one in measured])),
               "recall": float(np.mean([one[1] for one in measured]))}
        for name, measured in total.items()
    }  # fmt: skip


def photographs(rng: np.random.Generator, images: int, count: int, dim: int) -> tuple[Features, dict[str, Features]]:
    """Return a query, and images of which every fifth shows it under another homography, among features of its own."""
    keypoints = np.c_[rng.random((count, 2)) * SIZE, 2.0 ** rng.uniform(2, 5, count)].astype(np.float32)
    descriptors = rng.normal(size=(count, dim)).astype(np.float32)
    query = Features.from_descriptors(descriptors, keypoints, image_size=SIZE)
    made = {}
    for number in range(images):
        own = rng.normal(size=(count, dim)).astype(np.float32)
        places = np.c_[rng.random((count, 2)) * SIZE, 2.0 ** rng.uniform(2, 5, count)]
        if number % 5 == 0:
            truth, shared = homography(rng), rng.random(count) < 0.3
            own[shared] = descriptors[shared] + 0.4 * rng.normal(size=(int(shared.sum()), dim))
            places[shared, :2] = mapped(keypoints[shared, :2].astype(float), truth)
            places[shared, 2] = keypoints[shared, 2] * scale_of(keypoints[shared, :2].astype(float), truth)
        made[f"{number:04}"] = Features.from_descriptors(own, places.astype(np.float32), image_size=SIZE)
    return query, made


def hundred_hits(images: int, count: int, words: int, dim: int = 128) -> tuple[float, int]:
    """Return the milliseconds in which the hits of one query are verified, and how many pairs of features they have."""
    rng = np.random.default_rng(1)
    query, made = photographs(rng, images, count, dim)
    sample = rng.normal(size=(40 * words, dim)).astype(np.float32)
    codebook = Codebook.train([sample], words, rounds=2, seed=0, assignment="exact")
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "i.index", codebook, geometry=count)
        index.add(list(made.items()), recipe=codebook.recipe)
        snapshot, located = index.snapshot, LocatedImages(index)
        asked = query_geometry(query, codebook, 5)
        places = np.zeros(images, np.int64), np.arange(images)
        times = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            matches = match_all(asked, located.find(snapshot, *places), count=1)
            times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:])), sum(found.pairs for found in matches if found)


def main() -> None:
    """Parse the arguments, measure, and print the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="answers that are verified")
    parser.add_argument("--features", type=int, default=1000, help="features of an image")
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=300, help="pairs of points of a problem")
    parser.add_argument("--problems", type=int, default=30, help="problems for each share of wrong pairs")
    parser.add_argument("--small", action="store_true", help="a trial in seconds")
    options = parser.parse_args()
    if options.small:
        options.images, options.features, options.words, options.problems = 10, 200, 64, 3
    cv2.setNumThreads(1)
    found = compare(options.pairs, options.problems)
    milliseconds, pairs = hundred_hits(options.images, options.features, options.words)
    best = max(found[name]["per_second"] for name in ("magsac", "prosac"))
    result = {
        "hundred_hits_ms": round(milliseconds * 100 / options.images, 2),
        "pairs_per_second": round(1e3 * options.images / milliseconds),
        "feature_pairs_a_hit": round(pairs / options.images, 1),
        "over_opencv": round(found["ours"]["per_second"] / best, 1),
        "inlier_recall": round(found["ours"]["recall"], 4),
        "opencv_inlier_recall": round(max(found[name]["recall"] for name in ("magsac", "prosac")), 4),
    }
    if "poselib" in found:
        result["over_poselib"] = round(found["ours"]["per_second"] / found["poselib"]["per_second"], 1)
        result["poselib_inlier_recall"] = round(found["poselib"]["recall"], 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
