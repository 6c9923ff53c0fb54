"""A clip's pictures in 8 bit on a processor, changed step by step: mirrored, coloured, blurred.

Every colour operator but hue is an affine map of a frame's pixels, which OpenCV does in fixed point and
sooner than a table of 256 values; hue is `hue.py`. Blur is the exact kernel at full size.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.augment import BRIGHTNESS, CONTRAST, FLOOR, HUE, LUMA, LUMA_PART, SATURATION
from slicfast.data.hue import turn_hue
from slicfast.data.recycling import Scratch

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

cv2: Any = importlib.import_module("cv2")  # its stubs know arrays of no type in particular

_IDENTITY = np.eye(3, dtype=np.float32)
_GREY = LUMA_PART.astype(np.float32)


class Levels:
    """Square pictures of one clip, and what has been made of them so far.

    Args:
        pictures_TSSC: RGB; not written to.
        scratch: where results go.
    """

    def __init__(self, pictures_TSSC: UInt8, scratch: Scratch) -> None:
        self._shape = pictures_TSSC.shape
        # One tall picture, frame below frame, is one call where frames need not be told apart.
        self._tall = np.ascontiguousarray(pictures_TSSC).reshape(-1, *self._shape[2:])
        self._scratch = scratch
        self._spare = [scratch.array(name, self._tall.shape) for name in ("levels", "other levels")]

    @property
    def pictures_TSSC(self) -> UInt8:
        """What has been made; good until the scratch is used again."""
        return self._tall.reshape(self._shape)

    def mirror(self) -> None:
        """Left to right."""
        cv2.flip(self._tall, 1, dst=self._result())

    def _result(self) -> UInt8:
        """What there was stays where it is, until the next but one result."""
        self._tall = self._spare.pop(0)
        self._spare.append(self._tall)
        return self._tall

    def change(self, operator: int, factor: float) -> None:
        """One of torchvision's colour operators, rounded down to 8 bit; greys are rounded down there too."""
        if operator == HUE:
            turn_hue(self._tall, factor, self._result(), self._scratch)
            return
        matrix = factor * _IDENTITY
        share, grey_floor = 0.0, 0.0
        if operator == CONTRAST:
            share, grey_floor = 1.0 - factor, (1.0 - factor) * FLOOR
        elif operator == SATURATION:
            matrix = matrix + np.float32(1.0 - factor) * _GREY
            grey_floor = (1.0 - factor) * FLOOR
        else:
            assert operator == BRIGHTNESS
        self.map(matrix, share, np.full(3, FLOOR + grey_floor, dtype=np.float32))

    def map(self, matrix: Float32, mean_share: float, offset: Float32) -> None:
        """matrix @ c + mean_share * the frame's mean luma + offset, rounded and clamped to 8 bit."""
        if mean_share == 0.0:
            if offset.any() or not np.array_equal(matrix, _IDENTITY):
                cv2.transform(self._tall, np.column_stack([matrix, offset]), dst=self._result())
            return
        frames = self.pictures_TSSC
        luma_T = np.array([cv2.mean(frame)[:3] for frame in frames]) @ LUMA
        full_T34 = np.empty((len(frames), 3, 4), dtype=np.float32)
        full_T34[:, :, :3] = matrix
        full_T34[:, :, 3] = offset + (mean_share * luma_T)[:, None]
        for frame, full, mapped in zip(frames, full_T34, self._result().reshape(self._shape), strict=True):
            cv2.transform(frame, full, dst=mapped)

    def blur(self, kernel: Float32) -> None:
        """Rows and columns weighted by an odd kernel; borders are mirrored."""
        frames = self.pictures_TSSC
        # Float taps, and not GaussianBlur: its fixed-point arithmetic takes thrice as long.
        for frame, blurred in zip(frames, self._result().reshape(self._shape), strict=True):
            cv2.sepFilter2D(frame, -1, kernel, kernel, dst=blurred)
