"""Writing of feature sets, part by part."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features.model import Features, Source, check_features, check_name, fingerprint_features
from asmk_engine.features.parts import FORMAT, KIND, PART_NAME, part_names, read_part, write_roots
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.recipes import Recipe
from asmk_engine.storage.folder import LOCK, TEMPORARY, Folder, WriterLock

_TEXT = h5py.string_dtype("utf-8")


class FeatureWriter:
    """Appends images to a feature set, part by part; use it as a context manager.

    path          the folder; created if missing
    images_root   root folder of images that are added without one
    part_bytes    size at which a part is closed
    part_seconds  age at which a part is closed
    Raises MismatchError for an existing set of another recipe or dimension.
    """

    def __init__(
        self,
        path: Path | str,
        recipe: Recipe,
        dim: int,
        *,
        images_root: str = "",
        part_bytes: int = 64 << 20,
        part_seconds: float = 60.0,
    ) -> None:
        self.path = Path(path)
        self.recipe, self.dim = recipe, dim
        self._root = Root.of(images_root) if images_root else UNKNOWN
        self._part_bytes, self._part_seconds = part_bytes, part_seconds
        self._folder = Folder(self.path)
        self._clear()

    def __enter__(self) -> FeatureWriter:
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            found = "a broken link" if os.path.islink(self.path) else "a file"
            raise InputError(f"{self.path}: {found} is in the way; a feature set needs its own folder")
        foreign = [name for name in self._folder.names() if not PART_NAME.fullmatch(name.removesuffix(TEMPORARY))]
        if not part_names(self.path) and set(foreign) - {LOCK}:
            raise InputError(
                f"{self.path}: contains other files, such as {foreign[0]!r}; a feature set needs its own folder"
            )
        self._folder.make()
        self._lock = WriterLock(self.path).__enter__()
        try:
            self._folder.remove_leftovers(PART_NAME, keep=part_names(self.path))
            self._next = self._check_existing()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or not isinstance(error, Exception) or self._images or self._failures:
                self.flush()
        finally:
            self._lock.__exit__(None, None, None)

    def _check_existing(self) -> int:
        names = part_names(self.path)
        if not names:
            return 0
        last = read_part(self.path / names[-1])
        if last.recipe != self.recipe or last.dim != self.dim:
            raise MismatchError(
                f"{self.path}: holds features of [{last.recipe}], {last.dim}-D, not of [{self.recipe}], {self.dim}-D; "
                "use the same options, or another folder"
            )
        return int(names[-1][5:-3]) + 1

    def add(self, name: str, features: Features, source: Source | None = None, root: Root | None = None) -> None:
        """Append one image, replacing one of the same name in an earlier part. Raises InputError or MismatchError.

        source  the file it was read from
        root    the root that the file is below
        """
        check_features(check_name(name), features, self.dim)
        if name in self._images:
            raise InputError(f"{self.path}: image {name!r} was added twice in one run; names must be unique")
        if len(features) and self._columns not in (None, features.keypoints.shape[1]):
            self.flush()  # the keypoints of a part all have angles, or none
        self._images[name] = features, source or Source(0, 0, fingerprint_features(features))
        self._roots[name] = root or self._root
        self._bytes += features.descriptors.nbytes + features.keypoints.nbytes + features.scores.nbytes
        self._flush_if_due()

    def fail(self, name: str, reason: str, root: Root | None = None) -> None:
        """Record that an image, perhaps below a root, could not be read, and why."""
        self._failures[check_name(name)] = reason
        self._roots[name] = root or self._root
        self._flush_if_due()

    def remove(self, name: str) -> None:
        """Remove an image of an earlier part."""
        self._removed.append(name)

    def move(self, name: str, root: Root) -> None:
        """Record that an image of an earlier part was found, unchanged, below another root."""
        self._moved[name] = root

    @property
    def _columns(self) -> int | None:
        """The columns of the keypoints in the current part, None without any."""
        return next((image.keypoints.shape[1] for image, _ in self._images.values() if len(image)), None)

    def _flush_if_due(self) -> None:
        if self._bytes >= self._part_bytes or time.monotonic() - self._begun > self._part_seconds:
            self.flush()

    def flush(self) -> None:
        """Close the current part, which makes its images durable. An empty set still gets its first part."""
        if not (self._images or self._failures or self._removed or self._moved) and self._next > 0:
            return
        name = f"part-{self._next:06d}.h5"
        content = io.BytesIO()  # in memory, since HDF5 may abort the process if the disk is full
        self._write(content)
        self._folder.write(name, [content.getbuffer()], "the part")
        self._folder.sync()
        self._next += 1
        self._clear()

    def _clear(self) -> None:
        self._images: dict[str, tuple[Features, Source]] = {}
        self._failures: dict[str, str] = {}
        self._removed: list[str] = []
        self._roots: dict[str, Root] = {}
        self._moved: dict[str, Root] = {}
        self._bytes, self._begun = 0, time.monotonic()

    def _write(self, content: io.BytesIO) -> None:
        images = [features for features, _ in self._images.values()]
        dtype = images[0].descriptors.dtype if images else np.dtype(np.float16)
        counts = [len(image) for image in images]
        with h5py.File(content, "w", libver="latest") as file:
            file.attrs["kind"], file.attrs["format"] = KIND, FORMAT
            file.attrs["recipe"] = self.recipe.to_json()
            file.attrs["images_root"] = self._root.folder if self._root.folder.isprintable() else ""
            below, failed = ([self._roots[name] for name in names] for names in (self._images, self._failures))
            write_roots(file, below, self._moved, failed, _TEXT)
            file["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            file["descriptors"] = _joined([i.descriptors.astype(dtype) for i in images], (0, self.dim), dtype)
            columns = self._columns or (images[0].keypoints.shape[1] if images else 3)
            file["keypoints"] = _joined([i.keypoints for i in images if len(i)], (0, columns), np.float32)
            file["strengths"] = _joined([i.scores for i in images], (0,), np.float32)
            file["image_sizes"] = np.array([i.image_size for i in images], np.int32).reshape(-1, 2)
            sources = [(source.size, source.mtime, source.fingerprint) for _, source in self._images.values()]
            file["sources"] = np.array(sources, np.uint64).reshape(-1, 3)
            for key, texts in self._texts().items():
                file.create_dataset(key, data=np.array(texts, object), dtype=_TEXT, shape=(len(texts),))

    def _texts(self) -> dict[str, list[str]]:
        return {
            "names": list(self._images),
            "failed_names": list(self._failures),
            "failed_reasons": list(self._failures.values()),
            "removed_names": self._removed,
        }


def _joined(arrays: list[np.ndarray], empty: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(empty, dtype)
