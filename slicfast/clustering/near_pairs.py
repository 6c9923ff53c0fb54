"""Every pair of rows within a cosine distance, by blocked products: the graph that density methods walk.

Only near pairs are kept, never N x N distances. Legend: N rows, D dimensions, R rows of a strip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from slicfast.device import free_memory_bytes
from slicfast.errors import MachineError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

_STRIP = {"cpu": 1 << 22, "cuda": 1 << 28}  # distances held at a time
BYTES_A_PAIR = 80  # of the graph and of what scikit-learn makes of it, measured


def near_pairs(
    unit_ND: Tensor, max_distance: float, *, at_least: int = 1, most_bytes: int | None = None
) -> csr_matrix:
    """(N, N) sparse float64 of the cosine distances 1 - cos up to a largest one, each row with itself at 0.

    Args:
        unit_ND: L2-normalised float32 rows.
        max_distance: of a pair that is kept.
        at_least: every row keeps so many of its nearest (itself among them) even where they are farther.
        most_bytes: memory that the pairs may take in all; None: what is free.

    Raises:
        MachineError: there are more pairs than fit.
    """
    from scipy.sparse import csr_matrix

    num_rows, device = len(unit_ND), unit_ND.device
    most_bytes = free_memory_bytes() if most_bytes is None else most_bytes
    num_strip = max(1, _STRIP.get(device.type, _STRIP["cpu"]) // num_rows)
    offsets = np.zeros(num_rows + 1, dtype=np.int64)
    columns, distances = [], []
    for top in range(0, num_rows, num_strip):
        distance_RN = (unit_ND[top : top + num_strip] @ unit_ND.t()).neg_().add_(1).clamp_(min=0)
        distance_RN.diagonal(top).zero_()
        limit_R1 = torch.full((len(distance_RN), 1), max_distance, device=device)
        if at_least > 1:
            nearest_RM = distance_RN.topk(min(at_least, num_rows), dim=1, largest=False).values
            limit_R1 = torch.maximum(limit_R1, nearest_RM[:, -1:])
        is_near_RN = distance_RN <= limit_R1
        end = top + len(distance_RN)
        offsets[top + 1 : end + 1] = offsets[top] + is_near_RN.sum(dim=1).cumsum(0).cpu().numpy()
        if offsets[end] * BYTES_A_PAIR > most_bytes:
            raise MachineError(
                f"{offsets[end]} pairs among the first {end} of {num_rows} embeddings are within cosine"
                f" distance {max_distance:g}, too many for {most_bytes / 2**30:.1f} GiB of free memory; lower"
                " cluster.max_distance, or set cluster.method to finch or kmeans, which hold no pairs"
            )
        columns.append(is_near_RN.nonzero()[:, 1].to(torch.int32).cpu().numpy())
        distances.append(distance_RN[is_near_RN].cpu().numpy().astype(np.float64))
    values = (np.concatenate(distances), np.concatenate(columns), offsets)
    return csr_matrix(values, shape=(num_rows, num_rows))
