"""Experiments: how one published row is reproduced, read strictly from a TOML file; some are part of the package.

name, title, source, kind     kind is `local` (ASMK on local features) or `global` (one vector per image)
differences                   how the experiment deviates from the published one in details
incomparable                  why its scores cannot be compared with the published ones: another method or data set
memory, means                 published GiB of the largest index, and published means over tests
earlier                       fingerprints of the same experiment with other texts, see `PublishedRow`
[[describe]]                  extractor, weights, projection, options; several (only `global`) are concatenated
[train]                       dataset, images, options: what the codebook or the projection is learned from
[codebook] or [codec]         for `local`, for `global`
[search]                      for `local`: alpha, threshold, idf, assignments
[[rerank]]                    how the first images are ranked anew, see `rerank_plan`; none, one or several
[[tests]]                     dataset, distractors, train, assignments, published, deviations, words, words_deviation
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from asmk_engine.errors import DamagedError, InputError, NotFoundError
from asmk_engine.images.listing import shown
from asmk_engine.reproduction.rerank_plan import Rerank, check_rerank, reranked_row, split_row

KINDS = ("local", "global")
PRECISION = "mP@10"
ROWS = (
    *("easy", "medium", "hard", "all", "private", "cls1", "cls2", "cls3"),
    *(f"{row} {PRECISION}" for row in ("easy", "medium", "hard")),
)
RERANKED = ("easy", "medium", "hard", "all", "private")
MEANS = ("all", "distractors")
SUFFIX = ".toml"
MOST_BYTES = 1 << 20

Part = TypeVar("Part")


@dataclass(frozen=True)
class Describe:
    """How features are extracted.

    extractor   name of an extractor or preset
    weights     name of its published weights, see `networks.registry`; empty for an extractor without weights, and for
                a network that was not published and has to be given
    projection  post-hoc whitening in a checkpoint of the GeM family, such as `retrieval-SfM-120k/ms`; empty for none
    options     options of the extractor; the others have their defaults
    """

    extractor: str
    weights: str = ""
    projection: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Train:
    """The training images.

    dataset  name of a dataset, see `files`
    images   how many of its first images, in the published order; 0 for all
    options  options of the extractor that differ from those for the database
    """

    dataset: str
    images: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CodebookSettings:
    """Training of the codebook: arguments of `Codebook.train`."""

    words: int = 65536
    rounds: int = 10
    seed: int = 0
    training_per_word: int = 256
    whitening: str = "auto"
    backend: str = "auto"
    assignment: str = "exact"


@dataclass(frozen=True)
class Codes:
    """Compression of global descriptors: fields of `flat.codec.CodecOptions`, 0 for none.

    The codec is trained on the dataset of `train`.
    """

    pca: int = 0
    whiten: bool = False
    pq: int = 0
    half: bool = False


@dataclass(frozen=True)
class SearchSettings:
    """Search of an ASMK index, see `inverted.search.SelectiveMatch` and `Searcher`; `assignments` in the TOML file."""

    alpha: float = 3.0
    threshold: float = 0.0
    idf: bool = False
    multiple_assignment: int = field(default=5, metadata={"key": "assignments"})


@dataclass(frozen=True)
class Test:
    """A dataset to search, and the scores published for it.

    dataset      name of a dataset with queries
    distractors  name of a dataset that is added to the database, or empty
    train        name of the dataset to learn from, if it is not that of `train`
    multiple_assignment  nearest words of a query descriptor in this test, `assignments` in the TOML file; 0 for those
                         of the search
    published    row (`easy`, `medium`, `hard`, alone or with `mP@10`; `all` of a validation set or an original ground
                 truth; `private`; `cls1`, `cls2`, `cls3`; re-ranked: `medium, cvnet 100`) → percent
    deviations   row → published standard deviation over several runs
    words        published mean number of words per image of `dataset`, 0 for none
    words_deviation  its published standard deviation over several runs
    """

    dataset: str
    distractors: str = ""
    train: str = ""
    multiple_assignment: int = field(default=0, metadata={"key": "assignments"})
    published: dict[str, float] = field(default_factory=dict)
    deviations: dict[str, float] = field(default_factory=dict)
    words: float = 0.0
    words_deviation: float = 0.0

    @property
    def name(self) -> str:
        """`roxford5k`, or `roxford5k+revisitop1m` with distractors."""
        return f"{self.dataset}+{self.distractors}" if self.distractors else self.dataset

    @property
    def has_precision(self) -> bool:
        """Whether mP@10 was published."""
        return any(row.endswith(PRECISION) for row in self.published)


@dataclass(frozen=True)
class PublishedRow:
    """A published row and how it is reproduced; see the module for the layout of its file.

    incomparable  why no score may be compared with the published ones, whatever weights and data are given
    memory        published GiB of the index of the largest database, 0 for none
    means         published means in percent: `all` over all tests and rows, `distractors` over those with distractors
    trained_on    name of the training images of the network in `training_sets`, or empty
    earlier       values of `fingerprint` with other texts (title, source, differences): their work folders can be
                  resumed
    """

    name: str
    title: str
    source: str
    kind: str
    describe: tuple[Describe, ...]
    tests: tuple[Test, ...]
    train: Train | None = None
    codebook: CodebookSettings | None = None
    codec: Codes = Codes()
    search: SearchSettings = SearchSettings()
    rerank: tuple[Rerank, ...] = ()
    differences: tuple[str, ...] = ()
    incomparable: tuple[str, ...] = ()
    memory: float = 0.0
    means: dict[str, float] = field(default_factory=dict)
    trained_on: str = ""
    earlier: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with what is run, and with most texts; work folders store them.

        What only the report shows beside the scores is not part of it, nor re-ranking, which comes after all else.
        """
        content = dataclasses.asdict(self)
        for key in ("earlier", "incomparable", "memory", "means", "trained_on", "rerank"):
            del content[key]
        for test in content["tests"]:
            test["published"] = {key: value for key, value in test["published"].items() if not split_row(key)[1]}
            for key in ("deviations", "words", "words_deviation"):
                del test[key]
            if not test["multiple_assignment"]:
                del test["multiple_assignment"]
        content["search"]["assignments"] = content["search"].pop("multiple_assignment")  # as in the TOML file
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_names() -> list[str]:
    """List the names of the experiments that have a file of their own in the package, in alphabetical order."""
    return sorted(file.name.removesuffix(SUFFIX) for file in _folder().iterdir() if file.name.endswith(SUFFIX))


def open_file(name: str) -> PublishedRow:
    """Return the experiment of this name in `file_names`, or the one in a file whose name ends in `.toml`.

    raises  NotFoundError, DamagedError if the file is not an experiment
    """
    if name.endswith(SUFFIX):
        return _read_file(Path(name))
    return parse_experiment((_folder() / f"{name}{SUFFIX}").read_text(encoding="utf-8"), f"{name}{SUFFIX}")


def _folder() -> Traversable:
    return resources.files("asmk_engine.reproduction") / "experiments"


def _read_file(path: Path) -> PublishedRow:
    if not path.is_file():
        raise NotFoundError(f"{shown(path)}: no such file; `asmk-engine reproduce` lists the experiments")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{shown(path)}: larger than {MOST_BYTES} bytes, which no experiment is; give another file")
    try:
        return parse_experiment(path.read_text(encoding="utf-8"), shown(path))
    except UnicodeDecodeError:
        raise DamagedError(f"{shown(path)}: not text in UTF-8; write the file again") from None


def parse_experiment(text: str, where: str) -> PublishedRow:
    """Return the experiment in the text of a TOML file; DamagedError names an unknown, missing or mistyped key."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DamagedError(f"{where}: not readable as TOML ({error}); write it again") from None
    for key, cls in (("describe", Describe), ("tests", Test)):
        tables = read_tables(content.get(key), where, key)
        content[key] = tuple(read_part(cls, one, f"{where}: {key}") for one in tables)
    if "rerank" in content:
        content["rerank"] = read_rerank(content["rerank"], where)
    for key, single in (("train", Train), ("codebook", CodebookSettings), ("codec", Codes), ("search", SearchSettings)):
        if key in content:
            content[key] = read_part(single, content[key], f"{where}: {key}")
    found = read_part(PublishedRow, content, where)
    _check(found, where)
    return found


def read_rerank(value: Any, where: str) -> tuple[Rerank, ...]:
    """Return the parts `[[rerank]]` of an experiment; raises DamagedError as `read_part`."""
    return tuple(read_part(Rerank, one, f"{where}: rerank") for one in read_tables(value, where, "rerank"))


def read_tables(value: Any, where: str, key: str) -> list[Any]:
    """Return the tables under a key; raises DamagedError if there are none."""
    if not isinstance(value, list) or not value:
        raise DamagedError(f"{where}: no [[{key}]]; write one or more")
    return value


def read_part(cls: type[Part], table: Any, where: str) -> Part:
    """Return an object of a dataclass made of a table.

    Its keys must be those of the fields, its values of the type of the default, a string where there is none;
    DamagedError otherwise, which begins with `where`.
    """
    if not isinstance(table, Mapping):
        raise DamagedError(f"{where}: a {type(table).__name__}, expected a table")
    fields = {one.metadata.get("key", one.name): one for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(table.keys() - fields.keys()):
        raise DamagedError(f"{where}: {unknown[0]!r} is not a key; there are {', '.join(fields)}")
    needed = [name for name, one in fields.items() if _default(one) is dataclasses.MISSING]
    if missing := [name for name in needed if name not in table]:
        raise DamagedError(f"{where}: {missing[0]!r} is missing; add it")
    return cls(**{fields[key].name: _value(fields[key], value, f"{where}: {key}") for key, value in table.items()})


def _default(one: dataclasses.Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default


def _value(one: dataclasses.Field[Any], value: Any, where: str) -> Any:
    default = _default(one)
    if default is dataclasses.MISSING:
        default = () if one.name in ("describe", "tests", "counts") else ""
    if isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and not isinstance(default, Codes | SearchSettings) and type(value) is not type(default):
        raise DamagedError(f"{where}: {value!r}, expected a {type(default).__name__}")
    return value


def _check(row: PublishedRow, where: str) -> None:
    """Raise DamagedError if the parts contradict each other."""
    if row.kind not in KINDS:
        raise DamagedError(f"{where}: kind {row.kind!r}, expected {' or '.join(KINDS)}")
    if row.kind == "local" and (row.codebook is None or len(row.describe) != 1 or row.codec != Codes()):
        raise DamagedError(f"{where}: a local experiment has one [[describe]], a [codebook] and no [codec]")
    if row.kind == "global" and row.codebook is not None:
        raise DamagedError(f"{where}: a global experiment has no [codebook]; write [codec]")
    if row.train is None and (row.kind == "local" or row.codec.pca or row.codec.pq):
        raise DamagedError(f"{where}: nothing to learn from; write [train] with a dataset")
    if row.kind == "global" and row.train is not None and row.train.options:
        raise DamagedError(f"{where}: options under train; a global experiment has the same options for all images")
    check_rerank(row.rerank, row.kind == "local", where)
    for test in row.tests:
        _check_numbers(test.published, "published", (*ROWS, *reranked_rows(row.rerank)), where)
        _check_numbers(test.deviations, "deviations", tuple(test.published), where)
    _check_numbers(row.means, "means", MEANS, where)
    names = [test.name for test in row.tests]
    if len(set(names)) < len(names):
        raise DamagedError(f"{where}: two tests are {max(names, key=names.count)!r}; keep one")


def reranked_rows(parts: tuple[Rerank, ...]) -> list[str]:
    """List the rows of re-ranked scores."""
    return [reranked_row(row, part, count) for part in parts for count in part.counts for row in RERANKED]


def _check_numbers(found: Mapping[str, Any], what: str, keys: tuple[str, ...], where: str) -> None:
    for key, value in found.items():
        if key not in keys or type(value) not in (int, float):
            expected = ", ".join(keys) or "no key, since nothing is published"
            raise DamagedError(f"{where}: {what} {key} = {value!r}, expected a number under {expected}")
