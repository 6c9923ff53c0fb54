"""The triplet loss over cluster labels, with a negative drawn for every pair (SLIC, CVPR 2022, section 3).

No loop over pairs, no synchronisation with the device and no shape that depends on the labels: whatever
concerns a pair lies in an R x R matrix, the anchor's row first.
Legend: R rows (anchors, then positives), D embedding dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from slicfast.errors import ConfigError, one_of
from slicfast.losses.distance import cosine_distances
from slicfast.losses.negatives import NEGATIVES, weigh_triplets


class TripletOutput(NamedTuple):
    """Scalars on the embeddings' device; only the loss carries a gradient.

    Attributes:
        loss: mean over the pairs of max(0, d(a, p) - d(a, n) + margin); 0 where there is no pair.
        num_pairs: pairs that had a negative, int64.
        share_violating: of these, the share whose negative violates the margin.
        positive_distance: mean d(a, p) over the pairs.
        negative_distance: mean d(a, n) over the pairs.
    """

    loss: Tensor
    num_pairs: Tensor
    share_violating: Tensor
    positive_distance: Tensor
    negative_distance: Tensor


def triplet_loss(
    embeddings_RD: Tensor,
    labels_R: Tensor,
    *,
    margin: float,
    negatives: str,
    generator: torch.Generator | None = None,
) -> TripletOutput:
    """Every two rows of one label are a pair, the earlier the anchor, with one negative of another label.

    A row n violates the margin where d(a, n) < d(a, p) + margin. The negative is
    `random_negative`: any row of another label, uniformly;
    `random_semi_hard`: uniformly one of all violators;
    `fixed_semi_hard`: the hardest violator, which is the closest.
    Where nothing violates, the last two take the closest row of another label; the published code takes an
    unrelated row there, at times the anchor itself. Where all rows have one label there is no pair.

    Args:
        embeddings_RD: (R, D), any floating type; distances are float32, or float64 for float64, always.
        labels_R: (R,) any int64 values, on the embeddings' device.
        margin: at least 0; the method takes 0.2.
        negatives: one of `NEGATIVES`.
        generator: of the embeddings' device; gives one block of (R, R) uniform numbers a call where the
            negative is random. None: torch's default.

    Raises:
        ConfigError: `negatives` is none of the three.
        ValueError: shapes that do not fit.
    """
    if negatives not in NEGATIVES:
        raise ConfigError(one_of("loss.negatives", negatives, NEGATIVES))
    if embeddings_RD.dim() != 2 or labels_R.shape != embeddings_RD.shape[:1] or not len(labels_R):
        raise ValueError(
            f"expected embeddings (R, D) and labels (R,), R > 0;"
            f" got {tuple(embeddings_RD.shape)} and {tuple(labels_R.shape)}"
        )
    distances_RR = cosine_distances(embeddings_RD)
    fixed_RR = distances_RR.detach()  # the choice of negatives has no gradient
    random = negatives != "fixed_semi_hard"
    uniform_RR = torch.empty_like(fixed_RR).uniform_(generator=generator) if random else None
    other_RR = labels_R[:, None] != labels_R[None, :]
    has_other = other_RR[0].any()  # then every row has one
    pair_RR = (~other_RR).triu_(diagonal=1) & has_other
    weights_RR, totals_3 = weigh_triplets(fixed_RR, other_RR, pair_RR, uniform_RR, margin, negatives)
    num_pairs = torch.count_nonzero(pair_RR)
    share_violating, positive_distance, negative_distance = (totals_3 / num_pairs.clamp(min=1)).unbind()
    # Once the triplets are chosen, the sum of d(a, p) - d(a, n) + margin over those above 0 is linear in the
    # distances: one weighted sum instead of a dozen passes over R x R numbers, forward and backward. Not as
    # a matrix product, which autocast would round to bf16.
    loss = (distances_RR * weights_RR).sum() / num_pairs.clamp(min=1) + margin * share_violating
    return TripletOutput(loss, num_pairs, share_violating, positive_distance, negative_distance)
