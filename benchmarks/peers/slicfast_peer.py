"""slicfast's own loader over a prepared store: what the others are compared with."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.peers.peer import Clips
from slicfast.config import Config
from slicfast.data.loader import ClipLoader
from slicfast.data.store import ClipStore
from slicfast.device import require_dali


class SlicfastPeer:
    """ClipLoader with one thread. Decoding alone is DALI's decoder over the same stored pictures."""

    name = "slicfast"
    reads = "its clip store"

    def __init__(self, config: Config, store: ClipStore, max_batch: int) -> None:
        require_dali()
        self._store = store
        self._max_batch = max_batch
        self._loader = ClipLoader(
            store, config.data, augment=config.augment, num_threads=1, max_batch=max_batch
        )
        self._pipe: Any = None

    def decode(self, batches: Iterable[Clips]) -> Iterator[Any]:
        for clips in batches:
            length = clips.frames_NT.shape[1]
            if self._pipe is None:
                self._pipe = _decoder(self._max_batch * length)
            pictures = []
            for video, frames_T in zip(clips.requests["video"].tolist(), clips.frames_NT, strict=True):
                pictures.extend(self._store.frames(video, frames_T))
            self._pipe.feed_input("jpeg", pictures)
            (decoded,) = self._pipe.run()
            yield [[np.asarray(decoded[n * length + t]) for t in range(length)] for n in range(len(clips))]

    def load(self, batches: Iterable[Clips]) -> Iterator[torch.Tensor]:
        with self._loader.load(clips.requests for clips in batches) as loaded:
            for batch in loaded:
                yield batch.clips


def _decoder(max_pictures: int) -> Any:
    dali: Any = importlib.import_module("nvidia.dali")
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")

    def graph() -> Any:
        return fn.decoders.image(fn.external_source(name="jpeg", dtype=types.UINT8, ndim=1), device="cpu")

    options = {"batch_size": max_pictures, "num_threads": 1, "device_id": None, "exec_dynamic": True}
    pipe = dali.pipeline_def(graph, prefetch_queue_depth=1, **options)()
    pipe.build()
    return pipe
