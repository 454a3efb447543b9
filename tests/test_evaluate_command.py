"""`evaluate` and `classify` in this process, on drawn features: ranking files, distractors, labels and refusals."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, InputError, MismatchError, NotFoundError
from asmk_engine.features import Features
from asmk_engine.flat import CodecOptions, GlobalIndex
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from global_samples import global_images, write_global
from samples import make_features, random_codebook, write_features

DIM, SCENES, VIEWS = 32, 6, 4
CODEBOOK = random_codebook(24, DIM)


def photographs(seed: int, scenes: int, noise: float = 0.3) -> dict[str, Features]:
    """Several views of each scene, whose descriptors are those of the scene with noise."""
    rng = np.random.default_rng(seed)
    views = {}
    for scene in range(scenes):
        descriptors = rng.normal(size=(30, DIM))
        for view in range(VIEWS):
            noisy = descriptors + noise * view * rng.normal(size=descriptors.shape)
            views[f"scene{scene}/{scene}-{view}.jpg"] = make_features(noisy)
    return views


def make_index(folder: Path, name: str, images: dict[str, Features]) -> Path:
    index = Index.create(folder / f"{name}.index", CODEBOOK)
    index.add(write_features(folder / f"{name}.features", images))
    return index.path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index, a set of distractors whose names are the same, ground truths of two kinds, and labels."""
    folder = tmp_path_factory.mktemp("world")
    images = photographs(0, SCENES)
    make_index(folder, "photos", images)
    make_index(folder, "more", photographs(1, 3))
    names = [[f"scene{scene}/{scene}-{view}.jpg" for view in range(VIEWS)] for scene in range(SCENES)]
    queries = [{"query": s[0], "bbox": None, "easy": [s[1]], "hard": [s[2]], "junk": [s[3]]} for s in names]
    ground_truth = {"imlist": list(images), "queries": queries}
    (folder / "gnd.json").write_text(json.dumps(ground_truth))
    original = [{"query": s[0], "bbox": None, "ok": s[:3], "junk": [s[3]]} for s in names]
    (folder / "original.json").write_text(json.dumps({**ground_truth, "queries": original}))
    rows = [f"{name},{name.split('/')[0]}" for name in images]
    (folder / "labels.csv").write_text("image,label\n" + "\n".join(rows))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [*map(str, arguments)])


def run(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def measure(*arguments: object) -> Any:
    return json.loads(run("evaluate", *arguments, "--json"))


def fails(error: type[AsmkError], *arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, error), (result.output, result.exception)
    message = str(result.exception)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("form", ["trec", "jsonl", "pairs", "ranks", "gldv2"])
@pytest.mark.parametrize("distractors", [False, True])
def test_the_map_of_every_file_is_the_map_of_the_search(
    world: Path, tmp_path: Path, form: str, distractors: bool
) -> None:
    more = ["--distractors", world / "more.index"] if distractors else []
    saved = ["--save-run", tmp_path / "run", "--run-format", form]
    found = measure(world / "photos.index", "--ground-truth", world / "gnd.json", *more, *saved)
    assert 5 < found["medium"]["mAP"] < 100 and found["medium"]["queries"] == SCENES
    assert found["protocol"] == "revisited" and found["unranked"] == [] and len(found["per_query"]["hard"]) == SCENES
    assert (
        measure(world / "photos.index", "--ground-truth", world / "gnd.json", *more) == found
    )  # without names on the way
    read = measure("--run", tmp_path / "run", "--ground-truth", world / "gnd.json")
    if form == "gldv2":  # a submission knows no folders
        for report in (read, found):
            report["per_query"] = {row: [*values.values()] for row, values in report["per_query"].items()}
    assert read == found


def test_distractors_push_down_and_are_never_right(world: Path) -> None:
    plain = measure(world / "photos.index", "--ground-truth", world / "gnd.json")
    pushed = measure(
        world / "photos.index", "--ground-truth", world / "gnd.json", "--distractors", world / "more.index",
        "--distractors", world / "photos.index",
    )  # fmt: skip
    # The last set holds the very photographs of the database: each right one stands behind or before its twin.
    assert pushed["medium"]["mAP"] < plain["medium"]["mAP"]
    joint = JointIndex([Index.open(world / "photos.index")], [Index.open(world / "photos.index")])
    own = photographs(0, SCENES)["scene0/0-0.jpg"]
    first = [hit.name for hit in Searcher(joint).search(own, 2)]
    assert first == ["distractor1:scene0/0-0.jpg", "scene0/0-0.jpg"]


def test_the_original_protocol_on_the_command_line(world: Path) -> None:
    found = measure(world / "photos.index", "--ground-truth", world / "original.json", "--interval")
    assert found["protocol"] == "original"
    assert list(found["all"]) == ["mAP", "low", "high", "mP@1", "mP@5", "mP@10", "queries"]
    assert found["all"]["low"] <= found["all"]["mAP"] <= found["all"]["high"] and found["all"]["mP@1"] == 100
    table = run("evaluate", world / "photos.index", "--ground-truth", world / "original.json", "--worst", 2, "-q")
    assert len(table.splitlines()) == 4 and table.splitlines()[3].startswith("all")


def test_landmarks_on_the_command_line(world: Path, tmp_path: Path) -> None:
    ground_truth = tmp_path / "solution.csv"
    ground_truth.write_text("id,images,Usage\n0-0,0-0 0-1 0-2,Public\n1-0,1-1,Private\n2-0,None,Ignored\n")
    report = measure("--run", make_submission(tmp_path, "0-0,0-1 9-9 0-0\n1-0,x 1-1\n"), "--ground-truth", ground_truth)
    assert report["public"]["mAP@100"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    assert report["private"] == {"mAP@100": 50, "queries": 1}


def make_submission(folder: Path, rows: str, columns: str = "id,images") -> Path:
    path = folder / "submission.csv"
    path.write_text(f"{columns}\n{rows}")
    return path


def test_labels_by_search(world: Path) -> None:
    arguments = ["classify", world / "photos.index", "--labels", world / "labels.csv"]
    lines = run(*arguments, "scene1/1-0.jpg", "--format", "jsonl", "--top", 1, "-q").splitlines()
    answer = json.loads(lines[0])
    assert answer["query"] == "scene1/1-0.jpg" and [one["label"] for one in answer["labels"]] == ["scene1"]
    table = run(*arguments, "scene1/1-0.jpg", "--method", "cls1", "-q").splitlines()
    assert table[0] == "# scene1/1-0.jpg" and table[1].split()[1] == "scene1" and len(table) == 2


def test_every_image_by_the_others_and_its_submission(world: Path, tmp_path: Path) -> None:
    result = invoke(
        "classify", world / "photos.index", "--labels", world / "labels.csv", "--all", "--format", "gldv2",
        "--method", "cls3", "--neighbours", 3,
    )  # fmt: skip
    assert result.exit_code == 0 and "24 images, each classified by the others: accuracy" in result.stderr
    submission = tmp_path / "out.csv"
    submission.write_text(result.stdout)
    views = [(scene, view) for scene in range(SCENES) for view in range(VIEWS)]
    rows = [f"{scene}-{view},scene{scene},{'Public' if view else 'Private'}" for scene, view in views]
    solution = tmp_path / "solution.csv"
    solution.write_text("id,landmarks,Usage\n" + "\n".join(rows))
    report = measure("--run", submission, "--ground-truth", solution)
    assert report["private"]["labelled"] == SCENES and report["public"]["labelled"] == 3 * SCENES
    right = sum(report[part]["accuracy"] * report[part]["labelled"] for part in ("private", "public"))
    accuracy = float(result.stderr.split("accuracy ")[1].split(" %")[0])
    assert accuracy == pytest.approx(right / (4 * SCENES), abs=0.01) and report["private"]["accuracy"] > 80
    assert "µAP" in run("evaluate", "--run", submission, "--ground-truth", solution)


def test_a_global_index_classifies_too(tmp_path: Path) -> None:
    images = global_images(12)
    features = write_global(tmp_path / "gem.features", images)
    index = GlobalIndex.create(tmp_path / "gem.index", train_codec(features, CodecOptions()))
    index.add(features)
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\n" + "\n".join(f"{name},{number // 2}" for number, name in enumerate(images)))
    arguments = ["classify", index.path, "--labels", labels, "--method", "cls1", "--format", "jsonl", "-q"]
    answer = json.loads(run(*arguments, "image 000.jpg"))  # its descriptor is that of image 001, which has its label
    assert answer["labels"] == [{"label": "0", "confidence": pytest.approx(1, abs=1e-6)}]


def test_names_in_a_list_are_classified(world: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("scene1/1-0.jpg\nscene2/2-0.jpg\n")
    lines = run(
        "classify", world / "photos.index", "--labels", world / "labels.csv", "--list", names, "--format", "jsonl"
    ).splitlines()
    assert [json.loads(line)["query"] for line in lines] == ["scene1/1-0.jpg", "scene2/2-0.jpg"]


def test_a_single_label_cannot_be_weighted(world: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = (world / "labels.csv").read_text().splitlines()
    labels.write_text("\n".join([rows[0], *(f"{row.split(',')[0]},same" for row in rows[1:])]))
    arguments = ["classify", world / "photos.index", "scene1/1-0.jpg", "--labels", labels]
    message = fails(InputError, *arguments, "--method", "cls3")
    assert message.startswith("1 label, 'same', for all 24 labelled images, expected 2 or more")
    assert "same" in run(*arguments, "--method", "cls2", "-q")


def test_images_without_a_label(world: Path, tmp_path: Path) -> None:
    rows = (world / "labels.csv").read_text().splitlines()
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(row for row in rows if "1-1" not in row))
    arguments = ["classify", world / "photos.index", "scene1/1-0.jpg", "--labels", labels, "--method", "cls1"]
    message = fails(NotFoundError, *arguments)
    assert "1 of 24 indexed images have no label: 'scene1/1-1.jpg'" in message and "allow missing" in message
    assert "scene1" in run(*arguments, "--allow-missing", "-q").splitlines()[1]


def test_missing_images_are_refused_or_allowed(world: Path, tmp_path: Path) -> None:
    path = make_index(tmp_path, "few", dict(list(photographs(0, SCENES).items())[:-2]))
    message = fails(NotFoundError, "evaluate", path, "--ground-truth", world / "gnd.json")
    assert "2 of 24 images of the ground truth are missing: 'scene5/5-2.jpg', 'scene5/5-3.jpg'" in message
    found = invoke("evaluate", path, "--ground-truth", world / "gnd.json", "--allow-missing", "--json")
    assert "2 images of the ground truth are not indexed and count as not found" in found.stderr
    per_query = json.loads(found.stdout)["per_query"]
    assert per_query["hard"]["scene5/5-0.jpg"] == 0 and len(per_query["hard"]) == SCENES


def test_queries_without_features_count_as_not_found(world: Path, tmp_path: Path) -> None:
    images = photographs(0, SCENES)
    some = write_features(tmp_path / "some", {name: image for name, image in images.items() if "0/" not in name})
    written = tmp_path / "rankings.trec"
    call = ["evaluate", make_index(tmp_path, "i", images), "--ground-truth", world / "gnd.json", "--allow-missing"]
    found = invoke(*call, "--features", some.path, "--json")
    told = json.loads(found.stdout)
    assert found.stderr.count("counts as not found") == 1 and told["unranked"] == ["scene0/0-0.jpg"]
    none = write_features(tmp_path / "none", {"scene0/0-1.jpg": images["scene0/0-1.jpg"]})
    call += ["--features", none.path, "--save-run", written]
    assert f"{SCENES} errors; the first: " in fails(InputError, *call) and not written.exists()


def test_wrong_calls(world: Path, tmp_path: Path) -> None:
    index, ground_truth = world / "photos.index", world / "gnd.json"
    solution = tmp_path / "solution.csv"
    solution.write_text("id,landmarks\na,7\n")
    for arguments in (
        ("evaluate", "--ground-truth", ground_truth),
        ("evaluate", index, "--run", ground_truth, "--ground-truth", ground_truth),
        ("evaluate", "--run", ground_truth, "--ground-truth", ground_truth, "--save-run", "x"),
        ("evaluate", "--run", ground_truth, "--ground-truth", ground_truth, "--distractors", index),
        ("evaluate", index, "--ground-truth", solution),
        ("evaluate", "--run", solution, "--ground-truth", solution, "--interval"),
        ("classify", index, "--labels", world / "labels.csv"),
        ("classify", index, "x", "--all", "--labels", world / "labels.csv"),
    ):
        assert invoke(*arguments).exit_code == 2, arguments


def test_distractors_of_another_codebook_are_refused(world: Path, tmp_path: Path) -> None:
    other = Index.create(tmp_path / "other.index", random_codebook(24, DIM, seed=9)).path
    arguments = ["evaluate", world / "photos.index", "--ground-truth", world / "gnd.json", "--distractors", other]
    assert "indexes that are searched together need the same codebook" in fails(MismatchError, *arguments)


def test_rankings_that_need_the_list_of_images_are_refused(world: Path, tmp_path: Path) -> None:
    for name in ("query", "good", "ok", "junk"):
        (tmp_path / f"x_1_{name}.txt").write_text({"query": "scene0/0-0 1 2 3 4", "good": "scene0/0-0"}.get(name, ""))
    ranks = tmp_path / "ranks.npy"
    np.save(ranks, np.zeros((1, 1), int))
    assert "does not list its database images" in fails(
        InputError, "evaluate", "--run", ranks, "--ground-truth", tmp_path
    )


def draw(seed: int, turned: float) -> np.ndarray:
    """A scene of blotches of several sizes, turned a little."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(200 // step, 280 // step, 3)) for step in (40, 20, 8)]
    scene = sum(cv2.resize(layer, (280, 200), interpolation=cv2.INTER_CUBIC) for layer in layers)
    turn = cv2.getRotationMatrix2D((140, 100), turned, 1)
    return cv2.warpAffine(np.clip(128 + 45 * scene, 0, 255).astype(np.uint8), turn, (280, 200))


def test_queries_outside_the_database_are_cut_from_their_photographs(tmp_path: Path) -> None:
    """As Revisited Oxford has it: queries with a box that are no image of the database, names without extension."""
    for folder in ("jpg", "queries"):
        (tmp_path / folder).mkdir()
    for seed in range(4):
        cv2.imwrite(str(tmp_path / "jpg" / f"scene_{seed}.png"), draw(seed, 0))
        cv2.imwrite(str(tmp_path / "jpg" / f"other_{seed}.png"), draw(seed, 7))
        cv2.imwrite(str(tmp_path / "queries" / f"query_{seed}.png"), draw(seed, 3))
    images = [f"{kind}_{seed}" for seed in range(4) for kind in ("scene", "other")]
    queries = [{"bbx": [20, 15, 250.5, 180], "easy": [2 * n], "hard": [2 * n + 1], "junk": []} for n in range(4)]
    ground_truth = tmp_path / "gnd.pkl"
    ground_truth.write_bytes(
        pickle.dumps({"imlist": images, "qimlist": [f"query_{n}" for n in range(4)], "gnd": queries})
    )
    options = ["--words", 16, "--max-features", 200, "--workers", 0, "-q"]
    run("index", tmp_path / "jpg", "-o", tmp_path / "i.index", *options)
    call = ["evaluate", tmp_path / "i.index", "--ground-truth", ground_truth]
    assert "the photograph of query 'query_0' is not indexed" in fails(NotFoundError, *call)
    found = json.loads(run(*call, "--images", tmp_path / "queries", "--json", "-q"))
    assert found["medium"] == {"mAP": 100, "mP@1": 100, "mP@5": 100, "mP@10": 100, "queries": 4}
    assert list(found["per_query"]["easy"]) == [f"query_{n}" for n in range(4)]
