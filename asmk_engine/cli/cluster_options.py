"""The options of commands whose work a Ray cluster can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from asmk_engine.cli.common import Console, option_group, plural, was_given

if TYPE_CHECKING:
    from asmk_engine.pipeline.machines import Machines
    from asmk_engine.sharding.hosted_index import HostedIndex

ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Do the work on a Ray cluster: that of the head node at ADDRESS, such as 10.0.0.1:6379; without ADDRESS that "
    "in $RAY_ADDRESS, or that of this machine, or a new one of this machine alone.",
)


class ActorCounts(click.ParamType):
    """`4` or `2:64`: the least and the most actors."""

    name = "min:max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return both numbers; anything else is a usage error."""
        parts = [int(part) if part.isdecimal() else 0 for part in str(value).split(":")]
        if len(parts) > 2 or not 1 <= parts[0] <= parts[-1]:
            self.fail(f"{value!r} is no number of actors; give 4, or the least and the most as 2:64", param, ctx)
        return parts[0], parts[-1]


actor_options = option_group(
    ray_option,
    click.option(
        "--ray-actors",
        type=ActorCounts(),
        metavar="MIN:MAX",
        help="Actors that describe images on the cluster, each with --workers processes and as many processors; more "
        "than fit make an autoscaler add nodes.  [default: from one to as many as fit]",
    ),
    click.option(
        "--ray-gpus",
        type=click.FloatRange(0, 64),
        default=0.0,
        show_default=True,
        metavar="N",
        help="GPUs of each actor, such as 1 or 0.5; 0 describes images on processors.",
    ),
)


search_cluster_options = option_group(
    click.option(
        "--ray",
        is_flag=False,
        flag_value="auto",
        metavar="[ADDRESS]",
        help="Search a sharded index on a Ray cluster, each shard on a node that can read it: that of the head node at "
        "ADDRESS, such as 10.0.0.1:6379; without ADDRESS that in $RAY_ADDRESS, or that of this machine, or a new one "
        "of this machine alone.",
    ),
    click.option(
        "--replicas", type=click.IntRange(1, 64), default=1, show_default=True, help="Actors of each shard, with --ray."
    ),
    click.option(
        "--deadline",
        type=click.FloatRange(0.01),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="Time that shards have to answer, with --ray.",
    ),
    click.option(
        "--allow-partial",
        is_flag=True,
        help="With --ray, answer without shards that do not answer, and say which, instead of an error.",
    ),
)


_OF_HOSTS = ("replicas", "deadline", "allow_partial")


def cluster_options_of(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of `search_cluster_options` out of those of a command; a usage error without --ray."""
    found = {name: options.pop(name) for name in ("ray", *_OF_HOSTS)}
    given = [f"--{name.replace('_', '-')}" for name in _OF_HOSTS if was_given(name)]
    if given and found["ray"] is None:
        raise click.UsageError(f"{given[0]} needs --ray: add it")
    return found


def cluster_index(path: Path, options: dict[str, Any]) -> HostedIndex | None:
    """Open the index of a search on a cluster; None without --ray.

    options  as `cluster_options_of` returns them
    """
    if options["ray"] is None:
        return None
    from asmk_engine.cluster.search_options import HostingOptions
    from asmk_engine.cluster.searching import open_on_cluster

    return open_on_cluster(path, options["ray"], HostingOptions(options["replicas"], options["deadline"]))


def hosts_of(options: dict[str, Any]) -> Callable[[Path], tuple[Any, Any]] | None:
    """Return what opens the indexes of a server on a cluster, with what searches them; None without --ray."""
    if options["ray"] is None:
        return None

    def opened(path: Path) -> tuple[Any, Any]:
        from asmk_engine.sharding.fused_search import searcher_of_shards

        index = cast("HostedIndex", cluster_index(path, options))
        return index, searcher_of_shards(index, allow_partial=options["allow_partial"])

    return opened


def machines_of(options: dict[str, Any], console: Console) -> Machines | None:
    """Take the options of a cluster out of those of a command and connect; None without --ray."""
    address, actors, gpus = options.pop("ray"), options.pop("ray_actors", None), options.pop("ray_gpus", 0.0)
    if address is None:
        if actors or gpus:
            raise click.UsageError("--ray-actors and --ray-gpus need --ray: add it")
        return None
    from asmk_engine.cluster.image_pool import PoolSize
    from asmk_engine.cluster.machines import RayMachines

    least, most = actors or (1, None)
    machines = RayMachines(address, PoolSize(least, most, max(1, options.get("workers") or 1), gpus))
    console.say(f"cluster: {plural(machines.nodes, 'node')}, {plural(machines.processors, 'processor')}")
    return machines
