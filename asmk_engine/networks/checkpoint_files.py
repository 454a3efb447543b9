"""Network files of asmk-engine as plain arrays, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asmk_engine.errors import FormatError, InputError, MismatchError
from asmk_engine.networks.stored_names import from_stored
from asmk_engine.networks.tensor_files import read_arrays

KIND = "asmk-engine network"


def read_checkpoint(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors of a network of local descriptors, float32 under the current names, and its metadata.

    Raises NotFoundError, DamagedError if the file was altered, and FormatError for another kind of file.
    """
    path = Path(path)
    arrays, metadata = read_arrays(path)
    if metadata.get("kind") != KIND:
        raise FormatError(
            f"{path}: not a network of asmk-engine; make one from ImageNet weights with `asmk-engine whiten`, or from "
            "a published checkpoint with `asmk-engine weights convert`"
        )
    return from_stored(arrays), metadata


def check_tensors(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], where: object, cure: str
) -> None:
    """Raise MismatchError, which names every missing, surplus and misshapen tensor, unless the shapes by name agree."""
    faults = [f"missing {key}" for key in wanted.keys() - given.keys()]
    faults += [f"surplus {key}" for key in given.keys() - wanted.keys()]
    for key in wanted.keys() & given.keys():
        if wanted[key] != given[key]:
            faults.append(f"{key} is {list(given[key])}, expected {list(wanted[key])}")
    if faults:
        raise MismatchError(f"{where}: {len(faults)} tensors do not fit: {'; '.join(sorted(faults))}; {cure}")


def check_finite(arrays: Mapping[str, np.ndarray], where: object) -> None:
    """Raise InputError for a value that is not finite."""
    for key, value in arrays.items():
        if not np.isfinite(value).all():
            raise InputError(f"{where}: {key} contains NaN or infinity; get the file again")
