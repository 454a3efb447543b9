"""A sharded index opened on a cluster."""

from __future__ import annotations

from pathlib import Path

from asmk_engine.cluster.connecting import AUTO, connect
from asmk_engine.cluster.ray_hosts import RayHosts
from asmk_engine.cluster.search_options import HostingOptions
from asmk_engine.errors import InputError
from asmk_engine.sharding.hosted_index import HostedIndex
from asmk_engine.sharding.manifest import is_sharded, read_sharded
from asmk_engine.storage.folder import Folder


def open_on_cluster(path: Path | str, address: str = AUTO, options: HostingOptions | None = None) -> HostedIndex:
    """Open a sharded index whose shards are answered for by actors of a cluster, for `searcher_of_shards`.

    Parameters
    ----------
    path : path-like
        The folder of the sharded index, which this process reads; the shards may be where only their nodes see them.
    address : str, default "auto"
        host:port of the head node; or the cluster in RAY_ADDRESS, the one of this machine, or a new one.
    options : HostingOptions, optional
        Replicas, deadline and hedging.

    Returns
    -------
    HostedIndex

    Raises
    ------
    InputError
        If the index is not sharded.
    NotFoundError, MismatchError, StorageError, DependencyError
        If there is no such cluster, a node has other versions, Ray refuses, or Ray is not installed.
    """
    if Path(path).is_dir() and not is_sharded(path):
        raise InputError(
            f"{path}: is one index, but --ray needs shards; `asmk-engine shard {path} -o photos.shards --shards N` "
            "makes them"
        )
    read_sharded(Folder(path))  # says what is wrong before a cluster is started
    hosts = RayHosts(connect(address), options)
    index = HostedIndex(path, hosts)
    hosts.start(index.snapshot.pinned)
    return index
