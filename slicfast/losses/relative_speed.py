"""Relative speed: the positive lies closer than its video played faster (SLIC, CVPR 2022).

After RSPNet (Chen et al., AAAI 2021).
"""

from __future__ import annotations

from torch import Tensor

from slicfast.losses.ranking import ranking_loss


def relative_speed_loss(anchor_BD: Tensor, positive_BD: Tensor, fast_BD: Tensor, *, margin: float) -> Tensor:
    """Mean over the batch of max(0, d(anchor, positive) - d(anchor, fast) + margin), d the cosine distance.

    Args:
        anchor_BD: embeddings of the anchors, (B, D), any floating type.
        positive_BD: the positives, at the anchors' speed.
        fast_BD: clips of the positives' videos at twice that speed.
        margin: at least 0; the method takes 0.1.

    Returns and raises: as `ranking_loss`.
    """
    return ranking_loss(anchor_BD, positive_BD, fast_BD, margin=margin)
