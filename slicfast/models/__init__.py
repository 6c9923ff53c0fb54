"""Video backbones in timm's registry, and the projection head (floor 2); importing registers them."""

from slicfast.device import ensure_torchvision_imports

ensure_torchvision_imports()  # before timm, which imports torchvision

from slicfast.models import inflated, r2plus1d, resnet3d, s3d, slowfast  # noqa: E402
from slicfast.models.heads import Projection  # noqa: E402
from slicfast.models.registry import backbone_names, create_backbone  # noqa: E402

__all__ = [
    "Projection",
    "backbone_names",
    "create_backbone",
    "inflated",
    "r2plus1d",
    "resnet3d",
    "s3d",
    "slowfast",
]
