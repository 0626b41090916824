"""The report in a real browser, with the network cut off."""

import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, two_runs_page, tmp_path):
    """Opens the report and, in the end, asserts that nothing went wrong in it."""
    file = tmp_path / "report.html"
    file.write_text(two_runs_page, encoding="utf-8")
    contexts, complaints = [], []

    def open_it(width: int = 1440, **options) -> Page:
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _from_elsewhere(request.url) else None)
        page.goto(file.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_function(
                "[...document.querySelectorAll('.canvas')].every((each) => each.querySelector('svg[aria-hidden]'))"
            )
        return page

    def _from_elsewhere(url: str) -> bool:
        return not url.startswith(("file:", "data:"))

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def test_charts_are_drawn_and_show_values_under_the_cursor(open_page):
    page = open_page()
    chart = page.locator("section[aria-labelledby=depth-probe] .canvas").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    value = r"test accuracy \(%\):?\s+[\d.]+ \([\d.]+ to [\d.]+\)\s+depth j \(block\):?\s+\d"
    assert re.fullmatch(rf"(irevnet|resnet)-small, (linear SVM|1-NN)\s+{value}", tooltip.inner_text().strip())


def test_the_slider_moves_the_pictures(open_page):
    page = open_page()
    walk = page.locator(".walk").first
    slider, picture = walk.locator("input[type=range]"), walk.locator(".view img").first
    frames = walk.locator(".strip").first.locator("img")
    assert picture.get_attribute("src") == frames.nth(0).get_attribute("src")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "1"
    assert picture.get_attribute("src") == frames.nth(1).get_attribute("src") != frames.nth(0).get_attribute("src")
    assert walk.locator("output").first.inner_text() == "t = 0.5: dog 75%"
    assert slider.get_attribute("aria-valuetext") == "features: t = 0.5: dog 75%; pixels: t = 0.5: cat 75%"
    frames.nth(2).click()
    assert slider.input_value() == "2"
    assert picture.get_attribute("src") == frames.nth(2).get_attribute("src")


def test_tables_are_sorted_by_number_and_by_name(open_page):
    page = open_page()
    table = page.locator("section[aria-labelledby=depth-probe] table")
    head = table.locator("th", has_text="linear SVM")
    column = head.evaluate("(cell) => cell.cellIndex")

    def cells(at: int) -> list[str]:
        return [row.locator("td").nth(at).inner_text() for row in table.locator("tbody tr").all()]

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
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_everybody_can_read_it(open_page, width, scheme):
    page = open_page(width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll("body *")]
        .filter((each) => !each.closest(".scroll, .skip, svg") && each.getBoundingClientRect().right > width + 1)
        .map((each) => each.outerHTML.slice(0, 200))""",
        width,
    )
    assert wide == []
    if width == 360:
        return
    found = Axe().run(page).response
    assert len(found["passes"]) > 20  # rules that applied
    assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]] == []


def test_colours_follow_the_reader(open_page):
    page = open_page(color_scheme="light")
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


def test_the_keyboard_reaches_everything(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
        if page.evaluate("document.activeElement === document.body"):
            break
    assert {"BUTTON.", "A.", "INPUT.", "DIV.scroll"} <= reached


def test_it_prints_on_paper(open_page):
    page = open_page()
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1017})  # what is left of A4 between its margins
    assert not page.locator(".scrub").first.is_visible()
    assert page.locator(".strip").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    charts = page.evaluate("[...document.querySelectorAll('.canvas svg')].map((s) => s.getBoundingClientRect().right)")
    assert max(charts) <= 688
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_pictures_and_tables_are_there(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator(".strip img").first.is_visible()
    assert page.locator("noscript").first.is_visible()
    assert page.locator("table").count() >= 8
    assert not page.locator("#theme").is_visible()
