"""`asmk-engine check` and `repair`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, human_bytes, json_option, plural
from asmk_engine.escape import escape_name

if TYPE_CHECKING:
    from asmk_engine.maintenance.checking import CheckReport, Finding
    from asmk_engine.maintenance.repair import Repair
    from asmk_engine.maintenance.sharded_checking import ShardedReport


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("--fast", is_flag=True, help="Skip the checks that read all codes and image numbers.")
@json_option
@click.pass_context
def check(context: click.Context, index_path: Path, fast: bool, as_json: bool) -> None:
    """Verify the checksums and tables of INDEX.

    Nothing is changed. Exit code 0: the index is clean; there may be notes on files that an interrupted writer left.
    1: the index is damaged, or INDEX is not an index. 2: usage error.

    \b
    Examples:
      asmk-engine check photos.index
      asmk-engine check photos.index --fast --json
    """
    from asmk_engine.maintenance.checking import check_index
    from asmk_engine.maintenance.sharded_checking import check_sharded
    from asmk_engine.sharding.manifest import is_sharded

    report = (check_sharded if is_sharded(index_path) else check_index)(index_path, fast=fast)
    _print(report.to_json(), _report_lines(report), as_json)
    context.exit(0 if report.clean else 1)


def _print(content: dict[str, Any], lines: Iterator[str], as_json: bool) -> None:
    for line in [json.dumps(content)] if as_json else lines:
        click.echo(line)


def _report_lines(report: CheckReport | ShardedReport) -> Iterator[str]:
    content = report.to_json()
    if report.manifest:
        sizes = f"{plural(content['files'], 'file')}, {human_bytes(content['bytes'])}"
        yield f"{report.path}: commit {content['commit']}, {plural(content['images'], 'image')}, {sizes}"
    yield from map(_finding_line, report.findings)
    if report.clean:
        yield "clean: tables and their checksums" if report.fast else "clean: every checksum and every table"
    else:
        yield f"damaged: `asmk-engine repair {report.path}` shows what can be saved"


def _finding_line(finding: Finding) -> str:
    return f"{finding.kind:<13} {escape_name(finding.file)}: {' '.join(finding.what.split())}"


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("--yes", is_flag=True, help="Make the changes; without this option they are only listed.")
@json_option
def repair(index_path: Path, yes: bool, as_json: bool) -> None:
    """Remove the damaged parts of INDEX and keep a copy of them.

    A damaged segment is removed with its images, damaged deletions are dropped, and a damaged copy of the manifest is
    rewritten from the other copy. Of an index of several kinds of features, a damaged file of one kind is removed, and
    the images keep the others; a damaged file of geometry is removed, and its images are found as before. Removed files
    are moved to a folder dropped-N inside INDEX. Index the photographs again afterwards: only the lost ones are added.

    \b
    Examples:
      asmk-engine repair photos.index
      asmk-engine repair photos.index --yes
    """
    from asmk_engine.maintenance.repair import repair_index
    from asmk_engine.maintenance.sharded_repair import repair_shards
    from asmk_engine.sharding.manifest import is_sharded

    if is_sharded(index_path):
        each = repair_shards(index_path, write=yes)
        content = {"path": str(index_path), "shards": [one.to_json() for one in each]}
        _print(content, (line for one in each for line in _repair_lines(one)), as_json)
        return
    done = repair_index(index_path, write=yes)
    _print(done.to_json(), _repair_lines(done), as_json)


def _repair_lines(done: Repair) -> Iterator[str]:
    yield from map(_finding_line, done.findings)
    if not done.needed:
        yield f"{done.path}: nothing to repair"
        return
    yield from (f"move {name} to {done.folder}" for name in done.moved)
    yield from (f"rewrite {name}" for name in done.rewritten)
    if done.lost:
        yield f"{plural(done.lost, 'image')} lost; names that can still be read: {len(done.lost_names)}"
    yield from (f"lost: {escape_name(name)}" for name in done.lost_names)
    yield from (f"{plural(count, 'image')} kept without {kind}" for kind, count in done.without.items())
    for name, count in done.without_geometry.items():
        yield f"{plural(count, 'image')} kept without the geometry of {escape_name(name)}"
    if done.returned:
        yield f"{plural(done.returned, 'deleted image')} back, since the record of the deletion is lost"
    yield f"{done.path}: repaired, commit {done.commit}" if done.done else "nothing was changed; add --yes to repair"
