"""JPEG bytes to pictures in memory, by DALI on the processor: a batch at a time, several under way."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.device import require_dali

Pictures = Sequence[npt.NDArray[np.uint8]]  # JPEG bytes


class DecodeError(Exception):
    """DALI failed on a batch; one bad picture fails all of it, and often is not named."""


class JpegDecoder:
    """Pictures in, clips of their pixels out, in the order they were fed.

    Any number of batches may be under way. A failed batch costs only itself.

    Args:
        clip_length: pictures a clip.
        num_threads: DALI's.
        max_clips: the largest batch.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(self, *, clip_length: int, num_threads: int, max_clips: int) -> None:
        require_dali()
        self._clip_length = clip_length
        self._pipe = decode_pipeline(torch.device("cpu"), num_threads, max_clips * clip_length)

    def feed(self, pictures: Pictures) -> None:
        """Start on a batch of N clips: N * T pictures, clip after clip. The bytes may change afterwards."""
        self._pipe.feed_input("jpeg", pictures)
        self._pipe.schedule_run()

    def take(self) -> list[Sequence[npt.NDArray[np.uint8]]]:
        """The next batch, waiting for it: N clips of T pictures, (H, W, 3) RGB, in memory of their own.

        Raises:
            DecodeError: the batch is lost; the next one is not.
        """
        (output,) = outputs(self._pipe)
        pictures = [np.asarray(output[k]) for k in range(len(output))]
        length = self._clip_length
        return [pictures[first : first + length] for first in range(0, len(pictures), length)]


class DecodeProbe:
    """Finds the clips that fail a batch, by decoding each of them alone.

    Args:
        device: where the batches are decoded: decoders differ in what they bear.
        clip_length, num_threads: as there.
    """

    def __init__(self, device: torch.device, *, clip_length: int, num_threads: int) -> None:
        self._settings = (device, num_threads, clip_length)
        self._pipe: Any = None

    def undecodable(self, pictures: Pictures) -> list[int]:
        """Which clips of a batch, N * T pictures, cannot be decoded."""
        if self._pipe is None:
            self._pipe = decode_pipeline(*self._settings)
        length, failed = self._settings[-1], []
        for clip, first in enumerate(range(0, len(pictures), length)):
            self._pipe.feed_input("jpeg", pictures[first : first + length])
            self._pipe.schedule_run()
            try:
                outputs(self._pipe)
            except DecodeError:
                failed.append(clip)
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
