"""All experiments of the package by name: those with a file of their own, and those of the tables of other papers."""

from __future__ import annotations

import difflib

from asmk_engine.errors import NotFoundError
from asmk_engine.reproduction.experiment import SUFFIX, PublishedRow, file_names, open_file
from asmk_engine.reproduction.papers import table_experiments


def experiment_names() -> list[str]:
    """List the names of the experiments in the package, in alphabetical order."""
    return sorted([*file_names(), *table_experiments()])


def open_experiment(name: str) -> PublishedRow:
    """Return the experiment of this name, or the one in a file whose name ends in `.toml`.

    raises  NotFoundError, which lists similar names, or all; DamagedError if the file is not an experiment
    """
    tabled = table_experiments()
    if name in tabled:
        paper, wanted = tabled[name]
        return paper.published_row(wanted)
    names = experiment_names()
    if not name.endswith(SUFFIX) and name not in names:
        near = difflib.get_close_matches(name, names, 3) or names
        raise NotFoundError(f"{name!r} is not the name of an experiment; there are {', '.join(near)}")
    return open_file(name)
