"""Any convolutional image network of timm's, inflated to clips (I3D: Carreira and Zisserman, CVPR 2017).

The network stays what it is and sees the frames of all clips as one batch of pictures; only its convolutions
of k x k pixels become k x k x k, with the picture's weights in every frame, divided by k. Clips are continued
in time by their first and last frames, not by zeros, so a still video gives the picture's features exactly.
In channels_last_3d clips and batches of pictures are the same bytes: nothing is copied on the way between.

Legend: N clips, C channels, T frames, H rows, W columns, B = N T pictures, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Conv2dSame, pad_same
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from slicfast.errors import ConfigError, MachineError
from slicfast.models.backbone import VideoBackbone, cfg, create

DEFAULT_IMAGE_MODEL = "resnet50"
FROM_TIMM = "timm"  # weights that timm downloads


class ClipCount:
    """How many clips the batch of pictures is made of; the convolutions of a network share it."""

    num = 1


class InflatedConv(nn.Conv3d):
    """A convolution of pictures (B, C, H, W) that also sees the frames around each."""

    def __init__(self, conv: nn.Conv2d, clips: ClipCount, temporal_stride: int = 1) -> None:
        frames = frames_of(conv)
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (frames, *_pair(conv.kernel_size)),
            stride=(temporal_stride, *_pair(conv.stride)),
            padding=(0, *_pair(conv.padding)),
            dilation=(1, *_pair(conv.dilation)),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        with torch.no_grad():
            self.weight.copy_(inflate(conv.weight, frames))
            if self.bias is not None and conv.bias is not None:
                self.bias.copy_(conv.bias)
        self.pads_same = isinstance(conv, Conv2dSame)
        self.clips = clips

    def forward(self, input: Tensor) -> Tensor:
        if self.pads_same:
            kernel, stride, dilation = (
                list(values[1:]) for values in (self.kernel_size, self.stride, self.dilation)
            )
            input = pad_same(input, kernel, stride, dilation)
        x_NCTHW = unfold(input, self.clips.num)
        reach = self.kernel_size[0] // 2
        if reach:
            # A slice's gradient lies in the order of its axes: channels last.
            x_NTHWC = x_NCTHW.permute(0, 2, 3, 4, 1)
            first, last = x_NTHWC[:, :1], x_NTHWC[:, -1:]
            x_NTHWC = torch.cat((*[first] * reach, x_NTHWC, *[last] * reach), dim=1)
            x_NCTHW = x_NTHWC.permute(0, 4, 1, 2, 3)
        return fold(super().forward(x_NCTHW))


class InflatedNet(VideoBackbone):
    """Clips (N, C, T, H, W), normalised, to pooled features (N, num_features), or to logits.

    Features are those of the image network's head, averaged over frames.

    Args:
        image_model: a name in timm's registry, with a tag or without.
        num_classes: 0 for pooled features, otherwise a linear classifier `fc` on them.
        in_chans, global_pool, drop_rate: as of ResNet3D.
        conv1_temporal_stride: of the first convolution; no other one strides in time.

    Raises:
        ConfigError: no such network, or one that cannot be inflated.
    """

    def __init__(
        self,
        image_model: str = DEFAULT_IMAGE_MODEL,
        num_classes: int = 0,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        conv1_temporal_stride: int = 1,
    ) -> None:
        super().__init__(in_chans, drop_rate)
        self.image_model = image_model
        self.clips = ClipCount()
        self.network = create_image_model(image_model, in_chans)
        self.min_frames = conv1_temporal_stride
        convolutions = [(n, m) for n, m in self.network.named_modules() if isinstance(m, nn.Conv2d)]
        if not any(frames_of(conv) > 1 for _, conv in convolutions):
            raise ConfigError(
                f"{image_model} has no convolution over k x k pixels, k odd, to inflate; take a convolutional"
                " network such as resnet50 or convnext_tiny"
            )
        for place, (name, conv) in enumerate(convolutions):
            stride = conv1_temporal_stride if place == 0 else 1
            if frames_of(conv) > 1 or stride > 1:
                if type(conv) not in (nn.Conv2d, Conv2dSame) or conv.padding_mode != "zeros":
                    raise ConfigError(
                        f"{image_model} computes its convolutions in a way of its own"
                        f" ({type(conv).__name__}), which is not inflated; take another network"
                    )
                self.network.set_submodule(name, InflatedConv(conv, self.clips, stride))
        info = getattr(self.network, "feature_info", None)
        self.min_size = int(info[-1]["reduction"]) // 2 + 1 if isinstance(info, list) and info else 1
        self.set_head(int(self.network.head_hidden_size), num_classes, global_pool)

    def forward_map(self, clips_NCTHW: Tensor) -> Tensor:
        self.clips.num = clips_NCTHW.shape[0]
        return unfold(self.network.forward_features(fold(clips_NCTHW)), self.clips.num)

    def pool(self, features_NCTHW: Tensor) -> Tensor:
        """The image network's pooled features of each frame, averaged over frames."""
        pooled_BF = self.network.forward_head(fold(features_NCTHW), pre_logits=True)
        mean_NF: Tensor = pooled_BF.unflatten(0, (features_NCTHW.shape[0], -1)).mean(dim=1)
        return mean_NF

    def load_image_weights(self, source: str | Path = FROM_TIMM) -> None:
        """Start from the image network's weights, inflated.

        Args:
            source: ``timm``, which downloads them where it has not yet, or a file of them.

        Raises:
            ConfigError: no such file, or weights of another network.
            MachineError: they could not be fetched.
        """
        given = create_image_model(self.image_model, self.in_chans, source).state_dict()
        frames = {f"{n}.weight": m.kernel_size[0] for n, m in self._inflated()}
        self.network.load_state_dict(
            {name: inflate(t, frames[name]) if name in frames else t for name, t in given.items()}
        )

    def _inflated(self) -> list[tuple[str, InflatedConv]]:
        return [(n, m) for n, m in self.network.named_modules() if isinstance(m, InflatedConv)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InflatedNet:
        """As of any module; a picture's tensor is lent a time axis, which channels_last_3d asks for."""

        def apply(tensor: Tensor) -> Tensor:
            return fn(tensor[:, :, None])[:, :, 0] if tensor.dim() == 4 else fn(tensor)

        super()._apply(apply, recurse)  # type: ignore[no-untyped-call]
        return self


def frames_of(conv: nn.Conv2d) -> int:
    """Frames that a convolution is inflated to: k where its k x k kernels are odd and overlap, else 1."""
    rows, columns = conv.kernel_size
    overlaps = rows == columns and rows % 2 == 1 and rows > conv.stride[0]
    return rows if overlaps else 1


def _pair(values: Sequence[int] | str) -> tuple[int, int]:
    """Rows and columns of a convolution's setting, which torch types more widely."""
    return int(values[0]), int(values[1])


def inflate(weight: Tensor, frames: int) -> Tensor:
    """(O, I, k, k) as (O, I, frames, k, k): the same in every frame, with the same sum over frames."""
    return weight[:, :, None].expand(-1, -1, frames, -1, -1) / frames


def fold(x_NCTHW: Tensor) -> Tensor:
    """(N, C, T, H, W) as pictures (N T, C, H, W); in channels_last_3d no byte moves."""
    num, channels, frames, rows, columns = x_NCTHW.shape
    return x_NCTHW.transpose(1, 2).reshape(num * frames, channels, rows, columns)


def unfold(pictures_BCHW: Tensor, num_clips: int) -> Tensor:
    """The other way round."""
    if pictures_BCHW.dim() != 4:
        raise ConfigError("this image network has no map of features (B, C, H, W); take a convolutional one")
    return torch.unflatten(pictures_BCHW, 0, (num_clips, -1)).transpose(1, 2)


def create_image_model(name: str, in_chans: int, weights: str | Path | None = None) -> Any:
    """timm's network without its classifier. Raises ConfigError or MachineError, one line each."""
    if not timm.is_model(name) or name.startswith("slic_"):
        raise ConfigError(f"timm has no image network '{name}'; see timm.list_models('*{name[:6]}*')")
    options: dict[str, Any] = {}
    if weights is not None and str(weights) != FROM_TIMM:
        if not Path(weights).is_file():
            raise ConfigError(f"no file of image weights at {weights}; expected one, or 'timm'")
        options["pretrained_cfg_overlay"] = {"file": str(weights)}
    try:
        network = timm.create_model(
            name, pretrained=weights is not None, num_classes=0, in_chans=in_chans, **options
        )
    except Exception as error:  # of timm, torch, the hub and its HTTP library alike
        if weights is None:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if options:
            raise ConfigError(f"{weights} holds no weights of {name} ({reason})") from None
        raise MachineError(
            f"the weights of {name} cannot be fetched ({reason}); give a file: model.image_weights=FILE"
        ) from None
    if getattr(network, "pretrained_cfg", {}).get("fixed_input_size"):
        raise ConfigError(f"{name} takes pictures of one size only; take a convolutional network")
    return network


default_cfgs = generate_default_cfgs({"slic_inflated": cfg(first_conv=None)})


@register_model
def slic_inflated(pretrained: bool = False, **kwargs: Any) -> InflatedNet:
    """The image network ``image_model``, inflated; with ``pretrained`` from timm's weights of it."""
    if kwargs.pop("features_only", False):
        raise ConfigError("an inflated network has no features_only; use forward_features")
    network: InflatedNet = create(InflatedNet, "slic_inflated", pretrained=False, **kwargs)
    if pretrained:
        network.load_image_weights()
    return network
