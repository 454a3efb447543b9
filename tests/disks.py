"""Simulated disks that record, refuse or lose requests: replacements for `asmk_engine.storage.system`.

A recorded history can be cut after any request, as by a killed process (everything before the cut is there) or by a
power cut (of what was not synced, any part is there).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from asmk_engine.storage import system

# Requests that can fail or be the last one; closing and unlocking always work, or nothing could be tested in a process.
REQUESTS = ("make_folder", "names", "create", "write", "resize", "sync_file", "sync_folder", "replace", "remove",
            "size", "map_file", "lock")  # fmt: skip
SECTOR = 512


def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing costs nothing; for what is not about power cuts."""
    for request in ("sync_file", "sync_folder"):
        monkeypatch.setattr(system, request, lambda path: None)


class CountedDisk:
    """Numbers the requests from 1; `react` is called before each and may raise. A write that fails is half done.

    A server of other tests in this process looks for new commits now and then; its requests are not counted.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, react: Callable[[int], None]) -> None:
        self.count = 0
        self._react = react
        for request in REQUESTS:
            monkeypatch.setattr(system, request, self._counted(request, getattr(system, request)))

    def _counted(self, request: str, original: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            if threading.current_thread().name == "asmk-refresh":
                return original(*arguments)
            self.count += 1
            try:
                self._react(self.count)
            except BaseException:
                if request == "write":
                    file, place, data = arguments
                    original(file, place, data[: len(data) // 2])
                raise
            return original(*arguments)

        return counted


@dataclass(frozen=True)
class Event:
    """One request, or a mark: what it did to which inode or which names."""

    kind: str
    inode: int = -1
    path: Path | None = None
    new: Path | None = None
    place: int = 0
    data: bytes = b""


class RecordingDisk:
    """Carries out every request below `root` and keeps it; syncing is only noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self._inodes: dict[Path, int] = {}
        self._open: dict[int, int] = {}
        self._made = 0
        self._originals = {name: getattr(system, name) for name in (*REQUESTS, "close")}
        for name in ("make_folder", "create", "write", "resize", "close", "sync_file", "sync_folder", "replace",
                     "remove"):  # fmt: skip
            monkeypatch.setattr(system, name, getattr(self, f"_{name}"))

    def mark(self, text: str) -> None:
        """Note that something was reached."""
        self.events.append(Event(text))

    def _note(self, kind: str, **details: Any) -> None:
        self.events.append(Event(kind, **details))

    def _make_folder(self, path: Path) -> None:
        self._originals["make_folder"](path)
        self._note("make_folder", path=path)

    def _create(self, path: Path) -> IO[bytes]:
        file = self._originals["create"](path)
        self._made += 1
        self._inodes[path] = self._open[file.fileno()] = self._made
        self._note("create", inode=self._made, path=path)
        return file

    def _write(self, file: IO[bytes], place: int, data: bytes | memoryview) -> None:
        self._originals["write"](file, place, data)
        self._note("write", inode=self._open[file.fileno()], place=place, data=bytes(data))

    def _resize(self, file: IO[bytes], size: int) -> None:
        self._originals["resize"](file, size)
        self._note("resize", inode=self._open[file.fileno()], place=size)

    def _close(self, file: IO[bytes]) -> None:
        if not file.closed:
            del self._open[file.fileno()]
        self._originals["close"](file)

    def _sync_file(self, path: Path) -> None:
        self._note("sync_file", inode=self._inodes[path], path=path)

    def _sync_folder(self, path: Path) -> None:
        self._note("sync_folder", path=path)

    def _replace(self, old: Path, new: Path) -> None:
        self._originals["replace"](old, new)
        self._inodes[new] = self._inodes.pop(old)
        self._note("replace", inode=self._inodes[new], path=old, new=new)

    def _remove(self, path: Path) -> None:
        self._originals["remove"](path)
        self._note("remove", inode=self._inodes.pop(path, -1), path=path)


@dataclass
class _Inode:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)


class LostDisk:
    """What is on the disk after some events: everything after a kill, less after a power cut."""

    def __init__(self, events: list[Event], root: Path) -> None:
        self.root = root
        self.inodes: dict[int, _Inode] = {}
        self.names: dict[Path, int] = {}
        self.folders = {root}
        self.pending: dict[Path, list[Event]] = {}
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        if event.kind == "create":
            self.inodes[event.inode] = _Inode()
        if event.kind in ("write", "resize"):
            self.inodes[event.inode].pending.append(event)
        elif event.kind == "sync_file":
            inode = self.inodes[event.inode]
            for write in inode.pending:
                _apply(inode.durable, write)
            inode.pending.clear()
        elif event.kind == "sync_folder" and event.path is not None:
            for change in self.pending.pop(event.path, []):
                self._rename(change)
        elif event.path is not None:
            self.pending.setdefault(event.path.parent, []).append(event)

    def _rename(self, event: Event) -> None:
        if event.kind == "make_folder" and event.path is not None:
            self.folders.add(event.path)
        elif event.kind == "create" and event.path is not None:
            self.names[event.path] = event.inode
        elif event.kind == "remove" and event.path is not None:
            self.names.pop(event.path, None)
        elif event.kind == "replace" and event.path is not None and event.new is not None:
            if self.names.get(event.path) == event.inode:
                del self.names[event.path]
            self.names[event.new] = event.inode

    def kill(self) -> None:
        """Only the process died: the system still writes everything."""
        for changes in self.pending.values():
            for change in changes:
                self._rename(change)
        for inode in self.inodes.values():
            for write in inode.pending:
                _apply(inode.durable, write)

    def cut_power(self, rng: random.Random) -> None:
        """Of the names and bytes that were not synced, any part reached the disk, in any order."""
        share = rng.choice((0.0, 0.3, 0.7, 1.0))
        for changes in self.pending.values():
            for change in changes:  # changes of one name keep their order, those of different names do not
                if rng.random() < share:
                    self._rename(change)
        for inode in self.inodes.values():
            _lose(inode, rng)

    def write_to(self, target: Path) -> None:
        """Lay the disk out in an empty folder."""
        for path in sorted(self.folders):
            if path.parent in self.folders or path == self.root:
                (target / path.relative_to(self.root)).mkdir(parents=True, exist_ok=True)
        for path, inode in self.names.items():
            if path.parent in self.folders:
                (target / path.relative_to(self.root)).write_bytes(self.inodes[inode].durable)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == "resize":
        content[:] = content[: event.place].ljust(event.place, b"\0")
    else:
        end = event.place + len(event.data)
        content.extend(bytes(max(0, end - len(content))))
        content[event.place : end] = event.data


def _lose(inode: _Inode, rng: random.Random) -> None:
    """Apply some of the pending writes, whole, torn at a sector or a byte, or as zeros."""
    writes = list(inode.pending)
    if rng.random() < 0.5:
        rng.shuffle(writes)
    for write in writes:
        fate = rng.choice(("lost", "whole", "torn", "zeros"))
        data = write.data
        if fate == "torn":
            unit = rng.choice((1, SECTOR))
            data = data[: rng.randrange(len(data) // unit + 1) * unit]
        elif fate == "zeros":
            data = bytes(len(data))
        if fate != "lost":
            _apply(inode.durable, Event(write.kind, write.inode, place=write.place, data=data))
