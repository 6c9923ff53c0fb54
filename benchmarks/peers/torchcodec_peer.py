"""torchcodec: PyTorch's decoder over FFmpeg, a clip by `get_frames_in_range`, approximate seeking."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from benchmarks.peers.peer import Frames, stride_of
from benchmarks.peers.tensors import TensorPeer
from slicfast.config import Config


class TorchcodecPeer(TensorPeer):
    """A decoder a clip; seek_mode "approximate" spares the scan of the file that "exact" begins with."""

    name = "torchcodec"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        from torchcodec.decoders import VideoDecoder

        self._decoder = VideoDecoder

    def read(self, file: Path, frames_T: Frames) -> torch.Tensor:
        decoder = self._decoder(str(file), seek_mode="approximate", num_ffmpeg_threads=1)
        start, end = int(frames_T[0]), int(frames_T[-1]) + 1
        return cast(torch.Tensor, decoder.get_frames_in_range(start, end, stride_of(frames_T)).data)
