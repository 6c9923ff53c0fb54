"""Which cluster of a new round is which of the round before, so that labels keep their meaning over a run.

Clusters are matched one to one such that most videos stay in theirs: Kuhn's assignment problem ("The
Hungarian method", 1955) on the table of overlaps, solved exactly by scipy on the overlaps that are not zero:
60,000 clusters take seconds. Legend: N videos, K clusters, M matched ones, P pairs of clusters that overlap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


def keep_labels(labels_N: Labels, previous_N: Labels, next_label: int) -> tuple[Labels, int]:
    """The same clusters under the labels of those of the round before that they are matched with.

    Args:
        labels_N, previous_N: of the same videos in the same order.
        next_label: above every label given so far. Clusters without a match count on from there, so that no
            label ever means two clusters.

    Returns:
        (N,) int64 labels, and the next label to give.
    """
    name_K, cluster_N = np.unique(labels_N, return_inverse=True)
    matched_M, old_M = matched_clusters(labels_N, previous_N)
    kept_K = np.full(len(name_K), -1, dtype=np.int64)
    kept_K[np.searchsorted(name_K, matched_M)] = old_M
    is_new_K = kept_K < 0
    num_new = int(is_new_K.sum())
    kept_K[is_new_K] = next_label + np.arange(num_new)
    return kept_K[cluster_N], next_label + num_new


def matched_clusters(labels_N: Labels, previous_N: Labels) -> tuple[Labels, Labels]:
    """(M,) labels and (M,) labels of the round before: the one-to-one matching with the largest overlap.

    Clusters that share no video are never matched.
    """
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching  # type: ignore[import-untyped]

    name_K, new_N = np.unique(labels_N, return_inverse=True)
    old_name_K, old_N = np.unique(previous_N, return_inverse=True)
    new_P, old_P, overlap_P = overlaps(new_N, old_N)
    # The solver matches every new cluster: one that gets no old one takes a partner of its own, of overlap 0.
    # All overlaps are raised by one, since a weight of zero would be no link.
    num_new, num_old = len(name_K), len(old_name_K)
    lone_K = np.arange(num_new)
    rows, columns = np.concatenate([new_P, lone_K]), np.concatenate([old_P, num_old + lone_K])
    weights = np.concatenate([overlap_P + 1, np.ones(num_new, dtype=np.int64)]).astype(np.float64)
    graph = csr_matrix((weights, (rows, columns)), shape=(num_new, num_old + num_new))
    new_K, partner_K = min_weight_full_bipartite_matching(graph, maximize=True)
    is_old_K = partner_K < num_old
    return name_K[new_K[is_old_K]], old_name_K[partner_K[is_old_K]]


def overlaps(a_N: npt.NDArray[np.integer], b_N: npt.NDArray[np.integer]) -> tuple[Labels, Labels, Labels]:
    """(P,) each: the pairs of labels that occur together, and how many rows have them; labels are >= 0."""
    width = int(b_N.max()) + 1
    pairs_P, count_P = np.unique(a_N.astype(np.int64) * width + b_N, return_counts=True)
    return pairs_P // width, pairs_P % width, count_P.astype(np.int64)


def intersection(a_N: Labels, b_N: Labels) -> Labels:
    """(N,) labels: together is what is together in both, numbered from 0 by each cluster's lowest row."""
    pair_N = a_N * (int(b_N.max()) + 1) + b_N
    first_K, cluster_N = np.unique(pair_N, return_index=True, return_inverse=True)[1:]
    rank_K = np.empty(len(first_K), dtype=np.int64)
    rank_K[np.argsort(first_K)] = np.arange(len(first_K))
    return rank_K[cluster_N]
