"""InfoNCE of every pair against a few semi-hard negatives: SLIC's `all_semi_hard` (CVPR 2022, section 3).

No loop over pairs, no synchronisation and no shape that depends on the labels.
Legend: R rows (anchors, then positives), D embedding dimensions, J negatives of a pair; in R x R matrices the
first index is the anchor's row, the second the positive's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.losses.distance import cosine_similarities


def all_semi_hard_loss(
    embeddings_RD: Tensor,
    labels_R: Tensor,
    *,
    margin: float,
    num_negatives: int,
    temperature: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean over the pairs of -log(exp(s_ap / T) / (exp(s_ap / T) + sum over negatives of exp(s_an / T))).

    s is the cosine. Every two rows of one label are a pair, the earlier the anchor a. Its negatives are
    `num_negatives` different rows, drawn uniformly from those of other labels that violate the margin,
    d(a, n) < d(a, p) + margin; where fewer do, the closest rows of other labels, which are all violators and
    the next ones. So none is the anchor or of its label, as happens in the published code. Where fewer rows
    than that have another label, they are all negatives.

    Args:
        embeddings_RD: (R, D), any floating type; cosines are float32, or float64 for float64, always.
        labels_R: (R,) any int64 values, on the embeddings' device.
        margin: at least 0; the method takes 0.2.
        num_negatives: J, at least 1; the method takes 5.
        temperature: T, above 0; the method takes 0.5.
        generator: of the embeddings' device; gives one block of (J, R, R) uniform numbers a call.

    Returns:
        A scalar; 0 where there is no pair, or no row of another label.

    Raises:
        ValueError: shapes that do not fit, or values out of range.
    """
    if embeddings_RD.dim() != 2 or labels_R.shape != embeddings_RD.shape[:1] or not len(labels_R):
        raise ValueError(
            f"expected embeddings (R, D) and labels (R,), R > 0;"
            f" got {tuple(embeddings_RD.shape)} and {tuple(labels_R.shape)}"
        )
    if num_negatives < 1 or not temperature > 0:
        raise ValueError(
            f"num_negatives must be at least 1 and temperature above 0; got {num_negatives} and {temperature}"
        )
    similarities_RR = cosine_similarities(embeddings_RD, embeddings_RD)
    distances_RR = 1 - similarities_RR.detach()  # the choice of negatives has no gradient
    other_RR = labels_R[:, None] != labels_R[None, :]
    num_other_R1 = other_RR.sum(dim=1, keepdim=True)
    sorted_RR, order_RR = distances_RR.masked_fill(~other_RR, torch.inf).sort(dim=1)
    num_violating_RR = torch.searchsorted(sorted_RR, distances_RR + margin)
    # Violators are the first in the order, so that the pool is always the first so many.
    pool_RR = torch.maximum(num_violating_RR, num_other_R1.clamp(max=num_negatives))
    num_drawn = min(num_negatives, len(labels_R))
    uniform_JRR = distances_RR.new_empty(num_drawn, *pool_RR.shape).uniform_(generator=generator)
    rank_RRJ = draw_without_replacement(uniform_JRR, pool_RR)
    is_negative_RRJ = torch.arange(num_drawn, device=pool_RR.device) < num_other_R1[:, None]
    negative_RRJ = order_RR[:, None].expand(-1, len(labels_R), -1).gather(2, rank_RRJ)
    to_negative_RRJ = similarities_RR[:, None].expand(-1, len(labels_R), -1).gather(2, negative_RRJ)
    logits_RRJ = (to_negative_RRJ / temperature).masked_fill(~is_negative_RRJ, -torch.inf)
    to_positive_RR = similarities_RR / temperature
    all_RR = torch.cat([to_positive_RR[..., None], logits_RRJ], dim=2).logsumexp(dim=2)
    pair_RR = (~other_RR).triu(diagonal=1) & (num_other_R1 > 0)
    # Chosen, not multiplied by the mask: no gradient then comes from what is no pair.
    losses_RR = torch.where(pair_RR, all_RR - to_positive_RR, 0.0)
    return losses_RR.sum() / torch.count_nonzero(pair_RR).clamp(min=1)


def draw_without_replacement(uniform_J: Tensor, num_choices: Tensor) -> Tensor:
    """Different numbers below ``num_choices``, every choice of them as likely as any other.

    Args:
        uniform_J: (J, ...) numbers in [0, 1).
        num_choices: (...) integers. Where they are fewer than J, the later draws are numbers in range that
            repeat earlier ones.

    Returns:
        (..., J) int64, ascending but for draws beyond ``num_choices``.
    """
    drawn: list[Tensor] = []  # ascending
    for place, uniform in enumerate(uniform_J):
        left = num_choices - place
        value = (uniform * left.clamp(min=1)).long()
        # The value-th of what is left: step over the earlier draws below it, from the smallest up.
        for earlier in drawn:
            value = value + (value >= earlier)
        value = torch.minimum(value, (num_choices - 1).clamp(min=0))
        drawn = list(torch.stack([*drawn, value]).sort(dim=0).values)
    return torch.stack(drawn, dim=-1)
