"""What is logged of a round of clustering: sizes, agreement with true labels, churn, and spread.

True labels are for the record only; nothing here may reach training.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from slicfast.clustering.bank import as_bank, spread

Labels = npt.NDArray[np.int64]

_MOST_MATCHED = 4000  # clusters a side up to which the best matching is found exactly


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
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    with warnings.catch_warnings():
        # scikit-learn takes many small clusters for a regression target; FINCH makes them by design.
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        figures = {
            "nmi": float(normalized_mutual_info_score(true_labels_N, labels_N)),
            "ami": float(adjusted_mutual_info_score(true_labels_N, labels_N)),
        }
    purity = pair_purity(labels_N, true_labels_N)
    return figures if purity is None else {**figures, "pair_purity": purity}


def pair_purity(labels_N: Labels, true_labels_N: npt.NDArray[Any]) -> float | None:
    """Share of the pairs of videos in one cluster that have the same true label; None without pairs."""
    num_together = _num_pairs(np.unique(labels_N, return_counts=True)[1])
    if not num_together:
        return None
    return _num_pairs(_overlaps(labels_N, true_labels_N)[2]) / num_together


def churn(labels_N: Labels, previous_N: Labels) -> float:
    """Share of videos that did not stay in their cluster since the round before, from 0 to below 1.

    Clusters have no names that last, so each new one is matched with at most one old one such that most
    videos stay; those in unmatched parts have moved. The matching is the best one for up to 4000 clusters a
    round; above, the largest overlaps are taken first, which can only overstate churn, and stays within twice
    the best matching's number of stayers.
    """
    new_P, old_P, count_P = _overlaps(labels_N, previous_N)
    num_new, num_old = int(new_P.max()) + 1, int(old_P.max()) + 1
    if max(num_new, num_old) <= _MOST_MATCHED:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

        overlap_KK = np.zeros((num_new, num_old), dtype=np.int64)
        overlap_KK[new_P, old_P] = count_P
        num_stayed = int(overlap_KK[linear_sum_assignment(overlap_KK, maximize=True)].sum())
    else:
        num_stayed = _greedy_overlap(new_P, old_P, count_P)
    return 1.0 - num_stayed / len(labels_N)


def _greedy_overlap(new_P: Labels, old_P: Labels, count_P: Labels) -> int:
    taken_new, taken_old, num_stayed = set[int](), set[int](), 0
    for at in np.argsort(-count_P, kind="stable").tolist():
        new, old = int(new_P[at]), int(old_P[at])
        if new not in taken_new and old not in taken_old:
            taken_new.add(new)
            taken_old.add(old)
            num_stayed += int(count_P[at])
    return num_stayed


def _overlaps(a_N: npt.NDArray[Any], b_N: npt.NDArray[Any]) -> tuple[Labels, Labels, Labels]:
    """The P pairs of labels that occur together, each numbered from 0, and how many rows have them."""
    a_N, b_N = np.unique(a_N, return_inverse=True)[1], np.unique(b_N, return_inverse=True)[1]
    width = int(b_N.max()) + 1
    pairs_P, count_P = np.unique(a_N.astype(np.int64) * width + b_N, return_counts=True)
    return pairs_P // width, pairs_P % width, count_P.astype(np.int64)


def _num_pairs(counts: Labels) -> int:
    return int((counts * (counts - 1) // 2).sum())
