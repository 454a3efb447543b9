"""The groups of an index, found in the background when somebody asks."""

from __future__ import annotations

import threading
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


class FoundGroups:
    """The groups that were found of each index, as JSON values."""

    def __init__(self) -> None:
        self._known: dict[str, list[dict[str, Any]]] = {}
        self._alone: dict[str, int] = {}
        self._of_name: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def find(self, job: BackgroundJob, served: ServedIndex) -> str:
        """Find the groups of the present commit; returns what was found."""
        if not served.verifies:
            raise Refusal(422, f"{served.name}: global descriptors have no places, by which groups are found")
        found = find_groups(open_index(served.path), display=job)
        self._keep(served.name, found)
        return f"{plural(len(found), 'group')}, {plural(len(found.alone), 'image')} alone"

    def _keep(self, index: str, found: Groups) -> None:
        values: list[dict[str, Any]] = [
            {
                "number": number,
                "images": list(group.images),
                "photographs": [list(names) for names in group.photographs],
                "kinds": {name: kind for name, (kind, _) in kinds_in(group).items()},
            }
            for number, group in enumerate(found, start=1)
        ]
        of_name = {name: place for place, group in enumerate(values) for name in group["images"]}
        with self._lock:
            self._known[index], self._alone[index], self._of_name[index] = values, len(found.alone), of_name

    def of_image(self, index: str, name: str) -> dict[str, Any] | None:
        """Return the group of an image: number, images and kinds; None without one."""
        place = self._of_name.get(index, {}).get(name)
        return None if place is None else self._known[index][place]

    def state(self, index: str, job: BackgroundJob | None) -> str:
        """Return `running`, `ready` or `none`."""
        return "running" if job is not None else "ready" if index in self._known else "none"

    def page(self, index: str, job: BackgroundJob | None, after: int, limit: int) -> dict[str, Any]:
        """Return some groups, those that follow number `after`, as JSON values."""
        known = self._known.get(index, [])
        share = job.done / job.total if job is not None and job.total else None
        return {
            "state": self.state(index, job),
            "job": None if job is None else job.key,
            "progress": None if share is None else round(share, 4),
            "total": len(known),
            "alone": self._alone.get(index, 0),
            "groups": known[after : after + limit],
            "next": after + limit if after + limit < len(known) else None,
        }
