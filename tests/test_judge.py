"""The page of an audit and its server: questions, pictures, answers of several judges, and the keys of a person."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from asmk_engine.audit.judgements import NAME, JudgementJournal, read_judgements
from asmk_engine.audit.model import AuditPair, NamedClass, Questions, SetCounts
from asmk_engine.audit.state import PICTURES
from asmk_engine.pictures.encoding import jpeg_bytes
from asmk_engine.serve.judging import Judging, judging_application
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.running import address_of, bound_socket, guarded_server
from serving import Client

HOSTILE = "<img src=x onerror=alert(1)>/\u202e.jpg"
PAIRS = tuple(
    AuditPair(f"test/{query}", "test", image, "c", 0.5, 1.0, 20, 10)
    for query, image in (("a", "x.jpg"), ("a", HOSTILE), ("b", "y.jpg"))
)
QUESTIONS = Questions(SetCounts("t", 3, 1, {"test": 2}, 3, 3, 2, 0), (), PAIRS, (NamedClass("d", "Paris", 4),))
TOKEN = "a-token-of-the-tests"


@dataclass
class Server:
    """The application of an audit in a folder, a client of it, and its journal."""

    folder: Path
    journal: JudgementJournal
    client: Client

    def answer(self, key: Any, judge: Any, answer: Any) -> httpx.Response:
        return self.client.post("/judgements", json={"key": key, "judge": judge, "answer": answer})


def prepared(folder: Path) -> Path:
    (folder / PICTURES).mkdir(parents=True)
    for number, key in enumerate(QUESTIONS.keys):
        pixels = np.full((40, 60, 3), 50 * number, np.uint8)
        (folder / PICTURES / f"{key}.jpg").write_bytes(jpeg_bytes(pixels))
        if number < len(PAIRS):
            (folder / PICTURES / f"{key}-match.jpg").write_bytes(jpeg_bytes(255 - pixels))
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = prepared(tmp_path / "audit")
    with JudgementJournal(folder) as journal:
        client = Client(judging_application(Judging(folder, QUESTIONS, journal, ServeOptions(rate=1e6))))
        yield Server(folder, journal, client)
        client.close()


def test_a_judge_sees_every_question_and_only_own_answers(server: Server) -> None:
    assert server.answer(PAIRS[0].key, " Ann ", "same").status_code == 204
    assert server.answer(PAIRS[0].key, "Bob", "different").status_code == 204
    found = server.client.get("/questions", judge="Ann").json()["questions"]
    assert [one["key"] for one in found] == QUESTIONS.keys
    assert [one["answer"] for one in found] == ["same", None, None, None]
    assert [one["kind"] for one in found] == ["pair", "pair", "pair", "class"]
    assert not {"score", "evidence", "inliers"} & found[0].keys()  # a judge shall not follow the machine
    assert {one["answer"] for one in server.client.get("/questions", judge="Eve").json()["questions"]} == {None}


def test_an_acknowledged_answer_is_on_disk(server: Server) -> None:
    for answer in ("unsure", "different", "same"):
        assert server.answer(PAIRS[1].key, "Ann", answer).status_code == 204
        assert read_judgements(server.folder)[-1].answer == answer
    assert server.journal.judgements.state(PAIRS[1].key) == "same"


def test_wrong_answers_are_refused_in_one_line(server: Server) -> None:
    key = PAIRS[0].key
    wrong = [(422, (None, "a", "same")), (422, (key, 1, "same")), (404, ("0" * 16, "a", "same")),
             (404, ("../audit", "a", "same")), (400, (key, "a", "yes")), (400, (key, "", "same")),
             (400, (key, "a" * 81, "same")), (400, (key, "a\nb", "same"))]  # fmt: skip
    for status, given in wrong:
        answer = server.answer(*given)
        assert answer.status_code == status, given
        assert "\n" not in answer.json()["error"]
    assert server.client.post("/judgements", content=b"x").status_code == 415
    assert (server.folder / NAME).read_bytes() == b""


def test_pictures_are_those_of_questions(server: Server) -> None:
    found = server.client.get(f"/pictures/{PAIRS[0].key}")
    assert found.headers["content-type"] == "image/jpeg"
    assert found.content == (server.folder / PICTURES / f"{PAIRS[0].key}.jpg").read_bytes()
    match = server.client.get(f"/pictures/{PAIRS[0].key}/match").content
    assert match == (server.folder / PICTURES / f"{PAIRS[0].key}-match.jpg").read_bytes() != found.content
    for path in (
        f"/pictures/{QUESTIONS.named[0].key}/match",
        "/pictures/nothing/match",
        "/pictures/nothing",
        "/pictures/..%2Faudit.json",
        "/pictures/",
        "/nothing",
    ):
        assert server.client.get(path).status_code == 404
    (server.folder / PICTURES / f"{PAIRS[2].key}.jpg").unlink()
    assert server.client.get(f"/pictures/{PAIRS[2].key}").status_code == 404


def test_the_page_and_its_rules_are_those_of_the_search_page(server: Server, tmp_path: Path) -> None:
    page = server.client.get("/")
    assert "/static/judge.js" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert server.client.get("/", headers={"host": "elsewhere.example"}).status_code == 421
    foreign = {"origin": "http://elsewhere.example"}
    body = {"key": PAIRS[0].key, "judge": "a", "answer": "same"}
    assert server.client.post("/judgements", json=body, headers=foreign).status_code == 403
    folder = prepared(tmp_path / "locked")
    with JudgementJournal(folder) as journal:
        client = Client(judging_application(Judging(folder, QUESTIONS, journal, ServeOptions(token=TOKEN))))
        for path in ("/questions", f"/pictures/{PAIRS[0].key}"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.post("/judgements", json=body).status_code == 401
        assert client.post("/login", json={"token": TOKEN}).status_code == 204
        client.close()
    assert read_judgements(folder) == []


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """The page in a real browser, where nothing may go wrong, and the folder of the audit."""
    folder, ready = prepared(tmp_path / "audit"), threading.Event()
    options = ServeOptions(port=0, rate=1e6)
    bound: socket.socket = bound_socket(options)
    faults: list[str] = []
    with JudgementJournal(folder) as journal:
        app = judging_application(Judging(folder, QUESTIONS, journal, options))
        server = guarded_server(app, options, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        assert ready.wait(60)
        opened = browser.new_page()
        opened.set_default_timeout(30_000)
        opened.on("pageerror", lambda error: faults.append(str(error)))
        opened.on("dialog", lambda dialog: faults.append(dialog.message))
        opened.goto(address_of(options, bound))
        yield opened, folder
        opened.close()
        server.should_exit = True
        thread.join(60)
    assert faults == []


def test_a_person_judges_with_keys(page: tuple[Any, Path]) -> None:
    opened, folder = page
    opened.get_by_label("Your name").fill("Ann")
    opened.keyboard.press("Enter")
    opened.locator("p.hint", has_text="0 of 4").wait_for()
    picture = opened.locator("img.judged")
    plain = picture.get_attribute("src")
    opened.keyboard.press("m")  # what the machine found is shown only to those who ask for it
    opened.locator("img.judged[src$='/match']").wait_for()
    assert picture.get_attribute("src") == f"{plain}/match"
    opened.keyboard.press("s")
    opened.locator("p.hint", has_text="1 of 4").wait_for()
    assert not picture.get_attribute("src").endswith("/match")  # the next question begins with the photographs alone
    assert HOSTILE.partition("/")[0] in opened.locator(".asked").inner_text()
    opened.keyboard.press("d")
    opened.locator("p.hint", has_text="2 of 4").wait_for()
    opened.get_by_role("button", name="Unsure (u)").click()
    opened.locator("p.hint", has_text="3 of 4").wait_for()
    opened.get_by_role("heading", name="Does a test set show this class?").wait_for()
    assert not opened.get_by_role("button", name="What matches (m)").count()
    opened.keyboard.press("m")
    opened.keyboard.press("s")
    opened.get_by_text("You answered all questions.").wait_for()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("u")  # the first question again: the new answer replaces the earlier one
    opened.locator("[data-answer=unsure][aria-pressed=true]").wait_for()
    given = [(one.key, one.judge, one.answer) for one in read_judgements(folder)]
    answers = ("same", "different", "unsure", "same")
    assert given[:4] == [(key, "Ann", answer) for key, answer in zip(QUESTIONS.keys, answers, strict=True)]
    assert given[4] == (QUESTIONS.keys[0], "Ann", "unsure")
