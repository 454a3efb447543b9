"""The endpoints that change an index, and the work in the background."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from asmk_engine.errors import AsmkError
from asmk_engine.search.opening import open_any
from asmk_engine.serve.adding import add_photographs
from asmk_engine.serve.documents import ADD_BODY, NAMES_BODY
from asmk_engine.serve.forms import Form, index_of, names_of, read_form, read_json
from asmk_engine.serve.jobs import RUNNING, BackgroundJob
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.service import Service

LOOK_SECONDS, SILENT_SECONDS = 0.2, 5.0
MOST_NAMES = 10_000


def change_router(service: Service) -> APIRouter:
    """Return the endpoints."""
    router = APIRouter()

    @router.post("/add", summary="Add photographs", status_code=202, openapi_extra=ADD_BODY)
    async def add(request: Request) -> JSONResponse:
        """Send photographs as the field `file`, once for each; returns the job that adds them."""
        service.check_writable()
        async with read_form(request) as form:
            job = await service.in_thread(lambda: _add(service, form))
        return JSONResponse({"job": job.key}, 202)

    @router.post("/delete", summary="Delete images", openapi_extra=NAMES_BODY)
    async def delete(request: Request) -> JSONResponse:
        """Delete images by name; their photographs stay, and `/restore` takes it back until the next merge."""
        service.check_writable()
        content = await read_json(request)
        return JSONResponse(await service.in_thread(lambda: _delete(service, content)))

    @router.post("/restore", summary="Take back a deletion", openapi_extra=NAMES_BODY)
    async def restore(request: Request) -> JSONResponse:
        """Restore images that were deleted since the last merge."""
        service.check_writable()
        content = await read_json(request)
        return JSONResponse(await service.in_thread(lambda: _restore(service, content)))

    @router.get("/jobs/{key}", summary="How far a job is")
    async def job(key: str) -> JSONResponse:
        """Return state, progress and failures of a job."""
        return JSONResponse(service.jobs.get(key).values())

    @router.get("/jobs/{key}/events", summary="The same as server-sent events", response_class=StreamingResponse)
    async def events(key: str) -> StreamingResponse:
        """Send the job whenever it changes, until it ends."""
        stream = _events(service, service.jobs.get(key))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})

    @router.post("/jobs/{key}/cancel", summary="Cancel a job", status_code=204, response_class=Response)
    async def cancel(key: str) -> Response:
        """Let a job end as soon as it can."""
        found = service.jobs.get(key)
        if found.kind == "add":
            service.check_writable()
        found.cancel()
        return Response(status_code=204)

    return router


def _add(service: Service, form: Form) -> BackgroundJob:
    served = service.shelf.get(form.text("index"))
    if not form.files:
        raise Refusal(422, "no photograph; send photographs as the field file, once for each")
    service.jobs.check_free("add", served.name)
    files: list[tuple[str, Path]] = []
    try:
        for file in form.files:
            files.append((file.filename or "photograph", service.uploads.write(file.file)))
        return service.jobs.start(
            "add", served.name, lambda job: add_photographs(job, served, files, service.thumbnails)
        )
    except AsmkError:
        for _, path in files:
            path.unlink(missing_ok=True)
        raise


def _wanted(content: dict[str, Any]) -> list[str]:
    names = names_of(content)
    if len(names) > MOST_NAMES:
        raise Refusal(422, f"{len(names)} names; give {MOST_NAMES} at most")
    return list(dict.fromkeys(names))


def _delete(service: Service, content: dict[str, Any]) -> dict[str, Any]:
    served = service.shelf.get(index_of(content))
    names = _wanted(content)
    for name in names:
        served.check_image(name)
    deleted = open_any(served.path).delete(names)
    served.refresh()
    return {"deleted": deleted, "undo": names}


def _restore(service: Service, content: dict[str, Any]) -> dict[str, Any]:
    served = service.shelf.get(index_of(content))
    restored = open_any(served.path).restore(_wanted(content))
    served.refresh()
    return {"restored": restored}


async def _events(service: Service, job: BackgroundJob) -> AsyncIterator[str]:
    said, silent = -1, 0.0
    while True:  # looks now and then, since a waiting thread for each client would be too many
        ends = job.state != RUNNING or service.is_stopping()
        if job.changes != said:
            said, silent = job.changes, 0.0
            yield f"data: {json.dumps(job.values())}\n\n"
        elif silent >= SILENT_SECONDS:
            silent = 0.0
            yield ": still there\n\n"  # lets a connection that is gone be noticed
        if ends:
            return
        await asyncio.sleep(LOOK_SECONDS)
        silent += LOOK_SECONDS
