"""VP9 clips to pictures in memory, by DALI on the processor."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.decoding.jpeg import build_pipeline, outputs
from slicfast.data.stores.parts import Cut
from slicfast.device import require_dali


class Vp9Decoder:
    """Cuts in, clips of their pixels out, in the order they were fed; as JpegDecoder.

    Args:
        num_threads: DALI's.
        max_clips: the largest batch.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(self, *, num_threads: int, max_clips: int, device: torch.device | None = None) -> None:
        require_dali()
        device = device or torch.device("cpu")
        fn: Any = importlib.import_module("nvidia.dali.fn")
        self._pipe = build_pipeline(lambda: decoded_cut(fn, device), device, num_threads, max_clips)

    def feed(self, cuts: Sequence[Cut]) -> None:
        """Start on a batch of N cuts. Their bytes may change afterwards."""
        feed_cuts(self._pipe, cuts)
        self._pipe.schedule_run()

    def take(self) -> list[npt.NDArray[np.uint8]]:
        """The next batch, waiting for it: N clips, (T, H, W, 3) RGB. Raises DecodeError where it is lost."""
        (output,) = outputs(self._pipe)
        return [np.asarray(output[n]) for n in range(len(output))]

    def wait(self) -> None:
        """The same for who wants to know only whether it can be decoded."""
        outputs(self._pipe)


def decoded_cut(fn: Any, device: torch.device) -> Any:
    """The graph's node of a cut's pictures, (T, H, W, 3) uint8 RGB; all that follows has its device."""
    types: Any = importlib.import_module("nvidia.dali.types")
    data = fn.external_source(name="ivf", device="cpu", dtype=types.UINT8, ndim=1)
    frames = fn.external_source(name="frames", device="cpu", dtype=types.INT32, ndim=1)
    where = "mixed" if device.type == "cuda" else "cpu"
    return fn.decoders.video(data, device=where, frames=frames)


def feed_cuts(pipe: Any, cuts: Sequence[Cut]) -> None:
    """The inputs of `decoded_cut`."""
    pipe.feed_input("ivf", [cut.data for cut in cuts])
    pipe.feed_input("frames", [cut.frames for cut in cuts])
