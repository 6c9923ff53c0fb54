"""3-D ResNets: ResNet-10, 18, 34 and 50 with every convolution inflated to time (Hara et al., CVPR 2018).

Parameter names are the field's own (`conv1.weight`, `layer1.0.conv1.weight`, `layer2.0.downsample.0.weight`),
so that published checkpoints fit. Projection shortcuts are "B": a 1 x 1 x 1 convolution and BatchNorm.
Legend: N clips, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from slicfast.errors import ConfigError, one_of
from slicfast.models.stem import FORMS, StemConv, StemForm

STAGE_CHANNELS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 2)


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width` as the nearest multiple of 8, at least 8: what vector and tensor units want."""
    return max(8, 8 * math.floor(channels * width / 8 + 0.5))


def conv3x3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1x1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, kernel_size=1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv3x3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = conv3x3x3(channels, channels)
        self.bn2 = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        shortcut = x_NCTHW if self.downsample is None else self.downsample(x_NCTHW)
        out = self.relu(self.bn1(self.conv1(x_NCTHW)))
        out = self.bn2(self.conv2(out))
        return cast(Tensor, self.relu(out + shortcut))


class Bottleneck(nn.Module):
    """1 x 1 x 1, 3 x 3 x 3 (which has the stride) and 1 x 1 x 1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv1x1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = conv3x3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = conv1x1x1(channels, channels * self.expansion)
        self.bn3 = nn.BatchNorm3d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        shortcut = x_NCTHW if self.downsample is None else self.downsample(x_NCTHW)
        out = self.relu(self.bn1(self.conv1(x_NCTHW)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return cast(Tensor, self.relu(out + shortcut))


class ResNet3D(nn.Module):
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
        stem: how the first convolution is computed; all forms are the same function of the same weights.

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
        stem: StemForm = "direct",
    ) -> None:
        super().__init__()
        if not width > 0 or conv1_temporal_stride < 1:
            raise ConfigError(
                f"width must be above 0 and conv1_temporal_stride at least 1;"
                f" got {width} and {conv1_temporal_stride}"
            )
        if stem not in FORMS:
            raise ConfigError(one_of("stem", stem, FORMS))
        channels = [scaled_channels(stage, width) for stage in STAGE_CHANNELS]
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.conv1 = StemConv(in_chans, channels[0], conv1_temporal_stride, stem)
        self.bn1 = nn.BatchNorm3d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1) if max_pool else nn.Identity()
        pooling = 2 if max_pool else 1
        self.stem_temporal_stride = conv1_temporal_stride * pooling
        self.spatial_stride = 2 * pooling

        self.feature_info = [{"num_chs": channels[0], "reduction": 2, "module": "relu"}]
        layers = []
        in_channels = channels[0]
        for number, (stage, depth, stride) in enumerate(zip(channels, depths, STAGE_STRIDES, strict=True), 1):
            layers.append(_stage(block, in_channels, stage, depth, stride))
            in_channels = stage * block.expansion
            self.spatial_stride *= stride
            self.feature_info.append(
                {"num_chs": in_channels, "reduction": self.spatial_stride, "module": f"layer{number}"}
            )
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.num_features = self.head_hidden_size = in_channels
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, clips_NCTHW: Tensor) -> Tensor:
        """Feature map (N, num_features, t, h, w). Raises ConfigError for an input of the wrong shape."""
        self._check(clips_NCTHW.shape)
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips_NCTHW))))
        return cast(Tensor, self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def forward_head(self, features_NCTHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features (N, num_features), or logits where there is a classifier and not `pre_logits`."""
        if not self.global_pool:
            return features_NCTHW
        pooled_NC = features_NCTHW.mean(dim=(2, 3, 4))
        if self.drop_rate:
            pooled_NC = F.dropout(pooled_NC, self.drop_rate, self.training)
        logits_NK: Tensor = pooled_NC if pre_logits else self.fc(pooled_NC)
        return logits_NK

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(clips_NCTHW))

    def get_classifier(self) -> nn.Module:
        """The classifier, an identity where there are no classes."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for so many classes; 0 for none. Raises ConfigError for an unknown pooling."""
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise ConfigError(one_of("global_pool", global_pool, ("avg", "")))
            self.global_pool = global_pool
        if num_classes and not self.global_pool:
            raise ConfigError("a classifier needs pooled features: set global_pool='avg' or num_classes=0")
        self.num_classes = num_classes
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def _check(self, shape: torch.Size) -> None:
        if len(shape) != 5 or shape[1] != self.in_chans:
            raise ConfigError(f"expected clips (N, {self.in_chans}, T, H, W); got {tuple(shape)}")
        # From here on down, padding outweighs the picture: the last strided layer would see a single pixel.
        min_size, min_frames = self.spatial_stride // 2 + 1, self.stem_temporal_stride
        if min(shape[3:]) < min_size or shape[2] < min_frames:
            raise ConfigError(
                f"clips of {shape[2]} x {shape[3]} x {shape[4]} (frames x rows x columns) are too small for"
                f" the network's strides: they must have at least {min_frames} x {min_size} x {min_size};"
                " raise data.clip_length or data.crop_size"
            )


def _stage(
    block: type[BasicBlock | Bottleneck], in_channels: int, channels: int, depth: int, stride: int
) -> nn.Sequential:
    """Blocks in a row, of which the first has the stride."""
    out_channels = channels * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(conv1x1x1(in_channels, out_channels, stride), nn.BatchNorm3d(out_channels))
    blocks = [block(in_channels, channels, stride, downsample)]
    blocks += [block(out_channels, channels, 1, None) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def _cfg() -> dict[str, Any]:
    return {
        "num_classes": 0,
        "input_size": (3, 128, 128),  # timm knows no time axis; SLIC takes 16 frames
        "interpolation": "bilinear",
        "first_conv": "conv1",
        "classifier": "fc",
    }


default_cfgs = generate_default_cfgs(
    {name: _cfg() for name in ("slic_r3d_10", "slic_r3d_18", "slic_r3d_34", "slic_r3d_50")}
)


def _create(
    variant: str, pretrained: bool, block: type[BasicBlock | Bottleneck], depths: Sequence[int], **kwargs: Any
) -> ResNet3D:
    return build_model_with_cfg(
        ResNet3D,
        variant,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3, 4)},
        block=block,
        depths=depths,
        **kwargs,
    )


@register_model
def slic_r3d_10(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-10."""
    return _create("slic_r3d_10", pretrained, BasicBlock, (1, 1, 1, 1), **kwargs)


@register_model
def slic_r3d_18(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-18, SLIC's backbone."""
    return _create("slic_r3d_18", pretrained, BasicBlock, (2, 2, 2, 2), **kwargs)


@register_model
def slic_r3d_34(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-34."""
    return _create("slic_r3d_34", pretrained, BasicBlock, (3, 4, 6, 3), **kwargs)


@register_model
def slic_r3d_50(pretrained: bool = False, **kwargs: Any) -> ResNet3D:
    """3-D ResNet-50."""
    return _create("slic_r3d_50", pretrained, Bottleneck, (3, 4, 6, 3), **kwargs)
