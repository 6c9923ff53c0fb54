"""What all backbones here share: timm's names for features, head and classifier, and a check of their input.

Legend: N clips, C channels, T frames, H rows, W columns, K classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg
from torch import Tensor, nn

from slicfast.errors import ConfigError, one_of


class VideoBackbone(nn.Module):
    """Clips (N, C, T, H, W), normalised, to pooled features (N, num_features), or to logits.

    A network made of this computes its map in ``forward_map``, calls ``set_head`` when its layers are there,
    and says in ``min_frames`` and ``min_size`` from which input on its last strided layer sees more than one
    pixel: below that, padding outweighs the picture.

    Args:
        in_chans: channels of the input.
        drop_rate: dropout before the classifier.
    """

    min_frames = 1
    min_size = 1
    num_features: int
    head_hidden_size: int

    def __init__(self, in_chans: int, drop_rate: float) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.drop_rate = drop_rate

    def set_head(self, num_features: int, num_classes: int, global_pool: str) -> None:
        self.num_features = self.head_hidden_size = num_features
        self.reset_classifier(num_classes, global_pool)

    def forward_map(self, clips_NCTHW: Tensor) -> Tensor:
        """Feature map (N, num_features, t, h, w) of clips whose shape has been checked."""
        raise NotImplementedError

    def forward_features(self, clips_NCTHW: Tensor) -> Tensor:
        """Feature map (N, num_features, t, h, w). Raises ConfigError for an input of the wrong shape."""
        self.check_shape(clips_NCTHW.shape)
        return self.forward_map(clips_NCTHW)

    def forward_head(self, features_NCTHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features (N, num_features), or logits where there is a classifier and not `pre_logits`."""
        if not self.global_pool:
            return features_NCTHW
        pooled_NC = self.pool(features_NCTHW)
        if self.drop_rate:
            pooled_NC = F.dropout(pooled_NC, self.drop_rate, self.training)
        logits_NK: Tensor = pooled_NC if pre_logits else self.fc(pooled_NC)
        return logits_NK

    def pool(self, features_NCTHW: Tensor) -> Tensor:
        """The mean over frames, rows and columns."""
        return clip_mean(features_NCTHW)

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

    def check_shape(self, shape: torch.Size) -> None:
        """Raises ConfigError for what are no clips, or clips too small."""
        if len(shape) != 5 or shape[1] != self.in_chans:
            raise ConfigError(f"expected clips (N, {self.in_chans}, T, H, W); got {tuple(shape)}")
        if min(shape[3:]) < self.min_size or shape[2] < self.min_frames:
            raise ConfigError(
                f"clips of {shape[2]} x {shape[3]} x {shape[4]} (frames x rows x columns) are too small for"
                " the network's strides: they must have at least"
                f" {self.min_frames} x {self.min_size} x {self.min_size};"
                " raise data.clip_length or data.crop_size"
            )


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width` as the nearest multiple of 8, at least 8: what vector and tensor units want.

    At width 1 a published number of channels stays what it is, multiple of 8 or not.
    """
    return channels if width == 1 else max(8, 8 * math.floor(channels * width / 8 + 0.5))


def require_width(width: float) -> None:
    if not width > 0:
        raise ConfigError(f"width must be above 0; got {width}")


def clip_mean(x_NCTHW: Tensor) -> Tensor:
    """(N, C) means over frames, rows and columns.

    As means over the places of rows of channels their gradient is laid out as those are, channels last.
    """
    return x_NCTHW.permute(0, 2, 3, 4, 1).mean(dim=(1, 2, 3))


def pool_pictures() -> nn.MaxPool3d:
    """3 x 3 pixels of each frame, stride 2."""
    return nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))


def initialise(network: nn.Module) -> None:
    """Kaiming's deviation for every convolution over clips, as 3-D ResNets are published."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def cfg(**changes: Any) -> dict[str, Any]:
    """What timm's registry keeps of a backbone."""
    return {
        "num_classes": 0,
        "input_size": (3, 128, 128),  # timm knows no time axis; SLIC takes 16 frames
        "interpolation": "bilinear",
        "first_conv": "conv1",
        "classifier": "fc",
        **changes,
    }


def create(
    network: type[VideoBackbone],
    variant: str,
    pretrained: bool,
    out_indices: tuple[int, ...] = (0, 1, 2, 3, 4),
    **kwargs: Any,
) -> Any:
    """A registered network, by timm's builder: it also knows ``features_only``."""
    return build_model_with_cfg(
        network, variant, pretrained, feature_cfg={"out_indices": out_indices}, **kwargs
    )
