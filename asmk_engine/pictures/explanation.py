"""A folder that explains the answers of queries: pictures of each hit, and a page that lists them.

    index.html                          the page, without scripts
    QUERY/01-IMAGE.jpg                  query and hit side by side, with what they have in common
    QUERY/01-IMAGE-warped.jpg           the hit moved onto the query, both blended
    QUERY/01-IMAGE-blink.gif            query and hit alternately

The last two exist where both photographs can be shown and a map explains something. QUERY and IMAGE are what
`file_stem` makes of the names; equal ones of several queries are numbered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine import threads
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.answers import Hit
from asmk_engine.pictures.encoding import blink_bytes, jpeg_bytes
from asmk_engine.pictures.explanation_page import ExplainedHit, ExplainedQuery, page_bytes
from asmk_engine.pictures.file_names import UnusedNames, file_stem
from asmk_engine.pictures.match_picture import Caption, draw_match, match_line
from asmk_engine.pictures.overlay import overlay
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.match import Match

OpenPhotograph = Callable[[str, tuple[int, int] | None], ShownPhotograph]
"""A function that returns the photograph of a name, whose original has this size if it is known."""


@dataclass
class ExplanationFolder:
    """Explains the answers of one query after the other.

    path    the folder, made with the first query; files of the same names are replaced, others stay
    opened  returns the photograph of an indexed image or a query
    box     region of the queries that was searched for

    Every file is written whole or not at all.
    """

    path: Path
    opened: OpenPhotograph
    box: Box | None = None
    _names: UnusedNames = field(default_factory=UnusedNames)
    _queries: list[ExplainedQuery] = field(default_factory=list)

    def add(self, query: str, short: str, hits: Sequence[Hit]) -> None:
        """Write the pictures of the hits of a query; raises StorageError.

        query  name of the query, or its path, as it is opened
        short  what the query is called in names of files
        """
        folder = Folder(self.path / self._names.take(file_stem(short)))
        folder.make()
        matches = [best_match(hit) for hit in hits]
        size = next((match.query_size for match in matches if match is not None), None)
        photograph = self.opened(query, size)

        def explained(task: tuple[int, Hit]) -> ExplainedHit:
            return self._write_hit(folder, query, photograph, *task)

        found = threads.run(explained, list(enumerate(hits, start=1)), threads.thread_count(None))
        folder.sync()
        self._queries.append(ExplainedQuery(query, photograph.reason, tuple(found)))

    def finish(self) -> None:
        """Write the page that lists all queries, if there are any; raises StorageError."""
        if not self._queries:
            return
        folder = Folder(self.path)
        folder.make()
        folder.write("index.html", [page_bytes(self._queries)])
        folder.sync()

    def _write_hit(self, folder: Folder, query: str, photograph: ShownPhotograph, rank: int, hit: Hit) -> ExplainedHit:
        match = best_match(hit)
        image = self.opened(hit.name, None if match is None else match.size)
        caption = Caption(f"query  {query}", f"{rank}.  {hit.name}", ("score", hit.score), _notes(hit))
        stem = f"{rank:02d}-{file_stem(hit.name)}"
        pictures = {f"{stem}.jpg": jpeg_bytes(draw_match(photograph, image, match, caption, self.box))}
        laid = None if match is None else overlay(photograph, image, match)
        if laid is not None:
            pictures[f"{stem}-warped.jpg"] = jpeg_bytes(laid.blend())
            pictures[f"{stem}-blink.gif"] = blink_bytes(laid.frames(f"query  {query}", f"moved  {hit.name}"))
        for name, data in pictures.items():
            folder.write(name, [data])
        paths = tuple(f"{folder.path.name}/{name}" for name in pictures)
        numbers = [match_line(match) for match in hit.matches] or [match_line(None)]
        return ExplainedHit(rank, hit.name, hit.score, tuple(numbers), hit.turn, image.reason, paths)


def best_match(hit: Hit) -> Match | None:
    """Return the match of the greatest weight among those of the kinds of features, None if there is none."""
    found = [match for match in hit.matches if match is not None]
    return max(found, key=lambda match: match.weight, default=None)


def _notes(hit: Hit) -> list[str]:
    notes = [f"the query was turned: {hit.turn}"] if hit.turn else []
    if len(hit.matches) > 1:
        number = next(place for place, match in enumerate(hit.matches, start=1) if match is best_match(hit))
        notes.append(f"features of kind {number} of {len(hit.matches)}, whose match weighs most")
    return notes
