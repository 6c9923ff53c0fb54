"""Memory used again: fresh memory costs more than the arithmetic on it.

The system hands it out page by page, zeroed, and takes it back: always for a batch of clips, tens of
megabytes; for the half megabyte of a clip's pictures as it pleases the C library.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

MAX_SPARE = 4  # buffers kept for later: what a loader has ready and under way at most times


class Scratch:
    """8-bit arrays by name, for one thread at a time."""

    def __init__(self) -> None:
        self._memory: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """An array of any content, on the memory of earlier ones of that name."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, dtype=np.uint8)
        return memory[:size].reshape(shape)


class ScratchPool:
    """Scratch for as many threads as want some at once; it outlives them."""

    def __init__(self) -> None:
        self._spare: list[Scratch] = []

    @contextmanager
    def borrowed(self) -> Iterator[Scratch]:
        """Scratch for the block's own thread, with what others have left in it."""
        try:
            scratch = self._spare.pop()
        except IndexError:
            scratch = Scratch()
        try:
            yield scratch
        finally:
            self._spare.append(scratch)


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
            return _aligned(size)
        return buffer if buffer.size >= size else _aligned(size)


def _aligned(size: int) -> npt.NDArray[np.float32]:
    """Memory that begins at a multiple of 64 bytes: NumPy's varies, and with it some libraries' rounding."""
    return torch.empty(size, dtype=torch.float32).numpy()


def _give_back(spare: list[npt.NDArray[np.float32]], buffer: npt.NDArray[np.float32]) -> None:
    if len(spare) < MAX_SPARE:
        spare.append(buffer)
