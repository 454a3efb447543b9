"""The server of the judgements of an audit: a page that shows one pair after the other, and takes the answers.

A judge sees only answers of his or her own, so that nobody follows another. An answer is on disk before it is
acknowledged. Pictures were drawn by the audit: no path of a request reaches the file system.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from asmk_engine.audit.judgements import JudgementJournal
from asmk_engine.audit.model import CLASS, PAIR, AuditPair, NamedClass, Questions
from asmk_engine.audit.pictures import match_picture_name, picture_name
from asmk_engine.audit.state import PICTURES
from asmk_engine.errors import AsmkError
from asmk_engine.serve.access import Access
from asmk_engine.serve.application import add_errors, add_others, add_pages
from asmk_engine.serve.forms import read_json
from asmk_engine.serve.guard import Guard
from asmk_engine.serve.metrics import Metrics
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.refusals import Refusal, refusal_of
from asmk_engine.serve.running import guarded_server, run_until_stopped
from asmk_engine.storage.folder import Folder
from asmk_engine.version import __version__

PAGES = {"/": "judge.html"}
_CACHED = {"cache-control": "private, max-age=300"}


class Judging:
    """What the endpoints share.

    folder     of the audit
    questions  in the order in which people are asked
    journal    of the answers, open
    """

    def __init__(self, folder: Path, questions: Questions, journal: JudgementJournal, options: ServeOptions) -> None:
        self.options, self.access, self.metrics = options, Access(options), Metrics()
        self.journal, self._pictures = journal, Folder(folder / PICTURES)
        asked: list[AuditPair | NamedClass] = [*questions.pairs, *questions.named]
        self._questions = {one.key: one for one in asked}

    def questions(self, judge: str) -> list[dict[str, Any]]:
        """Return all questions with the answers of one judge."""
        judgements = self.journal.judgements
        return [{**_shown(one), "answer": judgements.of(key).get(judge)} for key, one in self._questions.items()]

    def picture(self, key: str, named: Callable[[str], str] = picture_name) -> bytes:
        """Return the picture of a question, or another that `named` gives the name of; raises Refusal 404."""
        self._check(key)
        data = self._pictures.content(named(key))
        if data is None:
            raise Refusal(404, "there is no picture of this question; run the audit again")
        return data

    def judge(self, content: dict[str, Any]) -> None:
        """Take an answer; raises Refusal 404 for an unknown question, and what the journal raises."""
        key, judge, answer = (content.get(name) for name in ("key", "judge", "answer"))
        if not (isinstance(key, str) and isinstance(judge, str) and isinstance(answer, str)):
            raise Refusal(422, "key, judge and answer are missing; give three texts")
        self._check(key)
        self.journal.add(key, judge, answer)

    def _check(self, key: str) -> None:
        if key not in self._questions:
            raise Refusal(404, "there is no such question; load the page again")


def _shown(one: AuditPair | NamedClass) -> dict[str, Any]:
    """Return a question as the page shows it; what an automatic stage thinks of it is left out."""
    if isinstance(one, NamedClass):
        return {"key": one.key, "kind": CLASS, "label": one.label, "name": one.name, "images": one.images}
    return {"key": one.key, "kind": PAIR, "label": one.label, "query": one.query, "image": one.image}


def judging_application(judging: Judging) -> Guard:
    """Return the ASGI application."""
    app = FastAPI(
        title="asmk-engine judge", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        description="Judge the pairs of an audit. Errors are JSON: one line under `error`.",
    )  # fmt: skip
    _add_judging(app, judging)
    add_pages(app, PAGES)
    add_others(app, judging)
    add_errors(app)
    return Guard(app, judging.access, judging.metrics, judging.options.most_bytes)


def _add_judging(app: FastAPI, judging: Judging) -> None:
    @app.get("/questions", summary="All questions")
    async def questions(judge: str = "") -> JSONResponse:
        """Return the questions in their order, with the answers of this judge."""
        return JSONResponse({"questions": judging.questions(judge.strip())})

    @app.get("/pictures/{key}", summary="The picture of a question", response_class=Response)
    async def picture(key: str) -> Response:
        """Return a JPEG: both photographs side by side, or images of a class."""
        return _jpeg(await run_in_threadpool(judging.picture, key))

    @app.get("/pictures/{key}/match", summary="What both have in common", response_class=Response)
    async def match_picture(key: str) -> Response:
        """Return a JPEG: both photographs of a pair, the features that pair, and the evidence."""
        return _jpeg(await run_in_threadpool(judging.picture, key, match_picture_name))

    @app.post("/judgements", summary="Answer a question", status_code=204, response_class=Response)
    async def judge(request: Request) -> Response:
        """Send {"key": "...", "judge": "...", "answer": "same"}; also different or unsure. The last answer counts."""
        content = await read_json(request)
        try:
            await run_in_threadpool(judging.judge, content)
        except AsmkError as error:
            raise refusal_of(error) from None
        return Response(status_code=204)


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=_CACHED)


def run_judging(
    folder: Path, questions: Questions, options: ServeOptions, bound: socket.socket, on_start: Callable[[], None]
) -> None:
    """Take judgements until SIGINT or SIGTERM; raises StorageError if another process has the audit open."""
    with JudgementJournal(folder) as journal:
        app = judging_application(Judging(folder, questions, journal, options))
        run_until_stopped(guarded_server(app, options, on_start), bound)
