"""The endpoints that ask: search, uploads, comparison."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from asmk_engine.errors import AsmkError
from asmk_engine.search.turned import UPRIGHT, Turn, turns
from asmk_engine.serve.answers import hit_values
from asmk_engine.serve.comparing import Compared, compare
from asmk_engine.serve.documents import COMPARE_ANSWER, SEARCH_ANSWER, SEARCH_BODY, UPLOAD_BODY
from asmk_engine.serve.forms import Form, kept_upload, read_form
from asmk_engine.serve.questions import MOST_PHOTOGRAPHS, Answered, Asked, Question, question_turns
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.service import Service, asked_values
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.serve.uploads import Upload

SHOWN_SIDE = 1280


def search_router(service: Service) -> APIRouter:
    """Return the endpoints."""
    router = APIRouter()

    @router.post(
        "/search",
        summary="Find the same thing in other photographs",
        openapi_extra=SEARCH_BODY,
        responses=SEARCH_ANSWER,
    )
    async def search(request: Request) -> JSONResponse:
        """Ask with indexed images (name), kept uploads (upload) or photographs (file); several show the same thing."""
        async with read_form(request) as form:
            return JSONResponse(await service.in_thread(lambda: _search(service, form)))

    @router.post("/uploads", summary="Keep a photograph for questions", openapi_extra=UPLOAD_BODY)
    async def upload(request: Request) -> JSONResponse:
        """Send one photograph as the field `file`; it is kept for about an hour."""
        async with read_form(request) as form:
            if len(form.files) != 1:
                raise Refusal(422, f"{len(form.files)} files; send one photograph as the field file")
            kept = await service.in_thread(lambda: _checked_upload(service, form.files[0]))
        return JSONResponse({"upload": kept.key, "size": list(kept.size), "name": kept.name})

    @router.get("/uploads/{key}", summary="A kept photograph", response_class=Response)
    async def uploaded(key: str, size: int = 640) -> Response:
        """Return it as a JPEG whose longer side is `size`: 160, 320, 640 or 1280."""
        found = await service.in_thread(lambda: service.thumbnails.of_upload(service.uploads.get(key), size))
        return Response(found.data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @router.get("/compare", summary="Where two photographs match", responses=COMPARE_ANSWER)
    async def compared(request: Request, name: str) -> JSONResponse:
        """Compare the indexed image `name` with another, `query`, or with `upload`; also `box`, and `turn` of a hit."""
        return JSONResponse(await service.in_thread(lambda: _compare_values(service, _fields(request), name)))

    @router.get("/compare/picture", summary="The same as a picture", response_class=Response)
    async def picture(request: Request, name: str) -> Response:
        """Return both photographs side by side with lines between their matched features, as a JPEG."""
        data = await service.in_thread(lambda: _picture(service, _fields(request), name))
        shown = f"attachment; filename*=UTF-8''{quote(name.rpartition('/')[2], safe='')}.match.jpg"
        return Response(data, media_type="image/jpeg", headers={"content-disposition": shown})

    return router


def _fields(request: Request) -> Form:
    """Return the values of an address as a form."""
    form = Form()
    for name, value in request.query_params.multi_items():
        form.fields.setdefault(name, []).append(value)
    return form


def _checked_upload(service: Service, file: UploadFile) -> Upload:
    """Keep a photograph that can be decoded; raises Refusal 422 for others, which are not kept."""
    upload = kept_upload(service, file)
    try:
        upload.size = service.thumbnails.of_upload(upload, SHOWN_SIDE).size
    except Refusal:
        service.uploads.forget(upload.key)
        raise
    return upload


def _photographs(service: Service, served: ServedIndex, form: Form) -> tuple[tuple[Asked, ...], list[Upload]]:
    """Return the photographs of a question, and those of them that came with it."""
    count = len(form.files) + len(form.texts("name")) + len(form.texts("upload"))
    if not 1 <= count <= MOST_PHOTOGRAPHS:
        raise Refusal(422, f"{count} photographs; give 1 to {MOST_PHOTOGRAPHS}, each as name, upload or file")
    names, keys = form.texts("name"), form.texts("upload")
    for name in names:
        served.check_image(name)
    kept = [service.uploads.get(key) for key in keys]
    sent = [kept_upload(service, file) for file in form.files]
    return (*(Asked(name) for name in names), *(Asked(upload=one) for one in (*kept, *sent))), sent


def _search(service: Service, form: Form) -> dict[str, Any]:
    served = service.shelf.get(form.text("index"))
    wanted = question_turns(rotations=form.flag("rotations"), mirror=form.flag("mirror"))
    top, rerank, box = form.number("top", 30), form.number("rerank", 50), form.box
    photographs, sent = _photographs(service, served, form)
    try:
        question = Question(photographs, box, top, rerank, wanted)
        answer = _answered(service, served, question)
    except AsmkError:
        for upload in sent:
            service.uploads.forget(upload.key)
        raise
    return _values(service, served, question, answer)


def _answered(service: Service, served: ServedIndex, question: Question) -> Answered:
    began = time.perf_counter()
    described = [
        service.describer.describe(served, asked, question.box, question.wanted) for asked in question.photographs
    ]
    seconds = time.perf_counter() - began
    for asked, found in zip(question.photographs, described, strict=True):
        if asked.upload is not None and not any(asked.upload.size):
            asked.upload.size = found[0].size
    answer = service.searches.answer(served, question, described)
    answer.describe = seconds
    service.metrics.describe.observe(seconds)
    service.metrics.search.observe(answer.search)
    return answer


def _values(service: Service, served: ServedIndex, question: Question, answer: Answered) -> dict[str, Any]:
    pairs = zip(question.photographs, answer.sizes, strict=True)
    return {
        "index": served.name,
        "commit": served.commit,
        "question": [asked_values(asked, size) for asked, size in pairs],
        "box": None if question.box is None else list(question.box),
        "hits": [
            hit_values(hit, rank, place, served.metadata) for rank, (hit, place) in enumerate(answer.hits, start=1)
        ],
        "more": answer.more,
        "seconds": {"describe": round(answer.describe, 4), "search": round(answer.search, 4)},
        "notes": list(dict.fromkeys(answer.notes)),
    }


def _compared(service: Service, form: Form, name: str) -> tuple[ServedIndex, Asked, Compared]:
    served = service.shelf.get(form.text("index"))
    served.check_image(name)
    query, key = form.text("query"), form.text("upload")
    if bool(query) == bool(key):
        raise Refusal(422, "give either query, the name of an indexed image, or upload")
    asked = Asked(upload=service.uploads.get(key)) if key else Asked(query)
    turn = _turn(form.text("turn"))
    described = service.describer.describe(served, asked, form.box, (turn,))[0]
    with service.searches.admitted() as threads:
        return served, asked, compare(served, described, name, threads)


def _turn(label: str) -> Turn:
    """Return the turn of this label, as a hit has it; raises Refusal 422."""
    known = {turn.label: turn for turn in turns(rotations=True, mirror=True)}
    if label not in known:
        raise Refusal(422, f"turn is {label[:50]!r}; give one of {', '.join(filter(None, known))}, or leave it out")
    return known.get(label, UPRIGHT)


def _compare_values(service: Service, form: Form, name: str) -> dict[str, Any]:
    served, _, compared = _compared(service, form, name)
    hit = hit_values(compared.hit, 1, 0, served.metadata)
    return {
        "hit": {**hit, "score": None},
        "query": {"size": None if compared.query is None else list(compared.query)},
        "image": {"size": hit["size"]},
        "pairs": compared.pairs,
    }


def _picture(service: Service, form: Form, name: str) -> bytes:
    served, asked, compared = _compared(service, form, name)
    if asked.upload is not None:
        query = asked.upload.name, asked.upload.path
    else:
        query = asked.name or "", served.photograph(asked.name or "")
    return service.thumbnails.compared(query, (name, served.photograph(name)), compared)
