"""The latest embeddings in the order they came, with their videos: what losses with a memory compare against.

A queue's labels are looked up when they are used, so that a clustering gives old rows new labels. All is in
buffers of fixed shape, changed in place; nothing is synchronised.
Legend: Q places, B rows that come, D embedding dimensions, N training videos.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slicfast.losses.distance import directions


class EmbeddingQueue(nn.Module):
    """First in, first out; every row has length 1.

    Args:
        size: Q, at least 1.
        dim: D.

    Attributes:
        rows_QD: (Q, D) float32, zeros where there is none yet.
        videos_Q: (Q,) int64, places of their videos among the training videos; -1 where there is none yet.
    """

    rows_QD: Tensor
    videos_Q: Tensor
    next_place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows_QD", torch.zeros(size, dim))
        self.register_buffer("videos_Q", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("next_place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings_BD: Tensor, videos_B: Tensor) -> None:
        """Take rows in, in their order, the oldest ones leave; of more than Q the last Q stay."""
        size = len(self.videos_Q)
        embeddings_BD, videos_B = embeddings_BD[-size:], videos_B[-size:]
        place_B = (self.next_place + torch.arange(len(videos_B), device=videos_B.device)) % size
        self.rows_QD.index_copy_(0, place_B, directions(embeddings_BD).to(self.rows_QD.dtype))
        self.videos_Q.index_copy_(0, place_B, videos_B)
        self.next_place.add_(len(videos_B)).remainder_(size)

    def labels(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """(Q,) labels of the rows as the training videos have them now, and (Q,) bool, where there is one."""
        return labels_N[self.videos_Q.clamp(min=0)], self.videos_Q >= 0
