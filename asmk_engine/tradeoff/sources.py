"""The sources of the benchmark: feature sets of the same images, and the ground truth with their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.features import Features, FeatureSet, Identities, Source
from asmk_engine.fused.sources import FusedSource
from asmk_engine.images.roots import Root
from asmk_engine.recipes import Recipe
from asmk_engine.storage.stage_cache import key_of
from asmk_engine.tradeoff.configurations import Supply
from asmk_engine.tradeoff.fusion import SourceFusion


@dataclass(frozen=True)
class StrongestFeatures:
    """A source of the strongest features of each image of a feature set.

    features  the feature set
    most      maximum number of features per image
    """

    features: FeatureSet
    most: int

    @classmethod
    def of(cls, path: Path, most: int) -> StrongestFeatures:
        """Open the set at `path`, limited to the `most` strongest features per image; raises as `FeatureSet.open`."""
        return cls(FeatureSet.open(path), most)

    def __str__(self) -> str:
        return str(self.features)

    def __contains__(self, name: object) -> bool:
        return name in self.features

    @property
    def path(self) -> Path:
        """The folder of the feature set."""
        return self.features.path

    @property
    def recipe(self) -> Recipe:
        """The recipe of the feature set."""
        return self.features.recipe

    @property
    def dim(self) -> int:
        """The dimension of a descriptor."""
        return self.features.dim

    @property
    def names(self) -> list[str]:
        """The names of the images, in byte order."""
        return self.features.names

    def count(self, name: str) -> int:
        """Return the number of features of an image, within the limit."""
        return min(self.features.count(name), self.most)

    def read(self, name: str) -> Features:
        """Read the strongest features of an image; raises NotFoundError for an unknown name."""
        return self.features.read(name).strongest(self.most)

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Yield names and strongest features, in the order of the whole set."""
        return ((name, found.strongest(self.most)) for name, found in self.features.images(names))

    def identities(self, names: Sequence[str]) -> Identities:
        """Return fingerprints and roots of some images, those of the whole images."""
        return self.features.identities(names)

    def source(self, name: str) -> Source:
        """Return the file of an image."""
        return self.features.source(name)

    def root(self, name: str) -> Root:
        """Return the root of an image."""
        return self.features.root(name)

    def roots(self) -> tuple[Root, ...]:
        """Return all known roots of images."""
        return self.features.roots()


@dataclass(frozen=True)
class SourcePaths:
    """The paths of a source.

    name      name in tables and figures
    features  feature set of the database images
    learn_on  another feature set to learn codebooks, PCA and sub-spaces from, or None for the same
    queries   features of queries that are regions or not in the feature set, or None
    """

    name: str
    features: Path
    learn_on: Path | None = None
    queries: Path | None = None


@dataclass(frozen=True)
class FeatureSupply:
    """An opened source: its paths, its supply, and the ground truth with its names.

    key, learn_key, queries_key  fingerprints of the three feature sets
    """

    paths: SourcePaths
    supply: Supply
    ground_truth: GroundTruth
    key: str
    learn_key: str
    queries_key: str

    @property
    def learn_on(self) -> Path:
        """The feature set to learn from."""
        return self.paths.learn_on or self.paths.features

    def queries(self, most: int) -> list[tuple[GroundTruthQuery, Features]]:
        """Return the queries with their strongest features; raises InputError if those of a region are missing."""
        whole = StrongestFeatures.of(self.paths.features, most)
        own = [query for query in self.ground_truth.queries if query.box is None and query.name in whole]
        found = dict(whole.images([query.name for query in own]))
        rest = [query.name for query in self.ground_truth.queries if query.name not in found]
        if rest:
            found |= self._of_regions(rest, most)
        return [(query, found[query.name]) for query in self.ground_truth.queries]

    def _of_regions(self, names: list[str], most: int) -> dict[str, Features]:
        regions = StrongestFeatures.of(self.paths.queries, most) if self.paths.queries else None
        places = match_names(names, regions.names) if regions else {}
        if regions is None or len(places) < len(names):
            missing = next(name for name in names if name not in places)
            raise InputError(
                f"{self.paths.features}: {len(names) - len(places)} queries, such as {missing!r}, are regions or not "
                f"in the feature set; extract their regions and give them with --queries {self.paths.name}=FEATURES"
            )
        return {name: regions.read(place) for name, place in places.items()}


def open_source(paths: SourcePaths, ground_truth: GroundTruth) -> FeatureSupply:
    """Open the feature sets of a source; errors name the set they are about."""
    features = FeatureSet.open(paths.features)
    learn_on = FeatureSet.open(paths.learn_on) if paths.learn_on else features
    if learn_on.recipe != features.recipe or learn_on.dim != features.dim:
        raise MismatchError(
            f"{learn_on.path}: features of [{learn_on.recipe}], those of {features.path} are of [{features.recipe}]; "
            "extract both with the same options"
        )
    most = max((features.count(name) for name in features.names), default=0)
    if most == 0:
        raise InputError(f"{features.path}: no image has a feature; give a feature set that is not empty")
    supply = Supply(features.recipe.is_global, features.dim, most)
    queries_key = features_key(FeatureSet.open(paths.queries)) if paths.queries else ""
    resolved = resolve(ground_truth, features.names).ground_truth
    return FeatureSupply(paths, supply, resolved, features_key(features), features_key(learn_on), queries_key)


def check_fusion(fusion: SourceFusion, sources: Mapping[str, FeatureSupply]) -> None:
    """Raise InputError or MismatchError, before anything is measured, if the parts do not fit together."""
    fusion.check_known(sources)
    for part in fusion.parts:
        if part.strongest and sources[part.source].supply.is_global:
            raise InputError(
                f"{fusion}: {part.source!r} has one descriptor per image; leave its n, {part.strongest}, out"
            )
    parts = [sources[part.source] for part in fusion.parts]
    joint_ground_truth(parts)
    sets = [FeatureSet.open(part.paths.features) for part in parts]
    recipes = [one.recipe for one in sets]
    if twice := next((recipe for recipe in recipes if recipes.count(recipe) > 1), None):
        raise InputError(f"{fusion}: two parts are features of [{twice}]; join different kinds of features")
    if name := next(iter(FusedSource(sets).other), None):
        raise MismatchError(f"{fusion}: {name!r} is another file in each part; extract all from the same photographs")


def joint_ground_truth(sources: Sequence[FeatureSupply]) -> GroundTruth:
    """Return the ground truth for several sources together; raises MismatchError if they name an image differently."""
    first = sources[0].ground_truth
    for other in sources[1:]:
        pairs = zip(_image_names(first), _image_names(other.ground_truth), strict=True)
        if pair := next(((one, two) for one, two in pairs if one != two), None):
            raise MismatchError(
                f"{other.paths.features}: an image is {pair[1]!r}, in {sources[0].paths.features} {pair[0]!r}; extract "
                "both from the same folder"
            )
    return replace(first, ignored=frozenset().union(*(source.ground_truth.ignored for source in sources)))


def _image_names(ground_truth: GroundTruth) -> list[str]:
    return [*ground_truth.images, *(query.name for query in ground_truth.queries)]


def features_key(features: FeatureSet) -> str:
    """Return 16 hexadecimal digits for a feature set: its recipe, and the images with their numbers of features."""
    images = [[name, features.count(name), features.source(name).fingerprint] for name in features.names]
    return key_of({"recipe": features.recipe.to_json(), "dim": features.dim, "images": images})


def ground_truth_key(ground_truth: GroundTruth) -> str:
    """Return 16 hexadecimal digits for a ground truth."""
    queries = [
        [query.name, query.box, sorted(query.easy), sorted(query.hard), sorted(query.junk), query.part]
        for query in ground_truth.queries
    ]
    return key_of({"images": ground_truth.images, "queries": queries, "ignored": sorted(ground_truth.ignored)})


def queries_key(source: FeatureSupply) -> str:
    """Return 16 hexadecimal digits for the queries: names and regions, without their positives."""
    queries = [[query.name, query.box] for query in source.ground_truth.queries]
    return key_of({"asked": queries, "features": source.key, "regions": source.queries_key})
