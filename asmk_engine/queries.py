"""Where the features of a query come from: the name of an indexed image, or an image file."""

from __future__ import annotations

from pathlib import Path

from asmk_engine.errors import MismatchError, NotFoundError
from asmk_engine.evaluation.names import match_names
from asmk_engine.extractors import Extractor, extractor_from_recipe
from asmk_engine.features import Features, FeatureSet
from asmk_engine.image_lists import find_images
from asmk_engine.index import Index

Box = tuple[float, float, float, float]


class QuerySource:
    """Finds the features of queries to an index.

    features     the feature set of named queries; by default the one the index remembers
    images_root  the folder of the indexed photographs; by default the one the index remembers
    Features of a query are never made from stored codes, which hold one assignment per descriptor.
    """

    def __init__(
        self, index: Index, *, features: Path | str | None = None, images_root: Path | str | None = None
    ) -> None:
        self.index = index
        manifest = index.snapshot.manifest
        self.images_root = (
            Path(images_root) if images_root else Path(manifest.images_root) if manifest.images_root else None
        )
        self._features = self._open(Path(features)) if features else None
        self._remembered = None if features or not manifest.features else Path(manifest.features)
        self._extractor: Extractor | None = None

    def _open(self, path: Path) -> FeatureSet:
        features, codebook = FeatureSet.open(path), self.index.codebook
        if features.recipe != codebook.recipe:
            raise MismatchError(
                f"{path}: features of [{features.recipe}], but the index {self.index.path} holds features of "
                f"[{codebook.recipe}]; give the feature set the index was made from"
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
        return self.extractor.extract(self._photograph(name), box=box)

    def _photograph(self, name: str) -> Path:
        """The photograph of a query that is not indexed, looked for below the folder of photographs."""
        root = self.images_root
        if root is None or not root.is_dir():
            raise NotFoundError(f"the photograph of query {name!r} is not indexed; give its folder with --images")
        found = match_names([name], (image.name for image in find_images([root]).images))
        if not found:
            raise NotFoundError(
                f"{root}: no photograph of query {name!r} below this folder; give another with --images"
            )
        return root / found[name]

    def _of_file(self, query: str, box: Box | None) -> Features:
        if not Path(query).is_file():
            raise NotFoundError(
                f"{query!r} is neither an image of {self.index.path} nor a file; "
                f"`asmk-engine info {self.index.path} --names` lists the images"
            )
        return self.extractor.extract(Path(query), box=box)

    def _of_set(self, name: str) -> Features | None:
        if self._features is None and self._remembered is not None and self._remembered.is_dir():
            self._features = self._open(self._remembered)
        if self._features is not None and name in self._features:
            return self._features.read(name)
        return None

    @property
    def extractor(self) -> Extractor:
        """The extractor that made the indexed features."""
        if self._extractor is None:
            self._extractor = extractor_from_recipe(self.index.codebook.recipe)
        return self._extractor

    def likely_path(self, name: str) -> Path:
        """Where the photograph of an indexed image or of a query should be, whether it is there or not."""
        indexed = (self.images_root or Path()) / name
        return indexed if name in self.index or not Path(name).is_file() else Path(name)

    def image_path(self, name: str) -> Path:
        """The photograph of an indexed image, or the file a query names; NotFoundError says where was looked."""
        if (path := self.likely_path(name)).is_file():
            return path
        where = f"in {self.images_root}" if self.images_root else "and the index remembers no folder of photographs"
        raise NotFoundError(
            f"the photograph of {name!r} is not there, {where}; "
            "give its folder with --images, or a feature set with --features"
        )
