"""slicfast's own loader over a prepared store: what the others are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from benchmarks.peers.peer import Clips
from slicfast.config import Config
from slicfast.data.decoding.jpeg_clips import JpegClip
from slicfast.data.loader import ClipLoader
from slicfast.data.recycling import ScratchPool
from slicfast.data.store import ClipStore


class SlicfastPeer:
    """ClipLoader with one thread. Decoding alone is its reading, checksums included, and its decoder."""

    reads = "its clip store"

    def __init__(self, config: Config, store: ClipStore, max_batch: int, name: str) -> None:
        self.name = name
        self._store = store
        self._loader = ClipLoader(
            store, config.data, augment=config.augment, num_threads=1, max_batch=max_batch
        )
        self._scratch = ScratchPool()

    def decode(self, batches: Iterable[Clips]) -> Iterator[Any]:
        for clips in batches:
            for video, frames_T in zip(clips.requests["video"].tolist(), clips.frames_NT, strict=True):
                yield from JpegClip(self._store.frames(video, frames_T), self._scratch)

    def load(self, batches: Iterable[Clips]) -> Iterator[torch.Tensor]:
        with self._loader.load(clips.requests for clips in batches) as loaded:
            for batch in loaded:
                yield batch.clips
