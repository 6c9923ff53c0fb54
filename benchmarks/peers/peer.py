"""What is asked of every reader of clips: the same windows of the same videos, augmented alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.requests import Requests

Frames = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clips:
    """A batch of N clips of T frames, told in every form that a reader may want.

    Attributes:
        requests: (N,) requests to slicfast's loader, their seeds included.
        frames_NT: (N, T) frames of each video.
        params: what is drawn for each clip from its seed; the loader draws the same for itself.
        files: the original video file of each clip.
        folders: for each clip the folder of its video's frames, `000000.jpg` and on.
    """

    requests: Requests
    frames_NT: Frames
    params: ClipParams
    files: Sequence[Path]
    folders: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)


class Peer(Protocol):
    """A reader of clips, one thread of its own at most.

    Attributes:
        name: as tables show it.
        reads: what it reads, as tables show it.
    """

    name: str
    reads: str

    def decode(self, batches: Iterable[Clips]) -> Iterator[Any]:
        """The pictures of each batch's clips in 8-bit RGB or BGR, whatever holds them: decoding alone.

        A batch at a time, or picture by picture; what is given may be overwritten once the next is asked for.
        """
        ...

    def load(self, batches: Iterable[Clips]) -> Iterator[torch.Tensor]:
        """Each batch as (N, 3, T, S, S) float32, cropped, resized, flipped, coloured, blurred, normalised."""
        ...


class FilePeer:
    """A peer that reads one clip of one file at a time; a subclass says how, and how it augments."""

    name: str
    reads = "the original file"

    def read(self, file: Path, frames_T: Frames) -> Any:
        """Some frames of a video: T pictures, evenly spaced."""
        raise NotImplementedError

    def augment(self, pictures: Any, params: ClipParams, n: int) -> torch.Tensor:
        """(3, T, S, S) float32 of what `read` gave, by row n of `params`."""
        raise NotImplementedError

    def decode(self, batches: Iterable[Clips]) -> Iterator[list[Any]]:
        for clips in batches:
            yield [self.read(clips.files[n], clips.frames_NT[n]) for n in range(len(clips))]

    def load(self, batches: Iterable[Clips]) -> Iterator[torch.Tensor]:
        for clips in batches:
            yield torch.stack(
                [
                    self.augment(self.read(clips.files[n], clips.frames_NT[n]), clips.params, n)
                    for n in range(len(clips))
                ]
            )


def stride_of(frames_T: Frames) -> int:
    """Frames between two frames of a clip."""
    return int(frames_T[1] - frames_T[0]) if len(frames_T) > 1 else 1


def pixel_region(params: ClipParams, n: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of clip n's region in whole pixels, as image libraries cut it."""
    size = np.array([height, width])
    top, left = np.round(params.top_left[n] * size).astype(int).tolist()
    bottom, right = np.round(params.bottom_right[n] * size).astype(int).tolist()
    return top, left, max(bottom - top, 1), max(right - left, 1)
