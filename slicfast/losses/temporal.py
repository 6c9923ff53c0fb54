"""Temporal discrimination: a window augmented anew lies closer than another window (SLIC, CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.losses.distance import cosine_distance


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
    shapes = [tuple(rows.shape) for rows in (anchor_BD, again_BD, positive_BD)]
    if len(set(shapes)) != 1 or anchor_BD.dim() != 2 or not len(anchor_BD):
        raise ValueError(f"anchors, anchors again and positives must be (B, D), B > 0, alike; got {shapes}")
    again_B = cosine_distance(anchor_BD, again_BD)
    positive_B = cosine_distance(anchor_BD, positive_BD)
    return torch.relu(again_B - positive_B + margin).mean()
