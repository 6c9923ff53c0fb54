"""What turns a batch's bytes into clips: one form for the processor, one for a GPU, chosen here."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy.typing as npt
import torch

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.augment import ClipParams
from slicfast.data.augment_cpu import Augmenting, CpuAugmenter
from slicfast.data.decoding.jpeg import DecodeError, DecodeProbe
from slicfast.data.decoding.jpeg_clips import JpegProbe
from slicfast.data.decoding.mixed import MixedDecoder, MixedProbe
from slicfast.data.photometric import Photometric
from slicfast.data.pipelines.mixed import MixedPipeline
from slicfast.data.stores.parts import Stored

Batch = Sequence[Stored]  # what `reading.Reading` holds of N clips


class Backend(Protocol):
    """Batches under way, in order; for one thread, `complete` apart."""

    def feed(
        self, stored: Batch, params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        """Start on a batch of N clips of the sizes given, whose bytes must stay until `take`."""

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, waiting for it, ready for `complete`. Raises DecodeError where it is lost."""

    def drop(self) -> None:
        """Wait for the next batch, and forget it."""

    def complete(self, clips: torch.Tensor, params: ClipParams) -> torch.Tensor:
        """(N, T, S, S, 3) float32 of what `take` gave, in the thread and on the stream that will use it."""

    def undecodable(self, stored: Batch) -> list[int]:
        """Which clips of a batch cannot be decoded, each tried alone."""


def make_backend(
    config: DataConfig,
    augment: AugmentConfig | None,
    device: torch.device,
    num_threads: int,
    max_clips: int,
) -> Backend:
    """The backend of a device. Raises MachineError where DALI is missing."""
    kind = CpuBackend if device.type == "cpu" else GpuBackend
    return kind(config, augment, device, num_threads, max_clips)


class CpuBackend:
    """A clip is decoded and augmented on one of `num_threads` threads; one alone is the caller's own.

    Films and VP9 are decoded ahead, on as many threads again.
    """

    def __init__(
        self,
        config: DataConfig,
        augment: AugmentConfig | None,
        device: torch.device,
        num_threads: int,
        max_clips: int,
    ) -> None:
        length = config.clip_length
        self._decoder = MixedDecoder(clip_length=length, num_threads=num_threads, max_clips=max_clips)
        self._probe = MixedProbe(device, JpegProbe(), clip_length=length, num_threads=num_threads)
        self._augmenter = CpuAugmenter(
            clip_length=length,
            crop_size=config.crop_size,
            mean=config.mean,
            std=config.std,
            augment=augment,
            num_threads=num_threads,
        )
        self._under_way: deque[Augmenting] = deque()

    def feed(
        self, stored: Batch, params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        started = self._augmenter.start(params)
        for row, frames in self._decoder.feed(stored).items():
            started.add(row, frames)
        self._under_way.append(started)

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        started = self._under_way.popleft()
        try:
            decoded = self._decoder.take()
        except DecodeError:
            started.drop()
            raise
        for row, frames in decoded.items():
            started.add(row, frames)
        return started.finish()

    def drop(self) -> None:
        self._under_way.popleft().drop()
        self._decoder.take()

    def complete(self, clips: torch.Tensor, params: ClipParams) -> torch.Tensor:
        return clips

    def undecodable(self, stored: Batch) -> list[int]:
        return self._probe.undecodable(stored)


class GpuBackend:
    """DALI decodes, crops and resizes, running ahead on its own stream; torch does the rest on the user's.

    A CPU will do, for tests.
    """

    def __init__(
        self,
        config: DataConfig,
        augment: AugmentConfig | None,
        device: torch.device,
        num_threads: int,
        max_clips: int,
    ) -> None:
        self._pipeline = MixedPipeline(
            clip_length=config.clip_length,
            crop_size=config.crop_size,
            device=device,
            num_threads=num_threads,
            max_clips=max_clips,
        )
        probe = DecodeProbe(device, clip_length=config.clip_length, num_threads=num_threads)
        self._probe = MixedProbe(device, probe, clip_length=config.clip_length, num_threads=num_threads)
        self.complete = Photometric(mean=config.mean, std=config.std, augment=augment, device=device)

    def feed(
        self, stored: Batch, params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        self._pipeline.feed(stored, params, width_N, height_N)

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        return self._pipeline.take(stream)

    def drop(self) -> None:
        self._pipeline.take()

    def undecodable(self, stored: Batch) -> list[int]:
        return self._probe.undecodable(stored)
