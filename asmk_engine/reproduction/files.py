"""The files an experiment needs, where they are published, and which are missing; nothing is downloaded.

    DIR/roxford5k/{jpg/, gnd_roxford5k.pkl}     DIR/sfm120k/{ims/, retrieval-SfM-120k.pkl}
    DIR/rparis6k/{jpg/, gnd_rparis6k.pkl}       DIR/gldv2/{train/, train_clean.csv}
    DIR/revisitop1m/jpg/                        DIR/gldv2-recognition/{train/, train.csv, test/,
    DIR/sfm120k-val/{ims/, retrieval-SfM-120k-        recognition_solution_v2.1.csv}
        val-eccv2020.pkl}                       DIR/gldv2-retrieval/{index/, test/,
    DIR/oxford5k/{jpg/, gt/}                        retrieval_solution_v2.1.csv}
    DIR/paris6k/{jpg/, gt/}                     DIR/weights/

Folders and files may be links, and images may be in subfolders. Sources of the addresses: the pages of Revisited
Oxford and Paris, of cnnimageretrieval-pytorch, of Google Landmarks v2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.networks.cache import weights_folder
from asmk_engine.networks.registry import PublishedWeights, published_weights
from asmk_engine.reproduction.experiment import PublishedRow, Test
from asmk_engine.reproduction.rerank_plan import chosen, networks_of

_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_SFM = "http://cmp.felk.cvut.cz/cnnimageretrieval/data/train"
_HOW = "http://ptak.felk.cvut.cz/personal/toliageo/share/how/dataset"
_LANDMARKS = "https://s3.amazonaws.com/google-landmark"


@dataclass(frozen=True)
class Dataset:
    """A published dataset.

    kind    `revisited` (images, queries and a ground truth), `photographs`, `sfm120k`, `validation` (a ground truth
            with images of SfM-120k), `original` (every image is in the database, the ground truth is a folder),
            `landmarks` (a few of Google Landmarks v2), `recognition` (all of them) or `retrieval` (its other images)
    parts   (file or folder inside the folder of the dataset, address where it is published)
    note    a remark for the report
    images  how many images its database has, 0 where that depends on the choice of a part
    """

    kind: str
    parts: tuple[tuple[str, str], ...]
    note: str = ""
    images: int = 0


WITHOUT_NETWORK = "rootsift"
NOT_PUBLISHED = "the network of this row was not published; give one that you trained with --weights"
_BLURRED = "the images were published again in 2022 with faces blurred: earlier scores may differ slightly"
DATASETS = {
    "roxford5k": Dataset(
        "revisited",
        (("jpg/", f"{_OXFORD}/oxbuildings/oxbuild_images-v1.tgz"),
         ("gnd_roxford5k.pkl", f"{_REVISITED}/roxford5k/gnd_roxford5k.pkl")),
        _BLURRED,
        4993,
    ),
    "rparis6k": Dataset(
        "revisited",
        (("jpg/", f"{_OXFORD}/parisbuildings/paris_1-v1.tgz and paris_2-v1.tgz"),
         ("gnd_rparis6k.pkl", f"{_REVISITED}/rparis6k/gnd_rparis6k.pkl")),
        _BLURRED,
        6322,
    ),
    "revisitop1m": Dataset(
        "photographs",
        (("jpg/", "http://ptak.felk.cvut.cz/revisitop/revisitop1m/jpg/revisitop1m.{1..100}.tar.gz"),),
        images=1_001_001,
    ),
    "sfm120k": Dataset(
        "sfm120k", (("ims/", f"{_SFM}/ims/ims.tar.gz"),
                    ("retrieval-SfM-120k.pkl", f"{_SFM}/dbs/retrieval-SfM-120k.pkl")),
    ),
    "sfm120k-val": Dataset(
        "validation",
        (("ims/", f"{_SFM}/ims/ims.tar.gz"),
         ("retrieval-SfM-120k-val-eccv2020.pkl", f"{_HOW}/retrieval-SfM-120k-val-eccv2020.pkl")),
        images=12_441,
    ),
    "oxford5k": Dataset(
        "original",
        (("jpg/", f"{_OXFORD}/oxbuildings/oxbuild_images-v1.tgz"),
         ("gt/", f"{_OXFORD}/oxbuildings/gt_files_170407.tgz")),
        _BLURRED,
        5063,
    ),
    "paris6k": Dataset(
        "original",
        (("jpg/", f"{_OXFORD}/parisbuildings/paris_1-v1.tgz and paris_2-v1.tgz"),
         ("gt/", f"{_OXFORD}/parisbuildings/paris_120310.tgz")),
        _BLURRED,
        6392,
    ),
    "gldv2-retrieval": Dataset(
        "retrieval",
        (("index/", f"{_LANDMARKS}/index/images_{{000..099}}.tar"),
         ("test/", f"{_LANDMARKS}/test/images_{{000..019}}.tar"),
         ("retrieval_solution_v2.1.csv", f"{_LANDMARKS}/ground_truth/retrieval_solution_v2.1.csv")),
        images=761_757,
    ),
    "gldv2-recognition": Dataset(
        "recognition",
        (("train/", f"{_LANDMARKS}/train/images_{{000..499}}.tar"), ("train.csv", f"{_LANDMARKS}/metadata/train.csv"),
         ("test/", f"{_LANDMARKS}/test/images_{{000..019}}.tar"),
         ("recognition_solution_v2.1.csv", f"{_LANDMARKS}/ground_truth/recognition_solution_v2.1.csv")),
        images=4_132_914,
    ),
    "gldv2": Dataset(
        "landmarks", (("train/", f"{_LANDMARKS}/train/images_{{000..499}}.tar"),
                      ("train_clean.csv", f"{_LANDMARKS}/metadata/train_clean.csv")),
    ),
}  # fmt: skip
"""All datasets that an experiment may name."""


@dataclass(frozen=True)
class Need:
    """A file or folder that an experiment needs.

    name     path relative to the data folder; folders end in a slash
    path     where it is, or should be
    address  where it is published
    there    whether it exists
    note     why it cannot be used, or empty
    terms    the licence of weights, as far as stated; empty for data sets
    """

    name: str
    path: Path
    address: str
    there: bool
    note: str = ""
    terms: str = ""


def is_recognition(name: str) -> bool:
    """Return whether a dataset asks for the labels of images instead of images."""
    return dataset_of(name).kind in ("landmarks", "recognition")


def dataset_of(name: str) -> Dataset:
    """Return the dataset of this name; raises DamagedError, since the name comes from an experiment."""
    if name not in DATASETS:
        raise DamagedError(f"the experiment names the dataset {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]


def chosen_tests(row: PublishedRow, distractors: bool, rehearsal: bool = False) -> tuple[Test, ...]:
    """Return the tests of an experiment, with or without those that have distractors.

    rehearsal  only one test without distractors and one with them, since all have the same images then
    """
    wanted = [test for test in row.tests if distractors or not test.distractors]
    if not rehearsal:
        return tuple(wanted)
    firsts = {bool(test.distractors): test for test in reversed(wanted)}
    return tuple(firsts[key] for key in sorted(firsts))


def datasets_of(row: PublishedRow, distractors: bool) -> list[str]:
    """List the names of the datasets that an experiment needs, those to learn from first."""
    tests = chosen_tests(row, distractors)
    learned = [test.train or (row.train.dataset if row.train else "") for test in tests]
    return list(dict.fromkeys(filter(None, [*learned, *(n for t in tests for n in (t.dataset, t.distractors))])))


def needs(
    row: PublishedRow,
    data: Path,
    distractors: bool = False,
    weights: Sequence[Path] = (),
    rerank: Sequence[str] = (),
) -> list[Need]:
    """List all files and folders that an experiment needs in the folder `data`.

    weights  files to use instead of published weights, in the order of `describe`, then of the networks of `rerank`
    rerank   names of the parts that rank anew; raises InputError for an unknown one
    """
    found = [
        Need(f"{name}/{part}", data / name / part, address, _is_there(data / name / part, part.endswith("/")))
        for name in datasets_of(row, distractors)
        for part, address in dataset_of(name).parts
    ]
    return [*found, *_weights_needed(row, data, weights), *_networks_needed(row, data, weights, rerank)]


def _weights_needed(row: PublishedRow, data: Path, given: Sequence[Path]) -> Iterator[Need]:
    for number, part in enumerate(row.describe):
        if number < len(given) or part.extractor == WITHOUT_NETWORK:
            continue
        if not part.weights:
            place = data / "weights"
            yield Need(f"weights for {part.extractor}", place, "none, they were not published", False, NOT_PUBLISHED)
        else:
            yield _published_file(part.weights, data)


def _networks_needed(row: PublishedRow, data: Path, given: Sequence[Path], rerank: Sequence[str]) -> Iterator[Need]:
    """Yield the files of the networks that rank anew, each once."""
    taken = [part.weights for part in row.describe[len(given) :]]
    for number, network in enumerate(networks_of(chosen(row.rerank, rerank, row.name)), start=len(row.describe)):
        if number < len(given) or (network.weights and network.weights in taken):
            continue
        if network.weights:
            yield _published_file(network.weights, data)
        else:
            cure = f"give {network.wanted}, as --weights number {number + 1}"
            title, place = f"weights for --rerank {network.rerank.title}", data / "weights"
            yield Need(title, place, "none, they are not published here", False, cure)


def _published_file(name: str, data: Path) -> Need:
    entry = published_weights(name)
    path = weights_place(entry, data)
    there = path.is_file() and not entry.obstacle
    by_hand = ", a page from which a person downloads it" if entry.page else ""
    fetched = "" if by_hand or entry.obstacle else f", or `asmk-engine weights fetch {entry.name}`"
    address = f"{entry.url}{by_hand}{fetched}"
    return Need(f"weights/{entry.file}", path, address, there, entry.obstacle, entry.licence)


def weights_place(entry: PublishedWeights, data: Path) -> Path:
    """Return where published weights are or should be: in the data folder, or in the cache of fetched weights."""
    beside, fetched = data / "weights" / entry.file, weights_folder() / entry.file
    return fetched if fetched.is_file() and not beside.is_file() else beside


def _is_there(path: Path, folder: bool) -> bool:
    return path.is_dir() and any(path.iterdir()) if folder else path.is_file()


def check_there(row: PublishedRow, wanted: Sequence[Need]) -> None:
    """Raise NotFoundError, which names the missing files and their addresses, unless all are there."""
    missing = [need for need in wanted if not need.there]
    if missing:
        listed = "; ".join(f"{need.path} ({need.note or need.address})" for need in missing)
        raise NotFoundError(
            f"{row.name} needs {len(wanted)} files and folders, {len(missing)} are missing: {listed}; "
            "download them, or give other weights with --weights; this command downloads nothing"
        )


def listing(wanted: Sequence[Need], looked: bool = True) -> list[str]:
    """Format needed files as lines of text: path, address, why it cannot be used, and the terms of weights.

    looked  mark whether each is there
    """
    lines = []
    for need in wanted:
        mark = "" if not looked else "there    " if need.there else "MISSING  "
        lines += [f"{mark}{need.path}", f"         from {need.address}"]
        lines += [f"         {one}" for one in (need.note, need.terms and f"terms: {need.terms}") if one]
    return lines
