"""The endpoints that show what there is: indexes, images, thumbnails, groups."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import JSONResponse, Response

from asmk_engine.serve.documents import GROUPS_BODY
from asmk_engine.serve.forms import index_of, read_json
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.service import Service, index_values
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.version import __version__

MOST_IMAGES, MOST_GROUPS = 500, 200


class _NameConvertor(PathConvertor):
    """Takes the rest of a path as a name, also with line breaks, which the usual one cuts off or refuses."""

    regex = r"[\s\S]*"


register_url_convertor("name", _NameConvertor())
_CACHED = {"cache-control": "private, max-age=300"}


def browse_router(service: Service) -> APIRouter:
    """Return the endpoints."""
    router = APIRouter()

    @router.get("/indexes", summary="The indexes of this server")
    async def indexes() -> JSONResponse:
        """Return name, number of images, commit and abilities of each index."""
        served = service.shelf.served.values()
        found = await service.in_thread(lambda: [index_values(service, one) for one in served])
        return JSONResponse({"indexes": found, "version": __version__})

    @router.get("/images", summary="Folders and names of images")
    async def images(
        index: str = "", folder: str = "", search: str = "", after: str | None = None, limit: int = 60
    ) -> JSONResponse:
        """List a folder, or find images below it whose name or metadata have all words of `search`."""
        served = service.shelf.get(index)
        return JSONResponse(await service.in_thread(lambda: _images(served, folder, search, after, limit)))

    @router.get("/images/{name:name}", summary="One image")
    async def image(name: str, index: str = "") -> JSONResponse:
        """Return folder, metadata, group and neighbours in the folder of an image."""
        served = service.shelf.get(index)
        return JSONResponse(await service.in_thread(lambda: _image(service, served, name)))

    @router.get("/thumbnails/{name:name}", summary="A small picture of an image", response_class=Response)
    async def thumbnail(request: Request, name: str, index: str = "", size: int = 320) -> Response:
        """Return a JPEG whose longer side is `size`: 160, 320, 640 or 1280."""
        served = service.shelf.get(index)
        found = await service.in_thread(lambda: service.thumbnails.of_image(served, name, size))
        headers = {**_CACHED, "etag": found.tag}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.data, media_type="image/jpeg", headers=headers)

    @router.get("/groups", summary="Images that show the same thing")
    async def groups(index: str = "", after: int = 0, limit: int = 20) -> JSONResponse:
        """List the groups that were found, the largest first."""
        served = service.shelf.get(index)
        _check_range("limit", limit, MOST_GROUPS)
        job = service.jobs.running("groups", served.name)
        return JSONResponse(service.groups.page(served, job, max(0, after), limit))

    @router.post("/groups", summary="Find the groups of an index", status_code=202, openapi_extra=GROUPS_BODY)
    async def find(request: Request) -> JSONResponse:
        """Begin to find groups; takes minutes for thousands of images. Returns the job."""
        content = await read_json(request)
        served = service.shelf.get(index_of(content))
        if not served.verifies:
            raise Refusal(422, f"{served.name}: has no local features, whose places make groups")
        job = service.jobs.start("groups", served.name, lambda job: service.groups.find(job, served))
        return JSONResponse({"job": job.key}, 202)

    return router


def _check_range(what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise Refusal(422, f"{what} is {value}; give 1 to {most}")


def _images(served: ServedIndex, folder: str, search: str, after: str | None, limit: int) -> dict[str, Any]:
    _check_range("limit", limit, MOST_IMAGES)
    folder = folder if not folder or folder.endswith("/") else f"{folder}/"
    table = served.names
    listing = table.found(folder, search[:500]) if search.strip() else table.listing(folder)
    names, following = listing.page(after, limit)
    return {
        "index": served.name,
        "folder": folder,
        "total": len(listing.names),
        "folders": [{"name": name, "images": count} for name, count in listing.folders],
        "images": [{"name": name, "metadata": served.metadata.of(name)} for name in names],
        "next": following,
    }


def _image(service: Service, served: ServedIndex, name: str) -> dict[str, Any]:
    served.check_image(name)
    before, after = served.names.neighbours(name)
    group = service.groups.of_image(served, name)
    return {
        "index": served.name,
        "name": name,
        "folder": name[: name.rfind("/") + 1],
        "metadata": served.metadata.of(name),
        "previous": before,
        "following": after,
        "group": None if group is None else {key: group[key] for key in ("number", "images", "kinds")},
    }
