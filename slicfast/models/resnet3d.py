"""3-D ResNets: ResNet-10 to 200 with every convolution inflated to time (Hara et al., CVPR 2018).

Parameter names are the field's own (`conv1.weight`, `layer1.0.conv1.weight`, `layer2.0.downsample.0.weight`),
so that published checkpoints fit. Projection shortcuts are "B": a 1 x 1 x 1 convolution and BatchNorm.
Legend: N clips, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from slicfast.errors import ConfigError, one_of
from slicfast.models.attention import ATTENTIONS, Attention, NonLocal, in_block
from slicfast.models.backbone import VideoBackbone, cfg, create, initialise, require_width, scaled_channels
from slicfast.models.stem import StemConv, StemForm

STAGE_CHANNELS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 2)
DEPTHS: dict[int, tuple[int, ...]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
NON_LOCAL_STAGES = (2, 3)  # every other block of these (Wang et al., CVPR 2018)


def conv3x3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1x1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, kernel_size=1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        downsample: nn.Module | None,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = self.make_conv(in_channels, channels, stride, in_channels)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = self.make_conv(channels, channels, 1, in_channels)
        self.bn2 = nn.BatchNorm3d(channels)
        self.attention = in_block(attention, channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    @staticmethod
    def make_conv(in_channels: int, channels: int, stride: int, block_in_channels: int) -> nn.Module:
        return conv3x3x3(in_channels, channels, stride)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        shortcut = x_NCTHW if self.downsample is None else self.downsample(x_NCTHW)
        out = self.relu(self.bn1(self.conv1(x_NCTHW)))
        out = self.attention(self.bn2(self.conv2(out)))
        return cast(Tensor, self.relu(out + shortcut))


class Bottleneck(nn.Module):
    """1 x 1 x 1, 3 x 3 x 3 (which has the stride) and 1 x 1 x 1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        downsample: nn.Module | None,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = conv1x1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = conv3x3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = conv1x1x1(channels, channels * self.expansion)
        self.bn3 = nn.BatchNorm3d(channels * self.expansion)
        self.attention = in_block(attention, channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        shortcut = x_NCTHW if self.downsample is None else self.downsample(x_NCTHW)
        out = self.relu(self.bn1(self.conv1(x_NCTHW)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.attention(self.bn3(self.conv3(out)))
        return cast(Tensor, self.relu(out + shortcut))


class ResNet3D(VideoBackbone):
    """Clips (N, C, T, H, W), normalised, to pooled features (N, num_features), or to logits.

    Args:
        block: of which kind the stages are made.
        depths: blocks in each of the four stages.
        num_classes: 0 for pooled features, otherwise a linear classifier `fc` on them.
        in_chans: channels of the input.
        global_pool: "avg", or "" for the feature map as it is (without a classifier).
        drop_rate: dropout before the classifier.
        width: channels of every layer times this, rounded to a multiple of 8.
        max_pool: a max-pool of 3 x 3 x 3, stride 2, after the stem (SLIC: none).
        conv1_temporal_stride: stride of the stem in time; in space it is 2.
        conv1_temporal_size: frames of the stem's kernel, an odd number; in space it is 7 x 7.
        stem: how the first convolution is computed; all forms are the same function of the same weights.
        attention: "se" or "cbam" in every block, or "non_local" after every other one of stages 2 and 3.

    Raises:
        ConfigError: an option outside its range.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        num_classes: int = 0,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        width: float = 1.0,
        max_pool: bool = False,
        conv1_temporal_stride: int = 1,
        conv1_temporal_size: int = 7,
        stem: StemForm = "direct",
        attention: Attention | None = None,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        require_width(width)
        if attention is not None and attention not in ATTENTIONS:
            raise ConfigError(one_of("attention", attention, ATTENTIONS))
        channels = [scaled_channels(stage, width) for stage in STAGE_CHANNELS]
        self.conv1 = self.make_stem(channels[0], width, conv1_temporal_stride, conv1_temporal_size, stem)
        self.bn1 = nn.BatchNorm3d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1) if max_pool else nn.Identity()
        pooling = 2 if max_pool else 1
        self.min_frames = conv1_temporal_stride * pooling
        reduction = 2 * pooling

        self.feature_info = [{"num_chs": channels[0], "reduction": 2, "module": "relu"}]
        layers = []
        in_channels = channels[0]
        for number, (stage, depth, stride) in enumerate(zip(channels, depths, STAGE_STRIDES, strict=True), 1):
            layers.append(_stage(block, in_channels, stage, depth, stride, attention, number))
            in_channels = stage * block.expansion
            reduction *= stride
            self.feature_info.append(
                {"num_chs": in_channels, "reduction": reduction, "module": f"layer{number}"}
            )
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.min_size = reduction // 2 + 1
        self.set_head(in_channels, num_classes, global_pool)
        initialise(self)

    def make_stem(
        self, channels: int, width: float, temporal_stride: int, temporal_size: int, form: StemForm
    ) -> nn.Module:
        """The first convolution."""
        return StemConv(self.in_chans, channels, temporal_stride, form, temporal_size)

    def forward_map(self, clips_NCTHW: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips_NCTHW))))
        return cast(Tensor, self.layer4(self.layer3(self.layer2(self.layer1(x)))))


def _stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    channels: int,
    depth: int,
    stride: int,
    attention: Attention | None,
    number: int,
) -> nn.Sequential:
    """Blocks in a row, of which the first has the stride; their names are their places."""
    out_channels = channels * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(conv1x1x1(in_channels, out_channels, stride), nn.BatchNorm3d(out_channels))
    stage = nn.Sequential(block(in_channels, channels, stride, downsample, attention))
    for place in range(1, depth):
        stage.add_module(str(place), block(out_channels, channels, 1, None, attention))
        if attention == "non_local" and number in NON_LOCAL_STAGES and place % 2 == 1:
            stage.add_module(f"non_local_{place}", NonLocal(out_channels))
    return stage


def _create(variant: str, pretrained: bool, attention: Attention | None = None, **kwargs: Any) -> ResNet3D:
    depth = int(variant.split("_")[2])
    block = BasicBlock if depth < 50 else Bottleneck
    network: ResNet3D = create(
        ResNet3D, variant, pretrained, block=block, depths=DEPTHS[depth], attention=attention, **kwargs
    )
    return network


default_cfgs = generate_default_cfgs(
    {
        **{f"slic_r3d_{depth}": cfg() for depth in DEPTHS},
        **{f"slic_r3d_{depth}_{kind}": cfg() for depth in (18, 50) for kind in ATTENTIONS},
    }
)


@register_model
def slic_r3d_10(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-10."""
    return _create("slic_r3d_10", pretrained, **kwargs)


@register_model
def slic_r3d_18(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-18, SLIC's backbone."""
    return _create("slic_r3d_18", pretrained, **kwargs)


@register_model
def slic_r3d_34(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-34."""
    return _create("slic_r3d_34", pretrained, **kwargs)


@register_model
def slic_r3d_50(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-50."""
    return _create("slic_r3d_50", pretrained, **kwargs)


@register_model
def slic_r3d_101(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-101."""
    return _create("slic_r3d_101", pretrained, **kwargs)


@register_model
def slic_r3d_152(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-152."""
    return _create("slic_r3d_152", pretrained, **kwargs)


@register_model
def slic_r3d_200(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-200."""
    return _create("slic_r3d_200", pretrained, **kwargs)


@register_model
def slic_r3d_18_se(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-18 with squeeze-and-excitation in every block."""
    return _create("slic_r3d_18_se", pretrained, "se", **kwargs)


@register_model
def slic_r3d_18_cbam(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-18 with CBAM in every block."""
    return _create("slic_r3d_18_cbam", pretrained, "cbam", **kwargs)


@register_model
def slic_r3d_18_non_local(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-18 with two non-local blocks."""
    return _create("slic_r3d_18_non_local", pretrained, "non_local", **kwargs)


@register_model
def slic_r3d_50_se(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-50 with squeeze-and-excitation in every block."""
    return _create("slic_r3d_50_se", pretrained, "se", **kwargs)


@register_model
def slic_r3d_50_cbam(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-50 with CBAM in every block."""
    return _create("slic_r3d_50_cbam", pretrained, "cbam", **kwargs)


@register_model
def slic_r3d_50_non_local(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-50 with five non-local blocks."""
    return _create("slic_r3d_50_non_local", pretrained, "non_local", **kwargs)
