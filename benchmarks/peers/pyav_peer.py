"""PyAV: FFmpeg's libraries in Python; seek to a key frame before the clip, decode, convert what is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.peer import Frames
from benchmarks.peers.tensors import TensorPeer
from slicfast.config import Config

_SEEK_MARGIN = 2  # frames


class PyAVPeer(TensorPeer):
    """A container a clip, one decoding thread; frames between those of the clip are not converted to RGB.

    A file's first time stamp, which AVI does not tell, is looked up once and kept.
    """

    name = "PyAV"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        import av

        self._av = av
        self._first: dict[Path, int] = {}

    def read(self, file: Path, frames_T: Frames) -> torch.Tensor:
        if file not in self._first:
            self._first[file] = self._first_time(file)
        wanted, pictures = frames_T.tolist(), []
        with self._av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            rate, base = stream.average_rate, stream.time_base
            assert rate is not None and base is not None
            per_frame = float(1 / (rate * base))  # ticks
            if wanted[0]:
                # In AVI seeking goes by the order of decoding, which B-frames set before that of showing.
                before = max(wanted[0] - _SEEK_MARGIN, 0)
                container.seek(self._first[file] + int(before * per_frame), stream=stream)
            for frame in container.decode(stream):
                assert frame.pts is not None
                if round((frame.pts - self._first[file]) / per_frame) == wanted[len(pictures)]:
                    pictures.append(frame.to_ndarray(format="rgb24"))
                    if len(pictures) == len(wanted):
                        break
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)

    def _first_time(self, file: Path) -> int:
        with self._av.open(str(file)) as container:
            return next(container.decode(video=0)).pts or 0
