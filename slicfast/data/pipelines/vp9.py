"""The DALI graph of a GPU for cuts of videos: decoded there (NVDEC), cut out, resized, mirrored as sequences.

VP9 of a store and whatever original films hold go the same way. It differs from `pipeline.py`'s in that a
sample is a clip, not a picture. The same graph runs on a CPU, for tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.decoding.jpeg import as_torch, build_pipeline, outputs
from slicfast.data.decoding.vp9 import decoded_cut, feed_cuts
from slicfast.data.pipeline import crop_arguments, cropped
from slicfast.data.stores.parts import Cut
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
        return as_torch(output, stream)
