"""`slicfast report`: a run as one HTML page that opens from a file, with everything it shows inside.

No network, no external font or script; a content security policy with hashes of its own style and script.
The same run gives the same page, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from slicfast.errors import SlicfastError
from slicfast.machine import machine
from slicfast.records import write_text
from slicfast.report import svg
from slicfast.report.clusters import Clusters, describe
from slicfast.report.curves import Panel, panels, unbroken
from slicfast.report.pictures import EmbeddingPage, embedding_page
from slicfast.report.results import ResultTable, measure_results, read_results
from slicfast.report.settings import settings_by_section
from slicfast.report.thumbnails import Strips
from slicfast.report.view import MAX_VIDEOS, RunView, embed, open_run, video_classes

NOT_OF_THE_RUN = ("time", "load", "commit")  # of the machine: what makes two pages of one run differ


def write_report(
    path: str | Path,
    output: Path | None = None,
    *,
    query: str | None = None,
    gallery: str | None = None,
    overrides: Sequence[str] = (),
    max_videos: int = MAX_VIDEOS,
    skip_embedding: bool = False,
) -> Path:
    """Write the page of a run folder, finished or not, by default into it; returns where.

    Args:
        query, gallery: splits to look in; see `embed`.
        overrides: configuration values in place of the run's.
        max_videos: embed at most so many.
        skip_embedding: leave out everything that needs the network.

    Raises:
        SlicfastError: one line for what is not there or does not fit.
    """
    view = open_run(path, overrides)
    if not skip_embedding:
        embed(view, query=query, gallery=gallery, max_videos=max_videos)
    target = output or view.run.path / "report.html"
    write_text(target, render(view))
    return target


def render(view: RunView) -> str:
    """The page's text."""
    class_of = video_classes(view)
    clusters = describe(view.assignment, class_of) if view.assignment is not None else None
    embedding = embedding_page(view, class_of) if view.embedded is not None else None
    results = _results(view, bool(class_of))
    strips = Strips(view.store)
    if embedding is not None:
        strips.add(embedding.shown_videos())
    if clusters is not None:
        strips.add(v for group in clusters.groups().values() for cluster in group for v in cluster.shown())
    if embedding is not None:
        strips.add(embedding.map_videos())
    charts = [_chart(panel) for panel in panels(view.entries)]
    style, script = _asset("page.css"), _asset("page.js")
    thumbnails = strips.css()
    page = _environment().from_string(_asset("page.html"))
    return page.render(
        name=view.run.path.resolve().name,
        status=_status(view),
        tiles=_tiles(view, results, clusters),
        problems=view.problems,
        results=results,
        charts=charts,
        clusters=clusters,
        size_chart=_size_chart(clusters),
        class_of=class_of,
        classes=sorted({name for name in class_of.values() if name is not None}),
        embedding=embedding,
        strip=strips.number,
        settings=settings_by_section(view.config),
        machine={key: value for key, value in machine().items() if key not in NOT_OF_THE_RUN},
        data=Markup(_for_script(_page_data(embedding, strips))),
        style=Markup(style),
        thumbnails=Markup(thumbnails),
        script=Markup(script),
        style_hashes=" ".join(_hash(text) for text in (style, thumbnails)),
        script_hash=_hash(script),
    )


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["percent"] = lambda share: "-" if share is None else svg.number(share, "%")
    made.filters["number"] = svg.number
    made.filters["series_class"] = svg.series_class
    return made


def _asset(name: str) -> str:
    return resources.files("slicfast.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _for_script(values: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _results(view: RunView, has_classes: bool) -> list[ResultTable]:
    """What evaluations left behind, else retrieval measured now where there are classes and a network."""
    try:
        found = read_results(view.run.path)
        if found or view.embedded is None or not has_classes or view.checkpoint is None:
            return found
        return measure_results(view.checkpoint, view.embedded.query, view.embedded.gallery, view.overrides)
    except SlicfastError as error:
        view.problems.append(f"No results: {error}.")
        return []


def _status(view: RunView) -> str:
    """How far the run is, in words."""
    total = view.config.train.epochs
    lines = unbroken(view.entries)
    reached = max(
        (int(line.get("epoch") or 0) for line in lines if line.get("kind") == "retrieval"), default=0
    )
    under_way = max((int(line.get("epoch") or 0) for line in lines), default=None)
    if under_way is None:
        return "nothing logged yet"
    if reached >= total or (view.epoch or 0) >= total:
        return f"finished: {total} epochs"
    return f"unfinished: epoch {under_way} of {total}"


def _tiles(
    view: RunView, results: Sequence[ResultTable], clusters: Clusters | None
) -> list[tuple[str, str, str]]:
    """The few figures a reader looks for first: name, value, what to hold it against."""
    tiles = []
    for table in results[:1]:
        for row in ("trained, pooled", "trained, projection"):
            value = table.value(row, "R@1")
            if value is None:
                continue
            beside = [
                f"{name}\N{NO-BREAK SPACE}{svg.number(other, '%')}"
                for name, key in (("untrained", f"un{row}"), ("chance", "chance"))
                if (other := table.value(key, "R@1")) is not None
            ]
            tiles.append((f"R@1, {row.split(', ')[1]}", svg.number(value, "%"), ", ".join(beside)))
    if clusters is not None and clusters.clusters:
        tiles.append(
            (
                "Clusters",
                str(len(clusters.clusters)),
                f"of {clusters.num_videos} videos, epoch {clusters.epoch}",
            )
        )
    train = [line for line in unbroken(view.entries) if line.get("kind") == "train"]
    rates = sorted(float(line["clips_per_second"]) for line in train if line.get("clips_per_second"))
    if rates:
        tiles.append(("Clips a second", svg.number(round(rates[len(rates) // 2], 1)), "median of the run"))
    waits = sorted(float(line["wait_share"]) for line in train if line.get("wait_share") is not None)
    if waits:
        tiles.append(("Waiting for data", svg.number(waits[len(waits) // 2], "%"), "median of the run"))
    replaced = sum(int(line.get("num_replaced") or 0) for line in train[-1:])
    if replaced:
        tiles.append(("Damaged clips", str(replaced), "replaced by others"))
    return tiles


def _chart(panel: Panel) -> dict[str, Any]:
    return {
        "panel": panel,
        "linear": svg.line_chart(panel),
        "log": svg.line_chart(panel, log=True) if panel.wants_log else None,
        "is_averaged": any(series.is_averaged for series in panel.series),
    }


def _size_chart(clusters: Clusters | None) -> Markup | None:
    if clusters is None or not clusters.clusters:
        return None
    labels, counts = clusters.sizes()
    return svg.bar_chart(labels, counts, name="Clusters by size", x_label="videos in a cluster")


def _page_data(embedding: EmbeddingPage | None, strips: Strips) -> dict[str, Any]:
    """What the script needs of the map's points: text lines and the strip's number."""
    if embedding is None:
        return {"points": []}
    return {
        "points": [
            [point.video_id, point.class_name, point.cluster, point.split, strips.number(point.video_id)]
            for point in embedding.points
        ]
    }
