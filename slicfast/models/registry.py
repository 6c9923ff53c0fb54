"""Video backbones by name, from timm's registry."""

from __future__ import annotations

import re
from typing import Any

import timm
from torch import nn

from slicfast.errors import ConfigError, one_of

INFLATED = "inflated:"  # before the name of one of timm's image networks


def backbone_names() -> list[str]:
    """The backbones of this package, sorted."""
    return timm.list_models("slic_*")


def create_backbone(name: str, **options: Any) -> nn.Module:
    """A freshly initialised backbone from clips (N, C, T, H, W) to pooled features (N, num_features).

    Args:
        name: any video network in timm's registry, of this package or another that registers its own, or
            ``inflated:`` and the name of a convolutional image network there.
        options: keyword arguments of the network, such as `width` of the `slic_*` ones.

    Raises:
        ConfigError: timm has no such name (the nearest is given), the network takes no such option, or it is
            an image network.
    """
    if name.startswith(INFLATED):
        name, options = "slic_inflated", {"image_model": name.removeprefix(INFLATED), **options}
    if not timm.is_model(name):
        raise ConfigError(one_of("model.name", name, backbone_names()))
    try:
        model = timm.create_model(name, num_classes=0, **options)
    except TypeError as error:
        found = re.search(r"argument '(\w+)'", str(error))
        if found is None:
            raise ConfigError(f"model.name={name} cannot be made: {error}") from None
        raise ConfigError(
            f"model.name={name} has no option '{found[1]}'; leave model.{found[1]} as it is by default"
        ) from None
    if not any(isinstance(module, nn.Conv3d) for module in model.modules()):
        raise ConfigError(
            f"model.name={name} is an image network, without a convolution over time; inflate it with"
            f" model.name={INFLATED}{name}, or take one of {', '.join(backbone_names())}"
        )
    return model
