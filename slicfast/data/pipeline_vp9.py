"""The DALI graph of a GPU for VP9 clips: decoded there (NVDEC), cut out, resized and mirrored as sequences.

It differs from `pipeline.py`'s in that a sample is a clip, not a picture. The same graph runs on a CPU, for
tests.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.decoding import DecodeError, build_pipeline, outputs
from slicfast.data.decoding_vp9 import Sorted, Stored, decoded_cut, feed_cuts
from slicfast.data.pipeline import ClipPipeline, crop_arguments, cropped
from slicfast.data.store_parts import Cut
from slicfast.device import require_dali


class Vp9Pipeline:
    """Cuts and parameters in, (N, T, S, S, 3) 8-bit clips out, in the order they were fed (ClipPipeline)."""

    def __init__(self, *, crop_size: int, device: torch.device, num_threads: int, max_clips: int) -> None:
        require_dali()
        self.crop_size = crop_size
        fn: Any = importlib.import_module("nvidia.dali.fn")

        def graph() -> Any:
            return cropped(fn, decoded_cut(fn, device), crop_size, axes=(1, 2))

        self._pipe = build_pipeline(graph, device, num_threads, max_clips)

    def feed(
        self, cuts: Sequence[Cut], params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        """Start on a batch of N cuts. Their bytes may change afterwards."""
        feed_cuts(self._pipe, cuts)
        for name, values_N in crop_arguments(params, width_N, height_N, self.crop_size).items():
            self._pipe.feed_input(name, values_N)
        self._pipe.schedule_run()

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, as `ClipPipeline.take`. Raises DecodeError: the batch is lost."""
        (output,) = outputs(self._pipe, stream)
        clips: torch.Tensor = torch.from_dlpack(output.as_tensor())
        return clips


class MixedPipeline:
    """A Vp9Pipeline for the clips that are cuts and a ClipPipeline for those that are not, such as flow."""

    def __init__(
        self, *, clip_length: int, crop_size: int, device: torch.device, num_threads: int, max_clips: int
    ) -> None:
        self._settings: dict[str, Any] = {
            "crop_size": crop_size,
            "device": device,
            "num_threads": num_threads,
            "max_clips": max_clips,
        }
        self._clip_length = clip_length
        self._vp9 = Vp9Pipeline(**self._settings)
        self._jpeg: ClipPipeline | None = None  # made when first needed
        self._under_way: deque[Sorted] = deque()

    def feed(
        self, stored: Sequence[Stored], params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        """Start on a batch of N clips. Their bytes may change afterwards."""
        batch = Sorted(stored, self._clip_length)
        width_N, height_N = np.broadcast_to(width_N, len(batch)), np.broadcast_to(height_N, len(batch))
        rows = batch.cut_rows
        if rows:
            self._vp9.feed(batch.cuts, _rows_of(params, rows), width_N[rows], height_N[rows])
        rows = batch.jpeg_rows
        if rows:
            if self._jpeg is None:
                self._jpeg = ClipPipeline(clip_length=self._clip_length, **self._settings)
            self._jpeg.feed(batch.jpegs, _rows_of(params, rows), width_N[rows], height_N[rows])
        self._under_way.append(batch)

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, as `ClipPipeline.take`. Raises DecodeError: the batch is lost."""
        batch = self._under_way.popleft()
        parts: list[torch.Tensor] = []
        failure: DecodeError | None = None
        for pipeline, rows in ((self._vp9, batch.cut_rows), (self._jpeg, batch.jpeg_rows)):
            if not rows or pipeline is None:
                continue
            try:  # both must be emptied, or the next batch would be this one's
                parts.append(pipeline.take(stream))
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        if len(parts) == 1:
            return parts[0]
        # On the stream of whoever uses the clips: that is where DALI's two results are ordered.
        with torch.cuda.stream(stream):
            place = torch.tensor(np.argsort([*batch.cut_rows, *batch.jpeg_rows]))
            return torch.cat(parts).index_select(0, place.to(parts[0].device, non_blocking=True))


def _rows_of(params: ClipParams, rows: list[int]) -> ClipParams:
    return ClipParams(**{field.name: getattr(params, field.name)[rows] for field in fields(params)})
