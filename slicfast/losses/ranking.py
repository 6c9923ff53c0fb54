"""A hinge on which of two rows lies nearer to an anchor: the form of three of SLIC's terms."""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.losses.distance import cosine_distance


def ranking_loss(anchor_BD: Tensor, nearer_BD: Tensor, farther_BD: Tensor, *, margin: float) -> Tensor:
    """Mean over the batch of max(0, d(anchor, nearer) - d(anchor, farther) + margin), d the cosine distance.

    Args:
        anchor_BD, nearer_BD, farther_BD: embeddings, (B, D), any floating type.
        margin: at least 0.

    Returns:
        A float32 scalar (float64 for float64 embeddings).

    Raises:
        ValueError: the three shapes differ, or there is no row.
    """
    shapes = [tuple(rows.shape) for rows in (anchor_BD, nearer_BD, farther_BD)]
    if len(set(shapes)) != 1 or anchor_BD.dim() != 2 or not len(anchor_BD):
        raise ValueError(f"the three tensors must be (B, D), B > 0, alike; got {shapes}")
    nearer_B = cosine_distance(anchor_BD, nearer_BD)
    farther_B = cosine_distance(anchor_BD, farther_BD)
    return torch.relu(nearer_B - farther_B + margin).mean()
