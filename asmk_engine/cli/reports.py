"""What a run that took in photographs says at its end: what was left, changed, there twice, or passed over."""

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
    """Photographs of a run that are not in the output as they are now, by name; see `AddSummary`."""

    changed: dict[str, None] = field(default_factory=dict)
    taken: dict[str, None] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    def note(self, intake: Any) -> None:
        """Add what an `Intake` or an `AddSummary` says."""
        self.changed |= dict.fromkeys(intake.changed)
        self.taken |= dict.fromkeys(intake.taken)
        self.same |= intake.same


def report_extraction(summary: ExtractionSummary, output: object, console: Console) -> None:
    """Say what was done, and each image that was skipped with its reason."""
    _each(console, [f"skipped {name!r}: {reason}" for name, reason in summary.failed.items()],
          f"; `asmk-engine info {output} --failures` lists all")  # fmt: skip
    _each(console, [f"note on {name!r}: {note}" for name, note in summary.notes.items()])
    console.say(
        f"{output}: {plural(summary.extracted, 'image')} extracted ({summary.images_per_second:.1f} images/s), "
        f"{len(summary.intake.unchanged)} unchanged, {len(summary.failed)} skipped"
    )


def report_found(found: ImageList, failures: Failures, console: Console) -> None:
    """Say what a run was not given to read: folders that are locked, files that are no images, files named twice."""
    from asmk_engine.images.listing import LEADS_NOWHERE

    _each(console, [f"not looked into {place}: {reason}" for place, reason in found.unlisted.items()])
    locked = [place for place, reason in found.unlisted.items() if reason != LEADS_NOWHERE]
    if locked:
        failures.add(f"{plural(len(locked), 'folder')} could not be looked into, such as {locked[0]}: change the "
                     "permissions and run it again")  # fmt: skip
    if found.same:
        console.say(f"{plural(len(found.same), 'file')} named twice in this call, as a link or below two folders, "
                    f"taken once: {named(found.same)}")  # fmt: skip
    if found.passed_over:
        kinds = sorted(found.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
        console.say(f"passed over: {', '.join(f'{count} {kind}' for kind, count in kinds)}{_hints(found.passed_over)}")


def report_left(left: Left, failures: Failures, console: Console) -> None:
    """Say which photographs are not taken in as they are, and what would take them in."""
    cure = "--update replaces what is there, --prefix NAME keeps both"
    if left.same:
        console.say(f"{plural(len(left.same), 'file')} there already under other names: {named(left.same)}")
    if left.changed:
        failures.add(
            f"{plural(len(left.changed), 'photograph')} replaced by others since they were taken in: "
            f"{named(left.changed)}; what they were is kept: {cure}"
        )
    if left.taken:
        failures.add(
            f"{plural(len(left.taken), 'photograph')} not taken in, since other photographs bear their names: "
            f"{named(left.taken)}; {cure}"
        )


def report_duplicates(summary: AddSummary, console: Console) -> None:
    """Say which contents are there under several names."""
    if summary.duplicates:
        console.say(f"{plural(len(summary.duplicates), 'photograph')} with the same content as others: "
                    f"{named(summary.duplicates)}")  # fmt: skip


def told(summary: AddSummary, left: Left) -> str:
    """The counts of an addition in words."""
    there = summary.unchanged + len({**left.same, **summary.same})
    parts = [f"{summary.added} added", f"{summary.replaced} replaced", f"{there} there already",
             f"{summary.removed} removed"]  # fmt: skip
    parts += [f"{summary.moved} found in another folder"] if summary.moved else []
    kept = {*left.changed, *left.taken, *summary.changed, *summary.taken}
    return ", ".join([*parts, *([f"{len(kept)} left out, see below"] if kept else [])])


def report_without_features(names: Sequence[str], place: object, console: Console) -> None:
    """Say which photographs have no features, so that nothing finds them."""
    if names:
        console.say(f"{plural(len(names), 'photograph')} without features, which no query finds: {named(names)}; "
                    f"`asmk-engine info {place} --without-features` lists them")  # fmt: skip


def allowed_removal(
    images: Sequence[tuple[str, Root]], found: ImageList, failures: Failures, console: Console, *, yes: bool
) -> list[str] | None:
    """The names that `--prune` may remove; None where it must not, since they are more than half.

    images  names and roots of all that is there
    yes     also when they are more than half, or when their folders are empty, as a disk that is not mounted is
    """
    from asmk_engine.extraction.intake import find_vanished

    vanished = find_vanished(images, found)
    gone = [*vanished.gone, *(vanished.doubtful if yes else ())]
    if vanished.doubtful and not yes:
        console.say(f"{plural(len(vanished.doubtful), 'image')} kept, since the folder is there but empty, as that of "
                    "a disk which is not mounted: --prune --yes removes them")  # fmt: skip
    if 2 * len(gone) > len(images) and not yes:
        failures.add(f"--prune would remove {len(gone)} of {plural(len(images), 'image')}, more than half, and removed "
                     "none: give --yes if that is right")  # fmt: skip
        return None
    return gone


def report_removal(removed: Sequence[str], console: Console, total: int | None = None) -> None:
    """Say what `--prune` removes, of how many images where that is known."""
    if removed:
        count = f"{len(removed)} of {plural(total, 'image')}" if total else plural(len(removed), "image")
        console.say(f"--prune removes {count}: {named(removed)}")


def named(names: Collection[str] | Mapping[str, str], limit: int = NAMED) -> str:
    """The first few names, quoted, each with the name of its twin where there is one, and how many more."""
    twins = names if isinstance(names, Mapping) else {}
    texts = [f"{name!r} (= {twins[name]!r})" if twins.get(name) else repr(name) for name in list(names)[:limit]]
    return list_first(texts, len(names))


def _hints(kinds: Mapping[str, int]) -> str:
    from asmk_engine.images.kinds import HEIF_SUFFIXES

    hints = []
    if any(suffix in kinds for suffix in HEIF_SUFFIXES):
        hints.append("`pip install 'asmk-engine[heif]'` reads HEIC and AVIF")
    if any(not kind.startswith(".") for kind in kinds):
        hints.append("--all-files takes those that are images by their content")
    return f" ({'; '.join(hints)})" if hints else ""


def _each(console: Console, lines: Sequence[str], all_of_them: str = "") -> None:
    for line in lines[:SHOWN]:
        console.say(line)
    if len(lines) > SHOWN:
        console.say(f"… and {len(lines) - SHOWN} more{all_of_them}")
