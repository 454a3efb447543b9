"""The reports at the end of a run over images: which were left out, changed, duplicate, or ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asmk_engine.cli.common import Console, Failures, plural
from asmk_engine.escape import list_first

if TYPE_CHECKING:
    from asmk_engine.extraction.run import ExtractionSummary
    from asmk_engine.images.listing import ImageList
    from asmk_engine.images.roots import Root
    from asmk_engine.indexes.additions import AddSummary

SHOWN = 20
NAMED = 5


@dataclass
class Left:
    """Images of a run whose present content is not in the output, by name; fields as in `AddSummary`."""

    changed: dict[str, None] = field(default_factory=dict)
    taken: dict[str, None] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    def note(self, intake: Any) -> None:
        """Add the fields of an `Intake` or an `AddSummary`."""
        self.changed |= dict.fromkeys(intake.changed)
        self.taken |= dict.fromkeys(intake.taken)
        self.same |= intake.same


def report_extraction(summary: ExtractionSummary, output: object, console: Console) -> None:
    """Report the counts of an extraction, and each skipped image with its reason."""
    _each(console, [f"skipped {name!r}: {reason}" for name, reason in summary.failed.items()],
          f"; `asmk-engine info {output} --failures` lists all")  # fmt: skip
    _each(console, [f"note on {name!r}: {note}" for name, note in summary.notes.items()])
    console.say(
        f"{output}: {plural(summary.extracted, 'image')} extracted ({summary.images_per_second:.1f} images/s), "
        f"{len(summary.intake.unchanged)} unchanged, {len(summary.failed)} skipped"
    )


def report_found(found: ImageList, failures: Failures, console: Console) -> None:
    """Report what a run did not read: unreadable folders, files that are not images, files given twice."""
    from asmk_engine.images.listing import LEADS_NOWHERE

    _each(console, [f"not searched: {place}: {reason}" for place, reason in found.unlisted.items()])
    locked = [place for place, reason in found.unlisted.items() if reason != LEADS_NOWHERE]
    if locked:
        failures.add(f"{plural(len(locked), 'folder')} could not be searched, such as {locked[0]}: change the "
                     "permissions and run the command again")  # fmt: skip
    if found.same:
        console.say(f"{plural(len(found.same), 'file')} given twice, as a link or below two folders, "
                    f"and used once: {named(found.same)}")  # fmt: skip
    if found.passed_over:
        kinds = sorted(found.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
        console.say(f"ignored: {', '.join(f'{count} {kind}' for kind, count in kinds)}{_hints(found.passed_over)}")


def report_left(left: Left, failures: Failures, console: Console) -> None:
    """Report which images were left out in their present content, and which options would include them."""
    cure = "--update replaces the old ones, --prefix NAME keeps both"
    if left.same:
        console.say(f"{plural(len(left.same), 'file')} already known under other names: {named(left.same)}")
    if left.changed:
        failures.add(
            f"{plural(len(left.changed), 'photograph')} whose file was replaced by another: "
            f"{named(left.changed)}; the old ones are kept: {cure}"
        )
    if left.taken:
        failures.add(
            f"{plural(len(left.taken), 'photograph')} left out, since other photographs have their names: "
            f"{named(left.taken)}; {cure}"
        )


def report_duplicates(summary: AddSummary, console: Console) -> None:
    """Report images whose content is present under several names."""
    if summary.duplicates:
        console.say(f"{plural(len(summary.duplicates), 'photograph')} with the same content as others: "
                    f"{named(summary.duplicates)}")  # fmt: skip


def told(summary: AddSummary, left: Left) -> str:
    """Return the counts of an addition in words."""
    there = summary.unchanged + len({**left.same, **summary.same})
    parts = [f"{summary.added} added", f"{summary.replaced} replaced", f"{there} already indexed",
             f"{summary.removed} removed"]  # fmt: skip
    parts += [f"{summary.moved} found in another folder"] if summary.moved else []
    kept = {*left.changed, *left.taken, *summary.changed, *summary.taken}
    return ", ".join([*parts, *([f"{len(kept)} left out, see below"] if kept else [])])


def report_without_features(names: Sequence[str], place: object, console: Console) -> None:
    """Report images without features, which no query can find."""
    if names:
        console.say(f"{plural(len(names), 'photograph')} without features, which no query can find: {named(names)}; "
                    f"`asmk-engine info {place} --without-features` lists them")  # fmt: skip


def allowed_removal(
    images: Sequence[tuple[str, Root]], found: ImageList, failures: Failures, console: Console, *, yes: bool
) -> list[str] | None:
    """Return the names that `--prune` may remove, or None if it must not because they are more than half.

    images  names and roots of all images of the index or feature set
    yes     allow more than half, and images of folders that are empty, as the folder of an unmounted disk is
    """
    from asmk_engine.extraction.intake import find_vanished

    vanished = find_vanished(images, found)
    gone = [*vanished.gone, *(vanished.doubtful if yes else ())]
    if vanished.doubtful and not yes:
        console.say(f"{plural(len(vanished.doubtful), 'image')} kept, since the folder is empty, as that of an "
                    "unmounted disk is: --prune --yes removes them")  # fmt: skip
    if 2 * len(gone) > len(images) and not yes:
        failures.add(f"--prune would remove {len(gone)} of {plural(len(images), 'image')}, more than half, and removed "
                     "none: add --yes to allow this")  # fmt: skip
        return None
    return gone


def report_removal(removed: Sequence[str], console: Console, total: int | None = None) -> None:
    """Report the images that `--prune` removes.

    total  number of images before, if known
    """
    if removed:
        count = f"{len(removed)} of {plural(total, 'image')}" if total else plural(len(removed), "image")
        console.say(f"--prune removes {count}: {named(removed)}")


def named(names: Collection[str] | Mapping[str, str], limit: int = NAMED) -> str:
    """Return the first few names, quoted, each with that of its duplicate if there is one, and how many more."""
    twins = names if isinstance(names, Mapping) else {}
    texts = [f"{name!r} (= {twins[name]!r})" if twins.get(name) else repr(name) for name in list(names)[:limit]]
    return list_first(texts, len(names))


def _hints(kinds: Mapping[str, int]) -> str:
    from asmk_engine.images.kinds import HEIF_SUFFIXES

    hints = []
    if any(suffix in kinds for suffix in HEIF_SUFFIXES):
        hints.append("`pip install 'asmk-engine[heif]'` reads HEIC and AVIF")
    if any(not kind.startswith(".") for kind in kinds):
        hints.append("--all-files includes those that are images by content")
    return f" ({'; '.join(hints)})" if hints else ""


def _each(console: Console, lines: Sequence[str], all_of_them: str = "") -> None:
    for line in lines[:SHOWN]:
        console.say(line)
    if len(lines) > SHOWN:
        console.say(f"… and {len(lines) - SHOWN} more{all_of_them}")
