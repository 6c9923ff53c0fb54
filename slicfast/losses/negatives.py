"""The choice of a negative for every pair of a batch: random, uniform among all violators, or the hardest.

A uniform draw among a pair's violators takes one sort of the rows and one binary search a pair, O(R^2 log R),
instead of an R x R x R mask: with an anchor's candidates sorted by distance, the violators of a pair are the
first so many of them. One operator, two kernels that give the same triplets: `weigh_densely` has no shape
that depends on the labels, so that a GPU needs no synchronisation; a CPU, where shapes are free, looks only
at the few rows and columns that form pairs, in a tenth of the time.
Legend: R rows of the batch, A of them anchors, P pairs, K the most pairs of one anchor; in R x R matrices the
first index is the anchor's row, the second the positive's or the negative's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NEGATIVES = ("random_negative", "random_semi_hard", "fixed_semi_hard")


@torch.library.custom_op("slicfast::weigh_triplets", mutates_args=())
def weigh_triplets(
    distances_RR: Tensor,
    other_RR: Tensor,
    pair_RR: Tensor,
    uniform_RR: Tensor | None,
    margin: float,
    negatives: str,
) -> tuple[Tensor, Tensor]:
    """Choose a negative for every pair; sum max(0, d(a, p) - d(a, n) + margin) as weights of the distances.

    Args:
        distances_RR: float32 or float64.
        other_RR: bool, whether two rows differ in label.
        pair_RR: bool, [a, p] whether a and p are a pair; every anchor has a row of another label.
        uniform_RR: numbers in [0, 1) as `distances_RR`; a pair's own decides its random choice. None where
            `negatives` is fixed.
        margin: a row n violates it where d(a, n) < d(a, p) + margin.
        negatives: one of `NEGATIVES`.

    Returns:
        weights_RR: +1 at [a, p] and -1 at [a, n] of every triplet whose negative violates the margin, summed.
        totals_3: how many those are; the sums of d(a, p) and of d(a, n) over all pairs.
    """
    return weigh_densely(distances_RR, other_RR, pair_RR, uniform_RR, margin, negatives)


def weigh_densely(
    distances_RR: Tensor,
    other_RR: Tensor,
    pair_RR: Tensor,
    uniform_RR: Tensor | None,
    margin: float,
    negatives: str,
) -> tuple[Tensor, Tensor]:
    """`weigh_triplets` on any device, with shapes that depend on R alone."""
    candidates_RR = distances_RR.masked_fill(~other_RR, torch.inf)
    limit_RR = distances_RR + margin
    if (
        negatives == "fixed_semi_hard"
    ):  # the hardest violator is the closest candidate, and so is the fallback
        negative_RR = candidates_RR.argmin(dim=1, keepdim=True).expand_as(candidates_RR)
    else:
        assert uniform_RR is not None
        sorted_RR, order_RR = candidates_RR.sort(dim=1)
        if negatives == "random_negative":
            num_choices = other_RR.sum(dim=1, keepdim=True)
        else:
            num_choices = torch.searchsorted(sorted_RR, limit_RR)
        negative_RR = order_RR.gather(1, _rank(uniform_RR, num_choices))
    to_negative_RR = distances_RR.gather(1, negative_RR)
    violating_RR = (pair_RR & (to_negative_RR < limit_RR)).to(distances_RR.dtype)
    weights_RR = violating_RR.scatter_add(1, negative_RR, -violating_RR)
    to_positive_P, to_negative_P = (
        torch.where(pair_RR, to_RR, 0).sum() for to_RR in (distances_RR, to_negative_RR)
    )
    return weights_RR, torch.stack((violating_RR.sum(), to_positive_P, to_negative_P))


def _rank(uniform: Tensor, num_choices: Tensor) -> Tensor:
    # With u <= 1 - 2^-24 and a count below 2^24 the product stays below the count in float32 too; and where
    # nothing violates, a count of 0 gives rank 0, the closest candidate.
    return (uniform * num_choices).long()


@weigh_triplets.register_kernel("cpu")
def _weigh_on_cpu(
    distances_RR: Tensor,
    other_RR: Tensor,
    pair_RR: Tensor,
    uniform_RR: Tensor | None,
    margin: float,
    negatives: str,
) -> tuple[Tensor, Tensor]:
    weights_RR = torch.zeros_like(distances_RR)
    anchor_P, positive_P = (torch.from_numpy(idx) for idx in pair_RR.numpy().nonzero())
    if not len(anchor_P):
        return weights_RR, distances_RR.new_zeros(3)
    to_positive_P = distances_RR[anchor_P, positive_P]
    limit_P = to_positive_P + margin
    num_R = anchor_P.bincount(minlength=len(distances_RR))
    anchors_A = num_R.nonzero().flatten()
    num_A = num_R[anchors_A]
    row_P = torch.arange(len(anchors_A)).repeat_interleave(num_A)  # where in A a pair's anchor is
    candidates_AR = distances_RR[anchors_A].masked_fill_(~other_RR[anchors_A], torch.inf)
    if negatives == "fixed_semi_hard":
        negative_P = candidates_AR.argmin(dim=1)[row_P]
    else:
        assert uniform_RR is not None
        # NumPy sorts with vector instructions, six times faster than torch on a CPU.
        order_AR = torch.from_numpy(np.argsort(candidates_AR.numpy(), axis=1))
        if negatives == "random_negative":
            num_choices_P = other_RR[anchors_A].sum(dim=1)[row_P]
        else:
            slot_P = torch.arange(len(row_P)) - (num_A.cumsum(0) - num_A)[row_P]  # among its anchor's pairs
            limit_AK = candidates_AR.new_full((len(anchors_A), int(num_A.max())), -torch.inf)
            limit_AK[row_P, slot_P] = limit_P
            num_choices_P = torch.searchsorted(candidates_AR.gather(1, order_AR), limit_AK)[row_P, slot_P]
        negative_P = order_AR[row_P, _rank(uniform_RR[anchor_P, positive_P], num_choices_P)]
    to_negative_P = distances_RR[anchor_P, negative_P]
    violating_P = (to_negative_P < limit_P).to(distances_RR.dtype)
    weights_RR[anchor_P, positive_P] = violating_P
    weights_RR.index_put_((anchor_P, negative_P), -violating_P, accumulate=True)
    return weights_RR, torch.stack((violating_P.sum(), to_positive_P.sum(), to_negative_P.sum()))


@weigh_triplets.register_fake
def _(
    distances_RR: Tensor,
    other_RR: Tensor,
    pair_RR: Tensor,
    uniform_RR: Tensor | None,
    margin: float,
    negatives: str,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(distances_RR), distances_RR.new_empty(3)
