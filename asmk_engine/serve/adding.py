"""Photographs of clients added to an index: first decoded with limits, then kept in a folder beside it and indexed."""

from __future__ import annotations

import os
import re
import shutil
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from asmk_engine.pipeline.extraction import IntakeOptions
from asmk_engine.pipeline.indexing import index_images
from asmk_engine.pipeline.wording import plural
from asmk_engine.serve.jobs import BackgroundJob
from asmk_engine.serve.pictures import Thumbnails
from asmk_engine.serve.refusals import Refusal, discreet
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.storage.folder import storage_errors

MOST_LETTERS = 120
CHECKED_SIDE = 160


def added_folder(index: Path) -> Path:
    """Return the folder beside an index in which added photographs are kept: photos.added for photos.index."""
    real = Path(os.path.realpath(index))
    return real.with_name(f"{real.name.removesuffix('.index')}.added")


def safe_name(given: str) -> str:
    """Return a file name made of what a client calls a photograph: letters, digits, spaces and a few signs.

    No other character of a request ever reaches the file system; what is left of nothing is `photograph`.
    """
    base = unicodedata.normalize("NFC", re.split(r"[/\\]", given)[-1])
    stem, dot, ending = base.rpartition(".")
    kept = [re.sub(r"[^\w\- ()+,=@]", "_", part).strip(" _") for part in ((stem, ending) if dot else (base, ""))]
    name = kept[0][:MOST_LETTERS].strip(" _") or "photograph"
    return f"{name}.{kept[1][:8].lower()}" if kept[1] else name


def unused_path(folder: Path, name: str) -> Path:
    """Return the path of a new file in a folder, numbered if there is one of this name."""
    stem, dot, ending = name.partition(".")
    number = 1
    while os.path.lexists(folder / name):
        number += 1
        name = f"{stem}-{number}{dot}{ending}"
    return folder / name


def add_photographs(
    job: BackgroundJob, served: ServedIndex, files: Sequence[tuple[str, Path]], thumbnails: Thumbnails
) -> str:
    """Add photographs to an index; what cannot be used is named in the job. Returns what was done.

    files  what the client calls each, and where it is now
    """
    root = added_folder(served.path)
    folder = root / f"added {time.strftime('%Y-%m-%d')}"
    kept: list[Path] = []
    try:
        with storage_errors(folder, "make the folder of added photographs"):
            folder.mkdir(parents=True, exist_ok=True)
        with job.bar("check", "photographs") as progress:
            for done, (name, path) in enumerate(files, start=1):
                kept += _checked(job, name, path, folder, thumbnails)
                progress(done, len(files))
        if not kept:
            return "no photograph was added"
        # Only these: others in the folder may have been deleted from the index.
        report = index_images(kept, served.path, intake=IntakeOptions(prefix=folder.name), display=job)
    finally:
        for _, path in files:
            path.unlink(missing_ok=True)
        served.refresh()
        _remove_unused(served, root, kept)
    reasons = [{"name": "", "reason": discreet(reason)} for reason in report.failures.reasons]
    own = {path.relative_to(root).as_posix() for path in kept}
    job.failures += [
        {"name": name, "reason": discreet(why)} for name, why in report.skipped.items() if name in own
    ] + reasons
    job.added = sorted(name for name in own if name in served.index)
    return f"{plural(len(job.added), 'photograph')} added, {len(files) - len(job.added)} not"


def _checked(job: BackgroundJob, name: str, path: Path, folder: Path, thumbnails: Thumbnails) -> list[Path]:
    """Decode a photograph in a worker process and keep it; returns its path, none if it cannot be used."""
    try:
        thumbnails.of_file(path, CHECKED_SIDE)
    except Refusal as error:
        job.failures.append({"name": name[:300], "reason": str(error)})
        return []
    target = unused_path(folder, safe_name(name))
    with storage_errors(target, "keep the photograph"):
        shutil.move(path, target)
        target.chmod(0o644)
    return [target]


def _remove_unused(served: ServedIndex, root: Path, kept: Sequence[Path]) -> None:
    """Remove the photographs of this job that are not in the index: those of a job that was cancelled or failed."""
    for path in kept:
        if path.relative_to(root).as_posix() not in served.index:
            path.unlink(missing_ok=True)
