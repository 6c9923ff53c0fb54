"""FINCH with a required number of clusters: a partition refined by merging one link at a time.

From Sarfraz, Sharma and Stiefelhagen, CVPR 2019, algorithm 2: from the partition just above the required
number, take the means of its clusters, keep the shortest of their first-neighbour links, merge the two
clusters it joins, and begin again. Legend: N rows, D dimensions, K clusters, R of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slicfast.clustering.bank import normalize
from slicfast.clustering.finch import with_lone_rows
from slicfast.clustering.neighbors import renumber
from slicfast.clustering.rows import Rows
from slicfast.errors import ConfigError

_ROWS = 256  # clusters whose neighbours are sought in one product


def required_partition(
    unit_ND: Tensor, levels: Sequence[Tensor], num_clusters: int, hold: type[Rows] = Rows
) -> Tensor:
    """(N,) int64 labels of so many clusters, from FINCH's partitions of L2-normalised rows, finest first.

    Where even the finest has fewer clusters it begins with every row alone. Rows of zeros have no direction:
    each stays a cluster of its own, and at least one cluster is left of the others.

    Raises:
        ConfigError: num_clusters below 1 or above N.
    """
    num_rows = len(unit_ND)
    if not 1 <= num_clusters <= num_rows:
        raise ConfigError(
            f"num_clusters must be at most the number of embeddings, {num_rows}, and at least 1;"
            f" got {num_clusters}"
        )
    has_direction_N = unit_ND.any(dim=1)
    num_alone = int((~has_direction_N).sum())
    if num_alone:
        directed = [renumber(labels_N[has_direction_N]) for labels_N in levels]
        num_left = max(num_clusters - num_alone, 1)
        found_N = required_partition(unit_ND[has_direction_N], directed, num_left, hold)
        return with_lone_rows([found_N], has_direction_N)[0]
    above_N = torch.arange(num_rows, device=unit_ND.device)
    for labels_N in levels:
        if int(labels_N.max()) + 1 < num_clusters:
            break
        above_N = labels_N
    return merge_to(unit_ND, above_N, num_clusters, hold)


def merge_to(unit_ND: Tensor, labels_N: Tensor, num_clusters: int, hold: type[Rows] = Rows) -> Tensor:
    """(N,) int64 labels of `num_clusters` clusters, each a union of those of `labels_N`.

    The shortest link between means is one between first neighbours, so what is kept is each cluster's first
    neighbour; a merge changes the one mean and the neighbours of those that pointed to the two.
    """
    num_before = int(labels_N.max()) + 1
    sums_KD = hold(unit_ND).sums_by_label(labels_N, num_before)[0]
    means_KD = normalize(sums_KD)
    neighbor_K, cosine_K = hold(means_KD).first_neighbors()
    is_gone_K = torch.zeros(num_before, dtype=torch.bool, device=unit_ND.device)
    merged_K = torch.arange(num_before, device=unit_ND.device)  # into which cluster each one went
    for _ in range(num_before - num_clusters):
        first = int(cosine_K.argmax())  # sync: one a merge
        second = int(neighbor_K[first])
        kept, gone = min(first, second), max(first, second)
        merged_K[gone] = kept
        is_gone_K[gone] = True
        sums_KD[kept] += sums_KD[gone]
        means_KD[kept] = normalize(sums_KD[kept : kept + 1])[0]
        pointed_K = (neighbor_K == kept) | (neighbor_K == gone)
        pointed_K[kept] = True
        stale_R = (pointed_K & ~is_gone_K).nonzero()[:, 0]
        cosine_K[gone] = -torch.inf
        to_kept_K = means_KD @ means_KD[kept]
        is_closer_K = (to_kept_K > cosine_K) & ~is_gone_K
        is_closer_K[kept] = False
        cosine_K = torch.where(is_closer_K, to_kept_K, cosine_K)
        neighbor_K = torch.where(is_closer_K, kept, neighbor_K)
        for rows_R in torch.split(stale_R, _ROWS):
            cosine_RK = (means_KD[rows_R] @ means_KD.t()).masked_fill_(is_gone_K, -torch.inf)
            cosine_RK.scatter_(1, rows_R[:, None], -torch.inf)
            cosine_K[rows_R], neighbor_K[rows_R] = cosine_RK.max(dim=1)
    while not torch.equal(merged_K, merged_K[merged_K]):
        merged_K = merged_K[merged_K]
    return renumber(merged_K[labels_N])
