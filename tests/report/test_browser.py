"""The page in a real browser with the network cut: no console errors, filters, hovers, themes, phones, print.

One Chromium is started for all of them. Skipped where there is none (Debian: chromium, chromium-driver).
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slicfast.report.page import write_report

webdriver = pytest.importorskip("selenium.webdriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


# Ratio of the luminances of an element's text and of the ground below it (WCAG 2, relative luminance).
CONTRAST = """
const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).map(channel);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = e => {
  for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (!color.endsWith(', 0)')) return color;
  }
};
const text = '.note .status .beside .baseline .cosine .default .mark .readout';
return [...text.split(' '), 'nav a'].map(name => {
  const e = document.querySelector(name);
  const pair = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((x, y) => y - x);
  return [name, (pair[0] + 0.05) / (pair[1] + 0.05)];
});
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(finished_run, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.fixture
def opened(browser: Any, page: str) -> Iterator[Any]:
    """The page opened afresh, 1200 pixels wide and light; no console message may be left behind."""
    emulate(browser, 1200)
    browser.get(page)
    yield browser
    assert browser.get_log("browser") == []


def emulate(browser: Any, width: int, **media: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"prefers-color-scheme": "light", "prefers-reduced-motion": "no-preference"} | {
        name.replace("_", "-"): value for name, value in media.items()
    }
    features = [{"name": name, "value": value} for name, value in media.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def point_at(browser: Any, selector: str, across: float = 0.5, down: float = 0.5) -> None:
    """Move the pointer into an element, by shares of its box."""
    box = browser.execute_script(
        "const e = document.querySelector(arguments[0]);"
        "e.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height];",
        selector,
    )
    place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3]}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})


def visible(browser: Any, selector: str) -> int:
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent).length"
    return browser.execute_script(script, selector)


def text_of(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def set_value(browser: Any, selector: str, value: str) -> None:
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))",
        selector,
        value,
    )


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_filters_leave_what_fits(opened: Any) -> None:
    num_queries = visible(opened, ".query")
    assert num_queries == 4
    set_value(opened, "#query-class", "left")
    assert 0 < visible(opened, ".query") < num_queries
    assert visible(opened, ".query[data-class='|left|']") == visible(opened, ".query")
    set_value(opened, "#query-class", "")
    right = opened.execute_script("return document.querySelectorAll('.query[data-outcome=right]').length")
    click(opened, "input[name=outcome][value=wrong]")
    assert visible(opened, ".query") == num_queries - right
    assert f"{num_queries - right} of {num_queries} shown" in text_of(opened, "form[data-for=query] output")
    click(opened, "input[name=outcome][value='']")
    set_value(opened, "#query-text", "no such video")
    assert visible(opened, ".query") == 0
    num_clusters = visible(opened, ".cluster")
    set_value(opened, "#cluster-text", "no such video")
    assert num_clusters > 0 and visible(opened, ".cluster") == 0


def test_pointing_at_a_curve_tells_its_values(opened: Any) -> None:
    readout = "[data-panel=loss] .readout"
    before = text_of(opened, readout)
    point_at(opened, "[data-panel=loss] svg.chart", 0.3)
    first = text_of(opened, readout)
    assert first.startswith("epoch ") and "loss" in first and first != before
    point_at(opened, "[data-panel=loss] svg.chart", 0.9)
    assert text_of(opened, readout) != first
    point_at(opened, "h1")
    assert text_of(opened, readout) == before


def test_the_map_shows_a_video_at_the_pointer_and_to_the_keyboard(opened: Any) -> None:
    assert visible(opened, "#tip") == 0
    at = opened.execute_script(
        "const u = document.querySelector('svg.map[tabindex] use');"
        "return [u.x.baseVal.value / 720, u.y.baseVal.value / 720]"
    )
    point_at(opened, "svg.map[tabindex]", *at)
    tip = opened.execute_script("return document.querySelector('#tip p').textContent")
    assert tip.splitlines()[1] in ("left", "right") and ".avi" in tip
    image = "return getComputedStyle(document.querySelector('#tip .thumb')).backgroundImage"
    assert opened.execute_script(image).startswith('url("data:image/webp')
    opened.execute_script("document.querySelector('svg.map[tabindex]').focus()")
    for _ in range(2):
        opened.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": "ArrowRight"})
    assert ".avi" in text_of(opened, "#map-readout")
    fill = "return getComputedStyle(document.querySelectorAll('svg.map[tabindex] use')[1]).fill"
    by_class = [opened.execute_script(fill.replace("[1]", f"[{i}]")) for i in range(12)]
    click(opened, "input[name=color][value=cluster]")
    assert [opened.execute_script(fill.replace("[1]", f"[{i}]")) for i in range(12)] != by_class
    set_value(opened, "#map-class", "left")
    assert opened.execute_script("return document.querySelectorAll('use.dim').length") == 6


def test_tables_sort_by_their_columns(opened: Any) -> None:
    click(opened, ".sortable th:nth-child(1) button")
    names = "return [...document.querySelectorAll('.sortable tbody th')].map(e => e.textContent)"
    assert opened.execute_script(names) == ["right", "left"]
    click(opened, ".sortable th:nth-child(1) button")
    assert opened.execute_script(names) == ["left", "right"]


def test_light_and_dark_follow_the_system_and_the_button(opened: Any) -> None:
    color = "return getComputedStyle(document.body).backgroundColor"
    light = opened.execute_script(color)
    emulate(opened, 1200, prefers_color_scheme="dark")
    dark = opened.execute_script(color)
    assert light != dark
    click(opened, "#theme")
    assert opened.execute_script(color) == light


def test_thumbnails_move_unless_motion_is_not_wanted(browser: Any, page: str) -> None:
    name = "return getComputedStyle(document.querySelector('.query .thumb')).animationName"
    for motion, expected in (("no-preference", "strip"), ("reduce", "none")):
        emulate(browser, 1200, prefers_reduced_motion=motion)
        browser.get(page)
        point_at(browser, ".query", 0.99, 0.99)
        browser.execute_async_script("setTimeout(arguments[0], 150)")
        assert browser.execute_script(name) == expected
    click(browser, "#motion")
    assert browser.execute_script(name) == "strip"


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_small_screen(width: int, browser: Any, page: str) -> None:
    emulate(browser, width)
    browser.get(page)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_text_is_legible_in_both_themes(browser: Any, page: str) -> None:
    """WCAG AA: a contrast of 4.5 for text, its muted kind included."""
    for scheme in ("light", "dark"):
        emulate(browser, 1200, prefers_color_scheme=scheme)
        browser.get(page)
        assert {name: ratio for name, ratio in browser.execute_script(CONTRAST) if ratio < 4.5} == {}


def test_the_page_prints(opened: Any) -> None:
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
