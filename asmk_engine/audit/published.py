"""The published numbers of RGLDv2-clean, beside those of an audit of the same sets.

Source: "On Train-Test Class Overlap and Detection for Image Retrieval" (CVPR 2024), tables 2 and 3, and its poster,
where the row of the text path is whole. The list of the removed classes was not published.
"""

from __future__ import annotations

from collections.abc import Iterator

from asmk_engine.audit.overview import AuditReport, OverlapRow

ROWS = (
    OverlapRow("gnd_rparis6k", 70, 36, 11, 1227),
    OverlapRow("gnd_roxford5k", 70, 38, 6, 315),
    OverlapRow("text", 0, 0, 1, 23),
)
"""The table by the names of the ground truths, in which the queries of Revisited Paris and Oxford are."""
CLASSES_LEFT, IMAGES_LEFT = 81_295, 1_578_905


def beside_published(report: AuditReport) -> Iterator[str]:
    """Yield the lines of a table: queries with overlap, and removed classes and images, published and found."""
    own = {row.name: row for row in report.rows}
    yield f"{'':<16} {'queries':>9} {'classes':>9} {'images':>11}   found: {'queries':>7} {'classes':>9} {'images':>11}"
    for row in ROWS:
        yield _line(row.name, _numbers(row), _numbers(own.get(row.name)))
    removed = report.decision
    totals = [sum(numbers) for numbers in zip(*map(_numbers, ROWS), strict=True)]
    overlapping = sum(row.overlapping for row in report.rows)
    yield _line("removed", totals, [overlapping, len(removed.removed), removed.images])
    yield _line("left", [None, CLASSES_LEFT, IMAGES_LEFT], [None, report.classes_left, report.images_left])


def _numbers(row: OverlapRow | None) -> list[int]:
    return [0, 0, 0] if row is None else [row.overlapping, row.classes, row.images]


def _line(name: str, published: list[int] | list[int | None], found: list[int] | list[int | None]) -> str:
    widths = (9, 9, 11)
    cells = ["" if one is None else str(one) for one in (*published, *found)]
    texts = [cell.rjust(width) for cell, width in zip(cells, (*widths, 16, *widths[1:]), strict=True)]
    return f"{name:<16} {' '.join(texts[:3])} {' '.join(texts[3:])}"
