"""Memory of batches used again once nobody holds it: fresh memory costs more than the arithmetic on it.

A batch of clips is tens of megabytes; the system hands them out page by page, zeroed, and takes them back.
"""

from __future__ import annotations

import math
import weakref

import numpy as np
import numpy.typing as npt
import torch

MAX_SPARE = 4  # buffers kept for later: what a loader has ready and under way at most times


class TensorPool:
    """Gives out float32 tensors whose memory comes back by itself, for the next ones."""

    def __init__(self) -> None:
        self._spare: list[npt.NDArray[np.float32]] = []

    def tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        """An uninitialised tensor; its memory is used again when neither it nor a view of it is left."""
        size = math.prod(shape)
        buffer = self._take(size)
        values = buffer[:size].reshape(shape)  # an object of its own, which the tensor keeps alive
        weakref.finalize(values, _give_back, self._spare, buffer).atexit = False
        return torch.from_numpy(values)

    def _take(self, size: int) -> npt.NDArray[np.float32]:
        try:
            buffer = self._spare.pop()
        except IndexError:
            return np.empty(size, dtype=np.float32)
        return buffer if buffer.size >= size else np.empty(size, dtype=np.float32)


def _give_back(spare: list[npt.NDArray[np.float32]], buffer: npt.NDArray[np.float32]) -> None:
    if len(spare) < MAX_SPARE:
        spare.append(buffer)
