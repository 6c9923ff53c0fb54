"""Intra-negative: the positive lies closer than the anchor's own video with its frames shuffled.

Method: SLIC (CVPR 2022), after IIC (ACM MM 2020): what is left of a video without its order in time is no
positive. The published code shuffles every clip and pulls the shuffled one closer.
"""

from __future__ import annotations

from torch import Tensor

from slicfast.losses.ranking import ranking_loss


def intra_negative_loss(
    anchor_BD: Tensor, positive_BD: Tensor, shuffled_BD: Tensor, *, margin: float
) -> Tensor:
    """Mean over the batch of max(0, d(anchor, positive) - d(anchor, shuffled) + margin), cosine distances.

    Args:
        anchor_BD: embeddings of the anchors, (B, D), any floating type.
        positive_BD: the positives, in the order of time.
        shuffled_BD: windows of the anchors' videos with their frames in another order.
        margin: at least 0; the method takes 0.04.

    Returns and raises: as `ranking_loss`.
    """
    return ranking_loss(anchor_BD, positive_BD, shuffled_BD, margin=margin)
