"""The key encoder of MoCo (He et al., CVPR 2020): its weights follow the encoder's, slowly, without gradient.

Its BatchNorm normalises by the keys of a batch. On several ranks the clips are shuffled across them first, as
MoCo does, so that a query and its key are not normalised among the same samples; on one rank there is nothing
to shuffle, and keys are normalised apart from queries, which share their batch with the other roles' clips.
Legend: B samples of this rank, W of all ranks, D embedding dimensions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from slicfast.distributed import gather_rows, is_joined
from slicfast.engine.encoder import VideoEncoder


class KeyEncoder(nn.Module):
    """A copy of an encoder that only `follow` changes.

    Args:
        encoder: copied as it is now, with its device and memory layout.
        momentum: share of its own weights that a key weight keeps at a step.
        autocast: what its forward pass is computed in; None: the weights' type.
    """

    def __init__(self, encoder: VideoEncoder, momentum: float, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.momentum = momentum
        self.autocast = autocast

    def train(self, mode: bool = True) -> KeyEncoder:
        """Always in training mode: keys are normalised by their batch."""
        super().train(True)
        return self

    @torch.no_grad()
    def follow(self, encoder: nn.Module) -> None:
        """key weights <- momentum x key weights + (1 - momentum) x weights; nothing is synchronised."""
        keys: list[Any] = list(self.encoder.parameters())
        torch._foreach_lerp_(keys, list(encoder.parameters()), 1.0 - self.momentum)

    @torch.no_grad()
    def forward(self, clips_BCTHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B, D) keys of (B, C, T, H, W) clips; every rank has the same B.

        Args:
            generator: rank 0's draws the order in which several ranks shuffle their clips.
        """
        if not is_joined():
            return self._encode(clips_BCTHW)
        size, rank = len(clips_BCTHW), dist.get_rank()
        mine = slice(rank * size, (rank + 1) * size)
        # With channels last, as they lie in memory, clips are gathered and picked without another copy.
        clips_WTHWC = gather_rows(clips_BCTHW.permute(0, 2, 3, 4, 1))
        order_W = torch.randperm(len(clips_WTHWC), generator=generator, device=clips_WTHWC.device)
        dist.broadcast(order_W, src=0)
        shuffled_BD = self._encode(clips_WTHWC[order_W[mine]].permute(0, 4, 1, 2, 3))
        return gather_rows(shuffled_BD)[order_W.argsort()[mine]]

    def _encode(self, clips_BCTHW: torch.Tensor) -> torch.Tensor:
        enabled = self.autocast is not None
        with torch.autocast(clips_BCTHW.device.type, dtype=self.autocast, enabled=enabled):
            keys_BD: torch.Tensor = self.encoder(clips_BCTHW)
        return keys_BD
