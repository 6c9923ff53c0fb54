"""Batches of requests to batches of clips: bytes from the store, pixels by a backend, bad clips done over."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.augment import ClipParams, centre_crop, draw, evaluation_size
from slicfast.data.backend import make_backend
from slicfast.data.decoding.jpeg import DecodeError
from slicfast.data.flow_view import show_flow
from slicfast.data.pipelines.flow_engine import require_hardware_flow
from slicfast.data.reading import ClipReader, Reading
from slicfast.data.requests import Requests, View
from slicfast.data.sources.choice import open_source
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import ComputedFlow, Flow
from slicfast.data.views import Geometry
from slicfast.errors import RunError


class Produced(NamedTuple):
    """What was read, what is done to it, and how far that has come (`ClipProducer.complete`)."""

    reading: Reading
    params: ClipParams
    clips: torch.Tensor


class ClipProducer:
    """A reader and a backend with batches under way between them; for one thread.

    Args: as ClipLoader's; `stream` of the methods is the CUDA stream on which the clips will be used.
    """

    def __init__(
        self,
        store: ClipStore,
        config: DataConfig,
        *,
        augment: AugmentConfig | None,
        difference_gain: float,
        resize: tuple[int, int] | None,
        geometry: Geometry | None = None,
        flow: Flow | None = None,
        candidates: npt.ArrayLike | None,
        device: torch.device,
        num_threads: int,
        max_batch: int,
    ) -> None:
        if isinstance(flow, ComputedFlow):
            require_hardware_flow(device)
        self.max_batch = max_batch
        self._store = store
        self._augment = augment
        self._difference_gain = difference_gain
        self._crop_size = config.crop_size
        self._resize = resize or evaluation_size(config.crop_size)
        self._geometry = geometry
        if augment is None and geometry is None:
            centre_crop(1, self._resize, config.crop_size)  # a wrong size is told now, not in another thread
        self._flow = flow
        self._backend = make_backend(config, augment, device, num_threads, max_batch)
        again = np.arange(len(store)) if candidates is None else np.asarray(candidates)
        source = open_source(
            store,
            config,
            rows=None if augment is None else again,  # what is evaluated is read once
            device=device,
            num_threads=num_threads,
        )
        self._reader = ClipReader(store, config.clip_length, candidates, flow, source, num_threads)
        self._under_way: deque[tuple[Reading, ClipParams]] = deque()

    @property
    def num_under_way(self) -> int:
        """Batches started and not finished."""
        return len(self._under_way)

    def start(self, requests_N: Requests) -> None:
        """Read a batch and start on it. Raises RunError where a clip finds no sound substitute."""
        if not 1 <= len(requests_N) <= self.max_batch:
            raise ValueError(f"a batch must have 1 to {self.max_batch} clips; got {len(requests_N)}")
        self._under_way.append(self._feed(self._reader.read(requests_N)))

    def finish(self, stream: torch.cuda.Stream | None = None) -> list[Produced]:
        """The oldest batch under way, waiting for it; where it failed, all that are under way, in order.

        Raises RunError where a clip finds no sound substitute or decoding fails for another reason.
        """
        started = self._under_way.popleft()
        clips = self._take(stream)
        if clips is not None:
            return [Produced(*started, clips)]
        # The backend keeps its order: the later batches come out before this one can be done over.
        results: list[tuple[tuple[Reading, ClipParams], torch.Tensor | None]] = [(started, None)]
        while self._under_way:
            results.append((self._under_way.popleft(), self._take(stream)))
        return [
            self._do_over(started[0], stream) if clips is None else Produced(*started, clips)
            for started, clips in results
        ]

    def complete(self, produced: Produced) -> torch.Tensor:
        """(N, T, S, S, 3) float32, normalised; in the thread and on the stream that will use it."""
        return self._backend.complete(produced.clips, produced.params)

    def abandon(self) -> None:
        """Wait for what is under way and drop it."""
        while self._under_way:
            self._under_way.popleft()
            with contextlib.suppress(DecodeError):
                self._backend.drop()

    def _take(self, stream: torch.cuda.Stream | None) -> torch.Tensor | None:
        try:
            return self._backend.take(stream)
        except DecodeError:
            return None

    def _do_over(self, reading: Reading, stream: torch.cuda.Stream | None) -> Produced:
        """A batch that failed, without the clips that do not decode; their substitutes may fail in turn."""
        while True:
            culprits = self._backend.undecodable(reading.pictures)
            for n in culprits:
                self._reader.reject(reading.requests[n : n + 1])
            reading, params = self._feed(self._reader.read(reading.asked))
            try:
                return Produced(reading, params, self._backend.take(stream))
            except DecodeError as error:
                if not culprits:
                    raise RunError(f"a batch does not decode whose clips do, one by one: {error}") from None

    def _feed(self, reading: Reading) -> tuple[Reading, ClipParams]:
        video_N = reading.requests["video"]
        width_N, height_N = self._store.width[video_N], self._store.height[video_N]
        params = self._params(reading.requests, width_N, height_N)
        self._backend.feed(reading.pictures, params, width_N, height_N)
        return reading, params

    def _params(self, requests_N: Requests, width_N: npt.ArrayLike, height_N: npt.ArrayLike) -> ClipParams:
        is_flow_N = requests_N["view"] == View.FLOW
        is_motion_N = requests_N["view"] == View.DIFFERENCE
        if self._flow is not None and not self._flow.faithful:
            is_motion_N |= is_flow_N
        if self._geometry is not None:
            params = self._geometry(requests_N, width_N, height_N)
        elif self._augment is None:
            params = centre_crop(len(requests_N), self._resize, self._crop_size, is_motion_N)
        else:
            params = draw(requests_N["seed"], width_N, height_N, self._augment, is_motion_N)
        if self._flow is not None and not self._flow.faithful and is_flow_N.any():
            params = show_flow(params, is_flow_N, width_N, height_N, self._flow.components)
        gain_N = np.where(requests_N["view"] == View.DIFFERENCE, self._difference_gain, 0.0)
        return replace(params, difference_gain=gain_N.astype(np.float32))
