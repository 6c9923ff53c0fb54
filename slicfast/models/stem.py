"""The first convolution, 3 channels in, computed in forms that matrix units like better; the same function.

Three input channels are fewer than a matrix unit's operand holds. `padded` adds a channel of zeros;
`space_to_depth` folds 2 x 2 pixels into 12 channels, so that the 7 x 7 kernel of stride 2 becomes one of
4 x 4 and stride 1, in which 49 of 64 taps carry weight.

The parameter keeps its published shape in every form, (C, 3, t, 7, 7) with t frames: checkpoints fit,
optimizers see one tensor, and gradients are those of the direct form. Legend: N clips, C channels, T frames,
H rows, W columns.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slicfast.errors import ConfigError, one_of

StemForm = Literal["direct", "padded", "space_to_depth"]
FORMS: tuple[StemForm, ...] = ("direct", "padded", "space_to_depth")

PADDED_CHANNELS = 4


class StemConv(nn.Conv3d):
    """A convolution over `temporal_size` frames, an odd number, and 7 x 7 pixels, computed as `form` says.

    Its stride is (temporal_stride, 2, 2); it is padded to keep the middle of its kernel on the clip, and has
    no bias. Pictures of odd height or width are computed directly, since 2 x 2 pixels do not tile them.

    Raises:
        ConfigError: a number or form outside its range.
    """

    def __init__(
        self, in_channels: int, channels: int, temporal_stride: int, form: StemForm, temporal_size: int = 7
    ) -> None:
        if form not in FORMS:
            raise ConfigError(one_of("stem", form, FORMS))
        require_temporal(temporal_stride, temporal_size)
        super().__init__(
            in_channels,
            channels,
            kernel_size=(temporal_size, 7, 7),
            stride=(temporal_stride, 2, 2),
            padding=(temporal_size // 2, 3, 3),
            bias=False,
        )
        self.form: StemForm = form

    def forward(self, input: Tensor) -> Tensor:
        if self.form == "padded" and self.in_channels < PADDED_CHANNELS:
            added = PADDED_CHANNELS - self.in_channels
            clips_NCTHW, weight = _add_channels(input, added), _add_channels(self.weight, added)
            return F.conv3d(clips_NCTHW, weight, stride=self.stride, padding=self.padding)
        if self.form == "space_to_depth" and input.shape[3] % 2 == 0 and input.shape[4] % 2 == 0:
            return F.conv3d(
                space_to_depth(input),
                fold_kernel(self.weight),
                stride=(self.stride[0], 1, 1),
                padding=(self.kernel_size[0] // 2, 0, 0),
            )
        return super().forward(input)


def require_temporal(stride: int, size: int) -> None:
    if stride < 1 or size < 1 or size % 2 == 0:
        raise ConfigError(
            f"conv1_temporal_stride must be at least 1 and conv1_temporal_size odd; got {stride} and {size}"
        )


def _add_channels(x_NCTHW: Tensor, num: int) -> Tensor:
    """The same in memory with channels of zeros behind; channels_last_3d stays so."""
    return F.pad(x_NCTHW, (0, 0, 0, 0, 0, 0, 0, num))


def space_to_depth(clips_NCTHW: Tensor) -> Tensor:
    """(N, 4C, T, H/2 + 3, W/2 + 3) in channels_last_3d: 2 x 2 pixels a place, and a border of zeros.

    The border is two places wide before the picture and one after it, as the kernel's padding wants.

    Channel (2 y + x) C + c of a place is channel c of its pixel in row y, column x.
    """
    num, channels, frames, height, width = clips_NCTHW.shape
    blocks = clips_NCTHW.permute(0, 2, 3, 4, 1).reshape(num, frames, height // 2, 2, width // 2, 2, channels)
    folded_NTHWC = clips_NCTHW.new_zeros(num, frames, height // 2 + 3, width // 2 + 3, 4 * channels)
    # One copy does it all: the fold, the border and the layout.
    inside = torch.unflatten(folded_NTHWC[:, :, 2:-1, 2:-1], -1, (2, 2, channels))
    inside.copy_(blocks.permute(0, 1, 2, 4, 3, 5, 6))
    return folded_NTHWC.permute(0, 4, 1, 2, 3)


def fold_kernel(weight: Tensor) -> Tensor:
    """(C, in, t, 7, 7) as (C, 4 in, t, 4, 4), to go with `space_to_depth`.

    Output row o reads rows 2o - 3 to 2o + 3, which lie in places o - 2 to o + 1: of the eight rows there the
    first is not read, so the kernel gets a row and a column of zeros in front.
    """
    channels, in_channels, length = weight.shape[:3]
    padded = F.pad(weight, (1, 0, 1, 0))
    blocks = padded.view(channels, in_channels, length, 4, 2, 4, 2)
    folded = blocks.permute(0, 4, 6, 1, 2, 3, 5).reshape(channels, 4 * in_channels, length, 4, 4)
    return folded.contiguous(memory_format=torch.channels_last_3d)
