"""The contact sheet of `asmk-engine query`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import Console, Failures
from asmk_engine.errors import AsmkError

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnySource
    from asmk_engine.extractors import Extractor
    from asmk_engine.images.boxes import Box
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.pictures.contact_sheet import Row, Shown
    from asmk_engine.regions.attention_maps import AttentionMap

COLUMNS, THUMB = 6, 160
MOST_ATTENDED, LARGER_THUMB = 10, 220  # images of a query, and their side in pixels, where attention is shown
MOST_ROWS = 50


@dataclass(frozen=True)
class QuerySheet:
    """The contact sheet of a query, if one is wanted.

    path            the file, None for none
    with_attention  whether maps of attention are shown, which must be possible; UsageError without a path, InputError
                    for an index whose extractor has no attention
    """

    path: Path | None
    source: AnySource
    box: Box | None
    top: int
    with_attention: bool
    console: Console

    def __post_init__(self) -> None:
        if not self.with_attention:
            return
        if self.path is None:
            raise click.UsageError("--attention is drawn in the contact sheet; add --contact-sheet FILE.png")
        self._extractor()

    def _extractor(self) -> Extractor:
        from asmk_engine.pipeline.attending import attentive_extractor

        return attentive_extractor(self.source.extractor)

    def write(self, answers: Sequence[tuple[str, list[Hit]]], failed: Failures) -> None:
        """Write the sheet, if there are answers; an error is recorded in `failed`."""
        from asmk_engine.pictures.contact_sheet import write_contact_sheet

        if self.path is None or not answers:
            return
        likely = self.source.likely_path
        columns = min(self.top, MOST_ATTENDED) if self.with_attention else COLUMNS
        with failed.noting(f"the contact sheet {self.path}"):
            rows = [(likely(name), [(likely(hit.name), hit) for hit in hits]) for name, hits in answers]
            maps = self._attention([(query, hits[:columns]) for query, hits in rows[:MOST_ROWS]])
            thumb = LARGER_THUMB if self.with_attention else THUMB
            write_contact_sheet(self.path, rows, columns, thumb, box=self.box, most_rows=MOST_ROWS, attention=maps)

    def _attention(self, rows: Sequence[Row]) -> dict[Shown, AttentionMap]:
        """Return the map of each image that is shown and can be read; for others the sheet says why not."""
        from asmk_engine.iteration import counted
        from asmk_engine.pictures.contact_sheet import shown_images
        from asmk_engine.pipeline.attending import photograph_attention

        found: dict[Shown, AttentionMap] = {}
        if not self.with_attention:
            return found
        extractor, each = (
            self._extractor(),
            list(dict.fromkeys(one for row in rows for one in shown_images(row, self.box))),
        )
        with self.console.bar("attention", "images") as progress:
            for path, box in counted(each, len(each), progress):
                try:
                    maps = photograph_attention(extractor, path, box)
                except AsmkError:
                    continue
                found |= {(path, box): maps[0]} if maps else {}
        return found
