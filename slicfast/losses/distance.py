"""Cosine distance d(x, y) = 1 - cos(x, y), the one distance of every loss here (SLIC, CVPR 2022).

Always computed in float32 (float64 stays float64), also under autocast: margins of a few hundredths are near
the resolution of bf16. Legend: R and Q rows, B samples, D embedding dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distances(embeddings_RD: Tensor) -> Tensor:
    """Distances between all pairs of rows, (R, R) in [0, 2], from (R, D) of any floating type."""
    with torch.autocast(embeddings_RD.device.type, enabled=False):
        directions_RD = directions(embeddings_RD)
        return 1 - directions_RD @ directions_RD.mT


def cosine_similarities(rows_RD: Tensor, others_QD: Tensor) -> Tensor:
    """Cosines between every row of one tensor and every row of the other, (R, Q) in [-1, 1]."""
    with torch.autocast(rows_RD.device.type, enabled=False):
        return directions(rows_RD) @ directions(others_QD).mT


def cosine_distance(first_BD: Tensor, second_BD: Tensor) -> Tensor:
    """Distance of each row of one tensor from the same row of the other, (B,) in [0, 2]."""
    with torch.autocast(first_BD.device.type, enabled=False):
        return 1 - (directions(first_BD) * directions(second_BD)).sum(dim=1)


def directions(embeddings_RD: Tensor) -> Tensor:
    """Rows of length 1, float32, or float64 of float64."""
    wide = embeddings_RD if embeddings_RD.dtype == torch.float64 else embeddings_RD.float()
    return F.normalize(wide, dim=1)
