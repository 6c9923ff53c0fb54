"""Each query's nearest videos, and what follows: which classes are taken for which, recall class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

NUM_NEAREST = 5
NUM_SHOWN = 96  # queries on the page
BLOCK = 1024  # queries compared with the gallery at a time

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Neighbors:
    """Nearest gallery rows of Q queries, nearest first.

    Attributes:
        nearest_QK: (Q, K) int64 rows of the gallery.
        similarity_QK: (Q, K) float32 cosines.
    """

    nearest_QK: npt.NDArray[np.int64]
    similarity_QK: npt.NDArray[np.float32]


def find_neighbors(
    query_QD: torch.Tensor, gallery_GD: torch.Tensor, *, k: int = NUM_NEAREST, same_videos: bool = False
) -> Neighbors:
    """The k nearest by cosine, the earlier of the gallery among equals.

    Args:
        same_videos: query and gallery are the same list; a query does not find itself.
    """
    query_QD = torch.nn.functional.normalize(query_QD.float(), dim=1)
    gallery_GD = torch.nn.functional.normalize(gallery_GD.float(), dim=1)
    k = min(k, len(gallery_GD) - int(same_videos))
    nearest, similarity = [], []
    for start in range(0, len(query_QD), BLOCK):
        similarity_BG = query_QD[start : start + BLOCK] @ gallery_GD.T
        if same_videos:
            own_B = torch.arange(len(similarity_BG), device=query_QD.device)
            similarity_BG[own_B, start + own_B] = -torch.inf
        sorted_BG, order_BG = similarity_BG.sort(dim=1, descending=True, stable=True)
        nearest.append(order_BG[:, :k].cpu())
        similarity.append(sorted_BG[:, :k].cpu())
    return Neighbors(torch.cat(nearest).numpy(), torch.cat(similarity).numpy())


def choose_queries(labels_Q: Labels, num: int = NUM_SHOWN) -> npt.NDArray[np.int64]:
    """(<= num,) queries to show: evenly from every class, the first of each, then the second of each, ..."""
    num = min(num, len(labels_Q))
    classes = [np.flatnonzero(labels_Q == label) for label in np.unique(labels_Q)]
    share, extra = divmod(num, len(classes))
    if share == 0:
        classes = [classes[place] for place in np.linspace(0, len(classes) - 1, num).round().astype(int)]
        share, extra = 1, 0
    chosen, turn = [], []
    for place, rows in enumerate(classes):
        wanted = min(len(rows), share + (place < extra))
        chosen.append(rows[np.linspace(0, len(rows) - 1, wanted).round().astype(int)])
        turn.append(np.arange(wanted))
    order = np.argsort(np.concatenate(turn), kind="stable")
    return np.concatenate(chosen)[order].astype(np.int64)


def confusion(
    neighbors: Neighbors, query_labels_Q: Labels, gallery_labels_G: Labels, num_classes: int
) -> npt.NDArray[np.int64]:
    """(C, C) int64: queries of a class (row) by the class of their nearest video (column)."""
    counts_CC = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts_CC, (query_labels_Q, gallery_labels_G[neighbors.nearest_QK[:, 0]]), 1)
    return counts_CC


@dataclass(frozen=True)
class ClassRecall:
    """What became of the queries of one class."""

    name: str
    num_queries: int
    recall_at_1: float
    recall_at_5: float
    most_taken_for: str | None  # the wrong class found most often as nearest


def recall_by_class(
    neighbors: Neighbors, query_labels_Q: Labels, gallery_labels_G: Labels, names: Sequence[str]
) -> list[ClassRecall]:
    """A row for each class that has queries, the best first."""
    right_QK = gallery_labels_G[neighbors.nearest_QK] == np.asarray(query_labels_Q)[:, None]
    counts_CC = confusion(neighbors, query_labels_Q, gallery_labels_G, len(names))
    rows = []
    for label in np.unique(query_labels_Q).tolist():
        own_K = right_QK[query_labels_Q == label]
        wrong_C = counts_CC[label].copy()
        wrong_C[label] = 0
        rows.append(
            ClassRecall(
                name=names[label],
                num_queries=len(own_K),
                recall_at_1=float(own_K[:, 0].mean()),
                recall_at_5=float(own_K[:, :5].any(axis=1).mean()),
                most_taken_for=names[int(wrong_C.argmax())] if wrong_C.any() else None,
            )
        )
    return sorted(rows, key=lambda row: (-row.recall_at_1, -row.recall_at_5, row.name))
