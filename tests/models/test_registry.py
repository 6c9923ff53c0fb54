"""Backbones by name, and what is said about names that are none."""

import pytest
import torch

from slicfast.errors import ConfigError
from slicfast.models import create_backbone


def test_backbone_gives_pooled_features():
    backbone = create_backbone("slic_r3d_10", width=0.125, conv1_temporal_stride=2)
    assert backbone(torch.randn(2, 3, 8, 32, 32)).shape == (2, backbone.num_features)


def test_unknown_name_lists_the_names_and_the_nearest():
    with pytest.raises(ConfigError, match=r"slic_r3d_10, slic_r3d_18.*did you mean 'slic_r3d_18'"):
        create_backbone("slic_r3d18")


def test_unknown_option_is_named():
    with pytest.raises(ConfigError, match=r"slic_r3d_18 has no option 'depth'; leave model.depth as it is"):
        create_backbone("slic_r3d_18", depth=3)


def test_image_network_is_refused():
    with pytest.raises(ConfigError, match="resnet10t is an image network"):
        create_backbone("resnet10t")
