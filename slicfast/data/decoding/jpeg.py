"""JPEG bytes to pictures by DALI, a batch at a time and several under way; what all its graphs share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Pictures = Sequence[npt.NDArray[np.uint8]]  # JPEG bytes


class DecodeError(Exception):
    """DALI failed on a batch; one bad picture fails all of it, and often is not named."""


class DecodeProbe:
    """Finds the clips that fail a batch, by decoding each of them alone.

    Args:
        device: where the batches are decoded: decoders differ in what they bear.
        clip_length: pictures a clip.
        num_threads: DALI's.
    """

    def __init__(self, device: torch.device, *, clip_length: int, num_threads: int) -> None:
        self._settings = (device, num_threads, clip_length)
        self._pipe: Any = None

    def undecodable(self, clips: Sequence[Pictures]) -> list[int]:
        """Which of some clips cannot be decoded."""
        if self._pipe is None:
            self._pipe = decode_pipeline(*self._settings)
        failed = []
        for number, pictures in enumerate(clips):
            self._pipe.feed_input("jpeg", pictures)
            self._pipe.schedule_run()
            try:
                outputs(self._pipe)
            except DecodeError:
                failed.append(number)
        return failed


def decode_pipeline(device: torch.device, num_threads: int, max_pictures: int) -> Any:
    """A pipeline whose input is "jpeg" and whose output are the pictures."""
    fn: Any = importlib.import_module("nvidia.dali.fn")
    return build_pipeline(lambda: decoded(fn, device), device, num_threads, max_pictures)


def decoded(fn: Any, device: torch.device) -> Any:
    """The graph's node of decoded pictures, (H, W, 3) uint8 RGB; everything after it follows its device."""
    types: Any = importlib.import_module("nvidia.dali.types")
    jpeg = fn.external_source(name="jpeg", device="cpu", dtype=types.UINT8, ndim=1)
    where = "mixed" if device.type == "cuda" else "cpu"
    return fn.decoders.image(jpeg, device=where, output_type=types.RGB)


def build_pipeline(
    graph: Callable[[], Any], device: torch.device, num_threads: int, max_pictures: int
) -> Any:
    """A DALI pipeline, built; it is fed by name, and keeps the order of what it was fed."""
    dali: Any = importlib.import_module("nvidia.dali")
    pipe = dali.pipeline_def(
        graph,
        batch_size=max_pictures,
        num_threads=num_threads,
        device_id=(device.index or 0) if device.type == "cuda" else None,
        exec_dynamic=True,
        # Depth 1 runs ahead by as many batches as were fed; a deeper queue would want several at first.
        prefetch_queue_depth=1,
    )()
    pipe.build()
    return pipe


def outputs(pipe: Any, stream: torch.cuda.Stream | None = None) -> Any:
    """The outputs of the next batch, waiting for it. Raises DecodeError with DALI's gist."""
    try:
        return pipe.outputs(stream)
    except RuntimeError as error:
        raise DecodeError(gist(error)) from None


def as_torch(output: Any, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
    """An output of one shape as a tensor on the same memory; `stream` as given to `outputs`."""
    with torch.cuda.stream(stream):  # else torch would have DALI order it on the thread's own stream
        tensor: torch.Tensor = torch.from_dlpack(output.as_tensor())
    return tensor


def as_tensors(output: Any, stream: torch.cuda.Stream | None = None) -> list[torch.Tensor]:
    """The same of an output whose samples may differ in shape: a tensor a sample."""
    with torch.cuda.stream(stream):
        return [torch.from_dlpack(output[n]) for n in range(len(output))]


def gist(error: Exception) -> str:
    """The line of DALI's many that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for place, line in enumerate(lines):
        if line == "encountered:" and place + 1 < len(lines):
            return lines[place + 1]
    return lines[0] if lines else "no message"
