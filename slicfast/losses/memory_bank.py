"""Noise contrast of two views against each other's memories (Wu et al., CVPR 2018; IIC, ACM MM 2020).

Two memories hold a row a training video each: one of its pictures, one of its frame differences. The
embedding of one view is to find its video in the memory of the other view, among randomly drawn videos. The
memories last as long as the run; the published code begins them afresh every epoch.
Legend: B samples, K noise videos, N training videos, D embedding dimensions, V the two views.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from slicfast.distributed import mean_over_ranks
from slicfast.losses.distance import directions


class MemoryBank(nn.Module):
    """Both memories, and what the logistic form estimates once.

    Args:
        num_videos: N, at least 1.
        dim: D.
        seed: of the random rows that it begins with.

    Attributes:
        rows_VND: (2, N, D) float32 rows of length 1.
        log_z_V: (2,) float32, the logarithm of the softmax's constant in each memory, of the first batch; not
            a number before.
    """

    rows_VND: Tensor
    log_z_V: Tensor

    def __init__(self, num_videos: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows_VND = torch.randn(2, num_videos, dim, generator=generator)
        self.register_buffer("rows_VND", rows_VND / rows_VND.norm(dim=2, keepdim=True))
        self.register_buffer("log_z_V", torch.full((2,), torch.nan))

    @torch.no_grad()
    def update(self, views_VBD: tuple[Tensor, Tensor], videos_B: Tensor, *, momentum: float) -> None:
        """Move the rows of these videos towards their new embeddings: momentum x old + (1 - momentum) x new.

        A video that comes twice, as a stand-in for a damaged one may, counts once, by its first row.
        """
        first_B = (videos_B[:, None] == videos_B[None, :]).int().argmax(dim=1)
        for rows_ND, view_BD in zip(self.rows_VND, views_VBD, strict=True):
            new_BD = directions(view_BD.detach()).to(rows_ND.dtype)[first_B]
            mixed_BD = momentum * rows_ND[videos_B] + (1 - momentum) * new_BD
            rows_ND.index_copy_(0, videos_B, directions(mixed_BD))


def nce_loss(
    bank: MemoryBank,
    views_VBD: tuple[Tensor, Tensor],
    videos_B: Tensor,
    labels_N: Tensor,
    *,
    num_negatives: int,
    temperature: float,
    form: Literal["softmax", "logistic"],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sum over both views of the loss of finding a sample's video in the other view's memory.

    K videos are drawn uniformly and with replacement for each sample, the same for both views; those of the
    sample's label, its own video among them, are no noise and are left out. With s_k the cosines over the
    temperature, s_0 that of the sample's own video, a view's loss is the mean over the batch of
    `softmax`: the cross-entropy -log(exp(s_0) / sum over k = 0 .. K of exp(s_k));
    `logistic`: -log h(s_0) - sum over k = 1 .. K of log(1 - h(s_k)), h(s) = P / (P + K / N), P = exp(s) / Z,
    where Z is N times the mean of exp(s_k) over the first batch (several ranks: the mean of its logarithms).

    Args:
        bank: of N videos; only `log_z_V` is changed, once.
        views_VBD: (B, D) embeddings of the pictures and of the frame differences, any floating type.
        videos_B: (B,) int64, places of their videos.
        labels_N: (N,) int64, of all training videos.
        num_negatives: K; the method takes 1024.
        temperature: above 0; the method takes 0.07.
        generator: of the embeddings' device; gives one block of (B, K) integers a call.
    """
    num_videos = len(labels_N)
    noise_BK = torch.randint(
        num_videos, (len(videos_B), num_negatives), generator=generator, device=videos_B.device
    )
    is_noise_BK = labels_N[noise_BK] != labels_N[videos_B][:, None]
    idx_BK1 = torch.cat([videos_B[:, None], noise_BK], dim=1)
    counts_BK1 = torch.nn.functional.pad(is_noise_BK, (1, 0), value=True)
    losses = []
    for place, view_BD in enumerate(views_VBD):
        with torch.autocast(view_BD.device.type, enabled=False):
            unit_BD = directions(view_BD)
            remembered_BK1D = bank.rows_VND[1 - place][idx_BK1].to(unit_BD.dtype)
            scores_BK1 = (remembered_BK1D @ unit_BD[:, :, None]).squeeze(2) / temperature
        if form == "softmax":
            masked_BK1 = scores_BK1.masked_fill(~counts_BK1, -torch.inf)
            losses.append((masked_BK1.logsumexp(dim=1) - scores_BK1[:, 0]).mean())
            continue
        log_z = bank.log_z_V[place]
        with torch.no_grad():
            estimate = scores_BK1.masked_fill(~counts_BK1, -torch.inf).flatten().logsumexp(dim=0)
            estimate -= counts_BK1.sum().to(estimate.dtype).log() - math.log(num_videos)
            estimate = mean_over_ranks(estimate)
            log_z.copy_(torch.where(log_z.isnan(), estimate.to(log_z.dtype), log_z))
        # log h and log(1 - h) are those of a logistic regression on log(P N / K).
        odds_BK1 = scores_BK1 - log_z.clone() + math.log(num_videos / num_negatives)
        noise_B = torch.where(is_noise_BK, logsigmoid(-odds_BK1[:, 1:]), 0.0).sum(dim=1)
        losses.append(-(logsigmoid(odds_BK1[:, 0]) + noise_B).mean())
    return torch.stack(losses).sum()
