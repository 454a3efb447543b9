"""The life of a neighbour table: built, resumed, stale, damaged, repaired, described; and the commands around it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asmk_engine import GlobalIndex, GlobalSearcher, Hit, Index, Searcher
from asmk_engine.cli import commands
from asmk_engine.diffusion import (
    AugmentingSearcher,
    Diffusion,
    DiffusionSearcher,
    NeighbourAugmentation,
    build_neighbours,
)
from asmk_engine.diffusion.base import neighbour_table
from asmk_engine.errors import AsmkError, DamagedError, InputError, NotFoundError, StorageError
from asmk_engine.flat import Codec
from asmk_engine.indexes.neighbours import map_neighbours, table_name
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder, WriterLock
from disks import fast_disk
from fused_histories import POOL, create, write_sets
from global_samples import DIM, RECIPE, global_images, write_global
from samples import random_codebook, random_images, write_features

COUNT = 20
NAMES = sorted(global_images(COUNT))
QUERY = global_images(3, seed=9)["image 001.jpg"]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A global index of two segments with a feature set, in pieces of six images."""
    fast_disk(monkeypatch)
    monkeypatch.setattr("asmk_engine.diffusion.building.PIECE_IMAGES", 6)
    monkeypatch.setattr("asmk_engine.diffusion.building.STEP_IMAGES", 4)
    images = global_images(COUNT)
    index = GlobalIndex.create(tmp_path / "index", Codec(RECIPE, DIM, "single"))
    for number, names in enumerate((NAMES[:9], NAMES[9:])):
        index.add(write_global(tmp_path / f"{number}.features", {name: images[name] for name in names}))
    return index.path


def tables(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("neighbours-*"))


def search(path: Path) -> list[Hit]:
    index = GlobalIndex.open(path)
    return DiffusionSearcher(GlobalSearcher(index), Diffusion(4)).search(QUERY, None)


def told(path: Path) -> list[tuple[str, str]]:
    return [(finding.file, finding.kind) for finding in check_index(path).findings]


def flip(file: Path, place: float = 0.6) -> None:
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(data)


def test_a_table_is_one_file_that_no_commit_names(path: Path) -> None:
    before = (path / "manifest.json").read_bytes()
    done: list[tuple[int, int]] = []
    table = build_neighbours(GlobalIndex.open(path), 5, on_image=lambda *step: done.append(step))
    assert tables(path) == ["neighbours-000003.safetensors"] and table.width == 5
    assert (path / "manifest.json").read_bytes() == before
    assert done[-1] == (COUNT, COUNT) and [one for one, _ in done] == sorted(one for one, _ in done)
    assert told(path) == []
    assert len(search(path)) == COUNT


def test_a_table_that_is_there_is_kept_if_it_is_as_wide(path: Path) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index, 5)
    inode = (path / tables(path)[0]).stat().st_ino
    assert build_neighbours(index, 5).width == 5
    assert (path / tables(path)[0]).stat().st_ino == inode
    assert build_neighbours(index, 7).width == 7 and len(tables(path)) == 1
    assert build_neighbours(index, 100).width == COUNT - 1


class StoppedError(Exception):
    """What ends a run in a test."""


def stop_at(most: int) -> Any:
    def on_image(done: int, total: int) -> None:
        if done >= most:
            raise StoppedError

    return on_image


def test_an_interrupted_run_resumes_with_the_same_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index, 5)
    expected = (path / tables(path)[0]).read_bytes()
    (path / tables(path)[0]).unlink()
    with pytest.raises(StoppedError):
        build_neighbours(index, 5, on_image=stop_at(13))
    pieces = ["neighbours-000003-0000.safetensors", "neighbours-000003-0001.safetensors"]
    assert tables(path) == pieces
    assert told(path) == [(piece, "note") for piece in pieces]
    with pytest.raises(NotFoundError):
        search(path)
    found: list[int] = []
    nearest = GlobalSearcher.nearest

    def counted(self: Any, vectors: np.ndarray, *arguments: Any, **options: Any) -> Any:
        found.append(len(vectors))
        return nearest(self, vectors, *arguments, **options)

    monkeypatch.setattr(GlobalSearcher, "nearest", counted)
    build_neighbours(index, 5)
    assert sum(found) == COUNT - 12
    assert tables(path) == ["neighbours-000003.safetensors"]
    assert (path / tables(path)[0]).read_bytes() == expected


def test_pieces_that_are_damaged_or_of_another_width_are_found_again(path: Path) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index, 5)
    expected = (path / tables(path)[0]).read_bytes()
    (path / tables(path)[0]).unlink()
    with pytest.raises(StoppedError):
        build_neighbours(index, 3, on_image=stop_at(7))
    with pytest.raises(StoppedError):
        build_neighbours(index, 5, on_image=stop_at(13))
    flip(path / "neighbours-000003-0001.safetensors")
    build_neighbours(index, 5)
    assert (path / "neighbours-000003.safetensors").read_bytes() == expected


@pytest.mark.parametrize("change", ["add", "delete", "merge"])
def test_a_change_of_the_index_removes_the_table(path: Path, change: str) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index)
    stale = (path / "neighbours-000003.safetensors").read_bytes()
    with pytest.raises(StoppedError):
        build_neighbours(index, 3, on_image=stop_at(7))
    assert len(tables(path)) == 2
    if change == "add":
        index.add([("new.jpg", QUERY)], recipe=RECIPE)
    elif change == "delete":
        index.delete(NAMES[:1])
    else:
        index.merge()
    assert tables(path) == []
    with pytest.raises(NotFoundError, match=r"has no neighbour table of commit 4, .* build it with `asmk-engine neigh"):
        search(path)
    (path / "neighbours-000003.safetensors").write_bytes(stale)
    with pytest.raises(NotFoundError, match="its neighbour table is of commit 3, but the index is at commit 4; build"):
        search(path)
    assert told(path) == [("neighbours-000003.safetensors", "note")]
    assert repair_index(path).needed is False
    build_neighbours(index)
    assert len(search(path)) == index.images
    index.delete(NAMES[5:6])
    assert tables(path) == []


def test_what_changes_nothing_keeps_the_table(path: Path) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index)
    index.delete(["nobody.jpg"], missing_ok=True)
    assert tables(path) == ["neighbours-000003.safetensors"]


def test_a_searcher_follows_its_index(path: Path) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index)
    searcher = DiffusionSearcher(GlobalSearcher(index))
    before = searcher.search(QUERY, None)
    index.delete(NAMES[:2])
    with pytest.raises(NotFoundError, match="no neighbour table of commit 4"):
        searcher.search(QUERY)
    build_neighbours(index)
    after = searcher.search(QUERY, None)
    assert {hit.name for hit in before} - {hit.name for hit in after} == {*NAMES[:2]}


def test_a_table_of_another_index_with_this_number_is_not_used(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "copy")
    one, other = GlobalIndex.open(path), GlobalIndex.open(tmp_path / "copy")
    one.delete(NAMES[:1])
    other.delete(NAMES[5:6])
    build_neighbours(one)
    name = table_name(4)
    shutil.copy(path / name, tmp_path / "copy" / name)
    assert map_neighbours(Folder(path), one.snapshot.manifest) is not None
    assert map_neighbours(Folder(other.path), other.snapshot.manifest) is None
    assert told(other.path) == [(name, "note")]
    with pytest.raises(NotFoundError):
        search(other.path)
    build_neighbours(other)
    assert len(search(other.path)) == COUNT - 1


@pytest.mark.parametrize("place", [0.001, 0.02, 0.5, 0.8, 0.999])
def test_a_damaged_table_is_reported_and_dropped(path: Path, place: float) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index)
    expected, name = search(path), tables(path)[0]
    whole = (path / name).read_bytes()
    flip(path / name, place)
    assert told(path) == [(name, "damage")]
    with pytest.raises(DamagedError, match=f"build it again with `asmk-engine neighbours {path}`"):
        search(path)
    before = (path / "manifest.json").read_bytes()
    planned = repair_index(path)
    assert planned.moved == (name,) and not planned.done and (path / name).exists()
    done = repair_index(path, write=True)
    assert done.done and (done.lost, done.returned, done.commit) == (0, 0, 3)
    assert (path / "manifest.json").read_bytes() == before
    assert told(path) == [("dropped-1", "note")] and tables(path) == []
    build_neighbours(index)
    assert search(path) == expected and (path / name).read_bytes() == whole


def test_a_damaged_table_is_built_again_without_a_repair(path: Path) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index)
    expected = search(path)
    for cut in (0, 50, -7):
        data = (path / tables(path)[0]).read_bytes()
        (path / tables(path)[0]).write_bytes(data[:cut])
        with pytest.raises(DamagedError, match="build it again with"):
            search(path)
        build_neighbours(index)
        assert search(path) == expected


@pytest.mark.parametrize("wrong", ["number", "twice", "own", "similarity", "kind", "scales", "rows"])
def test_a_table_with_valid_checksums_that_makes_no_sense(path: Path, wrong: str) -> None:
    index = GlobalIndex.open(path)
    name = build_neighbours(index).file.path.name
    file = map_arrays(Folder(path), name)
    near, similarities = (file.arrays[key].copy() for key in ("neighbours", "similarities"))
    metadata = dict(file.metadata)
    if wrong == "number":
        near[:, 1] = COUNT
    elif wrong == "twice":
        near[:, 1] = near[:, 0]
    elif wrong == "own":
        near[:, 1] = np.arange(COUNT)
    elif wrong == "similarity":
        similarities[:, 0] = np.nan
    elif wrong == "kind":
        metadata["kind"] = "asmk-engine postings"
    elif wrong == "scales":
        metadata["scales"] = "[1.0]"
    else:
        near, similarities = near[1:], similarities[1:]
    write_arrays(Folder(path), name, {"neighbours": near, "similarities": similarities}, metadata)
    assert told(path) == [(name, "damage")]
    with pytest.raises(DamagedError, match="build it again with"):
        search(path)


def test_an_index_that_changes_during_the_run_ends_it(path: Path) -> None:
    def on_image(done: int, total: int) -> None:
        if done >= 8:
            GlobalIndex.open(path).delete(NAMES[:1], missing_ok=True)

    with pytest.raises(StorageError, match="was changed while the neighbours of commit 3 were found; run the same"):
        build_neighbours(GlobalIndex.open(path), on_image=on_image)
    assert tables(path) == []


def test_another_writer_is_not_disturbed(path: Path) -> None:
    with WriterLock(path), pytest.raises(StorageError, match="another process is writing here"):
        build_neighbours(GlobalIndex.open(path))
    assert tables(path) == []


def test_no_neighbours_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="neighbours is 0; give 1 or more"):
        build_neighbours(GlobalIndex.open(path), 0)


def test_every_kind_of_index_says_what_its_table_takes(path: Path, tmp_path: Path) -> None:
    local = Index.create(tmp_path / "local", random_codebook(8, DIM))
    local.add(write_features(tmp_path / "local.features", random_images(COUNT, DIM)))
    fused = create(tmp_path / "fused")
    fused.add(write_sets(tmp_path / "sets", POOL))
    for index in (GlobalIndex.open(path), local, fused):
        without = describe(index.path)
        assert without["neighbours"] is None and "neighbours" not in without["bytes_by_part"]
        with pytest.raises(StoppedError):
            build_neighbours(index, 4, on_image=stop_at(7))
        begun = describe(index.path)
        assert begun["neighbours"] is None and begun["bytes_by_part"]["neighbours"] > 0
        table = build_neighbours(index, 4)
        found = describe(index.path)
        assert found["neighbours"] == {
            "neighbours": 4, "bytes": table.file.size, "bytes_per_image": table.file.size / len(index)
        }  # fmt: skip
        assert found["bytes_by_part"] == {**without["bytes_by_part"], "neighbours": table.file.size}
        assert found["bytes"] == without["bytes"] + table.file.size
        for key in ("bytes_per_posting", "bytes_per_image"):
            assert found.get(key) == without.get(key)
        out, _ = run("info", index.path)
        assert f"4 neighbours of an image, {table.file.size / len(index):.1f} bytes per image" in out
        flip(table.file.path, 0.01)
        assert describe(index.path)["neighbours"] is None
        index.delete(index.names[:1])
        assert describe(index.path)["bytes_by_part"].get("leftover") == 0


# ------------------------------------------------------------------------------------------------------- commands


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [*map(str, arguments)])


def run(*arguments: object) -> tuple[str, str]:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout, result.stderr


def fails(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, AsmkError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_the_command_builds_and_query_uses_it(path: Path) -> None:
    _, said = run("neighbours", path, "--k", 8)
    assert "8 neighbours of each of 20 images" in said and "for commit 3" in said
    out, said = run("query", path, NAMES[3], "--diffusion", "--format", "jsonl", "--top", 4)
    assert said == ""
    index = GlobalIndex.open(path)
    expected = DiffusionSearcher(GlobalSearcher(index)).search_name(NAMES[3], None)
    names = [hit.name for hit in expected if hit.name != NAMES[3]][:4]
    assert [name for name in names if name in out] == names and json.loads(out)
    table, _ = run("query", path, NAMES[3], "--diffusion", "--top", 4)
    assert [line.split()[2] for line in table.splitlines()[1:]] == [name.replace(" ", "%20") for name in names]
    plain, _ = run("query", path, NAMES[3], "--top", 4)
    assert plain != table
    wider, _ = run("query", path, NAMES[3], "--diffusion", "--diffusion-neighbours", 8, "--diffusion-alpha", 0.95)
    assert wider != run("query", path, NAMES[3], "--diffusion")[0]
    assert run("query", path, "--all", "--diffusion", "--top", 3, "--format", "trec")[0].count("\n") == 3 * COUNT


def test_query_augments_with_it(path: Path) -> None:
    out, said = run("query", path, NAMES[3], "--augmentation", 4, "--augmentation-power", 2, "--top", 4)
    assert "which diffusion and augmentation need and every change of an index removes; it is built now" in said
    searcher = AugmentingSearcher(GlobalSearcher(GlobalIndex.open(path)), NeighbourAugmentation(4, 2.0))
    names = [hit.name for hit in searcher.search_name(NAMES[3], None) if hit.name != NAMES[3]][:4]
    assert [line.split()[2] for line in out.splitlines()[1:]] == [name.replace(" ", "%20") for name in names]
    assert run("query", path, NAMES[3], "--augmentation", 4, "--top", 4)[0] != out
    run("neighbours", path, "--k", 3)
    (path / tables(path)[0]).unlink()
    run("neighbours", path, "--k", 3)
    error = fails("query", path, NAMES[3], "--augmentation", 4)
    assert error.startswith(f"{path}: its neighbour table has 3 neighbours of an image, --augmentation is 4; build it")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--diffusion", "--augmentation", 3], "--diffusion and --augmentation exclude each other; give one of them"),
        (["--diffusion", "--rotations"], "--diffusion excludes --rotations and --mirror; leave it or them out"),
        (["--augmentation", 3, "--mirror"], "--augmentation excludes --rotations and --mirror; leave it or them out"),
    ],
)
def test_options_that_exclude_each_other(path: Path, options: list[object], said: str) -> None:
    result = invoke("query", path, NAMES[3], *options)
    assert result.exit_code == 2 and said in result.stderr
    assert tables(path) == []


def test_nothing_is_built_where_re_ranking_is_refused(path: Path) -> None:
    assert "has no local features" in fails("query", path, NAMES[3], "--diffusion", "--rerank", 5)
    assert tables(path) == []


def test_a_table_that_is_missing_is_built_for_few_images_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = run("query", path, NAMES[3], "--diffusion")
    reason = "commit 3, which diffusion and augmentation need and every change of an index removes"
    assert said == f"{path}: has no neighbour table of {reason}; it is built now, for 20 images\n"
    assert run("query", path, NAMES[3], "--diffusion")[1] == ""
    run("delete", path, NAMES[0])
    assert run("query", path, NAMES[3], "--diffusion", "--quiet")[1] == ""
    run("delete", path, NAMES[1])
    monkeypatch.setattr("asmk_engine.cli.diffusion.FEW_IMAGES", 5)
    error = fails("query", path, NAMES[3], "--diffusion")
    assert error.endswith(f"build it with `asmk-engine neighbours {path}`")
    run("query", path, NAMES[3])


def test_a_table_that_is_too_narrow_is_said(path: Path) -> None:
    run("neighbours", path, "--k", 3)
    error = fails("query", path, NAMES[3], "--diffusion")
    assert error == (
        f"{path}: its neighbour table has 3 neighbours of an image, --diffusion-neighbours is 5; build it with "
        f"`asmk-engine neighbours {path} --k 5`"
    )
    run("query", path, NAMES[3], "--diffusion", "--diffusion-neighbours", 3)
    run("neighbours", path, "--k", 5)
    run("query", path, NAMES[3], "--diffusion")


def test_a_damaged_table_is_one_line(path: Path) -> None:
    run("neighbours", path)
    flip(path / tables(path)[0])
    assert "build it again with `asmk-engine neighbours" in fails("query", path, NAMES[3], "--diffusion")
    result = invoke("check", path)
    assert result.exit_code == 1 and "damage        neighbours-000003.safetensors: " in result.output
    assert "move neighbours-000003.safetensors to dropped-1" in run("repair", path, "--yes")[0]
    assert "clean" in run("check", path)[0]


def test_evaluate_measures_it(path: Path, tmp_path: Path) -> None:
    queries = [{"query": name, "bbox": None, "easy": NAMES[4:9], "hard": NAMES[9:12], "junk": []} for name in NAMES[:3]]
    (tmp_path / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    call = ["evaluate", path, "--ground-truth", tmp_path / "gnd.json", "--json"]
    ways: list[list[object]] = [[], ["--diffusion"], ["--augmentation", 3, "--augmentation-power", 1]]
    plain, found, mean = (json.loads(run(*call, *way)[0]) for way in ways)
    assert plain != found and mean not in (plain, found)
    saved = json.loads(run(*call, "--diffusion", "--save-run", tmp_path / "run.trec")[0])
    assert saved == found
    read = run("evaluate", "--run", tmp_path / "run.trec", "--ground-truth", tmp_path / "gnd.json", "--json")[0]
    assert json.loads(read) == found
    other = GlobalIndex.create(tmp_path / "other", GlobalIndex.open(path).codec)
    other.add([("other.jpg", QUERY)], recipe=RECIPE)
    assert "leave diffusion or augmentation out" in fails(*call, "--diffusion", "--distractors", other.path)


def test_fusion_with_another_index_diffuses_the_first(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "other")
    run("neighbours", path)
    out, _ = run("query", path, NAMES[3], "--diffusion", "--fuse", tmp_path / "other", "--fuse-weight", 0.0)
    alone, _ = run("query", path, NAMES[3], "--diffusion")
    names = [[line.split()[2] for line in text.splitlines()[1:]] for text in (out, alone)]
    assert names[0] == names[1]
    assert tables(tmp_path / "other") == []


def test_local_and_fused_indexes_take_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)
    local = Index.create(tmp_path / "local", random_codebook(8, DIM))
    local.add(write_features(tmp_path / "local.features", random_images(COUNT, DIM)))
    fused = create(tmp_path / "fused")
    fused.add(write_sets(tmp_path / "sets", POOL))
    for index in (local, fused):
        name = index.names[3]
        table, said = run("query", index.path, name, "--diffusion", "--top", 3)
        assert "it is built now" in said
        assert len(table.splitlines()) == 4
    expected = [hit.name for hit in DiffusionSearcher(Searcher(local)).search_name(local.names[3], None)]
    lines = run("query", local.path, local.names[3], "--diffusion", "--top", 3)[0].splitlines()[1:]
    found = [line.split()[2].replace("%20", " ") for line in lines]
    assert found == [name for name in expected if name != local.names[3]][:3]


def test_the_table_is_found_through_its_commit(path: Path) -> None:
    index = GlobalIndex.open(path)
    build_neighbours(index)
    table = neighbour_table(Folder(path), index.snapshot)
    assert table.images == COUNT and table.scales == ()
