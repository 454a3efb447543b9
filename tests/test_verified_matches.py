"""Verified matches as positives: lists of pairs, and what `groups` writes, told by content; errors with their line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, FormatError, NotFoundError
from asmk_engine.groups import find_groups, write_groups
from asmk_engine.images.listing import ImageFile
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.instances import NONE, Instances, make_instances
from asmk_engine.training.verified_files import read_verified
from asmk_engine.training.verified_pairs import with_verified_pairs
from test_groups import made, world
from trainings import write_photographs


def photographs(*names: str) -> Instances:
    return make_instances([ImageFile(name, Path(name)) for name in names], names, [""] * len(names))


ALL = photographs("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "c/0.png", "c/1.png", "é a.jpg")
NAMES = [image.name for image in ALL.images]


def listed(data: Instances) -> list[tuple[str, str]]:
    assert data.pairs is not None
    return [(NAMES[one], NAMES[other]) for one, other in data.pairs]


def refused(path: Path, content: str | bytes, data: Instances = ALL) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(AsmkError) as found:
        with_verified_pairs(data, path)
    text = str(found.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return f"{type(found.value).__name__} {text.removeprefix(f'{path}: ')}"


def test_a_list_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# pairs\na/0.png a/1.png 0.9\n\na/1.png a/0.png\nb/0 b/1.png\nb/1.png c/0.png\nc/1.png c/1.png\n")
    found = with_verified_pairs(ALL, path)
    one_way = [("a/0.png", "a/1.png"), ("b/0.png", "b/1.png"), ("b/1.png", "c/0.png")]
    assert listed(found) == one_way + [(other, one) for one, other in one_way]
    group = dict(zip(NAMES, found.groups.tolist(), strict=True))
    assert group["b/0.png"] == group["b/1.png"] == group["c/0.png"] != group["a/0.png"] == group["a/1.png"]
    assert len(set(group.values())) == 5  # two joint ones, and three images alone
    assert refused(path, "a/0.png a/1.png\na/0.png\n").startswith("FormatError line 2 is 'a/0.png'")
    assert "contains no pairs" in refused(path, "# none\n")
    words = "line 2: 'x.png' is not in the training data, nor are 1 other names"
    assert refused(path, "a/0.png a/1.png\na/0.png x.png\nx.png y.png").startswith(f"NotFoundError {words}")
    with pytest.raises(NotFoundError, match="no such file; expected a list of pairs"):
        with_verified_pairs(ALL, tmp_path / "none.txt")
    with pytest.raises(NotFoundError, match=r"groups\.json: no such file"):
        with_verified_pairs(ALL, tmp_path)


def groups_json(*groups: list[tuple[str, str]], **head: Any) -> str:
    """The layout of `groups`: each group on a line, from the third on."""
    listed = [{"group": n, "edges": [{"images": pair} for pair in group]} for n, group in enumerate(groups, start=1)]
    text = ",\n  ".join(json.dumps(group) for group in listed)
    return json.dumps({"kind": "asmk-engine groups", **head})[:-1] + f',\n "groups": [\n  {text}\n ]\n}}\n'


def test_groups_as_json_are_their_matches(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(groups_json([("a/0.png", "a/1.png"), ("a/1.png", "a/2.png")], [("é a.jpg", "c/0.png")]))
    for given in (path, tmp_path):
        one_way = [("a/0.png", "a/1.png"), ("a/1.png", "a/2.png"), ("c/0.png", "é a.jpg")]
        found = with_verified_pairs(ALL, given)
        assert listed(found) == one_way + [(other, one) for one, other in one_way]
        assert found.groups[0] == found.groups[2] != found.groups[5] == found.groups[7]
    missing = groups_json([("a/0.png", "a/1.png")], [("a/1.png", "x.png")])
    assert refused(path, missing).startswith("NotFoundError line 4: 'x.png' is not in the training data; give")
    laid_out = json.dumps(json.loads(missing), indent=2)
    assert refused(path, laid_out).startswith("NotFoundError 'x.png' is not in the training data")
    cut = groups_json([("a/0.png", "a/1.png")])[:-9]
    assert refused(path, cut).startswith("DamagedError line 3 is not readable as JSON")
    assert refused(path, '{"kind": "other", "groups": []}').startswith("FormatError line 1: JSON of the kind 'other'")
    for edge in ({"images": ["a/0.png"]}, {"images": ["a/0.png", 3]}, {}, 7):
        text = (
            groups_json([("a/0.png", "a/1.png")]).replace("\n ]\n}\n", "")
            + f',\n  {{"edges": {json.dumps([edge])}}}\n]}}'
        )
        assert refused(path, text).startswith("DamagedError line 4, group 2 has no readable matches"), edge
    assert "contains no pairs" in refused(path, groups_json([]))
    assert refused(path, b'{"a": \xff}').startswith("DamagedError line 1 is not UTF-8")
    assert "too deeply nested" in refused(path, '{"a": ' + "[" * 100_000)


HEADER = "image,group,community,kind,same_as,matches,weight\n"


def test_groups_as_csv_are_instances(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(HEADER + "a/0.png,1,1,view,,2,1.0\na/2.png,1,2,copy,a/0.png,1,1\nc/0,2,1,view,,1,1\n"
                    '"é a.jpg",2,1,view,,1,1\nelsewhere.png,,,alone,,0,\n')  # fmt: skip
    found = with_verified_pairs(ALL, path)
    assert found.pairs is None and found.count == 2 and found.names == ("1", "2")
    members = {frozenset(NAMES[number] for number in numbers) for numbers in found.members().values()}
    assert members == {frozenset({"a/0.png", "a/2.png"}), frozenset({"c/0.png", "é a.jpg"})}
    assert found.instances[1] == NONE and len(np.unique(found.groups)) == len(ALL) - 2
    refusals = {
        "a/0.png,1,1,view,,1,1\nx.png,1,1,view,,1,1\n": "NotFoundError line 3: 'x.png' is not in the training data",
        "a/0.png,one,1,view,,1,1\n": "DamagedError line 2 has image 'a/0.png' and group 'one'",
        "a/0.png\n": "DamagedError line 2 has image 'a/0.png' and group None",
        ",1,1,view,,1,1\n": "DamagedError line 2 has image '' and group '1'",
        '"a/0.png,1,1,view,,1,1\n': "DamagedError line 2 is not readable as CSV",
        "a/0.png,,,alone,,0,\n": "FormatError contains no pairs",
    }
    for text, words in refusals.items():
        assert refused(path, HEADER + text).startswith(words), refused(path, HEADER + text)


def test_classes_of_the_data_stay_apart_from_their_own_images(tmp_path: Path) -> None:
    """Images of one class, of different groups, are no negatives of each other."""
    data = make_instances(ALL.images, [name[0] for name in NAMES], [""] * len(NAMES))
    (tmp_path / "groups.csv").write_text(HEADER + "a/0.png,1,1,view,,1,1\nb/0.png,1,1,view,,1,1\n")
    found = with_verified_pairs(data, tmp_path / "groups.csv")
    assert len(np.unique(found.groups)) == 3 and found.groups[0] == found.groups[2] == found.groups[4]
    assert found.count == 1 and found.instances[1] == NONE


def test_what_groups_writes_is_read(tmp_path: Path) -> None:
    groups = find_groups(made(tmp_path / "index", world()))
    write_groups(groups, tmp_path)
    names = sorted([*groups.alone, *(name for group in groups for name in group.images)])
    data = photographs(*names)
    matched = with_verified_pairs(data, tmp_path)
    edges = {frozenset((edge.one, edge.other)) for group in groups for edge in group.edges}
    assert matched.pairs is not None and len(edges) > 3
    assert {frozenset((names[one], names[other])) for one, other in matched.pairs} == edges
    grouped = with_verified_pairs(data, tmp_path / "groups.csv")
    assert {frozenset(names[n] for n in numbers) for numbers in grouped.members().values()} == {
        frozenset(group.images) for group in groups
    }
    lines = (tmp_path / "groups.json").read_text().splitlines()
    assert all(link[1] in lines[link[0] - 1] for link in read_verified(tmp_path).links)
    rows = list(csv.reader((tmp_path / "groups.csv").read_text().splitlines()))
    assert all(rows[line - 1][0] == name for line, _, name in read_verified(tmp_path / "groups.csv").links)


def test_commands_take_groups(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs", {"a": 2, "b": 2})
    given = [tmp_path / "photographs", "-o", tmp_path / "run", "--layout", "photos"]

    def run(command: str, *more: object) -> Result:
        return CliRunner().invoke(commands, [command, *map(str, [*given, *more])])

    (tmp_path / "groups.csv").write_text(HEADER + "a/0.png,1,1,view,,1,1\nz.png,1,1,view,,1,1\n")
    for command, needs in (
        ("train-rerank", ["--weights", "none.npz"]),
        ("train-rrt", ["--local", "none", "--global", "none"]),
    ):
        assert "has no classes" in str(run(command, *needs).exception)
        refusal = str(run(command, *needs, "--verified", tmp_path / "groups.csv").exception)
        assert "groups.csv: line 3: 'z.png' is not in the training data" in refusal
    assert read_instances(tmp_path / "photographs", "photos").count == 4


@pytest.mark.parametrize("text", ["", " \n", "{abc}/1.png {abc}/2.png\n"])
def test_other_text_is_a_list_of_pairs(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    if "abc" in text:
        assert read_verified(tmp_path / "pairs.txt").links == [(1, "{abc}/1.png", "{abc}/2.png")]
        return
    with pytest.raises(FormatError):
        read_verified(tmp_path / "pairs.txt")
