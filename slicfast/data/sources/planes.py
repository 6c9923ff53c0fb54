"""Pictures as luma and chroma at half the size: 4:2:0 in full range BT.601, as JPEG files have it."""

from __future__ import annotations

import torch

# Of red, green and blue: luma, and what of blue and red goes beyond it, scaled to -127.5 to 127.5.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
    (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
)
# Of luma, Cb and Cr: red, green and blue.
_TO_RGB = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)


def to_planes(pictures_FHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(F, H, W) and (F, 2, ceil(H / 2), ceil(W / 2)) uint8 of RGB; a chroma sample is the mean of four."""
    matrix = torch.tensor(_TO_YCC, device=pictures_FHWC.device)
    ycc_F3HW = torch.einsum("kc,fhwc->fkhw", matrix, pictures_FHWC.float())
    chroma_F2HW = torch.nn.functional.avg_pool2d(ycc_F3HW[:, 1:], 2, ceil_mode=True, count_include_pad=False)
    return _bytes(ycc_F3HW[:, 0]), _bytes(chroma_F2HW + 128.0)


def to_pictures(luma: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    """(..., H, W, 3) uint8 RGB of luma (..., H, W) and chroma (..., 2, H, W), both brought to one size."""
    ycc = torch.cat([luma.unsqueeze(-3), chroma - 128.0], dim=-3)
    matrix = torch.tensor(_TO_RGB, device=luma.device)
    return _bytes(torch.einsum("kc,...chw->...hwk", matrix, ycc)).contiguous()


def _bytes(levels: torch.Tensor) -> torch.Tensor:
    return levels.round().clamp_(0.0, 255.0).to(torch.uint8)
