"""Result tables of other papers: their numbers, their experiments, and the tables with what was measured beside."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, DamagedError, NotFoundError
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.reproduction.catalogue import experiment_names, open_experiment
from asmk_engine.reproduction.files import needs
from asmk_engine.reproduction.papers import (
    NOTHING,
    PRINTED_ONLY,
    open_papers,
    open_table,
    parse_paper,
    published_tables,
    table_experiments,
)
from asmk_engine.reproduction.results import read_result, result_place
from asmk_engine.reproduction.side_by_side import TableLine, side_by_side
from asmk_engine.reproduction.table_formats import FORMATS, as_text, short_column
from asmk_engine.reproduction.training_sets import TRAINING_SETS, training_lines
from published_numbers import TABLES, typed

SHARED = Path(__file__).resolve().parents[2] / "shared"
FACTS = SHARED / "facts" / "models.md"
PAPERS = {path.name[:3]: path for path in SHARED.glob("papers/*.txt")}
MILLION = 1_001_001
GIB = 2**30


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(commands, ["reproduce", *map(str, arguments)])


# ---- the numbers


@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_that_of_the_paper(name: str) -> None:
    table = open_table(name)
    found = [(row.row, [None if one == NOTHING else float(one) for one in row.scores]) for row in table.rows]
    assert found == typed(name)


def test_every_table_is_typed_twice() -> None:
    assert published_tables().keys() == TABLES.keys()


@pytest.mark.parametrize("name", TABLES)
def test_the_numbers_stand_in_the_text_of_the_paper(name: str) -> None:
    """In one line of it, in this order; where the text has no sign for a missing number, without those."""
    if name[1:4] not in PAPERS:
        pytest.skip("the papers are not at hand")
    text = re.sub("</?u>", "", PAPERS[name[1:4]].read_text(encoding="utf-8", errors="replace"))
    found = (re.findall(r"-?\d+\.\d{1,2}(?!\d)|(?<= )-8(?= |$)", line)[-18:] for line in text.splitlines())
    lines = {tuple(map(float, line)) for line in found}
    for label, numbers in typed(name):
        printed = tuple(one for one in numbers if one is not None)
        assert any(line[-len(printed) :] == printed for line in lines), label


@pytest.mark.skipif(not FACTS.is_file(), reason="the tables of the papers are not at hand")
def test_the_numbers_are_those_of_the_copied_tables() -> None:
    text = FACTS.read_text(encoding="utf-8").partition("## 8.4")[2].partition("## 8.6")[0]
    copied = [
        [None if (cell := one.strip().rstrip("*")) == "–" else float(cell) for one in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("| ") and re.search(r"\d+\.\d", line)
    ]
    assert len(copied) == 26
    rows = [numbers for name in ("s002-1", "s003-1") for _, numbers in typed(name)]
    assert [one for one in copied if one not in rows] == []
    assert "30.2 (+Rerank100 32.4); R101 32.5 (+Rerank100 34.9)" in text


def test_misprints_are_told_and_not_compared_with() -> None:
    solar = open_experiment("solar-gldv1")
    assert {test.name: test.published for test in solar.tests}["rparis6k"] == {"medium": 81.6, "hard": 64.5}
    assert "Table 1 prints 65.5 for rparis6k hard, not 64.5" in solar.differences
    token = {test.name: test.published for test in open_experiment("token-gldv2").tests}
    assert token["rparis6k"]["medium"] == 89.3
    again = {test.name: test.published for test in open_experiment("solar-rgldv2").tests}
    assert again["rparis6k"] == {"medium": 80.3, "medium mP@10": 94.6, "hard": 61.8, "hard mP@10": 83.9}
    assert "Table 4 prints 84.1 for rparis6k medium, not 80.3" in open_experiment("solar-rgldv2").differences
    text = as_text(side_by_side(open_table("s002-1"), Path("none")))
    assert "64.45 according to the authors" in text and " 65.5 " in text


# ---- the experiments


def test_every_experiment_of_a_row_exists() -> None:
    named = {row.experiment for table in published_tables().values() for row in table.rows if row.experiment}
    assert named <= set(experiment_names()) and named >= table_experiments().keys()
    assert len({*experiment_names()}) == len(experiment_names())


@pytest.mark.parametrize("name", list(table_experiments()))
def test_an_experiment_has_the_numbers_of_its_rows(name: str) -> None:
    experiment = open_experiment(name)
    found = {f"{test.name} {row}": value for test in experiment.tests for row, value in test.published.items()}
    printed: dict[str, set[float]] = {}
    paper = table_experiments()[name][0]
    for table in paper.tables:
        for row in table.rows:
            for column, number in table.numbers(row).items() if row.experiment == name else ():
                if column not in PRINTED_ONLY:
                    key = f"{column}, {row.rerank}" if row.rerank else column
                    printed.setdefault(key, set()).add(row.corrected.get(column, number))
    assert found.keys() == printed.keys() and all(found[key] in printed[key] for key in found)
    assert experiment.trained_on in TRAINING_SETS and experiment.source.startswith(paper.title)
    weights = experiment.describe[0].weights
    assert bool(weights) or experiment.incomparable
    assert any("mP@10" in column for column in found) == any(test.has_precision for test in experiment.tests)


def test_rows_of_two_papers_that_are_one_experiment_agree() -> None:
    """But for misprints, which the row of the paper that has the experiment corrects."""
    for table in published_tables().values():
        for row in table.rows:
            if row.experiment in table_experiments() and table_experiments()[row.experiment][0].name != table.paper:
                mine = {f"{test.name} {key}": one for test in open_experiment(row.experiment).tests
                        for key, one in test.published.items()}  # fmt: skip
                after = f", {row.rerank}" if row.rerank else ""
                assert all(mine[column + after] == number for column, number in table.numbers(row).items()), row.row


def test_what_an_experiment_needs_and_what_its_network_was_trained_on(tmp_path: Path) -> None:
    told = invoke("cider-rgldv2").stdout
    assert "trained on RGLDv2-clean, 1 578 905 images, 81 295 classes" in told
    assert "from https://github.com/dealicious-inc/RGLDv2-clean" in told and "18 landmarks" in told
    assert "gt_files_170407.tgz" in told and "give one that you trained with --weights" in told
    told = invoke("gem-gldv1").stdout
    assert "a4d43db.pth" in told and f"terms: {WEIGHTS['gem-w-gl18-resnet101'].licence}" in told
    assert any(need["terms"] for need in json.loads(invoke("gem-gldv1", "--json").stdout))
    told = invoke("dolg-r50-gldv2").stdout
    assert "pan.baidu.com" in told and "a page from which a person downloads it" in told and "weights fetch" not in told
    names = [need.name for need in needs(open_experiment("cvnet-r50-gldv2"), tmp_path)]
    assert "gldv2-retrieval/retrieval_solution_v2.1.csv" in names and "gldv2-retrieval/index/" in names
    with pytest.raises(DamagedError, match="names the training set 'none'; known are SfM-120k"):
        training_lines("none")


# ---- strict reading

SMALL = """
name = "p1"
title = "A paper"
[[experiments]]
name = "one"
title = "One network"
extractor = "gem"
trained_on = "SfM-120k"
[[tables]]
number = 3
caption = "Numbers"
columns = ["roxford5k medium", "roxford5k+revisitop1m hard mP@10", "mean"]
[[tables.rows]]
row = "first"
experiment = "one"
scores = [50.5, "–", 3]
corrected = { "roxford5k medium" = 55.0 }
"""
REFUSED = [
    ('title = "A paper"\n', "", "'title' is missing"),
    ('trained_on = "SfM-120k"', 'trained_on = "all"', "names the training set 'all'"),
    ('trained_on = "SfM-120k"\n', "", "'trained_on' is missing"),
    ("[[tables]]", "[tables]", "no [[tables]]"),
    ("number = 3", "number = 3.0", "number: 3.0, expected a int"),
    ('"mean"]', '"median"]', "'median' is no column"),
    ("roxford5k medium", "rome medium", "'rome medium' is no column"),
    ("+revisitop1m", "+revisitop2m", "names the dataset 'revisitop2m'"),
    ("roxford5k medium", "roxford5k middle", "'roxford5k middle' is no column"),
    ('[50.5, "–", 3]', '[50.5, "–"]', "row 'first': 2 scores, 3 columns"),
    ('[50.5, "–", 3]', '[50.5, "-", 3]', "'-', expected a number or '–'"),
    ('[50.5, "–", 3]', "[true, 1, 3]", "True, expected a number"),
    ("{ \"roxford5k medium\" = 55.0 }", "{ diff = 55.0 }", "corrected 'diff' = 55.0, expected a number for a column"),
    ('experiment = "one"', 'experiment = "two"', "no row names the experiment 'one'"),
    ('extractor = "gem"', "extractor = 3", "extractor: 3, expected a str"),
    ('row = "first"', 'label = "first"', "'label' is not a key"),
    ('name = "p1"', "name = ", "not readable as TOML"),
    ("[[experiments]]", "[experiments]", "expected a table"),
]  # fmt: skip


def test_a_small_paper_is_read() -> None:
    paper = parse_paper(SMALL, "p1.toml")
    (table,) = paper.tables
    assert table.name == "p1-3" and table.numbers(table.rows[0]) == {"roxford5k medium": 50.5, "mean": 3.0}
    row = paper.published_row(paper.experiments[0])
    assert row.source == "A paper, Table 3, row first" and row.tests[0].published == {"medium": 55.0}
    assert "Table 3 prints 50.5 for roxford5k medium, not 55.0" in row.differences


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_a_wrong_paper_is_refused_in_one_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(DamagedError, match=re.escape(message)) as caught:
        parse_paper(SMALL.replace(old, new, 1), "p1.toml")
    assert "\n" not in str(caught.value)


def test_names_that_are_not_there() -> None:
    with pytest.raises(NotFoundError, match="there are s000-4, s000-5, s000-6, s002-1, s002-2, s002-3, s002-4a"):
        open_table("s000-7")
    with pytest.raises(NotFoundError, match=r"there are .*cider-ft-sfm120k"):
        open_experiment("cider-sfm")
    assert [paper.name for paper in open_papers()] == ["s000", "s002", "s003"]


# ---- what was measured


def report(name: str, rehearsal: bool = False, reasons: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """What a run of an experiment of table 5 with distractors writes; scores are a point above those published."""
    experiment = open_experiment(name)
    lines = [
        {"test": test.name, "row": row, "measured": value + 1, "queries": 70}
        for test in experiment.tests
        for row, value in test.published.items()
    ]
    facts = {"index of roxford5k": {"images": 5000, "bytes": 5000 * 8192, "bytes an image": 8192}, "features": ["f"]}
    seconds = {"describe roxford5k": 500.0, "search roxford5k": 0.7, "network": 9.0}
    head = {"recipe": name, "rehearsal": rehearsal, "lines": lines, "facts": facts, "seconds": seconds}
    return {**head, "not_compared": reasons or {}}


def save_report(folder: Path, name: str, content: Any) -> None:
    place = result_place(folder, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def lines_of(folder: Path, table: str, experiment: str) -> list[TableLine]:
    return [line for line in side_by_side(open_table(table), folder).lines if line.experiment == experiment]


def test_measured_beside_published(tmp_path: Path) -> None:
    save_report(tmp_path, "cider-sfm120k", report("cider-sfm120k"))
    published, measured = lines_of(tmp_path, "s000-5", "cider-sfm120k")
    assert (published.numbers, measured.numbers) == ("published", "measured")
    columns = open_table("s000-5").columns
    assert [measured.scores[key] for key in columns] == pytest.approx(
        [published.scores[key] + 1 for key in columns], abs=0.05
    )
    assert measured.scores["mean"] == pytest.approx((90.9 + 93.0 + 68.3 + 80.4 + 43.4 + 58.5) / 6)
    assert published.gibibytes == pytest.approx(MILLION * 2048 * 4 / GIB)
    assert measured.gibibytes == pytest.approx(8192 * MILLION / GIB)
    assert measured.image_milliseconds == pytest.approx(100) and measured.query_milliseconds == pytest.approx(10)
    assert published.image_milliseconds is None and published.query_milliseconds is None


def test_the_index_of_the_million_counts_where_there_is_one(tmp_path: Path) -> None:
    content = report("cider-sfm120k")
    content["facts"]["index of revisitop1m"] = {"images": MILLION, "bytes": 2 * GIB}
    content["seconds"] |= {"describe revisitop1m": 4500.0, "search roxford5k+revisitop1m": 70.0}
    save_report(tmp_path, "cider-sfm120k", content)
    measured = lines_of(tmp_path, "s000-6", "cider-sfm120k")[1]
    assert measured.gibibytes == 2 and measured.query_milliseconds == pytest.approx(1000)
    assert measured.image_milliseconds == pytest.approx(5_000_000 / (MILLION + 5000))
    assert measured.scores["roxford5k+revisitop1m hard mP@10"] == pytest.approx(36.9)
    assert "mean" not in measured.scores


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    reasons = {"roxford5k": ["weights of your own"], "rparis6k": ["weights of your own", "12 of \x1b[31m 6322\nimages"]}
    save_report(tmp_path, "cider-sfm120k", report("cider-sfm120k", reasons=reasons))
    measured = lines_of(tmp_path, "s000-5", "cider-sfm120k")[1]
    assert measured.numbers == "not compared" and len(measured.remarks) == 2
    text = as_text(side_by_side(open_table("s000-5"), tmp_path))
    assert "# CiDeR (Ours), not compared: weights of your own\n" in text and "\x1b" not in text
    save_report(tmp_path, "cider-sfm120k", report("cider-sfm120k", rehearsal=True, reasons=reasons))
    measured = lines_of(tmp_path, "s000-5", "cider-sfm120k")[1]
    assert (measured.numbers, measured.gibibytes, measured.remarks) == ("rehearsal", None, ())
    assert "no score can be compared" in as_text(side_by_side(open_table("s000-5"), tmp_path))


def test_a_part_of_the_results_is_enough(tmp_path: Path) -> None:
    content = report("cider-sfm120k")
    content["lines"] = [{"test": "roxford5k", "row": "medium", "measured": None, "queries": 0}]
    content |= {"facts": {}, "seconds": {}}
    save_report(tmp_path, "cider-sfm120k", content)
    measured = lines_of(tmp_path, "s000-5", "cider-sfm120k")[1]
    assert (
        measured.scores == {}
        and measured.gibibytes is measured.image_milliseconds is measured.query_milliseconds is None
    )
    assert read_result(tmp_path / "nothing.json", "cider-sfm120k") is None


def hostile(**others: Any) -> dict[str, Any]:
    return {**report("cider-sfm120k"), **others}


LINE = {"test": "roxford5k", "row": "medium", "measured": 50.0, "queries": 70}
HOSTILE: list[Any] = [
    "",
    "{",
    "[]",
    "3",
    "null",
    "[" * 100_000,
    '{"recipe": "cider-sfm120k"}',
    hostile(recipe="gem"),
    hostile(recipe=["cider-sfm120k"]),
    hostile(rehearsal="no"),
    hostile(lines=3),
    hostile(lines=[3]),
    hostile(lines={"a": 1}),
    hostile(lines=[{**LINE, "measured": 101}]),
    hostile(lines=[{**LINE, "measured": "50"}]),
    hostile(lines=[{**LINE, "measured": True}]),
    hostile(lines=[{**LINE, "measured": float("nan")}]),
    hostile(lines=[{**LINE, "measured": float("inf")}]),
    hostile(lines=[{**LINE, "measured": 10**400}]),
    hostile(lines=[{**LINE, "queries": -1}]),
    hostile(lines=[{**LINE, "queries": None}]),
    hostile(lines=[{"test": "roxford5k"}]),
    hostile(seconds=[]),
    hostile(seconds={"search roxford5k": float("nan")}),
    hostile(seconds={"search roxford5k": -3}),
    hostile(facts=3),
    hostile(facts={"index of roxford5k": 3}),
    hostile(facts={"index of roxford5k": {"images": 10**30, "bytes": 1}}),
    hostile(facts={"index of roxford5k": {"images": 1}}),
    hostile(not_compared=[]),
    hostile(not_compared={"roxford5k": 3}),
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_report_is_named_and_the_table_printed(content: Any, tmp_path: Path) -> None:
    save_report(tmp_path, "cider-sfm120k", content)
    with pytest.raises(DamagedError, match=r"report\.json: not the report of cider-sfm120k") as caught:
        read_result(result_place(tmp_path, "cider-sfm120k"), "cider-sfm120k")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    found = side_by_side(open_table("s000-5"), tmp_path)
    assert len(found.lines) == 17 and len(found.unreadable) == 1


def test_reports_that_are_no_files(tmp_path: Path) -> None:
    save_report(tmp_path, "glam-sfm120k", "x")
    result_place(tmp_path, "cider-sfm120k").mkdir(parents=True)
    result_place(tmp_path, "dolg-sfm120k").parent.mkdir()
    result_place(tmp_path, "dolg-sfm120k").write_bytes(b"\xff\xfe")
    done = invoke("--table", "s000-5", "-o", tmp_path)
    assert isinstance(done.exception, AsmkError) and "3 errors; the first" in str(done.exception)
    assert done.stdout.count("published") == 18 and "CiDeR-FT (Ours)" in done.stdout  # 17 lines, and a remark


# ---- formats


def test_the_text_is_a_table_that_pipes(tmp_path: Path) -> None:
    save_report(tmp_path, "solar-rgldv2", report("solar-rgldv2"))
    done = invoke("--table", "s000-6", "-o", tmp_path)
    assert done.exit_code == 0 and done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    cells = [re.split(r" {2,}", line) for line in lines]
    table = open_table("s000-6")
    assert {len(row) for row in cells} == {4 + len(table.columns) + 3} and len(lines) == 1 + 16 + 1
    assert cells[0][4:8] == ["Ox5k", "Par6k", "ROxf M", "ROxf M@10"] and cells[0][-3:] == [
        "GiB",
        "ms/image",
        "ms/query",
    ]
    published, measured = [row for row in cells if row[0] == "SOLAR [27]†"]
    assert published[:4] == ["SOLAR [27]†", "RGLDv2-clean", "solar-rgldv2", "published"]
    assert published[4:8] == ["90.6", "94.4", "70.8", "84.6"] and measured[4:8] == ["91.6", "95.4", "71.8", "85.6"]
    assert published[-3:] == ["7.64", "–", "–"] and measured[3] == "measured" and measured[-2:] == ["100.0", "10.0"]
    assert [line for line in done.stdout.splitlines() if line.startswith("# global")] == [
        "# global descriptors (SfM-120k)", "# global descriptors (RGLDv2-clean)"]  # fmt: skip


def test_csv_and_json_hold_the_same(tmp_path: Path) -> None:
    save_report(tmp_path, "cvnet-r50-gldv2", report("cvnet-r50-gldv2", reasons={"roxford5k": ['a, "b"']}))
    rows = list(csv.DictReader(io.StringIO(invoke("--table", "s002-1", "-o", tmp_path, "--format", "csv").stdout)))
    content = json.loads(invoke("--table", "s002-1", "-o", tmp_path, "--format", "json").stdout)
    assert content == json.loads(invoke("--table", "s002-1", "-o", tmp_path, "--json").stdout)
    assert len(rows) == len(content["rows"]) == 31 and content["table"] == "s002-1" and content["notes"]
    for row, same in zip(rows, content["rows"], strict=True):
        assert row.keys() == same.keys()
        assert all(row[key] == ("" if value is None else str(value)) for key, value in same.items() if key != "remarks")
    measured, *reranked = [row for row in content["rows"] if row["numbers"] == "not compared"]
    assert [row["roxford5k medium"] for row in reranked] == pytest.approx([87.1, 88.2, 88.9])
    assert measured["rparis6k+revisitop1m hard"] == 61.2 and measured["remarks"] == ['a, "b"']
    (published,) = [row for row in content["rows"] if row["row"].startswith("R50-CVNet")][:1]
    assert published["image_milliseconds"] == 24.0


def test_markdown_has_as_many_cells_in_every_row(tmp_path: Path) -> None:
    text = invoke("--table", "s003-1", "-o", tmp_path, "--format", "markdown").stdout
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 12 and len({line.count("|") for line in rows}) == 1 and "- the caption gives ResNet-50" in text
    assert "| R50-DPLG | GLDv2-clean | dplg-r50-gldv2 | published | 81.1 | 77.2 |" in text


def test_headings_of_columns() -> None:
    assert short_column("roxford5k+revisitop1m medium mP@10") == "ROxf+1M M@10"
    assert short_column("rparis6k hard") == "RPar H" and short_column("gldv2-retrieval private") == "mAP@100"
    headings = [short_column(column) for column in open_table("s000-6").columns]
    assert len(set(headings)) == len(headings)
    assert FORMATS.keys() == {"table", "csv", "json", "markdown"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gem", "--table", "s000-6"], "leave out EXPERIMENT and --data"),
        (["--table", "s000-6", "--data", "d"], "leave out EXPERIMENT and --data"),
        (["--format", "csv"], "--format is for --table"),
        (["--rehearse", "photos"], "go together"),
        (["--ground-truth", "gnd.json", "--rehearse"], "go together"),
        (["--rehearse", "--data", "d"], "either --data"),
        (["gem", "--data", "d", "--rehearse"], "either --data"),
        (["--table", "s000-6", "--format", "html"], "'html' is not one of"),
    ],
)  # fmt: skip
def test_calls_that_make_no_sense(arguments: list[str], message: str) -> None:
    wrong = invoke(*arguments)
    assert wrong.exit_code == 2 and message in wrong.stderr


def test_an_unknown_table_lists_those_there_are() -> None:
    wrong = invoke("--table", "s000-7")
    assert isinstance(wrong.exception, NotFoundError) and "s000-6" in str(wrong.exception)
