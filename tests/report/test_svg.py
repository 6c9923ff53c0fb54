"""Charts: what is drawn is what was measured, and nothing from a run can break out of the drawing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib import resources

import numpy as np
import pytest

from slicfast.report.curves import Panel, Series
from slicfast.report.svg import NUM_COLORS, NUM_DASHES, bar_chart, line_chart, log_ticks, number, ticks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def lies_on_the_axis(
    pixels: np.ndarray, values: np.ndarray, marks: list[tuple[float, float]], scale: Callable
) -> bool:
    """Whether pixels read off the axis's own marks give the values back, to a fraction of a pixel."""
    mark_pixels, mark_values = np.array(marks).T
    slope, offset = np.polyfit(mark_pixels, scale(mark_values), 1)
    return np.allclose(slope * pixels + offset, values, atol=0.3 * abs(slope))


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_the_axes_say(log: bool) -> None:
    generator = np.random.default_rng()
    x, y = np.sort(generator.uniform(0, 80, 20)), np.exp(generator.uniform(-3, 6, 20))
    series = Series("loss", tuple(x), tuple(y), tuple(y), tuple(y))
    chart = drawn(line_chart(Panel("loss", "Loss", (series,), "epoch"), log=log))
    (curve,) = chart.iter(f"{SVG}polyline")
    at = np.array([pair.split(",") for pair in curve.attrib["points"].split()], dtype=float)
    labels = [node for node in chart.iter(f"{SVG}text") if node.attrib["class"] == "tick"]
    rows = [node for node in labels if node.attrib["text-anchor"] == "end"]
    columns = [node for node in labels if node.attrib["text-anchor"] == "middle"]
    y_marks = [(float(node.attrib["y"]) - 4, float(node.text or "")) for node in rows]
    x_marks = [(float(node.attrib["x"]), float(node.text or "")) for node in columns]
    assert lies_on_the_axis(at[:, 1], np.log10(y) if log else y, y_marks, np.log10 if log else np.asarray)
    assert lies_on_the_axis(at[:, 0], x, x_marks, np.asarray)
    assert curve.attrib["data-values"].split("|") == [number(value) for value in y]


def test_names_from_a_run_are_text() -> None:
    series = Series('<script>"&', (1.0,), (2.0,), (2.0,), (2.0,))
    chart = drawn(line_chart(Panel("x", "A <b>", (series,), "epoch")))
    assert next(chart.iter(f"{SVG}polyline")).attrib["data-name"] == '<script>"&'
    assert "A <b>" in chart.attrib["aria-label"]
    assert not list(chart.iter(f"{SVG}script"))


def test_many_curves_of_a_panel_can_be_told_apart() -> None:
    many = tuple(Series(str(n), (0.0, 1.0), (n, n), (n, n), (n, n)) for n in range(NUM_COLORS * NUM_DASHES))
    chart = drawn(line_chart(Panel("x", "x", many, "epoch")))
    looks = [curve.attrib["class"] for curve in chart.iter(f"{SVG}polyline")]
    assert len(set(looks)) == len(many)
    style = resources.files("slicfast.report").joinpath("assets", "page.css").read_text(encoding="utf-8")
    dashes = dict(re.findall(r"\.line\.(d\d) \{ stroke-dasharray: ([\d. ]+);", style))
    assert set(dashes) == {f"d{n}" for n in range(1, NUM_DASHES)}  # the first is solid
    assert len(set(dashes.values())) == len(dashes)
    for scheme in re.findall(r"(--s0:.*)", style):
        assert len(set(re.findall(r"--s\d: (#\w+)", scheme))) == NUM_COLORS


def test_a_single_and_a_constant_value_are_seen() -> None:
    for y in ((0.0,), (3.0, 3.0)):
        x = tuple(map(float, range(len(y))))
        chart = drawn(line_chart(Panel("x", "x", (Series("x", x, y, y, y),), "epoch")))
        assert len(list(chart.iter(f"{SVG}circle"))) == len(y)
        assert "nan" not in ElementTree.tostring(chart, encoding="unicode")


def test_bars_are_as_high_as_their_values() -> None:
    values = np.random.default_rng().integers(1, 500, 7).tolist()
    chart = drawn(bar_chart([str(v) for v in values], values, name="Sizes", x_label="size"))
    heights = np.array([float(bar.attrib["height"]) for bar in chart.iter(f"{SVG}rect")])
    assert np.allclose(heights / heights.max(), np.array(values) / max(values), atol=0.002)


def test_ticks_cover_their_range() -> None:
    for low, high in np.random.default_rng().uniform(-1e4, 1e4, (50, 2)):
        low, high = min(low, high), max(low, high)
        found = ticks(low, high)
        assert found[0] <= low and found[-1] >= high and 3 <= len(found) <= 9
    found = log_ticks(0.03, 4000.0)
    assert found[0] <= 0.03 and found[-1] >= 4000.0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "%", "12.3\N{NO-BREAK SPACE}%"),
        (3.0, "", "3"),
        (0.00012, "", "1.20e-04"),
        (3.14159, "", "3.142"),
        (1399.2, "MiB", "1399\N{NO-BREAK SPACE}MiB"),
    ],
)
def test_numbers_are_short(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text
