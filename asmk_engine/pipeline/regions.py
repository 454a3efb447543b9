"""Regions of the images of a run: what was asked for against what the index has, and what a file of boxes lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.inverted.index import Index
from asmk_engine.pipeline.preparation import AnyIndex
from asmk_engine.pipeline.reports import Reporter
from asmk_engine.pipeline.wording import plural
from asmk_engine.regions.box_files import read_boxes
from asmk_engine.regions.boxes import ImageBoxes
from asmk_engine.regions.options import RegionOptions
from asmk_engine.sharding.index import ShardedIndex


@dataclass(frozen=True)
class Regions:
    """The regions that were asked for: how they are used, None for as the index does; and the given boxes, or None."""

    options: RegionOptions | None = None
    boxes: ImageBoxes | None = None

    @classmethod
    def of(cls, options: RegionOptions | None, boxes: ImageBoxes | Path | str | None) -> Regions:
        """Return what was asked for, with the boxes read from their file, if it is one; raises as `read_boxes`."""
        return cls(options, boxes if boxes is None or isinstance(boxes, ImageBoxes) else read_boxes(boxes))

    def refuse(self, path: Path, what: str) -> None:
        """Raise InputError, which says why `what` has no regions, if any were asked for."""
        if self.options is not None or self.boxes is not None:
            raise InputError(f"{path}: {what} has no regions; leave --regions and --boxes out")

    def check(self, path: Path, target: AnyIndex | None) -> None:
        """Raise MismatchError or InputError unless an index at `path`, None for a new one, can take these regions."""
        if target is not None and not isinstance(target, Index | ShardedIndex):
            self.refuse(path, "an index of global descriptors")
            return
        known = self.options if target is None else target.regions
        if self.options is not None and known != self.options:
            found = f"regions ({known})" if known else "no regions"
            raise MismatchError(
                f"{path}: has {found}, not regions ({self.options}); leave --regions out, or make another index"
            )
        are_given = known is not None and known.are_given
        if are_given and self.boxes is None:
            raise InputError(f"{path}: its regions are boxes that are given with the images; add --boxes FILE")
        if self.boxes is not None and not are_given:
            cure = "leave --boxes out" if known else "add --regions, or leave --boxes out"
            raise InputError(f"{path}: has no regions from boxes; {cure}")

    def report(self, names: Sequence[str], reporter: Reporter) -> None:
        """Remark on images without boxes, and on boxes of images that are not in this run."""
        if self.boxes is None:
            return
        lacking = [name for name in names if self.boxes.key(name) is None]
        if lacking:
            text = f"of {plural(len(names), 'image')} {len(lacking)} have no boxes, only the whole image"
            reporter.remark(f"{self.boxes.where}: {text}: {list_names(lacking)}")
        if unused := self.boxes.unused(names):
            text = f"boxes of {plural(len(unused), 'image')} that are not in this run"
            reporter.remark(f"{self.boxes.where}: {text}: {list_names(unused)}")
