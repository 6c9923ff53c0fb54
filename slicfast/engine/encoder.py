"""The network that SLIC trains: a video backbone and a projection head on its pooled features."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn

from slicfast.config import ModelConfig
from slicfast.errors import ConfigError
from slicfast.models.heads import Projection
from slicfast.models.registry import create_backbone

# Keys of the model section that are the backbone's own.
BACKBONE_OPTIONS = ("width", "max_pool", "conv1_temporal_stride", "conv1_temporal_size", "stem")


class Features(NamedTuple):
    """What one forward pass gives: ``pooled`` (N, F) and ``projection`` (N, D)."""

    pooled: torch.Tensor
    projection: torch.Tensor


class VideoEncoder(nn.Module):
    """Backbone + projection (SLIC: 512 -> 2048 -> BN -> ReLU -> 128).

    ``forward`` returns the projection, ``forward_features`` the pooled features, ``forward_both`` both.
    Input (N, C, T, H, W) float, normalised, best in channels_last_3d.
    """

    def __init__(self, backbone: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection

    def forward_features(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """(N, F) pooled features."""
        pooled: torch.Tensor = self.backbone(clips_NCTHW)
        return pooled

    def forward(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """(N, D) projection."""
        projected: torch.Tensor = self.projection(self.forward_features(clips_NCTHW))
        return projected

    def forward_both(self, clips_NCTHW: torch.Tensor) -> Features:
        pooled = self.forward_features(clips_NCTHW)
        return Features(pooled, self.projection(pooled))


class NoProjection(nn.Module):
    """Stands for the projection of a network that came without one."""

    def forward(self, pooled_NF: torch.Tensor) -> torch.Tensor:
        raise ConfigError("this network has no projection; use its pooled features")


def build_encoder(config: ModelConfig) -> VideoEncoder:
    """A freshly initialised encoder.

    Raises:
        ConfigError: a name that timm's registry does not have, that is not a video backbone, or that has no
            such option as one of these keys.
    """
    # What is as by default is left to the network, so that one without such an option takes the rest.
    options = {
        key: value
        for key in BACKBONE_OPTIONS
        if (value := getattr(config, key)) != ModelConfig.model_fields[key].default
    }
    backbone = create_backbone(config.name, **options)
    projection = Projection(
        int(cast(int, backbone.num_features)),
        config.projection_hidden,
        config.projection_dim,
        norm=config.projection_norm,
    )
    return VideoEncoder(backbone, projection)
