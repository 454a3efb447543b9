"""Questions to all shards of an index, and which of them did not answer."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.errors import AsmkWarning, StorageError
from asmk_engine.indexes.answers import Hit
from asmk_engine.inverted.statistics import total_statistics
from asmk_engine.sharding.hosted_index import HostedCommit, missing_text
from asmk_engine.sharding.hosts import CountedWords, ShardHosts


class ShardedHits(list[Hit]):
    """The answer to a query; `missing` are the folders of shards that did not answer, whose images are left out."""

    def __init__(self, hits: Iterable[Hit], missing: Sequence[str] = ()) -> None:
        super().__init__(hits)
        self.missing = tuple(missing)


def missing_shards(hits: list[Hit]) -> tuple[str, ...]:
    """Return the folders of shards that did not answer, none for an answer that is whole."""
    return hits.missing if isinstance(hits, ShardedHits) else ()


class ShardAsker:
    """Asks the shards of an index; safe to use from several threads, each of which has its own shards that are missing.

    path           the sharded index
    hosts          what answers for the shards
    allow_partial  whether the answers of some shards are enough
    """

    def __init__(self, path: Path, hosts: ShardHosts, allow_partial: bool) -> None:
        self.path, self._hosts, self._allow_partial = path, hosts, allow_partial
        self._counted: weakref.WeakKeyDictionary[HostedCommit, CountedWords] = weakref.WeakKeyDictionary()
        self._missing = threading.local()

    def ask(self, commit: HostedCommit, method: str, requests: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call a method of `ShardHost` for some shards.

        Raises StorageError for a shard that does not answer, unless the others are enough; then it is noted.
        """
        answers = self._hosts.ask(method, requests, commit.pinned)
        for number, reason in answers.missing.items():
            if not self._allow_partial or not answers.found:
                raise StorageError(missing_text(self.path, commit, number, reason))
            folder = commit.manifest.shards[number].folder
            self._noted[folder] = (
                f"{self.path}: the answer lacks the images of the shard {folder}, which did not answer: {reason}"
            )
        return answers.found

    def ask_all(self, commit: HostedCommit, method: str, *arguments: Any) -> dict[int, Any]:
        """Call a method of `ShardHost` for all shards, with the same arguments."""
        return self.ask(commit, method, dict.fromkeys(range(len(commit.pinned)), arguments))

    def words(self, commit: HostedCommit) -> CountedWords:
        """Return the words of all shards, counted once for each commit; every shard has to answer."""
        if commit not in self._counted:
            answers = self._hosts.ask("statistics", dict.fromkeys(range(len(commit.pinned)), ()), commit.pinned)
            for number, reason in answers.missing.items():
                raise StorageError(missing_text(self.path, commit, number, reason))
            kinds = zip(*answers.found.values(), strict=True)
            key = commit.manifest.identity, commit.manifest.commit
            counted = [None if parts[0] is None else total_statistics(parts) for parts in kinds]
            self._counted[commit] = CountedWords(key, tuple(counted))
        return self._counted[commit]

    def begin(self) -> None:
        """Forget which shards were missing from the answers of this thread."""
        self._missing.found = {}

    def whole(self, answers: list[list[Hit]]) -> list[list[Hit]]:
        """Return answers with the shards that are missing since `begin`, each with a warning."""
        for text in self._noted.values():
            warnings.warn(text, AsmkWarning, stacklevel=5)
        return [ShardedHits(hits, list(self._noted)) for hits in answers]

    @property
    def _noted(self) -> dict[str, str]:
        """The missing shards of this thread, each with a sentence about it."""
        if not hasattr(self._missing, "found"):
            self.begin()
        found: dict[str, str] = self._missing.found
        return found
