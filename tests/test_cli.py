"""The command line as users run it: all steps on drawn photographs, and one-line errors for every kind of bad input."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from samples import ENVIRONMENT

VIEWS = 3
SUBJECTS = [f"subject {letter}" for letter in "abcdef"]


def draw(seed: int) -> np.ndarray:
    """A scene of blotches of several sizes, as distinct from others as photographs of different things."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(300 // step, 400 // step, 3)) for step in (50, 20, 8)]
    scene = sum(cv2.resize(layer, (400, 300), interpolation=cv2.INTER_CUBIC) for layer in layers)
    return np.clip(128 + 45 * scene, 0, 255).astype(np.uint8)


def view(scene: np.ndarray, number: int) -> np.ndarray:
    """The scene turned and shrunk a little."""
    turn = cv2.getRotationMatrix2D((200, 150), 4 * number, 1 - 0.06 * number)
    return cv2.warpAffine(scene, turn, (400, 300), borderMode=cv2.BORDER_REFLECT)


def run(*arguments: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own and expect this exit code."""
    command = [sys.executable, "-m", "asmk_engine", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=300)
    assert result.returncode == code, (command, result.returncode, result.stdout[-2000:], result.stderr[-4000:])
    return result


def fails(*arguments: object, code: int = 1) -> str:
    """The one line of an error."""
    stderr = run(*arguments, code=code).stderr
    lines = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and "Traceback" not in stderr, stderr
    return lines[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, their ground truth, features, a codebook and an index, made by the commands of the README."""
    folder = tmp_path_factory.mktemp("world")
    queries = []
    for seed, subject in enumerate(SUBJECTS):
        (folder / "photos" / subject).mkdir(parents=True)
        names = [f"{subject}/é {number}.jpg" for number in range(VIEWS)]
        for number, name in enumerate(names):
            cv2.imencode(".jpg", view(draw(seed), number))[1].tofile(folder / "photos" / name)
        queries.append({"query": names[0], "bbox": None, "easy": [names[1]], "hard": [names[2]], "junk": []})
    imlist = [name for q in queries for name in (q["query"], *q["easy"], *q["hard"])]
    (folder / "gnd.json").write_text(json.dumps({"imlist": imlist, "queries": queries}))
    run("extract", folder / "photos", "-o", folder / "f.features", "--max-features", 300)
    run("build-codebook", folder / "f.features", "-o", folder / "c.h5", "--words", "16")
    run("index", folder / "f.features", "--codebook", folder / "c.h5", "-o", folder / "i.index")
    return folder


def test_evaluation_of_the_index_and_of_its_run_agree(world: Path, tmp_path: Path) -> None:
    printed = run(
        "evaluate", world / "i.index", "--ground-truth", world / "gnd.json", "--json", "--save-run", tmp_path / "r.trec"
    )
    report = json.loads(printed.stdout.splitlines()[-1])
    assert report["medium"]["mAP"] > 95 and report["easy"]["queries"] == len(SUBJECTS)
    assert set(report["hard"]) == {"mAP", "mP@1", "mP@5", "mP@10", "queries"}
    again = run("evaluate", "--run", tmp_path / "r.trec", "--ground-truth", world / "gnd.json", "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == report
    table = run("evaluate", world / "i.index", "--ground-truth", world / "gnd.json").stdout
    assert "medium" in table and "mP@10" in table


def test_queries_by_file_by_name_and_by_region(world: Path) -> None:
    photograph = world / "photos" / SUBJECTS[0] / "é 1.jpg"
    by_file = json.loads(run("query", world / "i.index", photograph, "--format", "jsonl").stdout)
    assert by_file["hits"][0]["name"] == f"{SUBJECTS[0]}/é 1.jpg"
    name = f"{SUBJECTS[0]}/é 1.jpg"
    by_name = json.loads(run("query", world / "i.index", name, "--format", "jsonl", "--top", 2).stdout)
    assert [hit["name"] for hit in by_name["hits"]] == [hit["name"] for hit in by_file["hits"][1:3]]
    region = json.loads(run("query", world / "i.index", name, "--box", "50,50,350,250", "--format", "jsonl").stdout)
    assert region["hits"][0]["name"].startswith(SUBJECTS[0])
    table = run("query", world / "i.index", photograph, "--top", 3).stdout.splitlines()
    assert len(table) == 4 and table[1].endswith("subject%20a/é%201.jpg")


def test_reranked_answers_say_where_they_match(world: Path, tmp_path: Path) -> None:
    name = f"{SUBJECTS[1]}/é 0.jpg"
    answer = json.loads(
        run("query", world / "i.index", name, "--rerank", 10, "--top", 3, "--format", "jsonl").stdout.splitlines()[0]
    )
    assert [hit["name"] for hit in answer["hits"][:2]] == [f"{SUBJECTS[1]}/é {number}.jpg" for number in (1, 2)]
    for number, hit in enumerate(answer["hits"][:2], start=1):
        (match,) = hit["matches"]
        truth = cv2.getRotationMatrix2D((200, 150), 4 * number, 1 - 0.06 * number)
        np.testing.assert_allclose(np.array(match["affine"])[:, :2], truth[:, :2], atol=0.03)
        corners = np.array([[0, 0, 1], [400, 0, 1], [0, 300, 1], [400, 300, 1]])
        assert np.abs(corners @ (np.array(match["affine"]) - truth).T).max() < 8
        assert match["inliers"] >= 20 and match["places"] >= 10 and 20 < min(match["overlap"]) <= 100
    table = run("query", world / "i.index", name, "--rerank", 10, "--top", 2).stdout.splitlines()
    assert table[1].endswith("b/é%201.jpg")


@pytest.mark.parametrize("option", [["--diffusion"], ["--augmentation", 2]])
def test_what_the_neighbours_find_is_reranked_too(world: Path, tmp_path: Path, option: list[object]) -> None:
    shutil.copytree(world / "i.index", tmp_path / "i.index")
    name = f"{SUBJECTS[1]}/é 0.jpg"
    call = "query", tmp_path / "i.index", name, *option, "--rerank", 3, "--top", 4, "--format", "jsonl"
    hits = json.loads(run(*call, "--features", world / "f.features").stdout.splitlines()[0])["hits"]
    assert [hit["name"] for hit in hits[:2]] == [f"{SUBJECTS[1]}/é {number}.jpg" for number in (1, 2)]
    assert all(hit["matches"][0]["inliers"] >= 20 for hit in hits[:2]) and "matches" not in hits[3]
    assert hits[0]["score"] > 1 > hits[3]["score"]
    found = run(
        "evaluate", tmp_path / "i.index", "--ground-truth", world / "gnd.json", *option, "--rerank", 3, "--json"
    )
    assert json.loads(found.stdout.splitlines()[-1])["medium"]["mAP"] > 95


def test_turned_and_mirrored_copies_are_found(world: Path, tmp_path: Path) -> None:
    pixels = cv2.imdecode(np.fromfile(world / "photos" / SUBJECTS[2] / "é 0.jpg", np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(tmp_path / "copy.png"), cv2.rotate(pixels[:, ::-1], cv2.ROTATE_90_CLOCKWISE))
    call = "query", world / "i.index", tmp_path / "copy.png", "--rerank", 10, "--top", 3, "--format", "jsonl"
    plain = json.loads(run(*call).stdout)["hits"]
    (best, *_) = json.loads(run(*call, "--rotations", "--mirror").stdout)["hits"]
    assert best["name"] == f"{SUBJECTS[2]}/é 0.jpg" and best["turn"] in ("mirrored 90", "mirrored 270")
    assert best["score"] > 3 * plain[0]["score"]
    affine = np.array(best["matches"][0]["affine"])
    corners = np.array([[0, 0, 1], [299, 0, 1], [0, 399, 1], [299, 399, 1]]) @ affine.T
    np.testing.assert_allclose(corners, [[399, 299], [399, 0], [0, 299], [0, 0]], atol=4)
    region = json.loads(run(*call, "--rotations", "--mirror", "--box", "30,40,270,380").stdout)["hits"][0]
    assert region["name"] == best["name"] and region["turn"] == best["turn"]
    by_name = run("query", world / "i.index", f"{SUBJECTS[2]}/é 0.jpg", "--rotations", "--top", 2).stdout
    assert "subject%20c/" in by_name.splitlines()[1]


def test_evaluation_with_reranking(world: Path, tmp_path: Path) -> None:
    call = "evaluate", world / "i.index", "--ground-truth", world / "gnd.json", "--rerank", 10
    report = json.loads(run(*call, "--json", "--save-run", tmp_path / "r.trec").stdout.splitlines()[-1])
    assert report["medium"]["mAP"] > 95
    again = run("evaluate", "--run", tmp_path / "r.trec", "--ground-truth", world / "gnd.json", "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == report
    assert json.loads(run(*call, "--json").stdout.splitlines()[-1]) == report


def test_reranking_by_descriptors_and_joining_images(world: Path, tmp_path: Path) -> None:
    name = f"{SUBJECTS[1]}/é 0.jpg"
    call = "query", world / "i.index", name, "--rerank", 10, "--top", 3, "--format", "jsonl"
    (first, second, _) = json.loads(run(*call, "--rerank-by", "descriptors").stdout)["hits"]
    assert [hit["name"] for hit in (first, second)] == [f"{SUBJECTS[1]}/é {number}.jpg" for number in (1, 2)]
    (match,) = first["matches"]
    assert match["pairs"] > 20 and 0.1 < match["mass"] < 1 and match["inliers"] == 0 and match["box"] is None
    (placed, *_) = json.loads(run(*call, "--rerank-by", "both").stdout)["hits"]
    assert placed["name"] == first["name"] and placed["matches"][0]["mass"] == match["mass"]
    assert placed["matches"][0]["inliers"] > 5 and placed["score"] > first["score"]
    plain, joined = (json.loads(run(*call, *more).stdout)["hits"] for more in ([], ["--join", 2]))
    assert [hit["name"] for hit in joined[:2]] == [hit["name"] for hit in plain[:2]]
    assert [hit["score"] for hit in joined] != [hit["score"] for hit in plain]
    assert "--rerank-by needs --rerank" in fails("query", world / "i.index", name, "--rerank-by", "descriptors")
    for other in ("descriptors", "both"):
        assert "--join needs --rerank-by places" in fails(*call, "--join", 1, "--rerank-by", other)


def test_reranking_without_places_is_one_line(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "f.features", tmp_path / "f.features")
    run("index", tmp_path / "f.features", "--codebook", world / "c.h5", "-o", tmp_path / "alone.index")
    shutil.rmtree(tmp_path / "f.features")
    message = fails("query", tmp_path / "alone.index", world / "photos" / SUBJECTS[0] / "é 0.jpg", "--rerank", 5)
    assert "neither the geometry nor the features" in message and "--geometry" in message
    message = run("query", world / "i.index", "a", "--rerank", 5, "--fuse", world / "i.index", code=2).stderr
    assert "--rerank and --fuse exclude each other" in message


def test_pairs_of_everything(world: Path, tmp_path: Path) -> None:
    message = fails("query", world / "i.index", "--all", "--format", "pairs")
    assert "jsonl" in message
    plain = tmp_path / "plain"
    for place, path in enumerate(sorted((world / "photos").rglob("*.jpg"))):
        plain.mkdir(exist_ok=True)
        shutil.copy(path, plain / f"{place:02d}.jpg")
    run("index", plain, "-o", tmp_path / "plain.index", "--words", "8", "--max-features", 300)
    lines = run("query", tmp_path / "plain.index", "--all", "--format", "pairs", "--top", 2).stdout.splitlines()
    pairs = [tuple(line.split(" ")) for line in lines]
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) and {"00.jpg", "01.jpg"} in map(set, pairs)
    by_query = run("query", tmp_path / "plain.index", "--all", "--top", 2, "--format", "trec").stdout.splitlines()
    assert len(by_query) == 2 * len(SUBJECTS) * VIEWS
    assert {frozenset((line.split()[0], line.split()[2])) for line in by_query} == {frozenset(pair) for pair in pairs}


def test_adding_updating_pruning_deleting_merging(world: Path, tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "mine.index"
    shutil.copytree(world / "photos", photos)
    options = ("--max-features", 300)
    run("index", photos, "-o", index, "--words", 8, *options)
    assert (tmp_path / "mine.features").is_dir()
    cv2.imwrite(str(photos / "new.png"), draw(77))
    assert "1 added" in run("index", photos, "-o", index, *options).stderr
    (photos / SUBJECTS[0] / "é 0.jpg").unlink()
    cv2.imencode(".jpg", draw(78))[1].tofile(photos / SUBJECTS[1] / "é 0.jpg")
    told = run("index", photos, "-o", index, *options, code=1).stderr  # 1: what was replaced is not what is indexed
    assert "0 added, 0 replaced" in told
    assert f"1 photograph whose file was replaced by another: '{SUBJECTS[1]}/é 0.jpg'" in told
    message = run("index", photos, "-o", index, "--update", "--prune", *options).stderr
    assert "0 added, 1 replaced" in message and "1 removed" in message
    assert "0 added, 0 replaced" in run("index", photos, "-o", index, "--update", "--prune", *options).stderr
    listing = tmp_path / "gone.txt"
    listing.write_text(f"{SUBJECTS[2]}/é 0.jpg\n\n{SUBJECTS[2]}/é 1.jpg\n")
    assert "3 images deleted" in run("delete", index, "new.png", "--list", listing).stderr
    before = run("query", index, f"{SUBJECTS[3]}/é 0.jpg", "--format", "jsonl").stdout
    run("merge", index)
    assert run("query", index, f"{SUBJECTS[3]}/é 0.jpg", "--format", "jsonl").stdout == before
    described = json.loads(run("info", index, "--json").stdout)
    assert described["kind"] == "index" and described["images"] == len(SUBJECTS) * VIEWS - 3
    assert {"words", "postings", "bytes", "bytes_per_posting"} <= set(described)


def test_an_index_stands_alone(world: Path, tmp_path: Path) -> None:
    """Moved away from features and photographs it still answers new photographs, and says what it misses."""
    index = tmp_path / "moved.index"
    shutil.copytree(world / "i.index", index)
    elsewhere = tmp_path / "x.jpg"
    cv2.imwrite(str(elsewhere), view(draw(2), 1))
    hits = json.loads(run("query", index, elsewhere, "--format", "jsonl").stdout)["hits"]
    assert hits[0]["name"].startswith(SUBJECTS[2])


def test_broken_images_are_skipped_and_named(world: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(world / "photos" / SUBJECTS[0], photos)
    whole = (photos / "é 0.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("not an image")
    (photos / "empty.png").write_bytes(b"")
    (photos / "huge.png").write_bytes(huge_png())
    (photos / "strange\nname #1.jpg").write_bytes(whole)
    cv2.imwrite(str(photos / "grey.png"), np.full((200, 200), 128, np.uint8))
    message = run("extract", photos, "-o", tmp_path / "f").stderr
    for name in ("cut.jpg", "text.jpg", "empty.png", "huge.png"):
        assert message.count(f"skipped '{name}'") == 1
    assert "4 skipped" in message
    described = json.loads(run("info", tmp_path / "f", "--json").stdout)
    assert described["kind"] == "features" and described["images"] == VIEWS + 2
    assert "Error: " in run("extract", photos, "-o", tmp_path / "strict", "--strict", code=1).stderr
    run("index", tmp_path / "f", "-o", tmp_path / "i", "--words", 4)
    assert "grey.png" in run("info", tmp_path / "i", "--names").stdout
    hits = json.loads(run("query", tmp_path / "i", "é 0.jpg", "--format", "jsonl", "--top", 100).stdout)["hits"]
    assert hits and all(hit["name"] != "grey.png" and np.isfinite(hit["score"]) for hit in hits)


def huge_png() -> bytes:
    """The header of a PNG of 60 000 × 60 000 pixels with next to no content."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_bad_input_is_one_line(world: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_text("no image")
    (tmp_path / "file").write_text("in the way")
    index, features = world / "i.index", world / "f.features"
    cases = [
        (("extract", tmp_path / "empty", "-o", tmp_path / "o"), "no image"),
        (("extract", tmp_path / "text", "-o", tmp_path / "o2"), "a.jpg"),
        (("extract", tmp_path / "nowhere", "-o", tmp_path / "o3"), "nowhere"),
        (("extract", world / "photos", "-o", tmp_path / "file"), "file"),
        (("extract", world / "photos", "-o", features, "--max-features", 7), "max_features=7"),
        (("extract", world / "photos", "-o", tmp_path / "o4", "--extractor", "surf"), "rootsift"),
        (("build-codebook", features, "-o", tmp_path / "c", "--words", 60_000), "give at most 138"),
        (("build-codebook", tmp_path / "nowhere", "-o", tmp_path / "c"), "no such feature set"),
        (("index", features, "--codebook", tmp_path / "file", "-o", tmp_path / "i"), "codebook"),
        (("index", features, "-o", tmp_path / "file"), "in the way"),
        (("query", index, "nobody.jpg"), "nobody.jpg"),
        (("query", index, world / "photos" / SUBJECTS[0] / "é 0.jpg", "--box", "500,500,600,600"), "400"),
        (("query", index, world / "photos" / SUBJECTS[0] / "é 0.jpg", "--box", "90,90,10,10"), "box"),
        (("query", index, world / "photos" / SUBJECTS[0] / "é 0.jpg", "--box", "1,2,three,4"), "four numbers"),
        (("query", index, tmp_path / "text" / "a.jpg"), "a.jpg"),
        (("query", index, "--all", "--alpha", "0"), "alpha"),
        (("query", tmp_path / "empty", "a.jpg"), "not an index"),
        (("evaluate", index, "--ground-truth", tmp_path / "file"), "file"),
        (("delete", index, "nobody.jpg"), "nothing was deleted"),
        (("info", tmp_path / "file"), "file"),
    ]
    before = {path: path.read_bytes() for path in sorted(world.rglob("*")) if path.is_file()}
    for arguments, expected in cases:
        assert expected in fails(*arguments), arguments
    assert {path: path.read_bytes() for path in sorted(world.rglob("*")) if path.is_file()} == before


def test_another_codebook_or_recipe_is_refused_with_both_named(world: Path, tmp_path: Path) -> None:
    run("build-codebook", world / "f.features", "-o", tmp_path / "other.h5", "--words", "8", "--whitening", "none")
    message = fails("index", world / "f.features", "--codebook", tmp_path / "other.h5", "-o", world / "i.index")
    assert "16 words" in message and "8 words" in message
    run("extract", world / "photos", "-o", tmp_path / "g", "--max-features", 50)
    message = fails("index", tmp_path / "g", "-o", world / "i.index")
    assert "max_features=50" in message and "max_features=300" in message


def test_a_features_part_cut_in_half_is_named_and_mended_by_extracting_again(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "f.features", tmp_path / "f")
    part = tmp_path / "f" / "part-000000.h5"
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    assert "part-000000.h5" in fails("build-codebook", tmp_path / "f", "-o", tmp_path / "c")
    part.unlink()
    run("extract", world / "photos", "-o", tmp_path / "f", "--max-features", 300)
    assert json.loads(run("info", tmp_path / "f", "--json").stdout)["images"] == len(SUBJECTS) * VIEWS


def test_wrong_calls_exit_with_2(world: Path) -> None:
    for arguments in (
        (),
        ("nonsense",),
        ("query", world / "i.index"),
        ("extract",),
        ("evaluate", "--ground-truth", "x"),
    ):
        assert run(*arguments, code=2).returncode == 2
    summaries = run("--help").stdout
    assert "build-codebook" in summaries and "..." not in summaries.split("Commands:")[1]  # none is cut
    assert run("--version").stdout.startswith("asmk-engine")


def test_output_may_be_cut_short(world: Path) -> None:
    command = f"{sys.executable} -m asmk_engine query '{world / 'i.index'}' --all --format jsonl | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT)
    assert json.loads(result.stdout)["hits"] and "Traceback" not in result.stderr


def test_memory_of_indexing_is_a_size_that_suffices(world: Path, tmp_path: Path) -> None:
    features, codebook = next(world.glob("*.features")), next(world.glob("*.h5"))
    arguments = ["index", features, "--codebook", codebook, "-o", tmp_path / "index"]
    assert "'much' is not a size" in fails(*arguments, "--memory", "much")
    message = fails(*arguments, "--memory", "100M")
    assert "100 MiB of memory were allowed" in message and not (tmp_path / "index").exists()
    run(*arguments, "--memory", message.split("allow ")[1].split()[0])
    assert f"{len(SUBJECTS) * VIEWS}" in run("info", tmp_path / "index").stdout
