"""The motion view from frames alone: grey frame differences around mid-grey, a stand-in for optical flow.

Frame t becomes clamp(127.5 + gain * (g[t + 1] - g[t]), 0, 255), where g is the clip in 8-bit levels; the
last difference is repeated. Mirroring and zooming the clip mirrors and zooms the result, so it needs no
geometry of its own.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

MID_GREY = 127.5

cv2: Any = importlib.import_module("cv2")  # its stubs know arrays of no type in particular


def difference_levels(levels_NTHWC: torch.Tensor, gain_N: torch.Tensor) -> torch.Tensor:
    """(N, T, H, W, 3) differences of float clips in levels, T >= 2; grey stays grey."""
    change = levels_NTHWC[:, 1:] - levels_NTHWC[:, :-1]
    shown = change.mul_(gain_N.view(-1, 1, 1, 1, 1)).add_(MID_GREY).clamp_(0.0, 255.0)
    return torch.cat([shown, shown[:, -1:]], dim=1)


def difference_frame(
    now_HWC: npt.NDArray[np.uint8],
    later_HWC: npt.NDArray[np.uint8],
    gain: float,
    out: npt.NDArray[np.float32],
) -> None:
    """A frame of `difference_levels` from two of the clip, written to (H, W, 3) float32."""
    cv2.addWeighted(later_HWC, gain, now_HWC, -gain, MID_GREY, dst=out, dtype=cv2.CV_32F)
    np.clip(out, 0.0, 255.0, out=out)
