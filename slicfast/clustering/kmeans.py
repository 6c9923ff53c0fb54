"""k-means by Lloyd's iterations, Euclidean or spherical, on whatever device, the same bits every time.

Starts from k-means++ (Arthur and Vassilvitskii, 2007). Legend: N rows, D dimensions, K clusters, M rows of
the subsample that starts are drawn from, T trial rows a draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slicfast.clustering.backends import rows_class
from slicfast.clustering.balanced import Auction
from slicfast.clustering.bank import normalize
from slicfast.clustering.neighbors import best_match
from slicfast.clustering.rows import Rows
from slicfast.errors import ConfigError

_ROWS_A_CLUSTER = 50  # subsample for k-means++
_START_ROUNDS = 1000  # above this many clusters a round of k-means++ draws several centroids at once


@dataclass(frozen=True)
class KMeans:
    """Result of the best start: `labels_N` int64, `centroids_KD` float32, both on the rows' device."""

    labels_N: Tensor
    centroids_KD: Tensor
    inertia: float
    num_refilled: int
    num_iterations: int  # 0 where cuML made them, which does not tell


def kmeans(
    unit_ND: Tensor,
    num_clusters: int,
    *,
    spherical: bool = False,
    balanced: bool = False,
    num_iterations: int = 20,
    num_starts: int = 1,
    init_KD: Tensor | npt.NDArray[Any] | None = None,
    seed: int = 0,
    backend: str = "torch",
) -> KMeans:
    """Cluster L2-normalised float32 rows.

    Spherical k-means keeps centroids at length 1, so the nearest is the one of the largest cosine. Inertia is
    the sum of squared Euclidean distances either way. An empty cluster takes the row farthest from its
    centroid (never the last row of a cluster) and is counted: every cluster has a row in the end. Stops early
    when no row changes its cluster. Balanced, all clusters have the same number of rows up to one. `backend`
    is one that `backends.resolve_backend` named.

    Raises:
        ConfigError: num_clusters below 1 or above N; init_KD of another shape or not finite.
    """
    num_rows = len(unit_ND)
    if not 1 <= num_clusters <= num_rows:
        raise ConfigError(
            f"num_clusters must be at most the number of embeddings, {num_rows}, and at least 1;"
            f" got {num_clusters}"
        )
    generator = torch.Generator().manual_seed(seed)  # on the CPU: a seed means the same on every device
    rows = rows_class(backend, unit_ND.device)(unit_ND)
    best: KMeans | None = None
    for _ in range(num_starts if init_KD is None else 1):
        if init_KD is None:
            start_KD = plus_plus_start(unit_ND, num_clusters, generator)
        else:
            start_KD = _given_start(init_KD, unit_ND, num_clusters)
        left = num_iterations
        if backend == "cuml":
            from slicfast.clustering.rapids import cuml_centroids

            start_KD, left = cuml_centroids(unit_ND, start_KD, num_iterations), 0
        start_KD = normalize(start_KD) if spherical else start_KD
        found = _lloyd(rows, start_KD, spherical, left, balanced)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None, "num_starts is at least 1"
    return best


def plus_plus_start(unit_ND: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """(K, D) rows, each drawn with probability proportional to its squared distance to those drawn before.

    They come from a random subsample of 50 rows a cluster. Each draw tries 2 + log K rows, spaced evenly in
    probability from a random offset, and keeps the one that leaves the least inertia. Above 1000 clusters a
    round keeps as many rows as it takes to be done in 1000 rounds, without trials.
    """
    device = unit_ND.device
    num_sampled = min(len(unit_ND), _ROWS_A_CLUSTER * num_clusters)
    sample_M = torch.randperm(len(unit_ND), generator=generator)[:num_sampled].sort().values.to(device)
    sample_MD = unit_ND[sample_M] if num_sampled < len(unit_ND) else unit_ND
    square_M = sample_MD.square().sum(dim=1)
    num_rounds = min(num_clusters - 1, _START_ROUNDS)
    draw_rounds = torch.rand(num_rounds, 1, generator=generator, dtype=torch.float64).to(device)
    first = torch.randint(num_sampled, (1,), generator=generator).to(device)
    chosen, num_chosen = [first], 1
    distance_M = _squared_distances(sample_MD, square_M, sample_MD[first])[0]
    for round_index in range(num_rounds):
        num_kept = -(-(num_clusters - num_chosen) // (num_rounds - round_index))
        num_trials = 2 + int(math.log(num_clusters)) if num_kept == 1 else num_kept
        cumulative_M = distance_M.cumsum(0, dtype=torch.float64)
        at_T = (draw_rounds[round_index] + torch.arange(num_trials, device=device)) / num_trials
        trial_T = torch.searchsorted(cumulative_M, at_T * cumulative_M[-1], right=True)
        trial_T = trial_T.clamp_(max=num_sampled - 1)
        if num_kept == 1:
            trial_TM = _squared_distances(sample_MD, square_M, sample_MD[trial_T])
            trial_TM = torch.minimum(trial_TM, distance_M)
            best = trial_TM.sum(dim=1).argmin(
                dim=0, keepdim=True
            )  # indexed on the device: no synchronisation
            chosen.append(trial_T[best])
            distance_M = trial_TM[best][0]
        else:
            chosen.append(trial_T)
            score_M = best_match(sample_MD, sample_MD[trial_T], -0.5 * square_M[trial_T])[1]
            distance_M = torch.minimum(distance_M, (square_M - 2 * score_M).clamp_(min=0))
        num_chosen += num_kept
    return sample_MD[torch.cat(chosen)]


def _squared_distances(sample_MD: Tensor, square_M: Tensor, centroids_TD: Tensor) -> Tensor:
    square_T1 = centroids_TD.square().sum(dim=1, keepdim=True)
    product_TM = centroids_TD @ sample_MD.t()
    return product_TM.mul_(-2).add_(square_M).add_(square_T1).clamp_(min=0)


def _given_start(init_KD: Tensor | npt.NDArray[Any], unit_ND: Tensor, num_clusters: int) -> Tensor:
    given_KD = torch.from_numpy(np.array(init_KD)) if isinstance(init_KD, np.ndarray) else init_KD
    expected = (num_clusters, unit_ND.shape[1])
    if tuple(given_KD.shape) != expected:
        raise ConfigError(
            f"starting centroids must have shape {expected}; got {tuple(given_KD.shape)};"
            " leave them out when the number of clusters or the embedding has changed"
        )
    given_KD = given_KD.detach().to(unit_ND.device, torch.float32, copy=True)
    if not bool(torch.isfinite(given_KD).all()):
        raise ConfigError("starting centroids hold NaN or infinity; leave them out")
    return given_KD


def _lloyd(
    rows: Rows, centroids_KD: Tensor, spherical: bool, num_iterations: int, balanced: bool = False
) -> KMeans:
    num_clusters, num_refilled = len(centroids_KD), 0
    auction = Auction(rows.unit_ND, num_clusters) if balanced else None
    labels_N, distance_N = _assign(rows, centroids_KD, spherical, auction)
    num_refilled += _refill(labels_N, distance_N, rows.unit_ND, centroids_KD)
    iteration = 0
    for iteration in range(1, num_iterations + 1):  # noqa: B007 -- returned
        sums_KD, counts_K = rows.sums_by_label(labels_N, num_clusters)
        centroids_KD = normalize(sums_KD) if spherical else sums_KD / counts_K[:, None]
        previous_N = labels_N
        labels_N, distance_N = _assign(rows, centroids_KD, spherical, auction)
        num_refilled += _refill(labels_N, distance_N, rows.unit_ND, centroids_KD)
        if torch.equal(labels_N, previous_N):  # sync: once an iteration
            break
    return KMeans(labels_N, centroids_KD, float(distance_N.double().sum()), num_refilled, iteration)


def _assign(
    rows: Rows, centroids_KD: Tensor, spherical: bool, auction: Auction | None
) -> tuple[Tensor, Tensor]:
    """(N,) int64 nearest centroid, or that which an auction gives, and (N,) float32 squared distance."""
    square_K = centroids_KD.square().sum(dim=1)
    if auction is not None:
        bias_K = torch.zeros_like(square_K) if spherical else -0.5 * square_K
        labels_N = auction.assign(centroids_KD, bias_K)
        return labels_N, (rows.unit_ND - centroids_KD[labels_N]).square().sum(dim=1)
    labels_N, score_N = rows.best_match(centroids_KD, None if spherical else -0.5 * square_K)
    rest_N = square_K[labels_N] if spherical else 0.0
    distance_N = rows.square_N - 2 * score_N + rest_N
    return labels_N, distance_N.clamp_(min=0)


def _refill(labels_N: Tensor, distance_N: Tensor, unit_ND: Tensor, centroids_KD: Tensor) -> int:
    """Make the farthest rows the centroids of the empty clusters, in place; returns how many there were.

    Each cluster keeps its nearest row, so none runs empty in turn.
    """
    counts_K = torch.bincount(labels_N, minlength=len(centroids_KD))
    empty_E = (counts_K == 0).nonzero()[:, 0]
    if not len(empty_E):
        return 0
    by_distance_N = torch.argsort(distance_N, stable=True)
    by_label_N = by_distance_N[torch.argsort(labels_N[by_distance_N], stable=True)]
    first_K = counts_K.cumsum(0) - counts_K
    nearest = by_label_N[first_K[counts_K > 0]]
    reach_N = distance_N.clone()
    reach_N[nearest] = -1.0
    moved_E = torch.argsort(reach_N, descending=True, stable=True)[: len(empty_E)]
    labels_N[moved_E] = empty_E
    centroids_KD[empty_E] = unit_ND[moved_E]
    distance_N[moved_E] = 0.0
    return len(empty_E)
