"""R(2+1)D: 3-D ResNets whose convolutions are split into space and time (Tran et al., CVPR 2018).

A t x d x d convolution becomes 1 x d x d, BatchNorm, ReLU and t x 1 x 1, with so many channels between that
it keeps its number of parameters: t d d in out / (d d in + t out). Legend as in resnet3d.py.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from slicfast.models.backbone import cfg, create, scaled_channels
from slicfast.models.resnet3d import DEPTHS, BasicBlock, ResNet3D
from slicfast.models.stem import StemConv, StemForm, require_temporal

STEM_CHANNELS = 45  # between the stem's two halves, as in the authors' release and torchvision


def channels_between(in_channels: int, channels: int) -> int:
    """Of a 3 x 3 x 3 convolution, by the paper's rule (section 3.5)."""
    return (27 * in_channels * channels) // (9 * in_channels + 3 * channels)


class Split(nn.Module):
    """A convolution over rows and columns, BatchNorm, ReLU, and a convolution over time."""

    def __init__(self, spatial: nn.Conv3d, channels: int, temporal_size: int, temporal_stride: int) -> None:
        super().__init__()
        self.spatial = spatial
        self.bn = nn.BatchNorm3d(spatial.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.temporal = nn.Conv3d(
            spatial.out_channels,
            channels,
            kernel_size=(temporal_size, 1, 1),
            stride=(temporal_stride, 1, 1),
            padding=(temporal_size // 2, 0, 0),
            bias=False,
        )

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        out: Tensor = self.temporal(self.relu(self.bn(self.spatial(x_NCTHW))))
        return out


def split_conv(in_channels: int, between: int, channels: int, stride: int) -> Split:
    spatial = nn.Conv3d(
        in_channels, between, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
    )
    return Split(spatial, channels, temporal_size=3, temporal_stride=stride)


class SplitBlock(BasicBlock):
    """Two split convolutions beside a shortcut; both keep the parameters that the first would have had.

    So torchvision does. At a stage's first block it makes the second one smaller than the paper.
    """

    @staticmethod
    def make_conv(in_channels: int, channels: int, stride: int, block_in_channels: int) -> nn.Module:
        return split_conv(in_channels, channels_between(block_in_channels, channels), channels, stride)


class PaperSplitBlock(BasicBlock):
    """Two split convolutions beside a shortcut, each of which keeps its own number of parameters."""

    @staticmethod
    def make_conv(in_channels: int, channels: int, stride: int, block_in_channels: int) -> nn.Module:
        return split_conv(in_channels, channels_between(in_channels, channels), channels, stride)


class R2Plus1D(ResNet3D):
    """As ResNet3D, with split convolutions; `conv1_temporal_size` is that of the stem's second half."""

    def make_stem(
        self, channels: int, width: float, temporal_stride: int, temporal_size: int, form: StemForm
    ) -> nn.Module:
        require_temporal(temporal_stride, temporal_size)
        spatial = StemConv(self.in_chans, scaled_channels(STEM_CHANNELS, width), 1, form, temporal_size=1)
        return Split(spatial, channels, temporal_size, temporal_stride)


default_cfgs = generate_default_cfgs(
    {name: cfg(first_conv="conv1.spatial") for name in ("slic_r2plus1d_18", "slic_r2plus1d_34")}
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> R2Plus1D:
    network: R2Plus1D = create(R2Plus1D, variant, pretrained, **{"conv1_temporal_size": 3, **kwargs})
    return network


@register_model
def slic_r2plus1d_18(pretrained: bool = False, **kwargs: Any) -> R2Plus1D:
    """R(2+1)D-18, torchvision's."""
    return _create("slic_r2plus1d_18", pretrained, block=SplitBlock, depths=DEPTHS[18], **kwargs)


@register_model
def slic_r2plus1d_34(pretrained: bool = False, **kwargs: Any) -> R2Plus1D:
    """R(2+1)D-34, the paper's."""
    return _create("slic_r2plus1d_34", pretrained, block=PaperSplitBlock, depths=DEPTHS[34], **kwargs)
