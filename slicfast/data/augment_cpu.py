"""Clips to normalised ones on the processor: 8-bit pictures until the last step, OpenCV and torch.

What is done is `augment.ClipParams`; `photometric.py` does the same on a GPU. Pictures are iterated over
where they are augmented: those that are decoded only then are still in the cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import AugmentConfig
from slicfast.data.augment import NO_OPERATOR, ClipParams
from slicfast.data.levels import Levels
from slicfast.data.motion import difference_frame
from slicfast.data.recycling import ScratchPool, TensorPool
from slicfast.data.resampling import Frames, resample
from slicfast.data.tasks import Tasks

Triple = tuple[float, float, float]

cv2: Any = importlib.import_module("cv2")  # its stubs know arrays of no type in particular

_AT_ONCE = 4  # frames, normalised while they are in the cache


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
        self._scratch = ScratchPool()
        self._pool = ThreadPoolExecutor(num_threads, "slicfast-augment") if num_threads > 1 else None

    def __call__(self, clips: Sequence[Frames], params: ClipParams) -> torch.Tensor:
        """(N, T, S, S, 3) float32 in memory of its own.

        Args:
            clips: N of T frames, each (H, W, 3) uint8 RGB; sizes may differ from clip to clip.
            params: N rows.
        """
        started = self.start(params)
        for row, frames in enumerate(clips):
            started.add(row, frames)
        return started.finish()

    def start(self, params: ClipParams) -> Augmenting:
        """Begin a batch of as many clips as there are rows; `Augmenting.add` has their pictures."""
        size = self.crop_size
        shown_NTSSC = self._memory.tensor((len(params), self.clip_length, size, size, 3))
        return Augmenting(
            partial(self._augment, params=params, out=shown_NTSSC.numpy()), shown_NTSSC, self._pool
        )

    def _augment(self, n: int, frames: Frames, *, params: ClipParams, out: npt.NDArray[np.float32]) -> None:
        """Fill row n of `out`."""
        if len(frames) != self.clip_length:
            raise ValueError(f"a clip must have {self.clip_length} frames; got {len(frames)}")
        region = params.top_left[n], params.bottom_right[n]
        with self._scratch.borrowed() as scratch:
            levels = Levels(resample(frames, *region, self.crop_size, scratch), scratch)
            if params.flip[n]:
                levels.mirror()
            for operator in params.order[n].tolist():
                if operator != NO_OPERATOR:
                    levels.change(operator, float(params.factors[n, operator]))
            levels.map(params.colour[n], float(params.contrast_offset[n]), params.offset[n])
            if params.blur[n]:
                levels.blur(self._kernel)
            self._show(levels.pictures_TSSC, float(params.difference_gain[n]), out[n])

    def _show(
        self, levels_TSSC: npt.NDArray[np.uint8], gain: float, out_TSSC: npt.NDArray[np.float32]
    ) -> None:
        """Pictures, or the differences between them, normalised."""
        for first in range(0, len(out_TSSC), _AT_ONCE):
            shown = out_TSSC[first : first + _AT_ONCE]
            if gain:
                for t, frame in enumerate(shown, first):
                    now = min(t, len(out_TSSC) - 2)
                    difference_frame(levels_TSSC[now], levels_TSSC[now + 1], gain, frame)
            else:
                np.copyto(shown, levels_TSSC[first : first + _AT_ONCE])
            tall = shown.reshape(-1, *shown.shape[2:])
            cv2.transform(tall, self._normalise, dst=tall)


class Augmenting:
    """A batch under way.

    Args:
        augment: takes a row and its frames, and fills the row of `clips_NTSSC`.
        pool: where; None: in the thread that calls `finish`.
    """

    def __init__(
        self,
        augment: Callable[[int, Frames], None],
        clips_NTSSC: torch.Tensor,
        pool: ThreadPoolExecutor | None,
    ) -> None:
        self._augment = augment
        self._clips_NTSSC = clips_NTSSC
        self._tasks = Tasks(pool)

    def add(self, row: int, frames: Frames) -> None:
        """Augment the clip of a row, as soon as a thread is free; that thread iterates over the frames."""
        self._tasks.add(partial(self._augment, row, frames))

    def finish(self) -> torch.Tensor:
        """(N, T, S, S, 3) float32, once all rows that were added are there. Raises what a clip raised."""
        self._tasks.finish()
        return self._clips_NTSSC

    def drop(self) -> None:
        """Wait until nothing is under way, and forget it."""
        self._tasks.drop()
