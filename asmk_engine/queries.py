"""Where the features of a query come from: the name of an indexed image, or an image file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asmk_engine.collection import Collection
from asmk_engine.descriptors.concatenation import EXTRACTOR as CONCATENATION
from asmk_engine.descriptors.concatenation import concatenated_extractor
from asmk_engine.errors import MismatchError, NotFoundError
from asmk_engine.evaluation.names import match_names
from asmk_engine.extractors import Extractor, extractor_from_recipe
from asmk_engine.features import Features, FeatureSet
from asmk_engine.image_lists import find_images
from asmk_engine.joint import JointIndex

Box = tuple[float, float, float, float]
IMPORTED = "hloc"
"""The extractor in the recipes of features that another program made."""


class QuerySource:
    """Finds the features of queries to an index.

    features     the feature set of named queries; by default those the index remembers
    images_root  the folder of the indexed photographs; by default those the index remembers
    Features of a query are never made from stored codes, which hold one assignment per descriptor.
    """

    def __init__(
        self,
        index: Collection[Any, Any] | JointIndex[Any],
        *,
        features: Path | str | None = None,
        images_root: Path | str | None = None,
    ) -> None:
        self.index = index
        manifest = index.snapshot.manifest
        self._roots = [Path(images_root)] if images_root else _absolute(manifest.images_roots)
        self._paths = [Path(features)] if features else _absolute(manifest.features)
        self._given = features is not None
        self._sets: dict[Path, FeatureSet] = {}
        self._photographs: dict[Path, list[str]] = {}
        self._extractor: Extractor | None = None

    def _open(self, path: Path) -> FeatureSet:
        features, recipe = FeatureSet.open(path), self.index.recipe
        if features.recipe != recipe:
            raise MismatchError(
                f"{path}: features of [{features.recipe}], but the index {self.index.path} holds features of "
                f"[{recipe}]; give the feature set the index was made from"
            )
        return features

    def features(self, query: str, box: Box | None = None) -> tuple[Features, bool]:
        """The features of a query, and whether it is the name of an indexed image.

        A region is always extracted from the photograph itself. NotFoundError says where was looked.
        """
        if query not in self.index:
            return self._of_file(query, box), False
        if box is None and (found := self._of_set(query)) is not None:
            return found, True
        return self.extractor.extract(self.image_path(query), box=box), True

    def truth_features(self, name: str, box: Box | None) -> Features:
        """The features of a query of a ground truth, whose name may be that of a photograph without its extension."""
        if name in self.index:
            return self.features(name, box)[0]
        # No extractor of ours makes what was imported: such features of a query are already those of its region.
        if self.index.recipe.extractor == IMPORTED and (found := self._of_set(name)) is not None:
            return found
        return self.extractor.extract(self._photograph(name), box=box)

    def _photograph(self, name: str) -> Path:
        """The photograph of a query that is not indexed, looked for below the folder of photographs."""
        for root in filter(Path.is_dir, self._roots):
            if root not in self._photographs:  # there may be a hundred thousand
                self._photographs[root] = [image.name for image in find_images([root]).images]
            found = match_names([name], self._photographs[root])
            if found:
                return root / found[name]
        raise NotFoundError(
            f"the photograph of query {name!r} is not indexed and not {self._looked_in()}; "
            "give its folder with --images"
        )

    def _looked_in(self) -> str:
        return f"below {', '.join(map(str, self._roots))}" if self._roots else "in any folder the index remembers"

    def _of_file(self, query: str, box: Box | None) -> Features:
        if not Path(query).is_file():
            raise NotFoundError(
                f"{query!r} is neither an image of {self.index.path} nor a file; "
                f"`asmk-engine info {self.index.path} --names` lists the images"
            )
        return self.extractor.extract(Path(query), box=box)

    def _of_set(self, name: str) -> Features | None:
        for path in self._paths:
            if path not in self._sets and (self._given or path.is_dir()):
                self._sets[path] = self._open(path)
            if path in self._sets and name in self._sets[path]:
                return self._sets[path].read(name)
        return None

    @property
    def extractor(self) -> Extractor:
        """The extractor that made the indexed features."""
        if self._extractor is None:
            recipe = self.index.recipe
            if recipe.extractor == CONCATENATION:
                beside = [network for path in self._paths for network in sorted(path.parent.glob("*.safetensors"))]
                self._extractor = concatenated_extractor(recipe, beside)
            else:
                self._extractor = extractor_from_recipe(recipe, self.index.network)
        return self._extractor

    def likely_path(self, name: str) -> Path:
        """Where the photograph of an indexed image or of a query should be, whether it is there or not."""
        if name not in self.index and Path(name).is_file():
            return Path(name)
        places = [root / name for root in self._roots]
        return next((path for path in places if path.is_file()), places[0] if places else Path(name))

    def image_path(self, name: str) -> Path:
        """The photograph of an indexed image, or the file a query names; NotFoundError says where was looked."""
        if (path := self.likely_path(name)).is_file():
            return path
        raise NotFoundError(
            f"the photograph of {name!r} is not {self._looked_in()}; "
            "give its folder with --images, or a feature set with --features"
        )


def _absolute(paths: tuple[str, ...]) -> list[Path]:
    """Remembered paths, the latest first; a relative one was not written by us and could mean anything here."""
    return [Path(path) for path in reversed(paths) if Path(path).is_absolute()]
