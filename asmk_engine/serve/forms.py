"""Requests read: forms with files, JSON, and values of the address, all checked here."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.requests import Request

from asmk_engine.images.boxes import Box
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.service import Service
from asmk_engine.serve.uploads import Upload

MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 1000, 1000, 1 << 16
MOST_JSON_BYTES = 1 << 22
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


@dataclass
class Form:
    """The fields of a request, each with all its values, and the files."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[UploadFile] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """Return the last value of a field."""
        values = self.fields.get(name)
        return values[-1] if values else default

    def texts(self, name: str) -> list[str]:
        """Return all values of a field that are not empty."""
        return [value for value in self.fields.get(name, []) if value]

    def number(self, name: str, default: int) -> int:
        """Return a whole number; raises Refusal 422 for anything else."""
        given = self.text(name)
        try:
            return int(given) if given else default
        except ValueError:
            raise Refusal(422, f"{name} is {given[:50]!r}; give a whole number") from None

    def flag(self, name: str) -> bool:
        """Return true or false; raises Refusal 422 for anything else."""
        given = self.text(name).lower()
        if given not in (*_TRUE, *_FALSE):
            raise Refusal(422, f"{name} is {given[:50]!r}; give true or false")
        return given in _TRUE

    @property
    def box(self) -> Box | None:
        """The region of the question; raises Refusal 422 for anything else than four finite numbers."""
        given = self.text("box")
        if not given:
            return None
        try:
            x1, y1, x2, y2 = (float(value) for value in given.split(","))
        except ValueError:
            raise Refusal(422, f"box is {given[:80]!r}; give x1,y1,x2,y2 in pixels of the photograph") from None
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise Refusal(422, f"box is {given[:80]!r}; give finite numbers")
        return x1, y1, x2, y2


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[Form]:
    """Read a multipart form or a JSON object, and close its files at the end; raises Refusal."""
    form = await _read(request)
    try:
        yield form
    finally:
        for file in form.files:
            await file.close()


async def _read(request: Request) -> Form:
    stated = request.headers.get("content-type", "")
    kind = stated.partition(";")[0].strip().lower()
    if kind == "application/json":
        return Form(_flattened(await read_json(request)))
    if kind != "multipart/form-data":
        raise Refusal(
            415, f"the request is {kind[:80] or 'of no stated type'}; send multipart/form-data or application/json"
        )
    # Other encodings are codecs of Python, some of which are slow or make texts that are no Unicode.
    if parse_options_header(stated)[1].get(b"charset", b"utf-8").lower() != b"utf-8":
        raise Refusal(415, "the form is not in UTF-8; send it without a charset")
    form = Form()
    given = await request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    for name, value in given.multi_items():
        if isinstance(value, UploadFile):
            form.files.append(value)
        else:
            form.fields.setdefault(name, []).append(value)
    return form


async def read_json(request: Request) -> dict[str, Any]:
    """Read a JSON object; raises Refusal."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "send application/json")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_JSON_BYTES:
            raise Refusal(413, f"JSON of more than {MOST_JSON_BYTES >> 20} MiB; send less")
    try:
        content = json.loads(data.decode(), parse_constant=_no_constant)
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters cannot be answered, nor searched for
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not valid JSON") from None
    if not isinstance(content, dict):
        raise Refusal(400, f"the body is a JSON {type(content).__name__}; send an object")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _flattened(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the fields of a JSON object as those of a form: lists are several values, a box is one."""
    found: dict[str, list[str]] = {}
    for name, value in content.items():
        each = value if isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, str | int | float | bool) for one in each):
            raise Refusal(422, f"{name[:50]} holds an object or a list; give a text, a number, or a list of texts")
        texts = [str(one).lower() if isinstance(one, bool) else str(one) for one in each if one is not None]
        found[name] = [",".join(texts)] if name == "box" and isinstance(value, list) else texts
    return found


def index_of(content: Mapping[str, Any]) -> str:
    """Return the text `index` of a JSON object, empty without one; raises Refusal 422."""
    index = content.get("index") or ""
    if not isinstance(index, str):
        raise Refusal(422, "index is no text; give the name of an index")
    return index


def names_of(content: Mapping[str, Any]) -> list[str]:
    """Return the list `names` of a JSON object; raises Refusal 422."""
    names = content.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Refusal(422, "names is missing; give a list of names of images")
    return names


def kept_upload(service: Service, file: UploadFile) -> Upload:
    """Copy a file of a request to one of our own, and keep it as an upload."""
    return service.uploads.keep(service.uploads.write(file.file), file.filename or "photograph", (0, 0))
