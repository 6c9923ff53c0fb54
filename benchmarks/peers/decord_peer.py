"""decord: a video reader made for deep learning; a clip by `get_batch`, handed to torch by its bridge."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from benchmarks.peers.peer import Frames
from benchmarks.peers.tensors import TensorPeer
from slicfast.config import Config


class DecordPeer(TensorPeer):
    """A reader a clip, one decoding thread. It indexes the file when it opens it."""

    name = "decord"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        import decord

        decord.logging.set_level(decord.logging.ERROR)
        self._decord = decord

    def read(self, file: Path, frames_T: Frames) -> torch.Tensor:
        reader = self._decord.VideoReader(str(file), ctx=self._decord.cpu(0), num_threads=1)
        pictures_THWC = torch.from_dlpack(reader.get_batch(frames_T.tolist()).to_dlpack())
        return cast(torch.Tensor, pictures_THWC).permute(0, 3, 1, 2)
