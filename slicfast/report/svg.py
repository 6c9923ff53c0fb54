"""Charts as SVG inside the page: no library in the browser, readable without a script and in print.

Colours (``s0`` ... ``s7``) and dashes (``d0`` ... ``d7``) are classes of the page's style sheet,
which gives each to light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from slicfast.report.curves import Panel, Series

NUM_COLORS = NUM_DASHES = 8  # distinct ones in the style sheet
WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 38
FLOOR = HEIGHT - BOTTOM  # the line of the horizontal axis


def number(value: float, unit: str = "") -> str:
    """A value for people with its unit: three or four figures, shares in per cent."""
    if unit == "%":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    if unit:
        return f"{number(value)}\N{NO-BREAK SPACE}{unit}"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    if abs(value) >= 1e5 or 0 < abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def series_class(place: int) -> str:
    """Colour and dash of a panel's curve; no two of the first NUM_COLORS * NUM_DASHES have both the same."""
    return f"s{place % NUM_COLORS} d{(place + place // NUM_COLORS) % NUM_DASHES}"


def line_chart(panel: Panel, *, log: bool = False) -> Markup:
    """The panel's curves with axes, grid and what a reader's pointer asks for (``data-*``)."""
    xs = [x for series in panel.series for x in series.x]
    lows = [y for series in panel.series for y in series.low]
    highs = [y for series in panel.series for y in series.high]
    x_ticks = ticks(min(xs), max(xs))
    y_ticks = log_ticks(min(lows), max(highs)) if log else ticks(*_with_zero(min(lows), max(highs)))
    x_at = _scale(min(*xs, x_ticks[0]), max(*xs, x_ticks[-1]), LEFT, WIDTH - RIGHT)
    y_at = _scale(min(*lows, y_ticks[0]), max(*highs, y_ticks[-1]), FLOOR, TOP, math.log10 if log else float)
    parts = [_axes(panel, x_ticks, y_ticks, x_at, y_at)]
    for place, series in enumerate(panel.series):
        parts.append(_curve(series, series_class(place), panel.unit, x_at, y_at))
    name = f"{panel.title} over {panel.x_label}s{', logarithmic' if log else ''}: " + "; ".join(
        f"{series.name} from {number(series.y[0], panel.unit)} to {number(series.y[-1], panel.unit)}"
        for series in panel.series
    )
    return Markup(
        f'<svg class="chart {"log" if log else "linear"}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' tabindex="0" aria-label="{escape(name)}" data-x-label="{panel.x_label}"'
        f' data-area="{LEFT} {TOP} {WIDTH - RIGHT} {FLOOR}">{"".join(parts)}</svg>'
    )


def _axes(
    panel: Panel,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
) -> str:
    parts = []
    for tick in y_ticks:
        y = y_at(tick)
        label = f"{100 * tick:.3g} %" if panel.unit == "%" else _short(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in x_ticks:
        x = x_at(tick)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{FLOOR}" y2="{FLOOR + 4}"/>'
            f'<text class="tick" x="{x:.1f}" y="{FLOOR + 17}" text-anchor="middle">{_short(tick)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{FLOOR}" y2="{FLOOR}"/>'
        f'<text class="axis-name" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{panel.x_label}</text>'
    )
    return "".join(parts)


def _curve(
    series: Series, look: str, unit: str, x_at: Callable[[float], float], y_at: Callable[[float], float]
) -> str:
    at = [(x_at(x), y_at(y)) for x, y in zip(series.x, series.y, strict=True)]
    parts = []
    if series.is_averaged:
        above = [f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in zip(series.x, series.high, strict=True)]
        below = [f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in zip(series.x, series.low, strict=True)]
        parts.append(f'<polygon class="band {look}" points="{" ".join(above + below[::-1])}"/>')
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    values = "|".join(number(y, unit) for y in series.y)
    places = " ".join(f"{x:.5g}" for x in series.x)
    parts.append(
        f'<polyline class="line {look}" points="{points}" data-name="{escape(series.name)}"'
        f' data-values="{values}" data-x="{places}"/>'
    )
    if len(at) <= 40:  # few points are shown as points, a single one would not be seen at all
        parts += [f'<circle class="dot {look}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in at]
    return "".join(parts)


def bar_chart(labels: Sequence[str], values: Sequence[float], *, name: str, x_label: str) -> Markup:
    """Upright bars, each with its value above."""
    top = max(*values, 1)
    step = (WIDTH - LEFT - RIGHT) / len(values)
    y_at = _scale(0, top * 1.08, FLOOR, TOP)
    parts = []
    for place, (label, value) in enumerate(zip(labels, values, strict=True)):
        x, y = LEFT + (place + 0.5) * step, y_at(value)
        width = min(0.72 * step, 46)
        parts.append(
            f'<rect class="bar s0" x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}"'
            f' height="{FLOOR - y:.1f}" rx="2"/>'
            f'<text class="tick" x="{x:.1f}" y="{y - 4:.1f}" text-anchor="middle">{_short(value)}</text>'
            f'<text class="tick" x="{x:.1f}" y="{FLOOR + 15}" text-anchor="middle">{escape(label)}</text>'
        )
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{FLOOR}" y2="{FLOOR}"/>'
        f'<text class="axis-name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    said = ", ".join(f"{label}: {_short(value)}" for label, value in zip(labels, values, strict=True))
    return Markup(
        f'<svg class="bars" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(f"{name}. {said}")}">'
        f"{''.join(parts)}</svg>"
    )


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers that cover a range."""
    from matplotlib.ticker import MaxNLocator

    if low == high:
        low, high = (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    found = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{tick:.10g}") for tick in found]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that cover a range, with 2 and 5 between where they are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    every = max(1, (last - first) // 5)
    return [
        step * 10.0**power
        for power in range(first, last + 1, every)
        for step in steps
        if power < last or step == 1
    ]


def _with_zero(low: float, high: float) -> tuple[float, float]:
    """From zero where that costs little of the height: a cut axis makes noise look like progress."""
    return (0.0, high) if 0 < low < 0.6 * high else (low, high)


def _scale(
    low: float, high: float, start: float, end: float, of: Callable[[float], float] = float
) -> Callable[[float], float]:
    first, span = of(low), (of(high) - of(low)) or 1.0
    return lambda value: start + (of(value) - first) / span * (end - start)


def _short(value: float) -> str:
    if abs(value) >= 1e4:
        return f"{value / 1e3:.4g}k" if abs(value) < 1e6 else f"{value / 1e6:.4g}M"
    return f"{value:.4g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}"
