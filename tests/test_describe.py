"""The output of `info`: counts and sizes against the files and a slow count, and paths of other kinds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import naive
from asmk_engine.cli.info import info
from asmk_engine.errors import DamagedError, FormatError, InputError, NotFoundError
from asmk_engine.features import FeatureSet, FeatureWriter
from asmk_engine.images.roots import Root
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.signatures import sign
from asmk_engine.maintenance.description import PARTS_OF_SEGMENT, describe, failures, image_names, imbalance
from samples import RECIPE, make_features, random_codebook, random_images, write_features

DIM, WORDS = 8, 16
ALWAYS = {"kind", "path", "images", "words", "postings", "bytes", "bytes_per_posting"}


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return write_features(tmp_path / "f.features", random_images(30, DIM))


@pytest.fixture
def index(tmp_path: Path, features: FeatureSet) -> Index:
    """Several segments, some images deleted."""
    made = Index.create(tmp_path / "x.index", random_codebook(WORDS, DIM))
    made.add(features, segment_postings=40)
    made.delete(features.names[3:9])
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(info, [str(argument) for argument in arguments])


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def test_features(tmp_path: Path, features: FeatureSet) -> None:
    images = random_images(30, DIM)
    with FeatureWriter(features.path, RECIPE, DIM) as writer:
        writer.fail("z.jpg", "not an image")
        writer.fail("a.jpg", "empty file")
    found = describe(features.path)
    assert found["kind"] == "features"
    assert found["images"] == 30
    assert found["descriptors"] == sum(map(len, images.values()))
    assert found["descriptors_per_image"] == pytest.approx(found["descriptors"] / 30)
    assert found["empty_images"] == sum(not len(image) for image in images.values()) > 0
    assert (found["dim"], found["dtype"], found["parts"]) == (DIM, "float32", 2)
    assert found["bytes"] == sum(file.stat().st_size for file in features.path.glob("part-*"))
    assert found["recipe"] == {"extractor": "synthetic", "options": {"seed": 0}, "weights": None}
    assert found["failed"] == 2
    assert list(found["failures"].items()) == [("a.jpg", "empty file"), ("z.jpg", "not an image")]
    assert found["words"] is found["postings"] is found["bytes_per_posting"] is None


def test_features_of_no_image(tmp_path: Path) -> None:
    found = describe(write_features(tmp_path / "f", {}, dim=3).path)
    assert (found["images"], found["descriptors"], found["descriptors_per_image"]) == (0, 0, None)
    assert (found["dim"], found["dtype"]) == (3, None)


def test_a_codebook(tmp_path: Path) -> None:
    codebook = random_codebook(WORDS, DIM)
    codebook.save(tmp_path / "c.h5")
    found = describe(tmp_path / "c.h5")
    assert found["kind"] == "codebook"
    assert (found["words"], found["dim"], found["input_dim"]) == (WORDS, DIM, DIM)
    assert found["bytes"] == (tmp_path / "c.h5").stat().st_size
    assert found["training"] == {"rounds": 0}
    assert found["fingerprint"] == codebook.fingerprint
    assert found["images"] is found["postings"] is found["bytes_per_posting"] is None


@pytest.mark.parametrize("assignment", ["exact", "graph"])
def test_the_assignment_is_told_of_a_codebook_and_of_an_index(assignment: str, tmp_path: Path) -> None:
    codebook = random_codebook(WORDS, DIM).with_assignment(assignment)
    codebook.save(tmp_path / "c.h5")
    Index.create(tmp_path / "x.index", codebook)
    for path in (tmp_path / "c.h5", tmp_path / "x.index"):
        assert json.loads(run(path, "--json").stdout)["assignment"] == assignment
        assert f"assignment         {assignment}" in run(path).stdout.splitlines()


def live_words(features: FeatureSet, index: Index) -> dict[str, set[int]]:
    """The words of every live image, computed from its features again."""
    return {name: set(sign(image, index.codebook).words.tolist()) for name, image in features.images() if name in index}


@pytest.mark.parametrize("merged", [False, True])
def test_the_counts_of_an_index(features: FeatureSet, index: Index, merged: bool) -> None:
    if merged:
        index.merge()
    found = describe(index.path)
    expected = naive.index_statistics(live_words(features, index), WORDS)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["kind"] == "index"
    assert (found["images"], found["words"], found["bits"], found["input_dim"]) == (24, WORDS, DIM, DIM)
    assert found["postings"] == index.postings
    assert found["deleted_images"] == (0 if merged else 6)
    assert found["segments"] == len(index.snapshot.segments) and (found["segments"] == 1) == merged
    assert (found["postings"] == found["live_postings"]) == merged
    assert found["commit"] == index.snapshot.manifest.commit
    assert found["features"] == [str(features.path.resolve())]
    assert found["made_by"].startswith("asmk-engine ")
    assert found["recipe"]["extractor"] == "synthetic"


@pytest.mark.parametrize("merged", [False, True])
def test_the_sizes_of_an_index_add_up_to_the_folder(index: Index, merged: bool) -> None:
    if merged:
        index.merge()
    found = describe(index.path)
    parts, codebook = found["bytes_by_part"], next(index.path.glob("codebook-*")).stat().st_size
    assert sum(parts.values()) == found["bytes"] == folder_bytes(index.path)
    assert parts["codebook"] == codebook
    assert parts["codes"] == 8 * index.postings  # 8 bits fill one word of 64
    assert parts["ids"] == sum(segment.ids.nbytes for segment in index.snapshot.segments)
    assert parts["fingerprints"] == 8 * sum(segment.images for segment in index.snapshot.segments)
    assert parts["manifest"] == 2 * (index.path / "manifest.json").stat().st_size
    assert parts["deletions"] == sum(file.stat().st_size for file in index.path.glob("deleted-*"))
    assert (parts["deletions"] == 0) == merged
    assert parts["leftover"] == 0
    assert found["bytes_per_posting"] == pytest.approx((folder_bytes(index.path) - codebook) / index.postings)
    assert found["id_bytes_per_posting"] == pytest.approx(parts["ids"] / index.postings)


def test_every_array_of_a_segment_is_counted_once(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "rooted.index", random_codebook(WORDS, DIM))
    index.add(write_features(tmp_path / "rooted", random_images(5, DIM), root=Root(str(tmp_path))))
    separate = Index.open(Path(__file__).parent / "frozen" / "separate-4" / "photos.index")
    counted = {name for names in PARTS_OF_SEGMENT.values() for name in names}
    assert sum(map(len, PARTS_OF_SEGMENT.values())) == len(counted)
    for opened, absent in ((index, {"entry_starts"}), (separate, {"root_numbers"})):  # each has what the other lacks
        assert counted - absent | {"checksums"} == {*opened.snapshot.segments[0].file.arrays}


def test_what_a_killed_writer_left_is_shown_apart(index: Index) -> None:
    (index.path / "segment-000099.safetensors.tmp").write_bytes(b"x" * 77)
    found = describe(index.path)
    assert found["bytes_by_part"]["leftover"] == 77
    assert found["bytes"] == folder_bytes(index.path)


def test_an_empty_index(tmp_path: Path) -> None:
    found = describe(Index.create(tmp_path / "i", random_codebook(WORDS, DIM)).path)
    assert (found["images"], found["postings"], found["segments"], found["empty_words"]) == (0, 0, 0, WORDS)
    absent = ("bytes_per_posting", "id_bytes_per_posting", "words_per_image", "imbalance")
    assert [found[key] for key in absent] == [None] * 4


def test_imbalance_by_hand() -> None:
    assert imbalance(np.array([5, 5, 5, 5])) == 1.0
    assert imbalance(np.array([8, 0, 0, 0])) == 4.0
    assert imbalance(np.array([3, 1])) == pytest.approx(2 * 10 / 16)
    assert imbalance(np.zeros(4, np.int64)) is None
    assert imbalance(np.array([1 << 40, 1 << 40])) == 1.0  # squares that int64 cannot hold
    lengths = np.random.default_rng(0).integers(0, 50, 40)
    assert imbalance(lengths) == pytest.approx(naive.imbalance(lengths.tolist()))


def refused(tmp_path: Path) -> list[tuple[Path, type[Exception], str]]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "none.h5").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "old.pkl").write_bytes(b"\x80\x04K\x01.")
    return [
        (tmp_path / "absent", NotFoundError, "no such file or folder"),
        (tmp_path / "empty", FormatError, "an empty folder"),
        (tmp_path / "photos", FormatError, "a folder of 1 other files, such as 'a.jpg'"),
        (tmp_path / "photos" / "a.jpg", FormatError, "a JPEG image"),
        (tmp_path / "none.h5", FormatError, "an empty file"),
        (tmp_path / "notes.txt", FormatError, "a file of another kind"),
        (tmp_path / "old.pkl", FormatError, "a pickle"),
        (tmp_path / "f.features" / "part-000000.h5", FormatError, "one part of a feature set"),
        (tmp_path / "x.index" / "manifest.json", FormatError, "one file of an index"),
        (next((tmp_path / "x.index").glob("codebook-*")), FormatError, "one file of an index"),
    ]


def test_anything_else_is_refused_with_what_was_found(tmp_path: Path, index: Index) -> None:
    for path, kind, message in refused(tmp_path):
        with pytest.raises(kind, match=message) as caught:
            describe(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_hdf5_file_of_others(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "hloc.h5", "w") as file:
        file["a.jpg/keypoints"] = np.zeros((2, 2))
    with pytest.raises(FormatError, match="asmk-engine import"):
        describe(tmp_path / "hloc.h5")


def test_damage_is_told_by_the_reader(tmp_path: Path, features: FeatureSet, index: Index) -> None:
    random_codebook(WORDS, DIM).save(tmp_path / "c.h5")
    segment = sorted(index.path.glob("segment-*"))[0]
    for victim, whole in (
        (tmp_path / "c.h5",) * 2,
        (features.path / "part-000000.h5", features.path),
        (segment, index.path),
    ):
        os.truncate(victim, victim.stat().st_size // 2)
        with pytest.raises(DamagedError):
            describe(whole)


def test_names_and_failures(tmp_path: Path, features: FeatureSet, index: Index) -> None:
    assert image_names(features.path) == features.names
    assert image_names(index.path) == index.names
    assert failures(features.path) == {}
    random_codebook(WORDS, DIM).save(tmp_path / "c.h5")
    with pytest.raises(InputError, match="a codebook holds no images"):
        image_names(tmp_path / "c.h5")
    for path, found in ((tmp_path / "c.h5", "a codebook"), (index.path, "an index")):
        with pytest.raises(InputError, match=f"{found} does not record skipped images"):
            failures(path)


# --- The command ------------------------------------------------------------------------------------------------------


def test_json_is_one_object_with_the_same_keys_for_all(tmp_path: Path, features: FeatureSet, index: Index) -> None:
    random_codebook(WORDS, DIM).save(tmp_path / "c.h5")
    for path in (features.path, tmp_path / "c.h5", index.path):
        result = run(path, "--json")
        assert result.exit_code == 0 and result.stdout.count("\n") == 1
        found: dict[str, Any] = json.loads(result.stdout)
        assert found.keys() >= ALWAYS
        assert found == describe(path)
    assert json.loads(run(index.path, "--json", "--names").stdout)["names"] == index.names


def test_text_is_aligned_and_says_the_same(tmp_path: Path, features: FeatureSet, index: Index) -> None:
    random_codebook(WORDS, DIM).save(tmp_path / "c.h5")
    for path in (features.path, tmp_path / "c.h5", index.path):
        result = run(path)
        assert result.exit_code == 0
        assert all(line[18] == " " and line[19] != " " for line in result.stdout.splitlines()), result.stdout
    rows = {line[:18].strip(): line[19:] for line in run(index.path).stdout.splitlines()}
    found = describe(index.path)
    assert rows["images"] == f"24, {found['empty_images']} of them without words"
    assert rows["imbalance factor"] == f"{found['imbalance']:.2f}"
    assert rows["bytes per posting"].startswith(f"{found['bytes_per_posting']:.2f} ")
    assert rows["codes"].endswith(("bytes", "KiB"))
    assert rows["features of"] == "synthetic seed=0"


def test_names_are_escaped_and_sorted_by_bytes(tmp_path: Path) -> None:
    names = ["b c.jpg", "a\n.jpg", "100%.jpg", "é.jpg", "Z.jpg"]
    write_features(tmp_path / "f", {name: make_features(np.ones((1, 4))) for name in names})
    result = run(tmp_path / "f", "--names")
    assert result.stdout.splitlines() == ["100%25.jpg", "Z.jpg", "a%0A.jpg", "b%20c.jpg", "é.jpg"]


def test_failures_stand_one_a_line(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "f", RECIPE, 4) as writer:
        writer.fail("b c.jpg", "cut\noff")
        writer.fail("a.jpg", "empty")
    assert run(tmp_path / "f", "--failures").stdout == "a.jpg\tempty\nb%20c.jpg\tcut off\n"
    assert "2 images: see --failures" in run(tmp_path / "f").stdout
    assert run(tmp_path / "f", "--failures", "--names").exit_code == 2


def test_untrusted_text_reaches_no_terminal_unescaped(tmp_path: Path) -> None:
    codebook = random_codebook(WORDS, DIM)
    codebook.training["note"] = "red \x1b[31m\nand a second line"
    codebook.save(tmp_path / "c.h5")
    lines = run(tmp_path / "c.h5").stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    assert any(r"red \x1b[31m\nand a second line" in line for line in lines)
