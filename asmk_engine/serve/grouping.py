"""The groups of an index, found in the background when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asmk_engine.groups.finding import find_groups
from asmk_engine.groups.model import Groups
from asmk_engine.groups.writing import kinds_in
from asmk_engine.pipeline.wording import plural
from asmk_engine.search.opening import open_index
from asmk_engine.serve.jobs import BackgroundJob
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.shelf import ServedIndex

KIND = "groups"


@dataclass(frozen=True)
class KnownGroups:
    """The groups of one commit as JSON values.

    state    of the index: its identity and commit
    groups   the largest first
    alone    number of images in none
    of_name  place of the group of an image
    """

    state: tuple[str, int]
    groups: list[dict[str, Any]]
    alone: int
    of_name: dict[str, int]


class FoundGroups:
    """The groups that were found of each index; those of images that are gone by now are left out."""

    def __init__(self) -> None:
        self._known: dict[str, KnownGroups] = {}

    def find(self, job: BackgroundJob, served: ServedIndex) -> str:
        """Find the groups of the present commit, unless they are known; returns what was found."""
        if not served.verifies:
            raise Refusal(422, f"{served.name}: global descriptors have no places, by which groups are found")
        known = self._known.get(served.name)
        if known is None or known.state != served.state:
            index: Any = open_index(served.path)
            manifest = index.snapshot.manifest
            found = find_groups(index, display=job)
            known = _known(found, (manifest.identity, manifest.commit))
            self._known[served.name] = known
        return f"{plural(len(known.groups), 'group')}, {plural(known.alone, 'image')} alone"

    def _of(self, served: ServedIndex) -> KnownGroups | None:
        """Return what is known of an index, None if another index took its place."""
        known = self._known.get(served.name)
        return known if known is not None and known.state[0] == served.state[0] else None

    def of_image(self, served: ServedIndex, name: str) -> dict[str, Any] | None:
        """Return the group of an image: number, images and kinds; None without one."""
        known = self._of(served)
        place = None if known is None else known.of_name.get(name)
        return None if known is None or place is None else _living(known.groups[place], served)

    def state(self, served: ServedIndex, job: BackgroundJob | None) -> str:
        """Return `running`, `ready` or `none`."""
        return "running" if job is not None else "none" if self._of(served) is None else "ready"

    def page(self, served: ServedIndex, job: BackgroundJob | None, after: int, limit: int) -> dict[str, Any]:
        """Return some groups, those that follow number `after`, as JSON values."""
        known = self._of(served) or KnownGroups(served.state, [], 0, {})
        share = job.done / job.total if job is not None and job.total else None
        return {
            "state": self.state(served, job),
            "job": None if job is None else job.key,
            "progress": None if share is None else round(share, 4),
            "total": len(known.groups),
            "alone": known.alone,
            "groups": [_living(group, served) for group in known.groups[after : after + limit]],
            "next": after + limit if after + limit < len(known.groups) else None,
        }


def _known(found: Groups, state: tuple[str, int]) -> KnownGroups:
    groups: list[dict[str, Any]] = [
        {
            "number": number,
            "images": list(group.images),
            "photographs": [list(names) for names in group.photographs],
            "kinds": {name: kind for name, (kind, _) in kinds_in(group).items()},
        }
        for number, group in enumerate(found, start=1)
    ]
    of_name = {name: place for place, group in enumerate(groups) for name in group["images"]}
    return KnownGroups(state, groups, len(found.alone), of_name)


def _living(group: dict[str, Any], served: ServedIndex) -> dict[str, Any]:
    """Return a group without the images that were deleted since it was found."""
    living = {name for name in group["images"] if name in served.index}
    if len(living) == len(group["images"]):
        return group
    photographs = [[name for name in names if name in living] for names in group["photographs"]]
    return {
        "number": group["number"],
        "images": [name for name in group["images"] if name in living],
        "photographs": [names for names in photographs if names],
        "kinds": {name: kind for name, kind in group["kinds"].items() if name in living},
    }
