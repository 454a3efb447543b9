"""The search page in a real browser, used as a person would: with mouse, touch, keys, dropped and pasted files."""

from __future__ import annotations

import base64
import csv
import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import page_samples
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.pipeline.folders import index_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium is installed, which these tests drive", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed, which drives chromium")
expect = playwright.expect
expect.set_options(timeout=30_000)  # a machine may be busy; a condition that holds is seen at once

TOKEN = "a-token-of-the-tests"
VIEWS = {
    "welcome": "/",
    "answers": "/?name=coffee.png",
    "several": "/?name=coffee.png&name=chelsea.png",
    "unknown": "/?name=nothing.png",
    "compare": "/?name=coffee.png&compare=views%2Fcoffee%2Fpart.png",
    "collection": "/?view=browse",
    "folder": "/?view=browse&folder=odd%2F",
    "image": "/?view=image&name=coffee.png",
    "groups": "/?view=groups",
    "judgements": "/?view=marks",
    "add": "/?view=add",
    "api": "/api",
}
DROP = """([files, selector]) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
    transfer.items.add(new File([bytes], name, {type: "image/png"}));
  }
  const target = document.querySelector(selector);
  const options = {bubbles: true, cancelable: true, dataTransfer: transfer};
  for (const kind of ["dragover", "drop"]) target.dispatchEvent(new DragEvent(kind, options));
}"""
PASTE = """(data) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  transfer.items.add(new File([bytes], "image.png", {type: "image/png"}));
  document.body.dispatchEvent(new ClipboardEvent("paste", {bubbles: true, cancelable: true, clipboardData: transfer}));
}"""


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, photos.index and metadata.csv."""
    folder = tmp_path_factory.mktemp("page")
    page_samples.write_collection(folder / "photos")
    page_samples.write_metadata(folder / "metadata.csv")
    index_folder(folder / "photos", folder / "photos.index", extractor="rootsift", geometry="all")
    return folder


@pytest.fixture(scope="session")
def address(collection: Path) -> Iterator[str]:
    with page_samples.served(collection / "photos.index", "--metadata", collection / "metadata.csv") as found:
        yield found


@pytest.fixture(scope="session")
def writable(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("writable")
    shutil.copytree(collection, folder, dirs_exist_ok=True)
    with page_samples.served(folder / "photos.index", "--writable") as found:
        yield found


Opener = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opener]:
    """Open a view in a new page; afterwards nothing may have gone wrong in it, and no request left the machine."""
    faults: list[str] = []
    contexts = []

    def watch(page: Any, host: str) -> None:
        def hear(said: Any) -> None:
            # A refused request is an error of the console too: it is the answer that a test asks for.
            if said.type == "error" and not re.search(r"the server responded|net::ERR", said.text):
                faults.append(said.text)

        def see(request: Any) -> None:
            if not request.url.startswith((f"{host}/", "blob:", "data:")):
                faults.append(request.url)

        def dismiss(dialog: Any) -> None:
            faults.append(f"a dialog of a script: {dialog.message}")
            dialog.dismiss()

        page.on("console", hear)
        page.on("request", see)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", dismiss)

    def open_page(view: str = "/", at: str = address, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        watch(page, at)
        page.goto(at + view)
        page.locator("h1, dialog, [role=alert]").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def encoded(collection: Path, name: str) -> str:
    return base64.b64encode((collection / "photos" / name).read_bytes()).decode()


def settled(page: Any) -> Any:
    """Wait until the answers are there, and return their cards."""
    expect(page.locator(".answers h1")).to_have_text(re.compile("answer"))
    return page.locator(".answers .card:not(.waiting)")


def names_of(cards: Any) -> list[str]:
    return [str(name) for name in cards.locator(".name").evaluate_all("all => all.map((one) => one.title)")]


def best(page: Any, count: int = 2) -> set[str]:
    return set(names_of(settled(page))[:count])


COFFEE = {"views/coffee/part.png", "views/coffee/turned.png"}


def test_a_chosen_file_finds_what_it_shows(opened: Opener, collection: Path) -> None:
    page = opened()
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose photographs").click()
    chooser.value.set_files(collection / "photos/views/coffee/part.png")
    cards = settled(page)
    assert set(names_of(cards)[:3]) == {"coffee.png", *COFFEE}
    first = cards.first
    expect(first.locator(".badge")).to_have_text("Match")
    expect(first.locator(".score")).to_have_text(re.compile(r"\d"))
    points = first.locator("polygon.line").get_attribute("points").split()
    assert len(points) >= 3
    page.reload()
    assert "coffee.png" in best(page, 3)


def test_a_dropped_and_a_pasted_photograph_ask(opened: Opener, collection: Path) -> None:
    page = opened()
    page.evaluate(DROP, [[["my cup.png", encoded(collection, "coffee.png")]], "main"])
    assert best(page, 3) == {"coffee.png", *COFFEE}
    expect(page.locator(".chip .name")).to_have_text("my cup.png")
    page.evaluate(PASTE, encoded(collection, "chelsea.png"))
    expect(page.locator(".chip .name")).to_have_text("image.png")
    assert "chelsea.png" in best(page, 3)
    page.go_back()
    expect(page.locator(".chip .name")).to_have_text("my cup.png")
    assert best(page, 3) == {"coffee.png", *COFFEE}


def test_what_is_no_photograph_is_said(opened: Opener) -> None:
    page = opened()
    page.evaluate(DROP, [[["notes.png", base64.b64encode(b"words").decode()]], "main"])
    expect(page.locator("#toasts")).to_contain_text("notes.png")
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".toast")).to_have_count(0)


def test_an_indexed_image_asks_by_its_name_and_by_browsing(opened: Opener) -> None:
    page = opened()
    page.get_by_label("Ask with an indexed image").fill("rocket.png")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert best(page) == {"views/rocket/part.png", "views/rocket/turned.png"}
    assert "name=rocket.png" in page.url
    page.get_by_role("link", name="Collection").click()
    page.get_by_role("link", name="coffee.png").click()
    page.get_by_role("button", name="Ask with this image").click()
    assert best(page) == COFFEE
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("coffee.png")
    page.go_forward()
    assert best(page) == COFFEE


def test_words_that_are_no_name_lead_to_the_collection(opened: Opener) -> None:
    page = opened()
    page.get_by_label("Ask with an indexed image").fill("turned")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_label("Search names and metadata")).to_have_value("turned")
    expect(page.locator(".card")).to_have_count(4)


def test_several_photographs_are_one_question(opened: Opener, collection: Path) -> None:
    page = opened("/?name=coffee.png")
    settled(page)
    page.get_by_text("Add a photograph of the same thing").click()
    page.evaluate(DROP, [[["cat.png", encoded(collection, "chelsea.png")]], "[data-drop=add]"])
    expect(page.get_by_role("heading", name="Question of 2 photographs")).to_be_visible()
    assert best(page, 5) >= {*COFFEE, "chelsea.png"}
    expect(page.locator(".stage")).to_have_count(0)
    page.get_by_role("button", name="Remove coffee.png from the question").click()
    expect(page.locator(".chip")).to_have_count(1)
    assert "chelsea.png" in best(page, 1)
    settled(page).first.get_by_role("button", name="Add chelsea.png to the question").click()
    expect(page.locator(".chip")).to_have_count(2)


def asked(page: Any, act: Callable[[], Any]) -> dict[str, Any]:
    """Act, and return the question that the page sends for it."""
    with page.expect_request(lambda request: request.url.endswith("/search")) as request:
        act()
    found: dict[str, Any] = request.value.post_data_json
    settled(page)
    return found


def box_of(question: dict[str, Any]) -> list[int]:
    return [int(side) for side in question["box"].split(",")]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    page.mouse.move(*end)
    page.mouse.up()


def test_a_region_is_drawn_moved_resized_and_cleared_with_the_mouse(opened: Opener) -> None:
    page = opened("/?name=coffee.png")
    settled(page)
    stage = page.locator(".stage")
    place, (width, height) = stage.bounding_box(), (450, 300)

    def at(x: float, y: float) -> tuple[float, float]:
        return place["x"] + x * place["width"], place["y"] + y * place["height"]

    drawn = box_of(asked(page, lambda: drag(page, at(0.2, 0.2), at(0.6, 0.7))))
    assert drawn == pytest.approx([0.2 * width, 0.2 * height, 0.6 * width, 0.7 * height], abs=3)
    moved = box_of(asked(page, lambda: drag(page, at(0.4, 0.4), at(0.5, 0.3))))
    assert moved == pytest.approx([0.3 * width, 0.1 * height, 0.7 * width, 0.6 * height], abs=3)
    resized = box_of(asked(page, lambda: drag(page, at(0.7, 0.6), at(0.9, 0.9))))
    assert resized == pytest.approx([0.3 * width, 0.1 * height, 0.9 * width, 0.9 * height], abs=3)
    assert f"box={'%2C'.join(map(str, resized))}" in page.url
    page.reload()
    assert best(page) == COFFEE
    expect(page.locator(".region")).to_be_visible()
    assert asked(page, page.get_by_role("button", name="Whole image").click)["box"] is None
    expect(page.locator(".region")).to_be_hidden()
    assert "box=" not in page.url


def test_a_region_is_drawn_by_touch(opened: Opener) -> None:
    page = opened("/?name=coffee.png", has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    settled(page)
    place = page.locator(".stage").bounding_box()
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *shares: float) -> None:
        points = [{"x": place["x"] + one * place["width"], "y": place["y"] + one * place["height"]} for one in shares]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def draw() -> None:
        send("touchStart", 0.25)
        send("touchMove", 0.5)
        send("touchMove", 0.75)
        send("touchEnd")

    assert box_of(asked(page, draw)) == pytest.approx([112, 75, 338, 225], abs=4)


def test_a_region_is_made_with_keys(opened: Opener) -> None:
    page = opened("/?name=coffee.png")
    settled(page)
    stage = page.get_by_role("application")
    stage.focus()
    assert box_of(asked(page, lambda: stage.press("ArrowRight"))) == pytest.approx([112, 75, 338, 225], abs=1)
    assert box_of(asked(page, lambda: stage.press("ArrowRight"))) == pytest.approx([121, 75, 347, 225], abs=2)
    assert box_of(asked(page, lambda: stage.press("Shift+ArrowUp"))) == pytest.approx([121, 75, 347, 216], abs=2)
    expect(stage).to_be_focused()
    expect(page.locator("#live")).to_have_text(re.compile("answers"))
    assert asked(page, lambda: stage.press("Delete"))["box"] is None


def test_turned_questions_are_asked(opened: Opener) -> None:
    page = opened("/?name=coffee.png")
    settled(page)
    assert asked(page, page.get_by_role("checkbox", name="mirrored").click)["mirror"] is True
    question = asked(page, page.get_by_role("checkbox", name="turned").click)
    assert (question["rotations"], question["mirror"]) == (True, True)
    assert "rotations=1" in page.url


def test_answers_are_filtered_and_continued(opened: Opener, address: str) -> None:
    page = opened("/")
    page.route("**/search", functools.partial(shortened, most=4))
    page.goto(f"{address}/?name=coffee.png")
    assert len(names_of(settled(page))) == 4
    page.get_by_role("button", name="Show 30 more").click()
    expect(page.locator(".answers .card")).to_have_count(19)
    expect(page.locator(".answers .card").nth(4).locator(".picture")).to_be_focused()
    page.get_by_role("checkbox", name="No match").uncheck()
    expect(page.locator(".answers .badge.no")).to_have_count(0)
    assert set(names_of(settled(page))) >= COFFEE
    page.get_by_role("checkbox", name="No match").check()
    page.get_by_label("Folder").select_option("odd/")
    assert sorted(names_of(settled(page))) == sorted(map(visible, page_samples.HOSTILE))


def shortened(route: Any, most: int) -> None:
    """Answer a question for 30 hits as if there were more than `most` of them."""
    answer = route.fetch()
    content = answer.json()
    if json.loads(route.request.post_data)["top"] == 30:
        content.update(hits=content["hits"][:most], more=True)
    route.fulfill(response=answer, json=content)


def visible(name: str) -> str:
    return name.replace("\u202e", "\ufffd")


def test_nothing_in_common_and_unknown_names_are_said(opened: Opener, address: str) -> None:
    page = opened("/?name=nothing.png")
    expect(page.get_by_role("alert")).to_contain_text("nothing.png")
    empty = {"index": "photos", "question": [{"name": "coffee.png", "size": [9, 9]}], "hits": [], "more": False}
    page.route("**/search", lambda route: route.fulfill(json=empty))
    page.goto(f"{address}/?name=coffee.png")
    expect(page.locator(".empty")).to_contain_text("Nothing in the collection")
    expect(page.get_by_role("heading", level=1)).to_have_text("No answers")


def test_an_answer_is_compared(opened: Opener, collection: Path) -> None:
    page = opened("/?name=coffee.png")
    settled(page)
    opener = page.get_by_role("button", name="Compare with views/coffee/part.png")
    opener.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("line.pair.line")).to_have_count(50)
    dialog.get_by_label("Lines").last.fill("7")
    expect(dialog.locator("line.pair.line")).to_have_count(7)
    dialog.get_by_label("Slider").check()
    check_registered(dialog, collection)
    dialog.get_by_label("Position").fill("25")
    assert float(dialog.locator("clipPath rect").get_attribute("x")) == pytest.approx(0.25 * 450)
    dialog.get_by_label("Overlay").check()
    dialog.get_by_label("Opacity").fill("30")
    assert dialog.locator("svg.drawing g").evaluate("one => getComputedStyle(one).opacity") == "0.3"
    dialog.get_by_label("Blink").check()
    dialog.get_by_label("Delay").fill("200")
    for opacity in ("0", "1", "0"):
        expect(dialog.locator("svg.drawing g")).to_have_css("opacity", opacity)
    assert "compare=views" in page.url
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()
    assert "compare=" not in page.url


def check_registered(dialog: Any, collection: Path) -> None:
    """The part lies where it was cut out, to a pixel of the photograph."""
    with Image.open(collection / "photos/views/coffee/part.png") as image:
        width, height = image.size
    matrix = dialog.locator("svg.drawing g image").evaluate("one => one.style.transform")
    a, b, c, d, x, y = map(float, re.findall(r"-?[\d.]+(?:e-?\d+)?", matrix))
    corners = [(a * u + c * v + x, b * u + d * v + y) for u, v in ((0, 0), (width, height))]
    wanted = page_samples.quarter(page_samples.photographs()["coffee.png"])
    assert [*corners[0], *corners[1]] == pytest.approx(wanted, abs=1.5)


def test_a_comparison_is_downloaded_and_left(opened: Opener, tmp_path: Path) -> None:
    page = opened(VIEWS["compare"])
    dialog = page.get_by_role("dialog")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="JSON").click()
    content = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert (content["query"]["name"], content["hit"]["name"]) == ("coffee.png", "views/coffee/part.png")
    assert len(content["pairs"]) > 7
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Picture").click()
    download.value.save_as(tmp_path / "picture.jpg")
    with Image.open(tmp_path / "picture.jpg") as picture:
        assert picture.format == "JPEG"
    dialog.get_by_role("button", name="Next answer").click()
    expect(dialog.locator(".names")).not_to_contain_text("part.png")
    dialog.get_by_role("button", name="Ask with this").click()
    expect(dialog).to_have_count(0)
    settled(page)
    assert "compare=" not in page.url and "name=coffee.png" not in page.url


def test_nothing_blinks_by_itself_where_motion_is_reduced(opened: Opener) -> None:
    page = opened(VIEWS["compare"], reduced_motion="reduce")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Blink").check()
    expect(dialog.get_by_role("button", name="Blink")).to_be_visible()
    expect(dialog.locator("svg.drawing g")).to_have_css("opacity", "1")
    dialog.get_by_role("button", name="Swap").click()
    expect(dialog.locator("svg.drawing g")).to_have_css("opacity", "0")


def test_the_page_is_used_with_keys_alone(opened: Opener) -> None:
    page = opened("/?name=coffee.png")
    settled(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    first = settled(page).first.locator(".picture")
    for _ in range(20):
        page.keyboard.press("Tab")
        if first.evaluate("one => one === document.activeElement"):
            break
    assert first.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Compare")
    expect(dialog.locator("line.pair.line")).not_to_have_count(0)
    for _ in range(25):  # the page behind a dialog is never reached; the browser's own bar is nothing of the page
        page.keyboard.press("Tab")
        assert page.evaluate("!document.activeElement.matches('main *, #head *')")
    dialog.get_by_label("Lines").first.focus()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_label("Position")).to_be_visible()
    page.keyboard.press("Escape")
    expect(first).to_be_focused()
    page.get_by_role("link", name="Collection").press("Enter")
    expect(page.get_by_role("heading", level=1, name="Collection")).to_be_focused()


def test_the_collection_is_browsed_by_folder_and_searched_as_one_types(opened: Opener) -> None:
    page = opened("/?view=browse")
    page.get_by_role("link", name="views").click()
    page.get_by_role("link", name="coffee").click()
    expect(page.locator(".card")).to_have_count(2)
    assert "folder=views%2Fcoffee%2F" in page.url
    page.get_by_role("link", name="All images").click()
    page.get_by_label("Search names and metadata").press_sequentially("CUP again turned")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("#live")).to_have_text("1 image")
    page.get_by_role("link", name="turned.png").click()
    expect(page.locator("dd")).to_have_text("A cup, seen <b>again</b>")
    expect(page.locator(".about img")).to_have_js_property("complete", True)
    near = page.locator(".stack", has=page.get_by_role("heading", name="Nearest images")).last
    expect(near.locator(".card")).not_to_have_count(0)
    assert set(names_of(near.locator(".card"))[:2]) == {"coffee.png", "views/coffee/part.png"}
    near.get_by_role("button", name="Compare with coffee.png").click()
    expect(page.get_by_role("dialog").locator("line.pair.line")).not_to_have_count(0)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Previous").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("part.png")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_contain_text("turned.png")
    page.goto(page.url.split("?")[0] + "?view=browse&search=nothing+of+this")
    expect(page.locator(".empty")).to_have_text("No image has all these words.")


@pytest.mark.parametrize("name", page_samples.HOSTILE)
def test_no_name_of_an_image_does_harm(opened: Opener, name: str) -> None:
    page = opened("/?view=browse&folder=odd%2F")
    card = page.locator(".card", has=page.locator(f"[title={json.dumps(visible(name), ensure_ascii=False)}]"))
    expect(card.locator("img")).to_have_js_property("complete", True)
    assert card.locator("img").evaluate("one => one.naturalWidth") > 0
    card.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(visible(name).removeprefix("odd/"))
    page.get_by_role("button", name="Ask with this image").click()
    assert set(names_of(settled(page))[:4]) == {visible(other) for other in page_samples.HOSTILE if other != name}
    settled(page).first.locator(".picture").click()
    expect(page.get_by_role("dialog").locator("line.pair.line")).not_to_have_count(0)
    page.reload()
    expect(page.get_by_role("dialog").locator("line.pair.line")).not_to_have_count(0)


def test_judgements_are_kept_and_exported(opened: Opener, tmp_path: Path) -> None:
    page = opened("/?name=coffee.png&box=10,20,400,280")
    settled(page)
    for label in ("Right: views/coffee/part.png", "Right: views/coffee/turned.png", "Wrong: chelsea.png"):
        page.get_by_role("button", name=label).click()
    page.get_by_role("button", name="Wrong: camera.png").click()
    page.get_by_role("button", name="Wrong: camera.png").click()
    page.reload()
    settled(page)
    expect(page.get_by_role("button", name="Right: views/coffee/part.png")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Wrong: camera.png")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("link", name="Judgements").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Ground truth").click()
    download.value.save_as(tmp_path / "truth.json")
    truth = read_ground_truth(tmp_path / "truth.json")
    (query,) = truth.queries
    assert set(truth.images) == set(page_samples.photographs())
    assert (query.name, query.box, set(query.easy)) == ("coffee.png", (10.0, 20.0, 400.0, 280.0), COFFEE)
    assert query.junk == set(truth.images) - {"coffee.png", "chelsea.png", *COFFEE}
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert {(row["query"], row["image"], row["judgement"]) for row in rows} == {
        *(("coffee.png", name, "right") for name in COFFEE),
        ("coffee.png", "chelsea.png", "wrong"),
    }
    assert rows[0]["x2"] == "400"
    page.get_by_role("button", name="Forget the marks of coffee.png").click()
    expect(page.locator(".empty")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_groups_are_found_and_shown(opened: Opener, writable: str) -> None:
    page = opened("/?view=groups", writable)
    page.get_by_role("button", name="Find groups").click()
    expect(page.locator(".group").first).to_be_visible(timeout=60_000)
    coffee = page.locator(".group", has=page.locator("[title='views/coffee/part.png']"))
    assert set(names_of(coffee)) == {"coffee.png", *COFFEE}
    coffee.get_by_role("link", name="coffee.png").click()
    expect(page.get_by_role("heading", name=re.compile(r"Group \d"))).to_be_visible()


def added(page: Any) -> Any:
    return page.get_by_role("paragraph").filter(has_text=re.compile("were added|was added"))


def test_photographs_are_added_deleted_and_restored(opened: Opener, writable: str, collection: Path) -> None:
    page = opened("/?view=add", writable)
    broken = ["broken.png", base64.b64encode(b"words").decode()]
    page.evaluate(DROP, [[["new cup.png", encoded(collection, "coffee.png")], broken], "main"])
    expect(added(page)).to_have_text("1 photograph was added. 1 photograph could not be added:", timeout=60_000)
    expect(page.locator(".failures")).to_contain_text("broken.png")
    page.get_by_role("link", name="new cup.png").click()
    name = page.locator("h1 .name").get_attribute("title")
    page.get_by_role("button", name="Delete from the index").click()
    expect(page.locator(".toast")).to_contain_text("was deleted")
    expect(page.get_by_role("heading", level=1)).to_have_text("Collection")
    expect(page.locator(f".name[title='{name}']")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("h1 .name")).to_have_attribute("title", name)
    page.get_by_role("button", name="Ask with this image").click()
    assert "coffee.png" in best(page)


def test_adding_a_folder_is_cancelled(opened: Opener, writable: str, tmp_path: Path) -> None:
    page = opened("/?view=add", writable)
    for number in range(30):
        Image.effect_noise((300, 300), 90).save(tmp_path / f"{number}.png")
    page.locator("input[webkitdirectory]").set_input_files(tmp_path)
    page.get_by_role("button", name="Cancel").click()
    expect(added(page)).to_contain_text("Cancelled.", timeout=60_000)
    page.get_by_role("link", name="Search", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_what_cannot_be_changed_offers_no_change(opened: Opener, address: str) -> None:
    page = opened("/?view=image&name=coffee.png")
    expect(page.get_by_role("button", name="Ask with this image")).to_be_visible()
    expect(page.get_by_role("button", name="Delete from the index")).to_have_count(0)
    expect(page.get_by_role("link", name="Add")).to_have_count(0)
    page.goto(f"{address}/?view=add")
    expect(page.locator("main")).to_contain_text("--writable")
    expect(page.locator("input[type=file]")).to_have_count(0)


def test_a_token_is_asked_for(opened: Opener, collection: Path) -> None:
    with page_samples.served(collection / "photos.index", "--token", TOKEN) as address:
        page = opened("/?name=coffee.png", address)
        page.get_by_label("Token").fill("another")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        assert best(page) == COFFEE
        other = opened(f"/#token={TOKEN}", address)
        expect(other.locator(".card").first).to_be_visible()
        assert other.url == f"{address}/"


def test_a_busy_server_is_asked_once_more_and_an_absent_one_is_said(opened: Opener, address: str) -> None:
    page = opened()
    refusals = [503]

    def busy(route: Any) -> None:
        if refusals:
            route.fulfill(status=refusals.pop(), json={"error": "busy"}, headers={"Retry-After": "1"})
        else:
            route.continue_()

    page.route("**/search", busy)
    page.goto(f"{address}/?name=coffee.png")
    assert best(page) == COFFEE
    refusals += [429, 429]
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("busy")
    page.unroute("**/search")
    page.route("**/search", lambda route: route.abort())
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    assert best(page) == COFFEE


def test_the_page_of_the_api_shows_every_path(opened: Opener) -> None:
    page = opened("/api")
    paths = page.request.get(page.url.removesuffix("/api") + "/openapi.json").json()["paths"]
    expect(page.locator(".operation")).to_have_count(sum(map(len, paths.values())))
    page.locator(".operation", has_text="/search").first.locator("summary").click()
    expect(page.locator(".operation[open]")).to_contain_text("rotations")


SIZES = {320: 640, 768: 1024, 1440: 900}
SCHEMES = ("light", "dark")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_fits_every_window(opened: Opener, writable: str, name: str) -> None:
    page = opened(VIEWS[name], writable, viewport={"width": 320, "height": 640})
    complete(page)
    for width, height in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            photograph(page, f"{name}-{width}-{scheme}")


def complete(page: Any) -> None:
    """Wait until answers and pictures are there; those out of sight are not loaded."""
    expect(page.locator(".waiting, [aria-busy=true]")).to_have_count(0)
    wait_for(page, "document.title && document.querySelector('main h1, main [role=alert]') !== null")
    wait_for(page, "[...document.images].every((one) => one.complete || one.loading === 'lazy')")


def wait_for(page: Any, expression: str) -> None:
    """Wait until an expression is true; `wait_for_function` would evaluate it in the page, whose policy forbids it."""
    for _ in range(300):
        if page.evaluate(f"Boolean({expression})"):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression}")


def photograph(page: Any, name: str) -> None:
    """Keep what the page looks like in the folder that ASMK_ENGINE_SCREENSHOTS names, if it does."""
    if folder := os.environ.get("ASMK_ENGINE_SCREENSHOTS"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=not page.locator("dialog").count())


NO_AXE = "ASMK_ENGINE_AXE does not name axe.min.js of axe-core"


@pytest.mark.skipif("ASMK_ENGINE_AXE" not in os.environ, reason=NO_AXE)
@pytest.mark.parametrize("name", VIEWS)
def test_axe_finds_nothing(opened: Opener, writable: str, name: str) -> None:
    page = opened(VIEWS[name], writable, bypass_csp=True, reduced_motion="reduce")
    complete(page)
    found = axe(page)
    for mode in ("Slider", "Blink", "Overlay") if name == "compare" else ():
        page.get_by_role("dialog").get_by_label(mode).check()
        found += axe(page)
    if name == "answers":
        page.get_by_role("application").press("ArrowRight")
        settled(page)
        page.get_by_text("Add a photograph of the same thing").click()
        page.get_by_role("button", name="Right: views/coffee/part.png").click()
        found += axe(page)
    if name == "api":
        page.locator("summary").first.click()
        found += axe(page)
    assert found == []


def axe(page: Any) -> list[str]:
    """Return what axe-core finds in the page as it is, in light and dark."""
    page.add_script_tag(path=os.environ["ASMK_ENGINE_AXE"])
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        report = page.evaluate("axe.run({resultTypes: ['violations']})")
        found += [f"{scheme}: {one['id']}: {one['nodes'][0]['html']}" for one in report["violations"]]
    return found
