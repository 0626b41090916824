"""The report in a real browser, with the network cut off."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER)
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """Opens the report and, in the end, asserts that nothing went wrong in it."""
    complaints: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 1440, "height": 900}, **options)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert [each for each in complaints if not each.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def drawn(browser, reported) -> Iterator[Page]:
    """The report with its charts, opened once: to open it takes longer than most of what is done with it."""
    with opened(browser, reported / "report.html", color_scheme="light") as page:
        page.wait_for_function(
            "[...document.querySelectorAll('.canvas')].every((each) => each.querySelector('svg[aria-hidden]'))"
        )
        yield page


@pytest.fixture
def page(drawn) -> Iterator[Page]:
    """The report as wide as a screen and in light colours, however a test leaves it."""
    yield drawn
    drawn.mouse.move(0, 0)
    drawn.emulate_media(media="screen", color_scheme="light")
    drawn.set_viewport_size({"width": 1440, "height": 900})


def test_the_keyboard_reaches_everything(page):
    page.evaluate(
        """() => {
            window.reached = [];
            document.addEventListener("focusin", ({ target }) => window.reached.push(
                target.className === "skip" ? target.textContent : `${target.tagName}.${target.className}`));
            document.body.tabIndex = -1;
            document.body.focus(); // so that the next is the first
            document.body.removeAttribute("tabindex");
        }"""
    )
    reached: list[str] = []
    while reached.count("Skip to the results") < 2 and len(reached) < 400:  # until it begins anew
        for _ in range(20):
            page.keyboard.press("Tab")
        reached = page.evaluate("window.reached")
    reached = [each for each in reached if not each.startswith("BODY")]
    assert reached[0] == "Skip to the results"
    assert {"BUTTON.", "A.", "INPUT.", "DIV.scroll"} <= set(reached)


def test_charts_show_values_under_the_cursor(page):
    chart = page.locator("section[aria-labelledby=depth-probe] .canvas").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    value = r"test accuracy \(%\):?\s+[\d.]+ \([\d.]+ to [\d.]+\)\s+depth j \(block\):?\s+\d"
    assert re.fullmatch(rf"(irevnet|resnet)-small, (linear SVM|1-NN)\s+{value}", tooltip.inner_text().strip())


def test_the_slider_moves_the_pictures(page):
    line = page.locator(".paths .line").first
    slider, picture = line.locator("input[type=range]"), line.locator(".view img").first
    frames = line.locator(".strip").first.locator("img")
    assert picture.get_attribute("src") == frames.nth(0).get_attribute("src")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "1"
    assert picture.get_attribute("src") == frames.nth(1).get_attribute("src") != frames.nth(0).get_attribute("src")
    assert line.locator("output").first.inner_text() == "t = 0.5: dog 75%"
    assert slider.get_attribute("aria-valuetext") == "features: t = 0.5: dog 75%; pixels: t = 0.5: cat 75%"
    frames.nth(2).click()
    assert slider.input_value() == "2"
    assert picture.get_attribute("src") == frames.nth(2).get_attribute("src")


def test_tables_are_sorted_by_number_and_by_name(page):
    table = page.locator("section[aria-labelledby=depth-probe] table")
    head = table.locator("th", has_text="linear SVM")
    column = head.evaluate("(cell) => cell.cellIndex")

    def cells(at: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({at + 1})").all_inner_texts()

    before = cells(column)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert cells(column) == sorted(before, key=lambda cell: float(cell.split("%")[0]))
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert cells(column) == sorted(before, key=lambda cell: -float(cell.split("%")[0]))
    table.locator("th", has_text="network").first.locator("button").click()
    assert cells(0) == sorted(cells(0))
    assert head.get_attribute("aria-sort") is None


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_overflows(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(  # each chart is drawn anew, as wide as it can be
        """[...document.querySelectorAll(".canvas")].every((each) =>
        each.querySelector("svg").getBoundingClientRect().right <= each.getBoundingClientRect().right + 1)"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll("body *")]
        .filter((each) => !each.closest(".scroll, .skip, svg, #vg-tooltip-element"))
        .filter((each) => each.getBoundingClientRect().right > width + 1)
        .map((each) => each.outerHTML.slice(0, 200))""",
        width,
    )
    assert wide == []


def broken(found: dict) -> list[tuple[str, list[str]]]:
    """The rules for accessible pages that a page breaks, and where."""
    return [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]]


def test_everybody_can_read_it(page):
    parts = {"exclude": [["svg[role=img] > *"]]}  # thousands of shapes, without a word, behind one label
    found = Axe().run(page, parts).response
    assert len(found["passes"]) > 20  # rules that applied
    assert broken(found) == []
    page.emulate_media(color_scheme="dark")  # which changes nothing but the colours
    found = Axe().run(page, parts, {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}).response
    assert [each["id"] for each in found["passes"]] == ["color-contrast"]
    assert broken(found) == []


def test_colours_follow_the_reader(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.locator("#theme")
    button.click()
    assert button.inner_text() == "Colours: light"
    assert page.evaluate(ground) == light
    button.click()
    assert button.inner_text() == "Colours: dark"
    assert page.evaluate(ground) != light
    ink = page.locator(".canvas svg text").first.evaluate("(text) => getComputedStyle(text).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    button.click()
    assert button.inner_text() == "Colours: auto"
    assert page.evaluate(ground) == light


def test_it_prints_on_paper(page):
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1017})  # what is left of A4 between its margins
    assert not page.locator(".scrub").first.is_visible()
    assert page.locator(".strip").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    charts = page.evaluate("[...document.querySelectorAll('.canvas svg')].map((s) => s.getBoundingClientRect().right)")
    assert max(charts) <= 688
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_pictures_and_tables_need_no_scripts(browser, reported):
    with opened(browser, reported / "report.html", java_script_enabled=False) as page:
        assert page.locator(".strip img").first.is_visible()
        assert page.locator("noscript").first.is_visible()
        assert page.locator("table").count() >= 8
        assert not page.locator("#theme").is_visible()
