"""The assignment step of balanced k-means: every cluster gets as many rows as every other, up to one.

Malinen and Fränti ("Balanced K-Means for Clustering", 2014) make that step an assignment problem. Here it is
solved by the auction for transportation problems (Bertsekas and Castañon, Annals of Operations Research 20,
1989): rows without a place bid for one in the cluster that suits them best at its price, a full cluster keeps
its highest bids and asks the lowest of them as its price, and so on. The last rows can bid against each
other for long: after so many rounds they take the places that are free.
Legend: N rows, D dimensions, K clusters, U bidding rows, S places of a cluster, A clusters that got bids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.clustering.neighbors import best_match

EPSILON = 0.01  # of a bid above what a place is worth
ROUNDS = 300  # of bidding; more lower the inertia, most where clusters would be very uneven without
_SCORES = {"cpu": 1 << 21, "cuda": 1 << 27}  # held at a time


class Auction:
    """Balanced assignments to changing centroids; prices are kept, so that the next ones take fewer bids."""

    def __init__(
        self, unit_ND: Tensor, num_clusters: int, epsilon: float = EPSILON, rounds: int = ROUNDS
    ) -> None:
        self.unit_ND = unit_ND
        self.epsilon = epsilon
        self.rounds = rounds
        self.price_K = unit_ND.new_zeros(num_clusters)

    def assign(self, centroids_KD: Tensor, bias_K: Tensor) -> Tensor:
        """(N,) int64: floor(N / K) rows a cluster, one more in the N mod K of them that ask most.

        With rounds enough the sum of scores x . c + bias is at least the largest of any assignment with these
        sizes, less N times `epsilon`.
        """
        num_rows, num_clusters = len(self.unit_ND), len(centroids_KD)
        labels_N = torch.zeros(num_rows, dtype=torch.int64, device=self.unit_ND.device)
        if num_clusters == 1:
            return labels_N
        level_KS, holder_KS = self._places(num_rows, num_clusters)
        bidder_U = torch.arange(num_rows, device=self.unit_ND.device)
        for _ in range(self.rounds):
            if not len(bidder_U):  # sync: every round
                break
            self.price_K = level_KS.amin(dim=1)
            cluster_U, bid_U = self._bids(bidder_U, centroids_KD, bias_K - self.price_K)
            bidder_U = _award(level_KS, holder_KS, bidder_U, cluster_U, bid_U)
        self._fill(level_KS, holder_KS, bidder_U, centroids_KD, bias_K)
        cluster_KS = torch.arange(num_clusters, device=self.unit_ND.device)[:, None].expand_as(holder_KS)
        is_held_KS = holder_KS >= 0
        labels_N[holder_KS[is_held_KS]] = cluster_KS[is_held_KS]
        return labels_N

    def _places(self, num_rows: int, num_clusters: int) -> tuple[Tensor, Tensor]:
        """(K, S) what was bid for each place, first the old price, and (K, S) who holds it; -1: nobody."""
        num_places, num_larger = num_rows // num_clusters, num_rows % num_clusters
        level_KS = self.price_K[:, None].repeat(1, num_places + (num_larger > 0))
        if num_larger:  # a place that is no place in the others: nobody can bid more
            level_KS[torch.argsort(self.price_K, descending=True, stable=True)[num_larger:], -1] = torch.inf
        return level_KS, torch.full_like(level_KS, -1, dtype=torch.int64)

    def _bids(self, bidder_U: Tensor, centroids_KD: Tensor, worth_K: Tensor) -> tuple[Tensor, Tensor]:
        """(U,) the cluster of the largest score less price, and (U,) what it is worth to the row."""
        num_block = max(1, _SCORES.get(self.unit_ND.device.type, _SCORES["cpu"]) // len(centroids_KD))
        clusters, bids = [], []
        for block_B in torch.split(bidder_U, num_block):
            score_BK = torch.addmm(worth_K, self.unit_ND[block_B], centroids_KD.t())
            best_B2, cluster_B2 = score_BK.topk(2, dim=1)
            clusters.append(cluster_B2[:, 0])
            bids.append(self.price_K[cluster_B2[:, 0]] + best_B2[:, 0] - best_B2[:, 1] + self.epsilon)
        return torch.cat(clusters), torch.cat(bids)

    def _fill(
        self, level_KS: Tensor, holder_KS: Tensor, bidder_U: Tensor, centroids_KD: Tensor, bias_K: Tensor
    ) -> None:
        """Each row without a place takes one in the best cluster that has any, the highest scores first."""
        level_KS = torch.where(holder_KS < 0, level_KS, torch.inf)  # what is held stays held
        level_KS.masked_fill_(level_KS < torch.inf, -torch.inf)
        while len(bidder_U):
            has_free_K = level_KS.amin(dim=1) < 0
            open_K = bias_K.masked_fill(~has_free_K, -torch.inf)
            cluster_U, score_U = best_match(self.unit_ND[bidder_U], centroids_KD, open_K)
            bidder_U = _award(level_KS, holder_KS, bidder_U, cluster_U, score_U)
            level_KS.masked_fill_(holder_KS >= 0, torch.inf)


def _award(level_KS: Tensor, holder_KS: Tensor, bidder_U: Tensor, cluster_U: Tensor, bid_U: Tensor) -> Tensor:
    """Give each cluster's places to its highest bids, in place; returns the rows that are without one."""
    asked_A, at_U = torch.unique(cluster_U, return_inverse=True)
    num_places = level_KS.shape[1]
    at_AS = torch.arange(len(asked_A), device=at_U.device).repeat_interleave(num_places)
    level = torch.cat([level_KS[asked_A].flatten(), bid_U])
    holder = torch.cat([holder_KS[asked_A].flatten(), bidder_U])
    at = torch.cat([at_AS, at_U])
    order = torch.argsort(level, descending=True, stable=True)
    order = order[torch.argsort(at[order], stable=True)]  # by cluster, the highest first
    num_A = torch.bincount(at, minlength=len(asked_A))
    rank = torch.arange(len(order), device=at.device) - (num_A.cumsum(0) - num_A).repeat_interleave(num_A)
    kept = order[rank < num_places]
    level_KS[asked_A] = level[kept].view(-1, num_places)
    holder_KS[asked_A] = holder[kept].view(-1, num_places)
    without = holder[order[rank >= num_places]]
    return without[without >= 0]
