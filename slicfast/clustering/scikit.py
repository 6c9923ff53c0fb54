"""Agglomerative clustering, DBSCAN and OPTICS by cosine distance, through scikit-learn.

SLIC (CVPR 2022) compares them with FINCH and k-means; their settings are in sections.py. What they call
noise, points without a cluster, becomes clusters of one. Legend: N rows, D dimensions.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slicfast.clustering.near_pairs import near_pairs
from slicfast.clustering.neighbors import renumber
from slicfast.device import free_memory_bytes
from slicfast.errors import MachineError

Labels = npt.NDArray[np.int64]


def require_memory(num_rows: int) -> None:
    """Raise MachineError where average linkage of so many rows does not fit: it holds all distances twice."""
    needed, free = 8 * num_rows**2, free_memory_bytes()  # N (N - 1) / 2 float64, and linkage's copy of them
    if needed > free:
        raise MachineError(
            f"agglomerative clustering holds every pair of {num_rows} embeddings,"
            f" {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free; set cluster.method to finch"
            " (cluster.finch_clusters asks for a number of clusters) or kmeans, which hold no pairs"
        )


def agglomerative(unit_ND: Tensor, max_distance: float) -> Labels:
    """(N,) labels: clusters merge while the mean distance over their pairs is below `max_distance`.

    Rows of zeros have no direction: each is a cluster of its own.

    Raises:
        MachineError: N x N distances do not fit into memory.
    """
    from sklearn.cluster import AgglomerativeClustering

    require_memory(len(unit_ND))
    rows_ND = unit_ND.cpu().numpy()
    labels_N = np.full(len(rows_ND), -1, dtype=np.int64)
    has_direction_N = rows_ND.any(axis=1)
    if has_direction_N.sum() < 2:  # scikit-learn wants two rows
        return labels_N
    model = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=max_distance
    )
    labels_N[has_direction_N] = model.fit_predict(rows_ND[has_direction_N])
    return labels_N


def dbscan(unit_ND: Tensor, max_distance: float, min_samples: int) -> Labels:
    """(N,) labels, -1 for noise (Ester et al., KDD 1996); a row counts among its own neighbours.

    Raises:
        MachineError: the pairs within `max_distance` do not fit into memory.
    """
    from sklearn.cluster import DBSCAN

    graph_NN = near_pairs(unit_ND, max_distance)
    eps = float(np.float32(max_distance))  # as the pairs were compared
    found: Labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(graph_NN)
    return found.astype(np.int64)


def optics(unit_ND: Tensor, max_distance: float, min_samples: int) -> Labels:
    """(N,) labels, -1 for noise: OPTICS (Ankerst et al., SIGMOD 1999), clusters cut at `max_distance`.

    Raises:
        MachineError: the pairs within `max_distance` do not fit into memory.
    """
    from sklearn.cluster import OPTICS
    from sklearn.neighbors import sort_graph_by_row_values

    if len(unit_ND) < min_samples:
        return np.full(len(unit_ND), -1, dtype=np.int64)
    graph_NN = near_pairs(unit_ND, max_distance, at_least=min_samples)
    graph_NN = sort_graph_by_row_values(graph_NN, warn_when_not_sorted=False)
    eps = float(np.float32(max_distance))
    model = OPTICS(min_samples=min_samples, max_eps=eps, metric="precomputed", cluster_method="dbscan")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All reachability values are inf")  # all noise, then
        found: Labels = model.fit_predict(graph_NN)
    return found.astype(np.int64)


def own_clusters(labels_N: Labels) -> Labels:
    """The same clusters, every row of label -1 one of its own, numbered by each cluster's lowest row."""
    is_noise_N = labels_N < 0
    fresh = labels_N.max(initial=-1) + 1
    whole_N = labels_N.copy()
    whole_N[is_noise_N] = fresh + np.arange(np.count_nonzero(is_noise_N))
    renumbered: Labels = renumber(torch.from_numpy(whole_N)).numpy()
    return renumbered
