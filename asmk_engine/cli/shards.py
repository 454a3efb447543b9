"""`asmk-engine shard` and `asmk-engine shards`."""

from __future__ import annotations

from pathlib import Path

import click

from asmk_engine.cli.common import PATH, Console, plural, quiet_option


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("-o", "--output", type=PATH, required=True, help="Sharded index (a new folder), such as photos.shards.")
@click.option("--shards", "count", type=click.IntRange(1, 1024), required=True, help="Number of shards.")
@quiet_option
def shard(index_path: Path, output: Path, count: int, quiet: bool) -> None:
    """Divide an index into shards, for several machines.

    INDEX stays as it is. Each image is copied to the shard that its name belongs to. A sharded index takes the commands
    `query`, `evaluate`, `classify`, `serve`, `index` (to add images), `delete`, `restore`, `merge`, `info`, `check` and
    `repair`, and gives the answers of INDEX, bit for bit. A change of several shards is one commit.

    \b
    Examples:
      asmk-engine shard photos.index -o photos.shards --shards 4
      asmk-engine index more/ -o photos.shards
    """
    from asmk_engine.sharding.layout import shard_index

    console = Console(quiet)
    with console.bar("shard", "shards") as progress:
        made = shard_index(index_path, output, count, on_shard=progress)
    console.say(f"{output}: {plural(made.images, 'image')} in {plural(count, 'shard')}")


@click.group()
def shards() -> None:
    """Split, join and move the shards of an index.

    SHARD is a folder as `info` lists it, or its number from 1. Photographs and features are not needed, and all answers
    stay the same. An interrupted command changes nothing.
    """


@shards.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("which", metavar="SHARD")
@click.option("--to", type=PATH, help="Folder of the new shard, such as one on another node.  [default: inside INDEX]")
@quiet_option
def split(index_path: Path, which: str, to: Path | None, quiet: bool) -> None:
    """Move half of a shard to a new one.

    \b
    Examples:
      asmk-engine shards split photos.shards shard-0001
      asmk-engine shards split photos.shards 1 --to /mnt/node2/photos-5
    """
    from asmk_engine.sharding.layout import split_shard

    made = split_shard(index_path, which, to)
    _say(index_path, f"{which} split, the new shard is {made}", quiet)


@shards.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("which", metavar="SHARD")
@click.argument("into", metavar="INTO")
@quiet_option
def join(index_path: Path, which: str, into: str, quiet: bool) -> None:
    """Move all images of a shard into another one.

    \b
    Example:
      asmk-engine shards join photos.shards shard-0002 shard-0001
    """
    from asmk_engine.sharding.layout import join_shards

    join_shards(index_path, which, into)
    _say(index_path, f"{which} joined with {into}", quiet)


@shards.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("which", metavar="SHARD")
@click.argument("folder", type=PATH, metavar="FOLDER")
@quiet_option
def move(index_path: Path, which: str, folder: Path, quiet: bool) -> None:
    """Move a shard to another folder, as of another node.

    If the shard was moved there by other means, its new place is noted.

    \b
    Example:
      asmk-engine shards move photos.shards shard-0002 /mnt/node2/photos-2
    """
    from asmk_engine.sharding.layout import move_shard

    move_shard(index_path, which, folder)
    _say(index_path, f"{which} moved to {folder}", quiet)


def _say(path: Path, done: str, quiet: bool) -> None:
    from asmk_engine.sharding.index import ShardedIndex

    console = Console(quiet)
    index = ShardedIndex.open(path)
    console.say(f"{path}: {done}; {plural(index.images, 'image')} in {plural(len(index.shards), 'shard')}")
