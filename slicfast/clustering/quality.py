"""What is logged of a round of clustering: sizes, agreement with true labels, churn, and spread.

True labels are for the record only; nothing here may reach training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from slicfast.clustering.bank import as_bank, spread
from slicfast.clustering.matching import keep_labels, overlaps

Labels = npt.NDArray[np.int64]


def quality(
    labels_N: Labels,
    true_labels_N: npt.NDArray[Any] | None = None,
    previous_N: Labels | None = None,
    bank_ND: Tensor | npt.NDArray[Any] | None = None,
) -> dict[str, float]:
    """Figures of an assignment of N videos; whatever cannot be said is left out.

    Always num_clusters, share_singletons (of the clusters, those with one video), size_max, size_median and
    size_mean (videos a cluster). With true labels (-1: unknown, left out) nmi, ami and, where two videos
    share a cluster, pair_purity. With the labels of the round before, joined by video id, churn. With the
    bank, spread.
    """
    sizes_K = np.unique(labels_N, return_counts=True)[1]
    figures: dict[str, float] = {
        "num_clusters": len(sizes_K),
        "share_singletons": float((sizes_K == 1).mean()),
        "size_max": int(sizes_K.max()),
        "size_median": float(np.median(sizes_K)),
        "size_mean": float(sizes_K.mean()),
    }
    if true_labels_N is not None:
        is_known_N = true_labels_N >= 0
        if is_known_N.any():
            figures |= _agreement(labels_N[is_known_N], true_labels_N[is_known_N])
    if previous_N is not None:
        figures["churn"] = churn(labels_N, previous_N)
    if bank_ND is not None:
        figures["spread"] = spread(as_bank(bank_ND))
    return figures


def _agreement(labels_N: Labels, true_labels_N: npt.NDArray[Any]) -> dict[str, float]:
    from sklearn.metrics import adjusted_mutual_info_score

    with _many_labels():
        ami = float(adjusted_mutual_info_score(true_labels_N, labels_N))
    figures = {"nmi": mutual_information(labels_N, true_labels_N), "ami": ami}
    purity = pair_purity(labels_N, true_labels_N)
    return figures if purity is None else {**figures, "pair_purity": purity}


def mutual_information(labels_N: Labels, others_N: npt.NDArray[Any]) -> float:
    """NMI of two assignments, from 0 to 1, by the arithmetic mean of their entropies.

    It is not adjusted for chance: many small clusters agree much with anything.
    """
    from sklearn.metrics import normalized_mutual_info_score

    with _many_labels():
        return float(normalized_mutual_info_score(others_N, labels_N))


@contextmanager
def _many_labels() -> Iterator[None]:
    with warnings.catch_warnings():
        # scikit-learn takes many small clusters for a regression target; FINCH makes them by design.
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        yield


def pair_purity(labels_N: Labels, true_labels_N: npt.NDArray[Any]) -> float | None:
    """Share of the pairs of videos in one cluster that have the same true label; None without pairs."""
    num_together = _num_pairs(np.unique(labels_N, return_counts=True)[1])
    if not num_together:
        return None
    return _num_pairs(overlaps(labels_N, true_labels_N)[2]) / num_together


def churn(labels_N: Labels, previous_N: Labels) -> float:
    """Share of videos that did not stay in their cluster since the round before, from 0 to below 1.

    Clusters have no names that last, so each new one is matched with at most one old one such that most
    videos stay; those in unmatched parts have moved.
    """
    kept_N, _ = keep_labels(labels_N, previous_N, int(previous_N.max()) + 1)
    return float((kept_N != previous_N).mean())


def _num_pairs(counts: Labels) -> int:
    return int((counts * (counts - 1) // 2).sum())
