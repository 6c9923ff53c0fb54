"""SlowFast-R50: a wide path of few frames and a narrow one of all (Feichtenhofer et al., ICCV 2019).

It takes one clip and subsamples it for the slow path. Convolutions from the fast path to the slow one join
them after the stem and after three stages. Legend as in backbone.py; alpha: frames of the fast path a frame
of the slow one.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from slicfast.errors import ConfigError
from slicfast.models.backbone import (
    VideoBackbone,
    cfg,
    create,
    initialise,
    pool_pictures,
    require_width,
    scaled_channels,
)
from slicfast.models.stem import StemConv, StemForm

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # inner channels, blocks, stride
SLOW_SIZES = (1, 1, 3, 3)  # frames of the kernels in each stage: the slow path looks at time late
FAST_SIZE = 3
EXPANSION = 4
NARROWER = 8  # the fast path has so many times fewer channels
JOINED = 2  # the slow path gets so many channels for each of the fast one


class PathBlock(nn.Module):
    """t x 1 x 1, 1 x 3 x 3 (which has the stride) and 1 x 1 x 1 convolutions beside a shortcut."""

    def __init__(
        self, in_channels: int, inner: int, channels: int, temporal_size: int, stride: int, first: bool
    ) -> None:
        super().__init__()
        self.conv1 = _temporal_conv(in_channels, inner, temporal_size)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(
            inner, inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        )
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if first:
            shortcut = nn.Conv3d(in_channels, channels, 1, stride=(1, stride, stride), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(channels))

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        shortcut = x_NCTHW if self.downsample is None else self.downsample(x_NCTHW)
        out = self.relu(self.bn1(self.conv1(x_NCTHW)))
        out = self.relu(self.bn2(self.conv2(out)))
        return cast(Tensor, self.relu(self.bn3(self.conv3(out)) + shortcut))


class SlowFast(VideoBackbone):
    """Clips (N, C, T, H, W), normalised, to pooled features (N, num_features), or to logits.

    T must be a multiple of alpha. The feature map has the slow path's T / alpha frames; the fast path's are
    averaged into them.

    Args:
        num_classes: 0 for pooled features, otherwise a linear classifier `fc` on them.
        in_chans, global_pool, drop_rate: as of ResNet3D.
        width: channels of every layer times this, rounded to a multiple of 8.
        stem: how the first convolutions are computed; all forms are the same function of the same weights.
        alpha: 4 of SlowFast 8 x 8, 8 of SlowFast 4 x 16.
        join_size: frames of the joining kernels, an odd number: 7 of SlowFast 8 x 8, 5 of SlowFast 4 x 16.

    Raises:
        ConfigError: an option outside its range.
    """

    min_size = 17

    def __init__(
        self,
        num_classes: int = 0,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        width: float = 1.0,
        stem: StemForm = "direct",
        alpha: int = 4,
        join_size: int = 7,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        require_width(width)
        if alpha < 1 or join_size < 1 or join_size % 2 == 0:
            raise ConfigError(f"alpha must be at least 1 and join_size odd; got {alpha} and {join_size}")
        self.alpha = self.min_frames = alpha
        slow, fast = scaled_channels(64, width), scaled_channels(64 // NARROWER, width)
        self.slow_stem = _stem(StemConv(in_chans, slow, 1, stem, temporal_size=1))
        self.fast_stem = _stem(StemConv(in_chans, fast, 1, stem, temporal_size=5))
        self.joins, self.slow_stages, self.fast_stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for (inner, depth, stride), slow_size in zip(STAGES, SLOW_SIZES, strict=True):
            self.joins.append(_join(fast, join_size, alpha))
            slow_out = scaled_channels(inner * EXPANSION, width)
            fast_out = scaled_channels(inner * EXPANSION // NARROWER, width)
            slow_inner, fast_inner = (scaled_channels(n, width) for n in (inner, inner // NARROWER))
            self.slow_stages.append(
                _stage(slow + JOINED * fast, slow_inner, slow_out, depth, slow_size, stride)
            )
            self.fast_stages.append(_stage(fast, fast_inner, fast_out, depth, FAST_SIZE, stride))
            slow, fast = slow_out, fast_out
        self.set_head(slow + fast, num_classes, global_pool)
        initialise(self)

    def forward_map(self, clips_NCTHW: Tensor) -> Tensor:
        slow = self.slow_stem(clips_NCTHW[:, :, :: self.alpha])
        fast = self.fast_stem(clips_NCTHW)
        for join, slow_stage, fast_stage in zip(self.joins, self.slow_stages, self.fast_stages, strict=True):
            slow = slow_stage(torch.cat((slow, join(fast)), dim=1))
            fast = fast_stage(fast)
        return torch.cat((slow, self._slowed(fast)), dim=1)

    def _slowed(self, fast_NCTHW: Tensor) -> Tensor:
        """The means of alpha frames each; taken over rows of channels, so that they stay channels last."""
        fast_NTHWC = fast_NCTHW.permute(0, 2, 3, 4, 1)
        mean_NTHWC = torch.unflatten(fast_NTHWC, 1, (-1, self.alpha)).mean(dim=2)
        return mean_NTHWC.permute(0, 4, 1, 2, 3)

    def check_shape(self, shape: torch.Size) -> None:
        super().check_shape(shape)
        if shape[2] % self.alpha:
            raise ConfigError(
                f"SlowFast takes every {self.alpha}th frame for its slow path: clips must have a multiple of"
                f" {self.alpha} frames; got {shape[2]}; set data.clip_length"
            )


def _stem(conv: StemConv) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm3d(conv.out_channels), nn.ReLU(inplace=True), pool_pictures())


def _temporal_conv(in_channels: int, channels: int, size: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(
        in_channels, channels, (size, 1, 1), stride=(stride, 1, 1), padding=(size // 2, 0, 0), bias=False
    )


def _join(fast: int, size: int, alpha: int) -> nn.Sequential:
    return nn.Sequential(
        _temporal_conv(fast, JOINED * fast, size, stride=alpha),
        nn.BatchNorm3d(JOINED * fast),
        nn.ReLU(inplace=True),
    )


def _stage(
    in_channels: int, inner: int, channels: int, depth: int, temporal_size: int, stride: int
) -> nn.Sequential:
    blocks = [PathBlock(in_channels, inner, channels, temporal_size, stride, first=True)]
    blocks += [PathBlock(channels, inner, channels, temporal_size, 1, first=False) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


default_cfgs = generate_default_cfgs({"slic_slowfast_r50": cfg(first_conv=("slow_stem.0", "fast_stem.0"))})


@register_model
def slic_slowfast_r50(pretrained: bool = False, **kwargs: Any) -> SlowFast:
    """SlowFast-R50 8 x 8."""
    if kwargs.pop("features_only", False):
        raise ConfigError("SlowFast has two paths, of which features_only cannot tell; use forward_features")
    network: SlowFast = create(SlowFast, "slic_slowfast_r50", pretrained, **kwargs)
    return network
