"""What a run over images reports: which were left out, changed, duplicate, or ignored, and what it could not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asmk_engine.extraction.intake import find_vanished
from asmk_engine.extraction.run import ExtractionSummary
from asmk_engine.images.kinds import HEIF_SUFFIXES
from asmk_engine.images.listing import LEADS_NOWHERE, ImageList
from asmk_engine.images.roots import Root
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.iteration import Display
from asmk_engine.pipeline.failures import Failures
from asmk_engine.pipeline.wording import named, plural

SHOWN = 20


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


class Reporter:
    """Shows what a run did, and collects what it could not do.

    display   where messages are shown
    failures  what the user has to act upon, raised when everything else is done
    remarks   what did not stop the run and may be unexpected: options without effect, a missing network, broken links
    left      images whose present content is not in the output
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self.failures = Failures()
        self.remarks: list[str] = []
        self.left = Left()

    def say(self, message: str) -> None:
        """Show one line."""
        self.display.say(message)

    def remark(self, message: str) -> None:
        """Show one line, and keep it for the caller."""
        self.remarks.append(message)
        self.say(message)

    def report_extraction(self, summary: ExtractionSummary, output: object) -> None:
        """Report the counts of an extraction, and each skipped image with its reason."""
        self._each([f"skipped {name!r}: {reason}" for name, reason in summary.failed.items()],
                   f"; `asmk-engine info {output} --failures` lists all")  # fmt: skip
        self._each([f"note on {name!r}: {note}" for name, note in summary.notes.items()])
        self.say(
            f"{output}: {plural(summary.extracted, 'image')} extracted ({summary.images_per_second:.1f} images/s), "
            f"{len(summary.intake.unchanged)} unchanged, {len(summary.failed)} skipped"
        )

    def report_found(self, found: ImageList) -> None:
        """Report what a run did not read: unreadable folders, files that are not images, files given twice."""
        unsearched = {place: f"not searched: {place}: {reason}" for place, reason in found.unlisted.items()}
        self._each(list(unsearched.values()))
        locked = [place for place, reason in found.unlisted.items() if reason != LEADS_NOWHERE]
        self.remarks += [line for place, line in unsearched.items() if place not in locked]
        if locked:
            self.failures.add(f"{plural(len(locked), 'folder')} could not be searched, such as {locked[0]}: change the "
                              "permissions and run the command again")  # fmt: skip
        if found.same:
            self.say(f"{plural(len(found.same), 'file')} given twice, as a link or below two folders, "
                     f"and used once: {named(found.same)}")  # fmt: skip
        if found.passed_over:
            kinds = sorted(found.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
            self.say(f"ignored: {', '.join(f'{count} {kind}' for kind, count in kinds)}{_hints(found.passed_over)}")

    def report_left(self) -> None:
        """Report which images were left out in their present content, and which options would include them."""
        left, cure = self.left, "--update replaces the old ones, --prefix NAME keeps both"
        if left.same:
            self.say(f"{plural(len(left.same), 'file')} already known under other names: {named(left.same)}")
        if left.changed:
            self.failures.add(
                f"{plural(len(left.changed), 'photograph')} whose file was replaced by another: "
                f"{named(left.changed)}; the old ones are kept: {cure}"
            )
        if left.taken:
            self.failures.add(
                f"{plural(len(left.taken), 'photograph')} left out, since other photographs have their names: "
                f"{named(left.taken)}; {cure}"
            )

    def report_duplicates(self, summary: AddSummary) -> None:
        """Report images whose content is present under several names."""
        if summary.duplicates:
            self.say(f"{plural(len(summary.duplicates), 'photograph')} with the same content as others: "
                     f"{named(summary.duplicates)}")  # fmt: skip

    def report_without_features(self, names: Sequence[str], place: object) -> None:
        """Report images without features, which no query can find."""
        if names:
            self.say(f"{plural(len(names), 'photograph')} without features, which no query can find: {named(names)}; "
                     f"`asmk-engine info {place} --without-features` lists them")  # fmt: skip

    def report_removal(self, removed: Sequence[str], total: int | None = None) -> None:
        """Report the images that `--prune` removes.

        total  number of images before, if known
        """
        if removed:
            count = f"{len(removed)} of {plural(total, 'image')}" if total else plural(len(removed), "image")
            self.say(f"--prune removes {count}: {named(removed)}")

    def allowed_removal(self, images: Sequence[tuple[str, Root]], found: ImageList, *, yes: bool) -> list[str] | None:
        """Return the names that `--prune` may remove, or None if it must not because they are more than half.

        images  names and roots of all images of the index or feature set
        yes     allow more than half, and images of folders that are empty, as the folder of an unmounted disk is
        """
        vanished = find_vanished(images, found)
        gone = [*vanished.gone, *(vanished.doubtful if yes else ())]
        if vanished.doubtful and not yes:
            self.say(f"{plural(len(vanished.doubtful), 'image')} kept, since the folder is empty, as that of an "
                     "unmounted disk is: --prune --yes removes them")  # fmt: skip
        if 2 * len(gone) > len(images) and not yes:
            self.failures.add(f"--prune would remove {len(gone)} of {plural(len(images), 'image')}, more than half, "
                              "and removed none: add --yes to allow this")  # fmt: skip
            return None
        return gone

    def counts(self, summary: AddSummary) -> str:
        """Return the counts of an addition in words."""
        left = self.left
        there = summary.unchanged + len({**left.same, **summary.same})
        parts = [f"{summary.added} added", f"{summary.replaced} replaced", f"{there} already indexed",
                 f"{summary.removed} removed"]  # fmt: skip
        parts += [f"{summary.moved} found in another folder"] if summary.moved else []
        kept = {*left.changed, *left.taken, *summary.changed, *summary.taken}
        return ", ".join([*parts, *([f"{len(kept)} left out, see below"] if kept else [])])

    def _each(self, lines: Sequence[str], all_of_them: str = "") -> None:
        for line in lines[:SHOWN]:
            self.say(line)
        if len(lines) > SHOWN:
            self.say(f"… and {len(lines) - SHOWN} more{all_of_them}")


def _hints(kinds: Mapping[str, int]) -> str:
    hints = []
    if any(suffix in kinds for suffix in HEIF_SUFFIXES):
        hints.append("`pip install 'asmk-engine[heif]'` reads HEIC and AVIF")
    if any(not kind.startswith(".") for kind in kinds):
        hints.append("--all-files includes those that are images by content")
    return f" ({'; '.join(hints)})" if hints else ""
