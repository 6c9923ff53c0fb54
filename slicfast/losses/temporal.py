"""Temporal discrimination: a window augmented anew lies closer than another window (SLIC, CVPR 2022)."""

from __future__ import annotations

from torch import Tensor

from slicfast.losses.ranking import ranking_loss


def temporal_discrimination_loss(
    anchor_BD: Tensor, again_BD: Tensor, positive_BD: Tensor, *, margin: float
) -> Tensor:
    """Mean over the batch of max(0, d(anchor, again) - d(anchor, positive) + margin), d the cosine distance.

    Args:
        anchor_BD: embeddings of the anchors, (B, D), any floating type.
        again_BD: the anchors' windows augmented anew, (B, D).
        positive_BD: the positives: another window of the video, or another video of its cluster, (B, D).
        margin: at least 0; the method takes 0.04.

    Returns:
        A float32 scalar (float64 for float64 embeddings).

    Raises:
        ValueError: the three shapes differ, or there is no row.
    """
    return ranking_loss(anchor_BD, again_BD, positive_BD, margin=margin)
