"""How well scores name classes: top-1 and top-5 with bootstrap intervals, and a figure a class."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch

from slicfast.evaluation.bootstrap import Figure, share_below


class Accuracy(TypedDict):
    """``per_class``: share of each class's queries that are named right, in the order of the classes."""

    top1: Figure
    top5: Figure
    per_class: list[float | None]


def rank_of_truth(scores_QC: torch.Tensor, labels_Q: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(Q,) how many classes score higher than the right one; among equals the first class wins."""
    labels_Q1 = torch.from_numpy(np.asarray(labels_Q, dtype=np.int64)).to(scores_QC.device)[:, None]
    own_Q1 = scores_QC.gather(1, labels_Q1)
    earlier_QC = torch.arange(scores_QC.shape[1], device=scores_QC.device) < labels_Q1
    ahead_QC = (scores_QC > own_Q1) | ((scores_QC == own_Q1) & earlier_QC)
    ranks: npt.NDArray[np.int64] = ahead_QC.sum(dim=1).cpu().numpy()
    return ranks


def accuracy(scores_QC: torch.Tensor, labels_Q: npt.NDArray[np.integer]) -> Accuracy:
    """Top-1, top-5 and a table a class of (Q, C) scores."""
    rank_Q = rank_of_truth(scores_QC, labels_Q)
    figures = share_below(rank_Q, (1, 5))
    return Accuracy(
        top1=figures[1], top5=figures[5], per_class=by_class(rank_Q < 1, labels_Q, scores_QC.shape[1])
    )


def by_class(
    right_Q: npt.NDArray[np.bool_], labels_Q: npt.NDArray[np.integer], num_classes: int
) -> list[float | None]:
    """The share of right ones among each class's queries; None for a class without a query."""
    support_C = np.bincount(labels_Q, minlength=num_classes)
    right_C = np.bincount(labels_Q, weights=right_Q, minlength=num_classes)
    return [
        float(right / support) if support else None for right, support in zip(right_C, support_C, strict=True)
    ]
