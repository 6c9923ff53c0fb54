"""The charts of the peers, drawn from the JSON alone; legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import FAST, OURS

INK = "#7f858c"  # as far from white as from black
COLOURS = {
    OURS: "#e8590c",
    FAST: "#e8590c",
    "torchcodec": "#1c7ed6",
    "PyAV": "#37a350",
    "decord": "#9c5fd6",
    "OpenCV": "#0c9a9a",
    "authors' way": "#c2932c",
}


@contextmanager
def _style() -> Iterator[Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings: dict[str, Any] = {
        "font.size": 10,
        "svg.hashsalt": "slicfast",  # the same results give the same file
        "axes.spines.top": False,
        "axes.spines.right": False,
        "savefig.transparent": True,
        "legend.frameon": False,
        **dict.fromkeys(
            (
                *("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"),
                *("xtick.color", "ytick.color", "legend.labelcolor"),
            ),
            INK,
        ),
    }
    with pyplot.rc_context(settings):
        yield pyplot


def _save(figure: Any, path: Path) -> None:
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, metadata=metadata, bbox_inches="tight")


def draw_side_by_side(result: dict[str, Any], path: Path) -> None:
    """Bars a contender and kind of video: decoding in full colour, augmenting paler, quartiles of both."""
    sources = result["sources"]
    with _style() as pyplot:
        figure, axes = pyplot.subplots(1, len(sources), figsize=(4.6 * len(sources), 3.0), squeeze=False)
        for axis, source in zip(axes[0], sources, strict=True):
            rows = source["contenders"]
            longest = max(row["load"]["cpu_ms"] for row in rows)
            for place, row in enumerate(rows):
                colour = COLOURS.get(row["name"], INK)
                load, decode = row["load"], min(row["decode"]["cpu_ms"], row["load"]["cpu_ms"])
                low, high = load["cpu_ms_quartiles"]
                axis.barh(place, load["cpu_ms"], color=colour, alpha=0.45, height=0.7)
                axis.barh(place, decode, color=colour, height=0.7)
                axis.plot([low, high], [place, place], color=INK, linewidth=1.5)
                told = "" if row["name"] == OURS else f"  ({load['ratio']:.1f} x)"
                axis.text(
                    max(load["cpu_ms"], high) + 0.015 * longest,
                    place,
                    f"{load['cpu_ms']:.1f}{told}",
                    verticalalignment="center",
                )
            axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
            axis.tick_params(axis="y", length=0)
            axis.set_xlim(0, 1.28 * longest)
            axis.invert_yaxis()
            axis.set_title(source["name"], fontsize=10, loc="left")
            axis.set_xlabel("CPU ms a clip: decode (solid), augment (pale)")
        frames, rows_out, columns = result["clip"]
        figure.suptitle(
            f"One clip of {frames} frames to {columns} x {rows_out}, one thread",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        figure.tight_layout()
        _save(figure, path)
        pyplot.close(figure)


def draw_curves(result: dict[str, Any], path: Path) -> None:
    """Small multiples, one a curve, both axes logarithmic: a straight line of slope one is growth in step."""
    curves = result["curves"]
    with _style() as pyplot:
        figure, axes = pyplot.subplots(2, 3, figsize=(10.5, 6.0), sharey=True)
        for axis, curve in zip(axes.flat, curves, strict=False):
            for name, series in curve["series"].items():
                low, high = zip(*series["cpu_ms_quartiles"], strict=True)
                colour = COLOURS.get(name, INK)
                axis.plot(
                    curve["x"],
                    series["cpu_ms"],
                    marker="o",
                    markersize=3.5,
                    color=colour,
                    linewidth=2.4 if name == OURS else 1.4,
                    label=name,
                )
                axis.fill_between(curve["x"], low, high, color=colour, alpha=0.2, linewidth=0)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(curve["x"], [f"{x:g}" for x in curve["x"]])
            axis.minorticks_off()
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
            unit = f" ({curve['unit']})" if curve["unit"] else ""
            axis.set_title(f"{curve['what']}{unit}", fontsize=10, loc="left")
        for axis in axes.flat[len(curves) :]:
            axis.set_axis_off()
        handles, labels = axes.flat[0].get_legend_handles_labels()
        axes.flat[-1].legend(handles, labels, loc="center", fontsize=10)
        for row in axes:
            row[0].set_ylabel("CPU ms a clip")
        figure.tight_layout()
        _save(figure, path)
        pyplot.close(figure)
