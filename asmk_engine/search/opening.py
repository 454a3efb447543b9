"""Opening an index of any kind, and several as one.

The kinds are imported when they are met, so that a query of one kind does not wait for the code of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, read_manifest
from asmk_engine.storage.folder import Folder

if TYPE_CHECKING:
    from asmk_engine.flat.index import GlobalIndex
    from asmk_engine.fused.index import FusedIndex
    from asmk_engine.indexes.joint import JointIndex
    from asmk_engine.inverted.index import Index
    from asmk_engine.sharding.index import ShardedIndex


def open_any(path: Path | str) -> Index | GlobalIndex | FusedIndex | ShardedIndex:
    """Open an index of any kind, sharded or not; raises as `Index.open` and `ShardedIndex.open`."""
    from asmk_engine.sharding.manifest import is_sharded

    if is_sharded(path):
        from asmk_engine.sharding.index import ShardedIndex

        return ShardedIndex.open(path)
    return open_index(path)


def state_of(path: Path | str) -> tuple[str, str, int]:
    """Return kind, identity and number of the last commit of an index of any kind, sharded or not."""
    from asmk_engine.sharding.manifest import is_sharded, read_sharded

    manifest = read_sharded(Folder(path)) if is_sharded(path) else read_manifest(Folder(path))
    return manifest.kind, manifest.identity, manifest.commit


def open_index(path: Path | str) -> Index | GlobalIndex | FusedIndex:
    """Open an index of local features, of global descriptors, or of several kinds; raises as `Index.open`."""
    kind = read_manifest(Folder(path)).kind
    if kind == FUSED_KIND:
        from asmk_engine.fused.index import FusedIndex

        return FusedIndex.open(path)
    if kind == GLOBAL_KIND:
        from asmk_engine.flat.index import GlobalIndex

        return GlobalIndex.open(path)
    from asmk_engine.inverted.index import Index

    return Index.open(path)


def plain_searcher(index: Any) -> Any:
    """Return a searcher with default options for an opened index of any kind."""
    from asmk_engine.flat.codec import Codec
    from asmk_engine.fused.snapshot import Fusion

    encoder = index.snapshot.encoder
    if isinstance(encoder, Fusion):
        from asmk_engine.fused.search import FusedSearcher

        return FusedSearcher(index)
    if isinstance(encoder, Codec):
        from asmk_engine.flat.search import GlobalSearcher

        return GlobalSearcher(index)
    from asmk_engine.inverted.search import Searcher

    return Searcher(index)


def join_indexes(indexes: Sequence[Any], distractors: Sequence[Any] = ()) -> JointIndex[Any]:
    """Return several opened indexes as one, see `JointIndex`, whose errors it raises."""
    from asmk_engine.fused.index import FusedIndex
    from asmk_engine.fused.joint import JointFusedIndex
    from asmk_engine.indexes.joint import JointIndex

    parts, others = _with_shards(indexes), _with_shards(distractors)
    are_fused = isinstance(parts[0], FusedIndex) if parts else False
    return (JointFusedIndex if are_fused else JointIndex)(parts, others)


def _with_shards(indexes: Sequence[Any]) -> list[Any]:
    """Return indexes with those that are sharded replaced by their shards."""
    return [part for index in indexes for part in getattr(index, "shards", (index,))]
