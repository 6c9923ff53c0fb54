"""Few-shot k-nearest neighbours: how far a handful of labelled videos a class goes.

Neighbours vote with exp(cosine / 0.07), as in instance discrimination (Wu et al., CVPR 2018) and DINO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch

SHOTS: tuple[int | None, ...] = (1, 2, 5, 10, None)  # labelled videos a class; None: all
NEIGHBOURS = 20
TEMPERATURE = 0.07
BLOCK = 1024  # queries compared with the gallery at a time


class Draws(TypedDict):
    """Top-1 of several draws of labelled videos, and over them the mean and the standard deviation."""

    mean: float
    deviation: float
    values: list[float]


def votes(
    similarity_QG: torch.Tensor, labels_G: npt.NDArray[np.integer], num_classes: int, neighbours: int
) -> torch.Tensor:
    """(Q, C) votes of the ``neighbours`` nearest, or of all where there are fewer."""
    nearest = similarity_QG.topk(min(neighbours, similarity_QG.shape[1]), dim=1)
    labels = torch.from_numpy(np.asarray(labels_G, dtype=np.int64)).to(similarity_QG.device)
    votes_QC = similarity_QG.new_zeros(len(similarity_QG), num_classes)
    return votes_QC.scatter_add_(1, labels[nearest.indices], (nearest.values / TEMPERATURE).exp())


def draw_labelled(labels_G: npt.NDArray[np.integer], shots: int, seed: int) -> npt.NDArray[np.int64]:
    """Places of ``shots`` random videos of each class, of all where it has fewer; ascending."""
    order = np.random.default_rng([seed, shots]).permutation(len(labels_G))
    by_class = order[np.argsort(labels_G[order], kind="stable")]
    count_C = np.bincount(labels_G)
    number = np.arange(len(order)) - (np.cumsum(count_C) - count_C)[labels_G[by_class]]
    return np.sort(by_class[number < shots])


def few_shot(
    query_QD: torch.Tensor,
    query_labels_Q: npt.NDArray[np.integer],
    gallery_GD: torch.Tensor,
    gallery_labels_G: npt.NDArray[np.integer],
    *,
    num_classes: int,
    shots: Sequence[int | None] = SHOTS,
    num_draws: int = 5,
    neighbours: int = NEIGHBOURS,
    same_videos: bool = False,
) -> dict[str, Draws]:
    """Top-1 for each number of labelled videos a class ("all": every one, drawn once).

    Args:
        same_videos: query and gallery are the same list; a query does not ask itself.
    """
    query_QD, gallery_GD = _unit(query_QD), _unit(gallery_GD)
    truth_Q = torch.from_numpy(np.asarray(query_labels_Q, dtype=np.int64)).to(query_QD.device)
    draws: dict[str, list[npt.NDArray[np.int64]]] = {
        str(number): [draw_labelled(gallery_labels_G, number, seed) for seed in range(num_draws)]
        for number in shots
        if number is not None
    }
    if None in shots:
        draws["all"] = [np.arange(len(gallery_labels_G))]
    right = {name: np.zeros(len(drawn)) for name, drawn in draws.items()}
    for start in range(0, len(query_QD), BLOCK):
        similarity_BG = query_QD[start : start + BLOCK] @ gallery_GD.T
        if same_videos:
            own_B = torch.arange(len(similarity_BG), device=query_QD.device)
            similarity_BG[own_B, start + own_B] = -torch.inf
        for name, drawn in draws.items():
            for place, labelled in enumerate(drawn):
                chosen = torch.from_numpy(labelled).to(similarity_BG.device)
                labels = gallery_labels_G[labelled]
                votes_BC = votes(similarity_BG[:, chosen], labels, num_classes, neighbours)
                found_B = votes_BC.argmax(dim=1) == truth_Q[start : start + BLOCK]
                right[name][place] += int(found_B.sum())
    return {name: _over_draws(count / len(query_QD)) for name, count in right.items()}


def _over_draws(shares: npt.NDArray[np.float64]) -> Draws:
    deviation = float(shares.std(ddof=1)) if len(shares) > 1 else 0.0
    return Draws(mean=float(shares.mean()), deviation=deviation, values=shares.tolist())


def _unit(features_ND: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features_ND.float(), dim=1)
