"""Colour, blur and normalisation of clips as torch operators: for a GPU, and the reference of `augment_cpu`.

What is done is `augment.ClipParams`, rounded to 8 bit after each operator as pictures are. Nothing here waits
for the device: which clips an operator is for is known on the host.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from slicfast.config import AugmentConfig
from slicfast.data.augment import BRIGHTNESS, CONTRAST, FLOOR, HUE, LUMA, LUMA_PART, SATURATION, ClipParams
from slicfast.data.motion import difference_levels

Triple = tuple[float, float, float]


def channel_bounds(mean: Triple, std: Triple) -> tuple[torch.Tensor, torch.Tensor]:
    """(3,) normalised values of 0 and of 255."""
    mean_3, std_3 = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return (-mean_3 / std_3).float(), ((1.0 - mean_3) / std_3).float()


class Photometric:
    """Colour, blur and normalisation of clips that are cropped, resized and mirrored.

    Args:
        mean, std: per channel, of values in 0-1.
        augment: for the blur's size; None: no clip will be blurred.
        device: where the clips are.
    """

    def __init__(
        self, *, mean: Triple, std: Triple, augment: AugmentConfig | None, device: torch.device
    ) -> None:
        augment = augment or AugmentConfig()
        place = torch.arange(augment.blur_kernel, dtype=torch.float64) - (augment.blur_kernel - 1) / 2
        taps = torch.exp(-0.5 * (place / augment.blur_sigma) ** 2)
        self._taps = (taps / taps.sum()).float().to(device)
        self._low, self._high = (bound.to(device) for bound in channel_bounds(mean, std))
        self._device = device

    def __call__(self, clips_NTHWC: torch.Tensor, params: ClipParams) -> torch.Tensor:
        """(N, T, H, W, 3) float32, normalised, of 8-bit RGB clips."""
        levels = clips_NTHWC.float()
        for place in range(params.order.shape[1]):
            order_N = params.order[:, place]
            levels = self._affine_operators(levels, order_N, params.factors)
            rows = np.flatnonzero(order_N == HUE)
            if len(rows):
                turns = self._tensor(params.factors[rows, HUE])
                index = self._tensor(rows)
                levels.index_copy_(0, index, turn_hue(levels.index_select(0, index), turns))
        affine = (params.colour, params.contrast_offset, params.offset)
        levels = self._affine(levels, np.arange(len(levels)), *affine)
        rows = np.flatnonzero(params.blur)
        if len(rows):
            index = self._tensor(rows)
            levels.index_copy_(0, index, self._blurred(levels.index_select(0, index)))
        rows = np.flatnonzero(params.difference_gain)
        if len(rows):
            index, gain = self._tensor(rows), self._tensor(params.difference_gain[rows])
            levels.index_copy_(0, index, difference_levels(levels.index_select(0, index), gain))
        return levels.mul_((self._high - self._low) / 255.0).add_(self._low)

    def _affine_operators(
        self, levels: torch.Tensor, order_N: npt.NDArray[np.int8], factors: npt.NDArray[np.float32]
    ) -> torch.Tensor:
        """Brightness, contrast and saturation of the clips whose turn they have: one map for all of them."""
        rows = np.flatnonzero((order_N >= BRIGHTNESS) & (order_N <= SATURATION))
        if not len(rows):
            return levels
        operator_R = order_N[rows]
        factor_R = factors[rows, operator_R].astype(np.float64)
        grey_R = np.where(operator_R == BRIGHTNESS, 0.0, 1.0 - factor_R)
        matrix_R33 = factor_R[:, None, None] * np.eye(3)
        matrix_R33[operator_R == SATURATION] += (grey_R[:, None, None] * LUMA_PART)[operator_R == SATURATION]
        share_R = np.where(operator_R == CONTRAST, grey_R, 0.0)
        offset_R3 = np.repeat((FLOOR + grey_R * FLOOR)[:, None], 3, axis=1)
        return self._affine(levels, rows, matrix_R33, share_R, offset_R3)

    def _affine(
        self,
        levels: torch.Tensor,
        rows: npt.NDArray[np.integer],
        matrix_R33: npt.NDArray[np.floating],
        share_R: npt.NDArray[np.floating],
        offset_R3: npt.NDArray[np.floating],
    ) -> torch.Tensor:
        """matrix @ c + share * the frame's mean luma + offset in 8 bit, for these rows."""
        index, luma = self._tensor(rows), self._tensor(LUMA.astype(np.float32))
        old_RTHWC = levels if len(rows) == len(levels) else levels.index_select(0, index)
        mean_RT = old_RTHWC.mean(dim=(2, 3)) @ luma
        offset_RT3 = (
            mean_RT[..., None] * self._tensor(share_R)[:, None, None] + self._tensor(offset_R3)[:, None]
        )
        matrix_R133 = self._tensor(matrix_R33).mT[:, None]
        new_RTXC = torch.matmul(old_RTHWC.flatten(2, 3), matrix_R133).add_(offset_RT3[:, :, None])
        new_RTHWC = new_RTXC.round_().clamp_(0.0, 255.0).view_as(old_RTHWC)
        return new_RTHWC if len(rows) == len(levels) else levels.index_copy_(0, index, new_RTHWC)

    def _blurred(self, levels_RTHWC: torch.Tensor) -> torch.Tensor:
        num_taps = len(self._taps)
        reach = num_taps // 2
        pictures_BCHW = levels_RTHWC.flatten(0, 1).permute(0, 3, 1, 2)
        padded = functional.pad(pictures_BCHW, (reach, reach, reach, reach), mode="reflect")
        taps = self._taps.expand(3, 1, 1, num_taps)
        wide = functional.conv2d(padded, taps, groups=3)
        blurred = functional.conv2d(wide, taps.mT, groups=3)
        return blurred.round_().clamp_(0.0, 255.0).permute(0, 2, 3, 1).view_as(levels_RTHWC)

    def _tensor(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        if np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, non_blocking=True)


def turn_hue(levels_RTHWC: torch.Tensor, turns_R: torch.Tensor) -> torch.Tensor:
    """Hue turned in HSV (torchvision's adjust_hue), rounded to 8 bit.

    Value and chroma stay: each channel is the value less the chroma times a trapezium of the hue, shifted by
    a third of a turn from channel to channel.
    """
    red, green, blue = levels_RTHWC.unbind(-1)
    low, high = levels_RTHWC.aminmax(dim=-1)
    chroma = high - low
    divisor = chroma.clamp(min=1.0)  # whole numbers; where it is 0 the hue is of no account
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    hue = hue + 6.0 * turns_R[:, None, None, None]
    channels = []
    for shift in (5.0, 3.0, 1.0):
        place = torch.remainder(hue + shift, 6.0)
        channels.append(high - chroma * torch.minimum(place, 4.0 - place).clamp_(0.0, 1.0))
    return torch.stack(channels, dim=-1).round_()
