"""`slicfast figures`: the report's figures for papers, as PNG and PDF: one column wide, legible in grey.

What is drawn is gathered where the page gathers it. Curves differ in colour (Okabe and Ito's, told apart by
colour-blind readers), dash and marker; fonts are embedded as outlines that editors can search (Type 42). The
same run gives the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from slicfast.errors import ConfigError, DataError, SlicfastError
from slicfast.evaluation.document import FILE, read_document
from slicfast.records import write_atomically
from slicfast.report.clusters import describe
from slicfast.report.curves import Panel, panels
from slicfast.report.heatmap import similarity_over_time
from slicfast.report.layout import two_dimensions
from slicfast.report.neighbors import confusion, find_neighbors, recall_by_class
from slicfast.report.results import PROTOCOLS
from slicfast.report.view import MAX_VIDEOS, RunView, embed, open_run, video_classes

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*<>"
COLUMN_IN = 3.3  # inches, the width of a column of most proceedings
PNG_DPI = 300
MAX_NAMED = 30  # classes whose names fit along an axis
MAX_COLORED = 20  # classes that colours and markers tell apart on a map

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "svg.hashsalt": "slicfast",
}


@dataclass
class FiguresReport:
    """What was written, and why what is missing could not be drawn."""

    written: list[Path] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def write_figures(
    path: str | Path,
    out: Path,
    *,
    query: str | None = None,
    gallery: str | None = None,
    overrides: Sequence[str] = (),
    max_videos: int = MAX_VIDEOS,
    skip_embedding: bool = False,
    width_in: float = COLUMN_IN,
    pair: tuple[str, str] | None = None,
    hop: int | None = None,
) -> FiguresReport:
    """Draw everything that the run folder has; each figure as NAME.png and NAME.pdf in `out`.

    Args:
        query, gallery, overrides, max_videos, skip_embedding: as `write_report` has them.
        width_in: of every figure, inches.
        pair: two videos, files or ids of the store, for a heat map of their similarity over time.
        hop: frames between two of its windows; None: a quarter of a clip.

    Raises:
        SlicfastError: no run there, a video of the pair that cannot be read, a folder that cannot be written.
    """
    if width_in <= 0.5:
        raise ConfigError(f"a figure must be wider than half an inch; got {width_in:g}")
    view = open_run(path, overrides)
    if not skip_embedding:
        embed(view, query=query, gallery=gallery, max_videos=max_videos)
    report = FiguresReport()
    with rc_context(_STYLE):
        for name, figure in _figures(view, width_in, report.missing).items():
            report.written += _save(figure, out / name)
        if pair is not None:
            figure = pair_figure(view, pair, hop, width_in)
            report.written += _save(figure, out / "pair")
    return report


def _figures(view: RunView, width_in: float, missing: dict[str, str]) -> dict[str, Figure]:
    """Every figure that there is data for; `missing` gets the reasons of the others."""
    found = {f"curve-{panel.key}": curve_figure(panel, width_in) for panel in panels(view.entries)}
    if not found:
        missing["curves"] = "nothing has been logged yet"
    drawn: dict[str, Callable[[], Figure]] = {
        "cluster-sizes": lambda: cluster_figure(view, width_in),
        "recall": lambda: recall_figure(_document(view), width_in),
        "map": lambda: map_figure(view, width_in),
        "confusion": lambda: confusion_figure(view, width_in),
        "recall-by-class": lambda: class_figure(view, width_in),
    }
    for name, draw in drawn.items():
        try:
            found[name] = draw()
        except SlicfastError as error:
            missing[name] = str(error)
    return found


def _document(view: RunView) -> dict[str, Any]:
    document = read_document(view.run.path / FILE)
    if not document.get("retrieval"):
        raise DataError(f"{FILE} holds no retrieval; make it with 'slicfast eval all'")
    return document


def curve_figure(panel: Panel, width_in: float) -> Figure:
    """A panel's curves; means of several steps with the range they come from."""
    num = len(panel.series)
    figure, axes = _blank(width_in, 0.62 if num == 1 else 0.68 + 0.07 * -(-num // 2))  # room for the legend
    scale = 100.0 if panel.unit == "%" else 1.0
    for place, series in enumerate(panel.series):
        color = COLORS[place % len(COLORS)]
        dash = DASHES[(place + place // len(COLORS)) % len(DASHES)]  # a colour taken again has another dash
        marker = MARKERS[place % len(MARKERS)] if len(series.x) <= 12 else ""
        y = scale * np.array(series.y)
        axes.plot(series.x, y, dash, color=color, marker=marker, markersize=3, label=series.name)
        if series.is_averaged:
            low, high = scale * np.array(series.low), scale * np.array(series.high)
            axes.fill_between(series.x, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel(panel.x_label)
    alone = len(panel.series) == 1
    name = panel.series[0].name if alone else panel.title
    axes.set_ylabel(name if panel.unit in ("", name) else f"{name} ({panel.unit})")
    if panel.wants_log:
        axes.set_yscale("log")
    if not alone:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def cluster_figure(view: RunView, width_in: float) -> Figure:
    """Clusters of each size in the newest assignment."""
    if view.assignment is None:
        raise DataError("the run has not clustered yet")
    labels, counts = describe(view.assignment, {}).sizes()
    figure, axes = _blank(width_in, 0.62)
    axes.bar(labels, counts, color=COLORS[0])
    axes.set_xlabel("videos in a cluster")
    axes.set_ylabel("clusters")
    return figure


def recall_figure(document: Mapping[str, Any], width_in: float) -> Figure:
    """R@k with its interval, by protocol and kind of features, from an evaluation."""
    figure, axes = _blank(width_in, 0.95)
    place = 0
    for protocol, rows in document["retrieval"].items():
        for kind, row in rows.items():
            known = kind.startswith(("trained", "untrained_pooled")) or kind == "chance"
            if not known or (kind == "chance" and place and protocol != next(iter(document["retrieval"]))):
                continue
            ks = [int(k) for k in row["recall"]]
            value, low, high = (
                100 * np.array([row["recall"][k][part] for k in row["recall"]])
                for part in ("value", "low", "high")
            )
            name = document["row_names"].get(kind, kind)
            axes.errorbar(
                ks,
                value,
                yerr=np.maximum([value - low, high - value], 0),
                fmt=MARKERS[place % len(MARKERS)] + DASHES[place % len(DASHES)],
                color=COLORS[place % len(COLORS)],
                markersize=3,
                capsize=2,
                elinewidth=0.8,
                label=name if kind == "chance" else f"{name}, {PROTOCOLS.get(protocol, protocol)}",
            )
            place += 1
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_xlabel("k")
    axes.set_ylabel("R@k (%)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=5.5)
    return figure


def map_figure(view: RunView, width_in: float) -> Figure:
    """The embedding in two dimensions; classes by colour and marker, as far as these reach."""
    embedded, store = _embedded(view)
    places, method = two_dimensions(embedded.bank_VD, view.config.seed)
    labels_V = np.asarray(store.label_ids)[embedded.rows_V]
    figure, axes = _blank(width_in, 1.0)
    shown = np.unique(labels_V).tolist()
    if 1 < len(shown) <= MAX_COLORED:
        for place, label in enumerate(shown):
            x, y = places[labels_V == label].T
            axes.scatter(
                x,
                y,
                s=7,
                linewidths=0,
                color=COLORS[place % len(COLORS)],
                marker=MARKERS[place % len(MARKERS)],
                label=store.label_names[label] if label >= 0 else "no class",
            )
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, fontsize=6, handletextpad=0.1)
    else:
        axes.scatter(*places.T, s=4, linewidths=0, color=COLORS[0])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(method)
    axes.set_aspect("equal")
    return figure


def confusion_figure(view: RunView, width_in: float) -> Figure:
    """Which class the nearest video of each class's queries has: shares of the row."""
    neighbors, query_labels_Q, gallery_labels_G, names = _compared(view)
    counts_CC = confusion(neighbors, query_labels_Q, gallery_labels_G, len(names))
    share_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    figure, axes = _blank(width_in, 0.95)
    image = axes.imshow(share_CC, cmap="cividis", vmin=0, vmax=1)
    if len(names) <= MAX_NAMED:
        size = 6 if len(names) <= 12 else 4
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("class of the nearest video")
    axes.set_ylabel("class of the query")
    figure.colorbar(image, ax=axes, fraction=0.046, format=PercentFormatter(1.0, 0))
    return figure


def class_figure(view: RunView, width_in: float) -> Figure:
    """R@1 of each class, the best at the top."""
    neighbors, query_labels_Q, gallery_labels_G, names = _compared(view)
    rows = recall_by_class(neighbors, query_labels_Q, gallery_labels_G, names)
    figure, axes = _blank(width_in, max(0.4, 0.045 * len(rows)))
    axes.barh(range(len(rows)), [100 * row.recall_at_1 for row in rows], color=COLORS[0])
    axes.set_yticks(range(len(rows)), [f"{row.name} ({row.num_queries})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("R@1 (%)")
    return figure


def pair_figure(view: RunView, pair: tuple[str, str], hop: int | None, width_in: float) -> Figure:
    """The cosine of every window of one video with every window of another, over seconds of both."""
    found = similarity_over_time(view, pair, hop)
    figure, axes = _blank(width_in, 0.9)
    image = axes.imshow(
        found.cosine_WW,
        cmap="cividis",
        origin="lower",
        aspect="auto",
        extent=(found.second.start_s, found.second.end_s, found.first.start_s, found.first.end_s),
    )
    axes.set_xlabel(f"{found.second.name}: seconds")
    axes.set_ylabel(f"{found.first.name}: seconds")
    figure.colorbar(image, ax=axes, fraction=0.046, label="cosine")
    return figure


def _embedded(view: RunView) -> tuple[Any, Any]:
    if view.embedded is None or view.store is None:
        reason = " ".join(view.problems) or "the videos were not embedded"
        raise DataError(reason.rstrip("."))
    return view.embedded, view.store


def _compared(view: RunView) -> tuple[Any, Any, Any, tuple[str, ...]]:
    """Neighbours of the queries with the labels of both sides. Raises DataError without classes."""
    embedded, store = _embedded(view)
    labels_V = np.asarray(store.label_ids)[embedded.rows_V].astype(np.int64)
    if not video_classes(view) or (labels_V < 0).any():
        raise DataError("the videos have no classes")
    query_Q, gallery_G = embedded.query_Q, embedded.gallery_G
    neighbors = find_neighbors(
        embedded.bank_VD[torch.from_numpy(query_Q)],
        embedded.bank_VD[torch.from_numpy(gallery_G)],
        same_videos=embedded.same_videos,
    )
    if not neighbors.nearest_QK.shape[1]:
        raise DataError("there is no other video to look at")
    return neighbors, labels_V[query_Q], labels_V[gallery_G], tuple(store.label_names)


def _blank(width_in: float, ratio: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width_in, width_in * ratio), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Figure, stem: Path) -> list[Path]:
    """STEM.png and STEM.pdf, whole or not at all, without the time in them."""
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        path = stem.with_name(stem.name + suffix)
        write_atomically(
            path,
            lambda stream, suffix=suffix, metadata=metadata: figure.savefig(  # type: ignore[misc]
                stream, format=suffix[1:], dpi=PNG_DPI, metadata=metadata
            ),
        )
        written.append(path)
    return written
