"""Groups as files: `groups.json`, `groups.csv`, and one contact sheet for each group."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkError
from asmk_engine.groups.kinds import MIRRORED, VIEW
from asmk_engine.groups.model import Groups, ImageGroup
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.iteration import Progress
from asmk_engine.pictures.group_sheet import SheetImage, write_group_sheet
from asmk_engine.storage.folder import Folder

JSON, CSV = "groups.json", "groups.csv"
SHEETS = "sheets"
MOST_ON_SHEET = 60
ALONE = "alone"
_COLUMNS = ("image", "group", "community", "kind", "same_as", "matches", "weight")


def write_groups(groups: Groups, output: Path | str) -> None:
    """Write `groups.json` and `groups.csv` into a folder, each whole or not at all; StorageError if that fails."""
    folder = Folder(output)
    folder.make()
    folder.write(JSON, json_chunks(groups), "the groups")
    folder.write(CSV, csv_chunks(groups), "the groups")
    folder.sync()


def json_chunks(groups: Groups) -> Iterator[bytes]:
    """Yield the JSON of groups piece by piece: one line for each group, so that the file can be searched."""
    head: dict[str, Any] = {
        "kind": "asmk-engine groups",
        "format": 1,
        "index": str(groups.path),
        "commit": groups.commit,
        "options": groups.options.as_dict(),
        "images": groups.images,
        "unplaced": groups.unplaced,
        "unread": groups.unread,
        "words": [{"features": one.features, "word": one.word, "share": round(one.share, 4)} for one in groups.words],
    }
    yield (json.dumps(head)[:-1] + ',\n "groups": [').encode()
    for number, group in enumerate(groups, start=1):
        text = json.dumps({"group": number, **group.as_dict()})
        yield f"{',' if number > 1 else ''}\n  {text}".encode()
    yield f'\n ],\n "alone": {json.dumps(list(groups.alone))},\n "notices": ['.encode()
    for number, notice in enumerate(groups.notices):
        yield f"{',' if number else ''}\n  {json.dumps(notice.as_dict())}".encode()
    yield b"\n ]\n}\n"


def csv_chunks(groups: Groups) -> Iterator[bytes]:
    """Yield the table of all images: group, community, kind, the file it is a copy of, matches and their best weight.

    The kind is that of the match with the best file of the same photograph, `view` if there is no such file, and
    `alone` without a group.
    """
    yield _csv_lines([list(_COLUMNS)])
    for number, group in enumerate(groups, start=1):
        yield _csv_lines(_csv_rows(number, group))
    yield _csv_lines([[name, "", "", ALONE, "", 0, ""] for name in groups.alone])


def _csv_lines(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _csv_rows(number: int, group: ImageGroup) -> list[list[Any]]:
    community = {name: place for place, names in enumerate(group.communities, start=1) for name in names}
    matches, weight = dict.fromkeys(group.images, 0), dict.fromkeys(group.images, 0.0)
    for edge in group.edges:
        for name in (edge.one, edge.other):
            matches[name] += 1
            weight[name] = max(weight[name], edge.weight)
    kinds = kinds_in(group)
    return [
        [name, number, community[name], *kinds.get(name, (VIEW, "")), matches[name], f"{weight[name]:.4f}"]
        for name in group.images
    ]


def kinds_in(group: ImageGroup) -> dict[str, tuple[str, str]]:
    """Return for each image that is no first file of its photograph the kind it has to that file, and the file.

    Where the two do not match directly, it is the kind of its strongest match with a file of that photograph.
    """
    first = {name: names[0] for names in group.photographs for name in names[1:]}
    best: dict[str, tuple[bool, float, str]] = {}
    for edge in group.edges:
        if edge.kind == VIEW:
            continue
        for name, other in ((edge.one, edge.other), (edge.other, edge.one)):
            if name in first:
                best[name] = max(best.get(name, (False, -1.0, "")), (first[name] == other, edge.weight, edge.kind))
    return {name: (best[name][2], file) for name, file in first.items()}


def write_sheets(
    groups: Groups, output: Path | str, files: NamedImages, *, most: int | None = None, on_sheet: Progress | None = None
) -> int:
    """Write the contact sheet of each group, the first `most` of them, and remove those of earlier runs.

    files  knows where the photographs are; those that are gone are grey boxes with the reason
    Returns the number of sheets. Raises StorageError if one cannot be written.
    """
    folder = Folder(Path(output) / SHEETS)
    folder.make()
    shown = groups.groups if most is None else groups.groups[:most]
    digits = len(str(len(groups)))
    names = [f"group-{number:0{digits}d}.png" for number in range(1, len(shown) + 1)]
    for number, (name, group) in enumerate(zip(names, shown, strict=True), start=1):
        _write_sheet(folder.path / name, number, group, files)
        if on_sheet:
            on_sheet(number, len(shown))
    for name in folder.names():
        if name.startswith("group-") and name.endswith(".png") and name not in names:
            folder.remove(name)
    folder.sync()
    return len(names)


def _write_sheet(path: Path, number: int, group: ImageGroup, files: NamedImages) -> None:
    kinds, room = kinds_in(group), MOST_ON_SHEET
    of_file = {name: names for names in group.photographs for name in names}
    parts: list[list[SheetImage]] = []
    for community in group.communities:
        leaders = [name for name in community if name not in kinds]
        ordered = [name for leader in leaders for name in of_file[leader]]
        part = [_sheet_image(name, kinds, files) for name in ordered[: max(0, room)]]
        room -= len(part)
        parts += [part] if part else []
    drawn = MOST_ON_SHEET - room
    photographs = len(group.photographs)
    note = f"{photographs} photograph{'s' * (photographs > 1)}, the others are copies. " if kinds else ""
    note += f"Lines divide it into {len(group.communities)} communities. " if len(group.communities) > 1 else ""
    note += f"The first {drawn} images are shown." if drawn < len(group) else ""
    write_group_sheet(path, parts, title=f"Group {number}: {len(group)} images", note=note)


def _sheet_image(name: str, kinds: dict[str, tuple[str, str]], files: NamedImages) -> SheetImage:
    if name not in kinds:
        return SheetImage(_path(name, files))
    kind, of = kinds[name]
    text = f"{kind} {Path(of).name}" if kind == MIRRORED else f"{kind} of {Path(of).name}"
    return SheetImage(_path(name, files), text, is_copy=True)


def _path(name: str, files: NamedImages) -> Path:
    try:
        return files.likely_path(name)
    except AsmkError:
        return Path(name)
