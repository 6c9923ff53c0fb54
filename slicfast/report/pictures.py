"""What the page shows of the embedding: queries with their nearest, the map, the confusion of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup, escape

from slicfast.report.layout import MAX_POINTS, two_dimensions
from slicfast.report.neighbors import (
    NUM_NEAREST,
    ClassRecall,
    choose_queries,
    confusion,
    find_neighbors,
    recall_by_class,
)
from slicfast.report.svg import NUM_COLORS
from slicfast.report.view import RunView

MAX_LABELLED = 60  # classes up to which the confusion's axes are labelled
MAX_WRITTEN = 14  # classes up to which counts are written into its cells
MAP_WIDTH, MAP_HEIGHT = 720, 720
SHAPES = 4  # marks of the map, defined in the template


@dataclass(frozen=True)
class Found:
    """A video found for a query; ``is_right`` is None where a class is not known."""

    video_id: str
    class_name: str | None
    similarity: float
    is_right: bool | None


@dataclass(frozen=True)
class Query:
    """A query with its nearest videos."""

    video_id: str
    class_name: str | None
    found: tuple[Found, ...]

    @property
    def is_right(self) -> bool | None:
        """Whether the nearest is of the query's class."""
        return self.found[0].is_right if self.found else None


@dataclass(frozen=True)
class Point:
    """A video on the map, at pixels of the drawing."""

    video_id: str
    class_name: str | None
    cluster: int | None
    split: str
    x: float
    y: float
    class_color: int
    cluster_color: int
    shape: int


@dataclass(frozen=True)
class EmbeddingPage:
    """All of it. ``confusion`` and ``recalls`` are None without classes."""

    query: str
    gallery: str
    features: str
    num_queries: int
    num_gallery: int
    num_left_out: int
    queries: tuple[Query, ...]
    points: tuple[Point, ...]
    method: str
    class_marks: tuple[tuple[str, int, int], ...]  # class, colour, shape
    confusion: Markup | None
    mistaken: tuple[tuple[str, str, int], ...]
    recalls: tuple[ClassRecall, ...]

    def shown_videos(self) -> Iterator[str]:
        """Videos of the gallery of queries, in order of the page."""
        for query in self.queries:
            yield query.video_id
            yield from (found.video_id for found in query.found)

    def map_videos(self) -> Iterator[str]:
        return (point.video_id for point in self.points)


def embedding_page(view: RunView, class_of: Mapping[str, str | None]) -> EmbeddingPage:
    """Everything the page shows of the embedded videos."""
    embedded, store = view.embedded, view.store
    assert embedded is not None and store is not None
    ids = store.ids(embedded.rows_V)
    labels_V = np.asarray(store.label_ids)[embedded.rows_V].astype(np.int64)
    bank_VD = embedded.bank_VD
    query_Q, gallery_G = embedded.query_Q, embedded.gallery_G
    neighbors = find_neighbors(
        bank_VD[torch.from_numpy(query_Q)],
        bank_VD[torch.from_numpy(gallery_G)],
        same_videos=embedded.same_videos,
    )
    queries = []
    for place in choose_queries(labels_V[query_Q]).tolist():
        own = class_of.get(ids[query_Q[place]])
        found = []
        for row, cosine in zip(neighbors.nearest_QK[place], neighbors.similarity_QK[place], strict=True):
            video_id = ids[gallery_G[row]]
            other = class_of.get(video_id)
            right = None if own is None or other is None else own == other
            found.append(Found(video_id, other, float(cosine), right))
        queries.append(Query(ids[query_Q[place]], own, tuple(found[:NUM_NEAREST])))
    names = store.label_names
    known = bool(len(names)) and bool((labels_V >= 0).all()) and neighbors.nearest_QK.shape[1] > 0
    counts_CC = confusion(neighbors, labels_V[query_Q], labels_V[gallery_G], len(names)) if known else None
    points, method = _points(view, ids, class_of)
    marks = {
        name: (place % NUM_COLORS, (place + place // NUM_COLORS) % SHAPES) for place, name in enumerate(names)
    }
    used = {point.class_name for point in points}
    return EmbeddingPage(
        query=embedded.query,
        gallery=embedded.gallery,
        features=embedded.features,
        num_queries=len(query_Q),
        num_gallery=len(gallery_G),
        num_left_out=embedded.num_left_out,
        queries=tuple(queries),
        points=points,
        method=method,
        class_marks=tuple((name, *mark) for name, mark in marks.items() if name in used),
        confusion=None if counts_CC is None else _confusion_svg(counts_CC, names),
        mistaken=() if counts_CC is None else _mistaken(counts_CC, names),
        recalls=tuple(recall_by_class(neighbors, labels_V[query_Q], labels_V[gallery_G], names))
        if known
        else (),
    )


def _points(
    view: RunView, ids: list[str], class_of: Mapping[str, str | None]
) -> tuple[tuple[Point, ...], str]:
    embedded, store = view.embedded, view.store
    assert embedded is not None and store is not None
    chosen = np.arange(len(ids))
    if len(chosen) > MAX_POINTS:
        chosen = np.linspace(0, len(ids) - 1, MAX_POINTS).round().astype(np.int64)
    places, method = two_dimensions(embedded.bank_VD[torch.from_numpy(chosen)], view.config.seed)
    cluster_of = {}
    if view.assignment is not None:
        cluster_of = dict(zip(view.assignment.ids, view.assignment.labels.tolist(), strict=True))
    class_place = {name: place for place, name in enumerate(store.label_names)}
    query = set(embedded.query_Q.tolist())
    points = []
    for row, (x, y) in zip(chosen.tolist(), places.tolist(), strict=True):
        name, cluster = class_of.get(ids[row]), cluster_of.get(ids[row])
        place = class_place.get(name, 0) if name is not None else 0
        points.append(
            Point(
                ids[row],
                name,
                cluster,
                embedded.query if row in query else embedded.gallery,
                x=round(14 + x * (MAP_WIDTH - 28), 1),
                y=round(14 + (1 - y) * (MAP_HEIGHT - 28), 1),
                class_color=place % NUM_COLORS,
                cluster_color=(cluster or 0) % NUM_COLORS,
                shape=(place + place // NUM_COLORS) % SHAPES,
            )
        )
    return tuple(points), method


def _mistaken(
    counts_CC: np.ndarray, names: tuple[str, ...], most: int = 10
) -> tuple[tuple[str, str, int], ...]:
    """The pairs of classes taken for one another most often: true, found, how often."""
    wrong_CC = counts_CC - np.diag(np.diag(counts_CC))
    order = np.argsort(-wrong_CC, axis=None, kind="stable")[:most].tolist()
    pairs = [(place // len(names), place % len(names)) for place in order]
    return tuple((names[a], names[b], int(wrong_CC[a, b])) for a, b in pairs if wrong_CC[a, b])


def _confusion_svg(counts_CC: np.ndarray, names: tuple[str, ...]) -> Markup:
    """Rows: the query's class; columns: the class of its nearest; darkness: the share of the row."""
    rows = [place for place in range(len(names)) if counts_CC[place].any()]
    labelled = len(names) <= MAX_LABELLED
    letters = max(len(name) for name in names) if labelled else 0
    margin = min(6.6 * letters + 12, 150.0) if labelled else 8.0
    side = min(52.0, max(560.0 / len(names), 3.0))
    width, height = margin + side * len(names) + 60, margin + side * len(rows) + 8
    parts = []
    for place, row in enumerate(rows):
        y, total = margin + place * side, counts_CC[row].sum()
        if labelled:
            parts.append(
                f'<text class="tick" x="{margin - 6:.1f}" y="{y + side / 2 + 4:.1f}" text-anchor="end">'
                f"{escape(_cut(names[row]))}</text>"
            )
        parts.append(
            f'<rect class="row" x="{margin:.1f}" y="{y:.1f}" width="{side * len(names):.1f}"'
            f' height="{side:.1f}"/>'
        )
        for column in np.flatnonzero(counts_CC[row]).tolist():
            count = int(counts_CC[row, column])
            share = count / total
            x = margin + column * side
            kind = "right" if row == column else "wrong"
            text = f"{names[row]}, nearest {names[column]}: {count} of {int(total)} ({100 * share:.0f} %)"
            parts.append(
                f'<rect class="cell {kind}" x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{side - 1:.1f}"'
                f' height="{side - 1:.1f}" fill-opacity="{0.12 + 0.88 * share:.2f}"'
                f' data-tip="{escape(text)}"/>'
            )
            if len(names) <= MAX_WRITTEN:
                parts.append(
                    f'<text class="count{" on" if share > 0.5 else ""}" x="{x + side / 2:.1f}"'
                    f' y="{y + side / 2 + 4:.1f}" text-anchor="middle">{count}</text>'
                )
    if labelled:
        for column, name in enumerate(names):
            x = margin + (column + 0.5) * side
            parts.append(
                f'<text class="tick" transform="translate({x + 3:.1f} {margin - 6:.1f}) rotate(-50)">'
                f"{escape(_cut(name))}</text>"
            )
    return Markup(
        f'<svg class="confusion" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
        f' aria-label="Class of the nearest video for the {len(rows)} classes of the queries; the most'
        f' frequent mistakes are listed below">{"".join(parts)}</svg>'
    )


def _cut(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"
