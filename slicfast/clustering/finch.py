"""FINCH: clusters as the connected components of first-neighbour links, level upon level.

From the definition in Sarfraz, Sharma and Stiefelhagen, "Efficient Parameter-free Clustering Using First
Neighbor Relations", CVPR 2019, equation 1 and algorithm 1. Legend: N rows, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.clustering.bank import normalize
from slicfast.clustering.neighbors import components, renumber
from slicfast.clustering.rows import Rows


def finch(unit_ND: Tensor, hold: type[Rows] = Rows, *, mutual: bool = False) -> list[Tensor]:
    """Partitions of L2-normalised rows, (N,) int64 each, the finest first; there is always one.

    Two rows are linked where one is the other's first neighbour by cosine (rows that share a first neighbour
    are then linked through it). The next level does the same with the means of each cluster's rows, leaving
    out links longer than the longest first-neighbour distance of level 0. It ends when nothing merges or all
    would be one cluster. Rows of zeros have no direction: each is a cluster of its own on every level. `hold`
    is the class that searches and sums, of `backends.rows_class`.

    `mutual`, which the paper does not have: a link counts only where each row is the other's first neighbour.
    A level then merges pairs, and what is nobody's first neighbour stays alone: fewer and purer pairs.
    """
    has_direction_N = unit_ND.any(dim=1)
    if not bool(has_direction_N.all()):
        return with_lone_rows(finch(unit_ND[has_direction_N], hold, mutual=mutual), has_direction_N)
    rows = hold(unit_ND)
    neighbor_N, cosine_N = rows.first_neighbors()
    least_cosine = cosine_N.min()
    labels_N = components(_only_mutual(neighbor_N) if mutual else neighbor_N)
    partitions = [labels_N]
    num_clusters = int(labels_N.max()) + 1
    while num_clusters > 1:
        means_KD = normalize(rows.sums_by_label(labels_N, num_clusters)[0])  # a sum points as its mean
        neighbor_K, cosine_K = hold(means_KD).first_neighbors()
        itself_K = torch.arange(num_clusters, device=unit_ND.device)
        neighbor_K = torch.where(cosine_K < least_cosine, itself_K, neighbor_K)
        merged_K = components(_only_mutual(neighbor_K) if mutual else neighbor_K)
        num_merged = int(merged_K.max()) + 1
        if num_merged in (1, num_clusters):
            break
        labels_N, num_clusters = merged_K[labels_N], num_merged
        partitions.append(labels_N)
    return partitions


def _only_mutual(neighbor_N: Tensor) -> Tensor:
    """(N,) each row's first neighbour where that is mutual, else the row itself."""
    itself_N = torch.arange(len(neighbor_N), device=neighbor_N.device)
    return torch.where(neighbor_N[neighbor_N] == itself_N, neighbor_N, itself_N)


def with_lone_rows(partitions: list[Tensor], is_clustered_N: Tensor) -> list[Tensor]:
    """The partitions of some rows as those of all, every other row a cluster of its own on each level."""
    whole = []
    for labels in partitions:
        num_clusters = int(labels.max()) + 1
        labels_N = num_clusters + torch.arange(len(is_clustered_N), device=labels.device)
        labels_N[is_clustered_N] = labels
        whole.append(renumber(labels_N))
    return whole
