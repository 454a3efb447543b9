"""Reading of training data in several layouts: which images show the same instance.

folders   one folder for each instance; images next to the folders have no instance
csv       a table with the header `image,instance` or `image,instance,group`; an empty field means no instance
photos    images without labels; each is a separate instance
sfm120k   the published pickle of SfM-120k (`sfm120k.py`)
gldv2     `train.csv` or `train_clean.csv` of Google Landmarks v2; the image ID is at `a/b/c/ID.jpg`, after the first
          three characters of its identifier
list      a text file with an image and its instance on each line, separated by a space, as those of NC-clean
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError, NotFoundError, StorageError
from asmk_engine.evaluation.landmarks import header, read_labels
from asmk_engine.images.listing import ImageFile, ImageList, find_images, shown
from asmk_engine.storage.user_files import first_bytes, read_file
from asmk_engine.training.instances import NONE, Instances, check_present, make_instances
from asmk_engine.training.sfm120k import read_sfm120k

LAYOUTS = ("auto", "folders", "csv", "photos", "sfm120k", "gldv2", "list")
HEADER_BYTES, MAX_BYTES = 4096, 2**31


def read_instances(
    data: Path, layout: str = "auto", images: Path | None = None, background: Sequence[Path] = ()
) -> Instances:
    """Read the images and instances of a training.

    data        a folder, a .csv or a .pkl, depending on the layout
    layout      one of `LAYOUTS`; `auto` chooses by the kind of `data`
    images      folder of the images in a table, list or pickle; default but for a pickle: its own folder, or, of Google
                Landmarks, the folder `train` in it
    background  folders of images without an instance; if they are inside `data`, they are excluded from it

    Raises NotFoundError for missing files and folders, FormatError and DamagedError for tables and pickles that cannot
    be read, InputError for images that cannot be listed.
    """
    layout = _chosen(data, layout)
    outside = [path.resolve() for path in background]
    if layout == "sfm120k":
        found = read_sfm120k(data, images)
    elif layout == "csv":
        found = _read_table(data, images or data.parent)
    elif layout == "gldv2":
        found = _read_landmarks(data, images or data.parent)
    elif layout == "list":
        found = _read_list(data, images or data.parent)
    else:
        found = _read_folder(data, outside, labelled=layout == "folders")
    return _with_background(found, background)


def _chosen(data: Path, layout: str) -> str:
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if not data.exists():
        raise NotFoundError(f"{shown(data)}: no such folder or file of training data; check the path")
    if layout == "auto":
        layout = "folders" if data.is_dir() else _of_file(data)
    if not layout:
        raise FormatError(f"{shown(data)}: neither a folder nor .csv, .txt or .pkl; choose its layout with --layout")
    if data.is_dir() != (layout in ("folders", "photos")):
        found, wanted = ("a folder", "a file") if data.is_dir() else ("a file", "a folder")
        raise InputError(f"{shown(data)}: is {found}, layout {layout} needs {wanted}")
    return layout


def _of_file(data: Path) -> str:
    layout = {".csv": "csv", ".pkl": "sfm120k", ".txt": "list"}.get(data.suffix.lower(), "")
    is_landmarks = layout == "csv" and "landmark_id" in header(first_bytes(data, HEADER_BYTES))
    return "gldv2" if is_landmarks else layout


def _read_landmarks(path: Path, root: Path) -> Instances:
    labels = read_labels(path)
    if wrong := [name for name in labels if len(name) < 3 or "/" in name]:
        raise DamagedError(f"{shown(path)}: {wrong[0][:80]!r} is no identifier of Google Landmarks; get the file again")
    root = root / "train" if (root / "train").is_dir() else root
    files = [ImageFile(name, root / name[0] / name[1] / name[2] / f"{name}.jpg") for name in labels]
    check_present(files, root)
    return make_instances(files, labels.values(), [""] * len(files))


def _read_list(path: Path, root: Path) -> Instances:
    labels: dict[str, str] = {}
    lines = read_file(path, "a list of images", MAX_BYTES).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().rpartition(" ")
        if line.strip() and not name:
            raise DamagedError(f"{shown(path)}: line {number} is {line[:80]!r}; expected an image and its instance")
        if name and labels.setdefault(name.strip(), label) != label:
            raise DamagedError(f"{shown(path)}: line {number}: {name!r} has another instance above; keep one")
    files = [ImageFile(name, root / name) for name in labels]
    check_present(files, root)
    return make_instances(files, labels.values(), [""] * len(files))


def _read_folder(folder: Path, outside: Sequence[Path], *, labelled: bool) -> Instances:
    found = _listed(folder).images
    inside = [image for image in found if not _below(image.path, outside)]
    names = [image.name.split("/")[0] if "/" in image.name else "" for image in inside]
    if not labelled:
        names = [image.name for image in inside]
    elif not any(names):
        raise InputError(
            f"{shown(folder)}: contains no folder of photographs; expected one folder for each instance, or "
            "--layout photos for photographs without labels"
        )
    return make_instances(inside, names, [""] * len(inside))


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return bool(folders) and any(path.resolve().is_relative_to(folder) for folder in folders)


def _listed(folder: Path) -> ImageList:
    if not folder.is_dir():
        raise NotFoundError(f"{shown(folder)}: no such folder of photographs; check the path")
    found = find_images(folder, every_file=True)
    if unusable := {**found.failures, **found.unlisted}:
        name, reason = next(iter(unusable.items()))
        raise InputError(f"{shown(folder)}: {len(unusable)} entries cannot be listed: {name!r}: {reason}")
    return found


def _with_background(found: Instances, folders: Sequence[Path]) -> Instances:
    """Add the images of the folders that are not included yet, without an instance and each in a separate group."""
    known = {image.path.resolve() for image in found.images}
    new = [image for folder in folders for image in _listed(folder).images if image.path.resolve() not in known]
    first = int(found.groups.max(initial=-1)) + 1
    return Instances(
        (*found.images, *new),
        np.concatenate([found.instances, np.full(len(new), NONE)]),
        np.concatenate([found.groups, np.arange(first, first + len(new))]),
        found.pairs,
        found.names,
    )


def _read_table(path: Path, root: Path) -> Instances:
    rows = _rows(path)
    header = [name.strip() for name in rows[0]] if rows else []
    if header not in (["image", "instance"], ["image", "instance", "group"]):
        raise FormatError(
            f"{shown(path)}: the first line is {','.join(header)[:80]!r}; expected image,instance or "
            "image,instance,group"
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header) or not row[0]:
            raise DamagedError(f"{shown(path)}: line {number} has {len(row)} fields, expected {','.join(header)}")
    names = [row[0] for row in rows[1:]]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DamagedError(f"{shown(path)}: lists {twice!r} twice; list each photograph once")
    files = [ImageFile(name, root / name) for name in names]
    check_present(files, root)
    return make_instances(files, [row[1] for row in rows[1:]], _groups_of(rows[1:], path))


def _rows(path: Path) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DamagedError(f"{shown(path)}: not a UTF-8 CSV table ({error}); write it again") from None
    except OSError as error:
        raise StorageError(f"{shown(path)}: cannot be read: {error.strerror}; check its permissions") from None


def _groups_of(rows: list[list[str]], path: Path) -> list[str]:
    """Return the group of each row; raises DamagedError for an instance in two groups."""
    groups = [row[2] if len(row) == 3 else "" for row in rows]
    first: dict[str, str] = {}
    for row, group in zip(rows, groups, strict=True):
        if row[1] and first.setdefault(row[1], group) != group:
            raise DamagedError(f"{shown(path)}: instance {row[1]!r} is in the groups {first[row[1]]!r} and {group!r}")
    return groups
