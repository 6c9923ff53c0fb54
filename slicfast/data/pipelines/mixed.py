"""A GPU's way for batches whose clips are stored in different ways: a pipeline for each, results joined."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.decoding.jpeg import DecodeError
from slicfast.data.decoding.mixed import Kind, Part, by_kind, num_clips
from slicfast.data.pipeline import ClipPipeline
from slicfast.data.pipelines.hardware_flow import HardwareFlowPipeline
from slicfast.data.pipelines.held import HeldPipeline
from slicfast.data.pipelines.vp9 import Vp9Pipeline
from slicfast.data.stores.parts import Stored
from slicfast.device import require_dali


class MixedPipeline:
    """A pipeline for each kind of clip that occurs, made when it first does; as ClipPipeline.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(
        self, *, clip_length: int, crop_size: int, device: torch.device, num_threads: int, max_clips: int
    ) -> None:
        require_dali()
        self._clip_length = clip_length
        settings: dict[str, Any] = {
            "crop_size": crop_size,
            "device": device,
            "num_threads": num_threads,
            "max_clips": max_clips,
        }
        self._make: dict[Kind, Callable[[], Any]] = {
            Kind.JPEG: lambda: ClipPipeline(clip_length=clip_length, **settings),
            Kind.CUT: lambda: Vp9Pipeline(**settings),
            Kind.FILM: lambda: Vp9Pipeline(**settings),
            Kind.HELD: lambda: HeldPipeline(crop_size=crop_size, device=device),
            Kind.FLOW: lambda: HardwareFlowPipeline(clip_length=clip_length, **settings),
        }
        self._pipelines: dict[Kind, Any] = {}
        self._under_way: deque[dict[Kind, Part]] = deque()

    def feed(
        self, stored: Sequence[Stored], params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        """Start on a batch of N clips. Their bytes may change afterwards."""
        parts = by_kind(stored, self._clip_length)
        num = num_clips(parts)
        width_N, height_N = np.broadcast_to(width_N, num), np.broadcast_to(height_N, num)
        for kind, part in parts.items():
            if kind not in self._pipelines:
                self._pipelines[kind] = self._make[kind]()
            rows = part.rows
            widths, heights = width_N[rows], height_N[rows]
            if kind is Kind.FILM:  # its pictures come at their own size
                widths = np.array([cut.width for cut in part.items])
                heights = np.array([cut.height for cut in part.items])
            own = params if len(rows) == num else _rows_of(params, rows)
            self._pipelines[kind].feed(part.items, own, widths, heights)
        self._under_way.append(parts)

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, as `ClipPipeline.take`. Raises DecodeError: the batch is lost."""
        parts = self._under_way.popleft()
        taken: list[torch.Tensor] = []
        rows: list[int] = []
        failure: DecodeError | None = None
        for kind, part in parts.items():
            try:  # all must be emptied, or the next batch would be this one's
                taken.append(self._pipelines[kind].take(stream))
                rows += part.rows
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        if len(taken) == 1:
            return taken[0]
        # On the stream of whoever uses the clips: that is where DALI's results are ordered.
        with torch.cuda.stream(stream):
            place = torch.from_numpy(np.argsort(rows))
            return torch.cat(taken).index_select(0, place.to(taken[0].device, non_blocking=True))


def _rows_of(params: ClipParams, rows: list[int]) -> ClipParams:
    return ClipParams(**{field.name: getattr(params, field.name)[rows] for field in fields(params)})
