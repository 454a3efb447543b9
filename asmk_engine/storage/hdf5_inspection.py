"""Inspection of untrusted HDF5 files, run in a child process (see `hdf5`).

Refused are links and values outside the file, filters that would load code, and arrays that claim more bytes than the
file can hold. Everything that makes HDF5 follow addresses is read once: attributes, texts, and chunked values.
Whether the file has the expected content is checked by its reader.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py

from asmk_engine.storage.child_process import serve_parent

MEMORY = 2 << 30  # bytes of address space; the libraries themselves take a few hundred MiB
# Deflate, shuffle, checksum, szip, n-bit, scale-offset and LZF: all filters built into HDF5 and h5py.
FILTERS = {1, 2, 3, 4, 5, 6, 32000}
MOST_EXPANSION = 1032  # of deflate; no other filter expands more
MOST_AT_ONCE = 1 << 24  # bytes
MOST_READ = 1 << 28  # bytes that are read of a chunked array; of a longer one, this many at each end
LEAST_OBJECT = 16  # minimum bytes of a group or dataset


class Refused(Exception):
    """The file holds something that must not be read."""


def inspect(path: Path) -> None:
    """Walk through a file except the values of its contiguous arrays. Raises Refused for what must not be read."""
    size = path.stat().st_size
    with h5py.File(path, "r") as file:
        _check_attributes(file, "/", size)
        seen = {_address(file)}
        waiting: list[tuple[str, h5py.Group]] = [("", file)]
        while waiting:
            prefix, group = waiting.pop()
            for key in group:
                name = f"{prefix}{key}"
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    raise Refused(f"{name!r} is a soft or external link; copy its target into the file")
                found = group[key]
                if (address := _address(found)) in seen:
                    continue
                seen.add(address)
                if len(seen) * LEAST_OBJECT > size:
                    raise Refused(f"holds more groups and datasets than its {size} bytes can")
                _check_attributes(found, name, size)
                if isinstance(found, h5py.Group):
                    waiting.append((f"{name}/", found))
                elif isinstance(found, h5py.Dataset):
                    _check_dataset(found, name, size)


def _address(found: h5py.HLObject) -> int:
    return int(h5py.h5o.get_info(found.id).addr)


def _check_attributes(found: h5py.HLObject, name: str, size: int) -> None:
    for key in found.attrs:
        attribute = found.attrs.get_id(key)
        if attribute.get_storage_size() > size:
            raise Refused(f"attribute {key!r} of {name!r} claims more than the {size} bytes of the file")
        _ = found.attrs[key]  # reading follows the addresses of texts of any length


def _check_dataset(dataset: h5py.Dataset, name: str, size: int) -> None:
    if dataset.is_virtual or dataset.external:
        raise Refused(f"{name}: its values are in other files, which are not read; copy them into this one")
    created = dataset.id.get_create_plist()
    filters = {int(created.get_filter(number)[0]) for number in range(created.get_nfilters())}
    if not filters <= FILTERS:
        raise Refused(f"{name}: filter {min(filters - FILTERS)} is not built into HDF5; write it with gzip")
    claimed = dataset.id.get_space().get_simple_extent_npoints() * dataset.id.get_type().get_size()
    if claimed > size * (MOST_EXPANSION if filters else 1):
        raise Refused(f"{name}: claims {claimed} bytes, more than the {size} bytes of the file can hold")
    if created.get_layout() == h5py.h5d.CHUNKED or dataset.dtype.hasobject:
        try:
            _read(dataset, claimed)
        except OSError as error:
            raise OSError(f"{name!r}: {error}") from None


def _read(dataset: h5py.Dataset, claimed: int) -> None:
    if not dataset.shape:
        _ = dataset[()]
        return
    rows = len(dataset)
    most = max(1, min(rows, MOST_READ * rows // max(claimed, 1)))
    step = max(1, most // (MOST_READ // MOST_AT_ONCE))
    for begin in {*range(0, most, step), *range(rows - most, rows, step)}:
        _ = dataset[begin : begin + step]


def main() -> None:
    """Serve one parent: answer each line, a path, with a line, the verdict, until the input ends."""
    _limit_memory()
    requests, answers = serve_parent()
    with contextlib.suppress(BrokenPipeError):
        for line in requests:
            answers.write(json.dumps(_verdict(Path(json.loads(line)))).encode() + b"\n")
            answers.flush()


def _verdict(path: Path) -> dict[str, Any]:
    """Return why a file must not be read, or HDF5's error; empty if the file is fine."""
    try:
        inspect(path)
    except Refused as refused:
        return {"refused": str(refused)}
    except MemoryError:
        return {"refused": f"needs more than {MEMORY} bytes of memory to inspect; get it again from its source"}
    except UnicodeDecodeError as error:
        return {"refused": f"the name {error.object!r} is not valid Unicode; write the file again with another name"}
    except Exception as error:
        return {"said": str(error), "errno": getattr(error, "errno", None)}
    return {}


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
