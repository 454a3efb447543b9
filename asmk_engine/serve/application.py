"""The application: endpoints, the page, and errors as one line."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b
from importlib import resources
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from asmk_engine.serve.access import Access
from asmk_engine.serve.browse_routes import browse_router
from asmk_engine.serve.change_routes import change_router
from asmk_engine.serve.forms import read_json
from asmk_engine.serve.guard import Guard, refused
from asmk_engine.serve.metrics import Metrics
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.search_routes import search_router
from asmk_engine.serve.service import Service
from asmk_engine.version import __version__

PAGES = {"/": "index.html", "/api": "api.html"}
COOKIE_SECONDS = 30 * 86_400


class Guarded(Protocol):
    """What a server of any kind knows of those who ask."""

    options: ServeOptions
    access: Access
    metrics: Metrics


def application(service: Service) -> Guard:
    """Return the ASGI application of a service."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="asmk-engine", version=__version__, docs_url=None, redoc_url=None, lifespan=life, redirect_slashes=False,
        description="Find the same thing in other photographs. Errors are JSON: one line under `error`.",
    )  # fmt: skip
    for router in (search_router(service), browse_router(service), change_router(service)):
        app.include_router(router)
    add_pages(app, PAGES)
    add_others(app, service)
    add_errors(app)
    return Guard(app, service.access, service.metrics, service.options.most_bytes)


def add_pages(app: FastAPI, pages: Mapping[str, str]) -> None:
    """Add pages and their files, which are read once: no path of a request reaches the file system.

    pages  address → name of the file
    """
    folder = resources.files("asmk_engine.serve") / "page"
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}

    def answered(request: Request, name: str) -> Response:
        if name not in files:
            raise Refusal(404, "there is no such page")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        kind = "text/javascript" if name.endswith(".js") else kind
        tag = f'"{blake2b(files[name], digest_size=12).hexdigest()}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=kind, headers=headers)

    for path, name in pages.items():
        app.add_api_route(path, _page(answered, name), include_in_schema=False, response_class=Response)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        return answered(request, name)


def _page(answered: Any, name: str) -> Any:
    async def page(request: Request) -> Response:
        found: Response = answered(request, name)
        return found

    return page


def add_others(app: FastAPI, service: Guarded) -> None:
    """Add what watches and opens the server."""

    @app.get("/health", summary="Whether the server answers")
    async def health() -> dict[str, str]:
        """Return `ok`; needs no token."""
        return {"status": "ok"}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Return them as text."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/login", summary="Sign in with the token", status_code=204, response_class=Response)
    async def login(request: Request) -> Response:
        """Send {"token": "..."}; the page gets a cookie that scripts cannot read."""
        given = (await read_json(request)).get("token")
        if service.options.token is not None and not (isinstance(given, str) and service.access.knows(given)):
            raise Refusal(401, "this is not the token that the server was started with")
        answer = Response(status_code=204)
        if service.options.token is not None:
            secure = request.url.scheme == "https"
            answer.set_cookie(
                service.access.cookie_name, service.access.cookie, COOKIE_SECONDS, httponly=True, samesite="strict",
                secure=secure,
            )  # fmt: skip
        return answer


def add_errors(app: FastAPI) -> None:
    """Let every error be one line of JSON, without what happened inside."""

    async def of_refusal(_: Request, error: Exception) -> JSONResponse:
        return refused(error if isinstance(error, Refusal) else Refusal(500, "the server failed"))

    async def of_http(_: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = {404: "there is no such page", 405: "this page does not answer this method"}
        detail = error.detail if isinstance(error, HTTPException) and status == 400 else ""
        return refused(Refusal(status, said.get(status, f"the request cannot be read: {detail}".rstrip(": "))))

    async def of_values(_: Request, error: Exception) -> JSONResponse:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": ("",), "msg": ""}
        return refused(Refusal(422, f"{first['loc'][-1]}: {first['msg']}"))

    async def of_end(_: Request, error: Exception) -> JSONResponse:
        return refused(Refusal(400, "the connection ended before the request did"))  # which nobody reads but metrics

    async def of_any(_: Request, error: Exception) -> JSONResponse:
        return refused(Refusal(500, f"the server failed ({type(error).__name__}); its log says more"))

    app.add_exception_handler(Refusal, of_refusal)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_values)
    app.add_exception_handler(ClientDisconnect, of_end)
    app.add_exception_handler(Exception, of_any)
