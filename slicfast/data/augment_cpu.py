"""Decoded clips to normalised ones on the processor: 8-bit pictures until the last step, OpenCV and torch.

What is done is `augment.ClipParams`; `photometric.py` does the same on a GPU. Every colour operator but hue
is an affine map of a frame's pixels, which OpenCV does in fixed point and sooner than a table of 256 values.
Hue goes through 8-bit HSV with 256 steps a turn. Blur is the exact kernel at full size.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import AugmentConfig
from slicfast.data.augment import (
    BRIGHTNESS,
    CONTRAST,
    FLOOR,
    HUE,
    LUMA,
    LUMA_PART,
    NO_OPERATOR,
    SATURATION,
    ClipParams,
)
from slicfast.data.motion import difference_frame
from slicfast.data.recycling import TensorPool
from slicfast.data.resampling import Frames, resample

Triple = tuple[float, float, float]
UInt8 = npt.NDArray[np.uint8]

cv2: Any = importlib.import_module("cv2")  # its stubs know arrays of no type in particular

_IDENTITY = np.eye(3, dtype=np.float32)


class CpuAugmenter:
    """Augments clips of 8-bit pictures, each on one thread: the bits do not depend on how many there are.

    Args:
        clip_length: T, frames.
        crop_size: pixels of the square output.
        mean, std: per channel, of values in 0-1.
        augment: for the blur's size; None: no clip will be blurred.
        num_threads: clips worked on side by side.
    """

    def __init__(
        self,
        *,
        clip_length: int,
        crop_size: int,
        mean: Triple,
        std: Triple,
        augment: AugmentConfig | None = None,
        num_threads: int = 1,
    ) -> None:
        self.clip_length = clip_length
        self.crop_size = crop_size
        augment = augment or AugmentConfig()
        self._kernel = cv2.getGaussianKernel(augment.blur_kernel, augment.blur_sigma, cv2.CV_32F)
        scale = 1.0 / (255.0 * np.array(std))
        offset = -np.array(mean) / np.array(std)
        self._normalise = np.column_stack([np.diag(scale), offset]).astype(np.float32)
        # Clips are what runs side by side; OpenCV's own threads would only get in their way.
        cv2.setNumThreads(1)
        self._memory = TensorPool()
        self._pool = ThreadPoolExecutor(num_threads, "slicfast-augment") if num_threads > 1 else None

    def __call__(self, clips: Sequence[Frames], params: ClipParams) -> torch.Tensor:
        """(N, T, S, S, 3) float32 in memory of its own.

        Args:
            clips: N of T frames, each (H, W, 3) uint8 RGB; sizes may differ from clip to clip.
            params: N rows.
        """
        size = self.crop_size
        shown_NTSSC = self._memory.tensor((len(clips), self.clip_length, size, size, 3))
        out = shown_NTSSC.numpy()

        def augment(n: int) -> None:
            self._augment(clips[n], params, n, out[n])

        if self._pool is None or len(clips) == 1:
            for n in range(len(clips)):
                augment(n)
        else:
            for _ in self._pool.map(augment, range(len(clips))):
                pass
        return shown_NTSSC

    def _augment(self, frames: Frames, params: ClipParams, n: int, out: npt.NDArray[np.float32]) -> None:
        size = self.crop_size
        if len(frames) != self.clip_length:
            raise ValueError(f"a clip must have {self.clip_length} frames; got {len(frames)}")
        shown = resample(frames, params.top_left[n], params.bottom_right[n], size)
        # One tall picture, frame below frame, is one call where frames need not be told apart.
        tall = np.ascontiguousarray(shown).reshape(-1, size, 3)
        if params.flip[n]:
            tall = cv2.flip(tall, 1)
        for operator in params.order[n].tolist():
            if operator != NO_OPERATOR:
                tall = self._operator(tall, operator, float(params.factors[n, operator]))
        tall = self._affine(tall, params.colour[n], float(params.contrast_offset[n]), params.offset[n])
        if params.blur[n]:
            tall = self._blurred(tall)
        levels_TSSC, gain = tall.reshape(out.shape), float(params.difference_gain[n])
        for t, frame in enumerate(out):  # a frame at a time stays in the cache between the two
            if gain:
                now = min(t, len(out) - 2)
                difference_frame(levels_TSSC[now], levels_TSSC[now + 1], gain, frame)
            else:
                np.copyto(frame, levels_TSSC[t])
            cv2.transform(frame, self._normalise, dst=frame)

    def _blurred(self, tall: UInt8) -> UInt8:
        result = np.empty_like(tall)
        # Float taps, and not GaussianBlur: its fixed-point arithmetic takes thrice as long.
        for first in range(0, len(tall), self.crop_size):
            part = slice(first, first + self.crop_size)
            cv2.sepFilter2D(tall[part], -1, self._kernel, self._kernel, dst=result[part])
        return result

    def _operator(self, tall: UInt8, operator: int, factor: float) -> UInt8:
        """One of torchvision's colour operators, rounded down to 8 bit; greys are rounded down there too."""
        if operator == HUE:
            return _turn_hue(tall, factor)
        matrix = factor * _IDENTITY
        share, grey_floor = 0.0, 0.0
        if operator == CONTRAST:
            share, grey_floor = 1.0 - factor, (1.0 - factor) * FLOOR
        elif operator == SATURATION:
            matrix = matrix + np.float32(1.0 - factor) * LUMA_PART.astype(np.float32)
            grey_floor = (1.0 - factor) * FLOOR
        else:
            assert operator == BRIGHTNESS
        return self._affine(tall, matrix, share, np.full(3, FLOOR + grey_floor, dtype=np.float32))

    def _affine(
        self,
        tall: UInt8,
        matrix: npt.NDArray[np.float32],
        mean_share: float,
        offset: npt.NDArray[np.float32],
    ) -> UInt8:
        """matrix @ c + mean_share * the frame's mean luma + offset, rounded and clamped to 8 bit."""
        if mean_share == 0.0:
            if not offset.any() and np.array_equal(matrix, _IDENTITY):
                return tall
            mapped: UInt8 = cv2.transform(tall, np.column_stack([matrix, offset]))
            return mapped
        result = np.empty_like(tall)
        size = self.crop_size
        for first in range(0, len(tall), size):
            frame = tall[first : first + size]
            mean = mean_share * float(np.dot(LUMA, cv2.mean(frame)[:3]))
            full = np.column_stack([matrix, offset + np.float32(mean)])
            cv2.transform(frame, full, dst=result[first : first + size])
        return result


def _turn_hue(tall: UInt8, turns: float) -> UInt8:
    """Hue turned in HSV, in steps of 1/256: 8-bit numbers wrap as hue does."""
    hsv: UInt8 = cv2.cvtColor(tall, cv2.COLOR_RGB2HSV_FULL)
    step = np.zeros(tall.shape[1:], dtype=np.uint8)
    step[:, 0] = round(256 * turns) % 256
    lines = hsv.reshape(len(hsv), -1)  # long rows: NumPy is slow on three numbers at a time
    np.add(lines, step.reshape(-1), out=lines)
    turned: UInt8 = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=hsv)
    return turned
