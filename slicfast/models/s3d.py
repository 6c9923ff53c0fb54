"""S3D and S3D-G: Inception-v1 over space and time, its convolutions split (Xie et al., ECCV 2018).

Layers have the names of the Inception figure (1a, 2b, ..., 5c); below them parameters are named as in
torchvision's s3d. Legend as in backbone.py.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from slicfast.models.backbone import (
    VideoBackbone,
    cfg,
    clip_mean,
    create,
    initialise,
    pool_pictures,
    require_width,
    scaled_channels,
)
from slicfast.models.stem import StemConv, StemForm

# Channels of the four branches: 1 x 1; 1 x 1 then 3 x 3; 1 x 1 then 3 x 3; pool then 1 x 1.
MIXED: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
    "3b": (64, (96, 128), (16, 32), 32),
    "3c": (128, (128, 192), (32, 96), 64),
    "4b": (192, (96, 208), (16, 48), 64),
    "4c": (160, (112, 224), (24, 64), 64),
    "4d": (128, (128, 256), (24, 64), 64),
    "4e": (112, (144, 288), (32, 64), 64),
    "4f": (256, (160, 320), (32, 128), 128),
    "5b": (256, (160, 320), (32, 128), 128),
    "5c": (384, (192, 384), (48, 128), 128),
}
POOLED_BEFORE = {"4b": 3, "5b": 2}  # kernels of the pools of stride 2 in time and space


class ConvNorm(nn.Sequential):
    """A convolution without bias, BatchNorm and ReLU.

    The running statistics follow at torch's rate: the published 0.001 a step would still be at their start
    when embeddings are first clustered.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv, nn.BatchNorm3d(conv.out_channels, eps=1e-3), nn.ReLU(inplace=True))


def pointwise(in_channels: int, channels: int) -> ConvNorm:
    return ConvNorm(nn.Conv3d(in_channels, channels, kernel_size=1, bias=False))


class Separable(nn.Sequential):
    """Over rows and columns, then over as many frames; each with BatchNorm and ReLU."""

    def __init__(self, spatial: nn.Conv3d, size: int, temporal_stride: int = 1) -> None:
        channels = spatial.out_channels
        temporal = nn.Conv3d(
            channels,
            channels,
            kernel_size=(size, 1, 1),
            stride=(temporal_stride, 1, 1),
            padding=(size // 2, 0, 0),
            bias=False,
        )
        super().__init__(ConvNorm(spatial), ConvNorm(temporal))


def separable3(in_channels: int, channels: int) -> Separable:
    return Separable(nn.Conv3d(in_channels, channels, (1, 3, 3), padding=(0, 1, 1), bias=False), 3)


class Gate(nn.Module):
    """Channels scaled by a gate that sees the clip's mean of all of them: what makes S3D-G of S3D."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        gate_NC = self.fc(clip_mean(x_NCTHW)).sigmoid()
        gated: Tensor = x_NCTHW * gate_NC[:, :, None, None, None]
        return gated


class Mixed(nn.Module):
    """An Inception block; with ``gated`` every branch ends in a gate, as in the authors' release."""

    def __init__(self, in_channels: int, name: str, width: float, gated: bool) -> None:
        super().__init__()
        first, (middle1, second), (middle2, third), fourth = MIXED[name]
        outs = [scaled_channels(channels, width) for channels in (first, second, third, fourth)]
        middle1, middle2 = scaled_channels(middle1, width), scaled_channels(middle2, width)
        self.branch0 = pointwise(in_channels, outs[0])
        self.branch1 = nn.Sequential(pointwise(in_channels, middle1), separable3(middle1, outs[1]))
        self.branch2 = nn.Sequential(pointwise(in_channels, middle2), separable3(middle2, outs[2]))
        pool = nn.MaxPool3d(kernel_size=3, stride=1, padding=1)
        self.branch3 = nn.Sequential(pool, pointwise(in_channels, outs[3]))
        self.gates = nn.ModuleList(Gate(channels) if gated else nn.Identity() for channels in outs)
        self.num_channels = sum(outs)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        return torch.cat(
            [gate(branch(x_NCTHW)) for gate, branch in zip(self.gates, branches, strict=True)], dim=1
        )


class S3D(VideoBackbone):
    """Clips (N, C, T, H, W), normalised, to pooled features (N, num_features), or to logits.

    Args:
        num_classes: 0 for pooled features, otherwise a linear classifier `fc` on them.
        in_chans, global_pool, drop_rate: as of ResNet3D.
        width: channels of every layer times this, rounded to a multiple of 8.
        stem: how the first convolution is computed; all forms are the same function of the same weights.
        gated: S3D-G.

    Raises:
        ConfigError: an option outside its range.
    """

    min_frames = 5  # two for the last pool
    min_size = 17

    def __init__(
        self,
        num_classes: int = 0,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        width: float = 1.0,
        stem: StemForm = "direct",
        gated: bool = False,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        require_width(width)
        first, second = scaled_channels(64, width), scaled_channels(192, width)
        self.conv_1a = Separable(StemConv(in_chans, first, 1, stem, temporal_size=1), 7, temporal_stride=2)
        self.pool_2a = pool_pictures()
        self.conv_2b = pointwise(first, first)
        self.conv_2c = separable3(first, second)
        self.gate_2c = Gate(second) if gated else nn.Identity()
        self.pool_3a = pool_pictures()
        channels = second
        info = {"conv_1a": (first, 2), "conv_2c": (second, 4)}
        reductions = {"3c": 8, "4f": 16, "5c": 32}
        for name in MIXED:
            if kernel := POOLED_BEFORE.get(name):
                self.add_module(f"pool_{name[0]}a", nn.MaxPool3d(kernel, stride=2, padding=(kernel - 1) // 2))
            mixed = Mixed(channels, name, width, gated)
            self.add_module(f"mixed_{name}", mixed)
            channels = mixed.num_channels
            if name in reductions:
                info[f"mixed_{name}"] = (channels, reductions[name])
        self._layers = [name for name, _ in self.named_children()]
        self.feature_info = [
            {"num_chs": num, "reduction": reduction, "module": name}
            for name, (num, reduction) in info.items()
        ]
        self.set_head(channels, num_classes, global_pool)
        initialise(self)

    def forward_map(self, clips_NCTHW: Tensor) -> Tensor:
        x = clips_NCTHW
        for name in self._layers:
            x = cast(Tensor, getattr(self, name)(x))
        return x


default_cfgs = generate_default_cfgs(
    {name: cfg(first_conv="conv_1a.0.0") for name in ("slic_s3d", "slic_s3d_g")}
)


@register_model
def slic_s3d(pretrained: bool = False, **kwargs: Any) -> S3D:
    """S3D."""
    network: S3D = create(S3D, "slic_s3d", pretrained, **kwargs)
    return network


@register_model
def slic_s3d_g(pretrained: bool = False, **kwargs: Any) -> S3D:
    """S3D-G: S3D with gates."""
    network: S3D = create(S3D, "slic_s3d_g", pretrained, gated=True, **kwargs)
    return network
