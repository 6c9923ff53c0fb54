"""VP9 clips to pictures in memory, by DALI; and batches in which some clips are VP9 and some JPEG."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.decoding import DecodeError, DecodeProbe, JpegDecoder, build_pipeline, outputs
from slicfast.data.store_parts import Cut
from slicfast.device import require_dali

Stored = npt.NDArray[np.uint8] | Cut  # of a clip: each of its T JPEGs, or the one cut that holds them all


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


class Sorted:
    """A batch's clips by codec.

    Attributes:
        cut_rows, jpeg_rows: which clips are VP9, which JPEG.
        cuts: of the former.
        jpegs: of the latter, T a clip.
    """

    def __init__(self, stored: Sequence[Stored], clip_length: int) -> None:
        self.cut_rows: list[int] = []
        self.jpeg_rows: list[int] = []
        self.cuts: list[Cut] = []
        self.jpegs: list[npt.NDArray[np.uint8]] = []
        for item in stored:
            if isinstance(item, Cut):
                self.cut_rows.append(len(self))
                self.cuts.append(item)
                continue
            if len(self.jpegs) % clip_length == 0:
                self.jpeg_rows.append(len(self))
            self.jpegs.append(item)

    def __len__(self) -> int:
        return len(self.cut_rows) + len(self.jpeg_rows)


class MixedDecoder:
    """A Vp9Decoder for the clips that are cuts and a JpegDecoder for those that are not, such as flow."""

    def __init__(self, *, clip_length: int, num_threads: int, max_clips: int) -> None:
        self._settings: dict[str, Any] = {"num_threads": num_threads, "max_clips": max_clips}
        self._clip_length = clip_length
        self._vp9 = Vp9Decoder(**self._settings)
        self._jpeg: JpegDecoder | None = None  # made when first needed
        self._under_way: deque[Sorted] = deque()

    def feed(self, stored: Sequence[Stored]) -> None:
        """Start on a batch of N clips. Their bytes may change afterwards."""
        batch = Sorted(stored, self._clip_length)
        if batch.cuts:
            self._vp9.feed(batch.cuts)
        if batch.jpegs:
            if self._jpeg is None:
                self._jpeg = JpegDecoder(clip_length=self._clip_length, **self._settings)
            self._jpeg.feed(batch.jpegs)
        self._under_way.append(batch)

    def take(self) -> list[Sequence[npt.NDArray[np.uint8]]]:
        """The next batch, waiting for it: N clips of T pictures. Raises DecodeError: the batch is lost."""
        batch = self._under_way.popleft()
        clips: list[Sequence[npt.NDArray[np.uint8]]] = [()] * len(batch)
        failure: DecodeError | None = None
        for decoder, rows in ((self._vp9, batch.cut_rows), (self._jpeg, batch.jpeg_rows)):
            if not rows or decoder is None:
                continue
            try:  # both must be emptied, or the next batch would be this one's
                for row, clip in zip(rows, decoder.take(), strict=True):
                    clips[row] = list(clip)
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        return clips


class MixedProbe:
    """Finds the clips that fail a batch, by decoding each of them alone; as DecodeProbe."""

    def __init__(self, device: torch.device, *, clip_length: int, num_threads: int) -> None:
        self._device, self._clip_length, self._num_threads = device, clip_length, num_threads
        self._jpeg = DecodeProbe(device, clip_length=clip_length, num_threads=num_threads)
        self._vp9: Vp9Decoder | None = None

    def undecodable(self, stored: Sequence[Stored]) -> list[int]:
        """Which clips of a batch cannot be decoded."""
        batch = Sorted(stored, self._clip_length)
        failed = [batch.jpeg_rows[n] for n in self._jpeg.undecodable(batch.jpegs)] if batch.jpegs else []
        if batch.cuts and self._vp9 is None:
            self._vp9 = Vp9Decoder(num_threads=self._num_threads, max_clips=1, device=self._device)
        for row, cut in zip(batch.cut_rows, batch.cuts, strict=True):
            assert self._vp9 is not None
            self._vp9.feed([cut])
            try:
                self._vp9.wait()
            except DecodeError:
                failed.append(row)
        return sorted(failed)
