"""Attention for 3-D ResNets: squeeze-and-excitation, CBAM and non-local blocks, of clips.

The published forms with a time axis: what averages over a picture averages over the clip, what convolves
7 x 7 pixels convolves 7 x 7 x 7. Legend: N clips, C channels, T frames, H rows, W columns, L = T H W places.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slicfast.models.backbone import clip_mean

Attention = Literal["se", "cbam", "non_local"]
ATTENTIONS: tuple[Attention, ...] = ("se", "cbam", "non_local")

REDUCTION = 16  # both papers


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate that sees the clip's mean of each (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        gate_NC = self.fc2(torch.relu(self.fc1(clip_mean(x_NCTHW)))).sigmoid()
        gated: Tensor = x_NCTHW * gate_NC[:, :, None, None, None]
        return gated


class CBAM(nn.Module):
    """Channels gated by their mean and maximum, then places by theirs (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)
        self.conv = nn.Conv3d(2, 1, kernel_size=7, padding=3, bias=False)
        self.bn = nn.BatchNorm3d(1)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        gate_NC = self._shared(clip_mean(x_NCTHW)) + self._shared(x_NCTHW.amax(dim=(2, 3, 4)))
        x_NCTHW = x_NCTHW * gate_NC.sigmoid()[:, :, None, None, None]
        rows_NTHWC = x_NCTHW.permute(0, 2, 3, 4, 1)  # whose gradient is then laid out as they are
        seen_NTHW2 = torch.stack((rows_NTHWC.mean(dim=4), rows_NTHWC.amax(dim=4)), dim=4)
        seen_N2THW = seen_NTHW2.permute(0, 4, 1, 2, 3)
        gated: Tensor = x_NCTHW * self.bn(self.conv(seen_N2THW)).sigmoid()
        return gated

    def _shared(self, pooled_NC: Tensor) -> Tensor:
        gate_NC: Tensor = self.fc2(torch.relu(self.fc1(pooled_NC)))
        return gate_NC


class NonLocal(nn.Module):
    """Every place of a clip attends to every other: the embedded Gaussian form (Wang et al., CVPR 2018).

    Keys and values are max-pooled by 2 x 2 pixels, as in the paper's subsampling; products are scaled as in
    its authors' code. BatchNorm starts at 0, so that a new block changes nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.theta = nn.Conv3d(channels, inner, kernel_size=1)
        self.phi = nn.Conv3d(channels, inner, kernel_size=1)
        self.g = nn.Conv3d(channels, inner, kernel_size=1)
        self.pool = nn.MaxPool3d(kernel_size=(1, 2, 2), ceil_mode=True)
        self.out = nn.Conv3d(inner, channels, kernel_size=1)
        self.bn = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        pooled = self.pool(x_NCTHW)
        parts = self.theta(x_NCTHW), self.phi(pooled), self.g(pooled)
        # With an axis of one head, which fused kernels and ONNX ask for.
        query, key, value = (part.flatten(2).transpose(1, 2)[:, None] for part in parts)
        seen_NLC = F.scaled_dot_product_attention(query, key, value)[:, 0]
        seen_NCTHW = torch.unflatten(seen_NLC.transpose(1, 2), 2, x_NCTHW.shape[2:])
        attended: Tensor = x_NCTHW + self.bn(self.out(seen_NCTHW))
        return attended


def in_block(attention: Attention | None, channels: int) -> nn.Module:
    """What a residual block applies to its sum's new part; nothing where attention is not in the blocks."""
    if attention == "se":
        return SqueezeExcitation(channels)
    return CBAM(channels) if attention == "cbam" else nn.Identity()
