"""A video as a source of pictures, whether it is a file, a segment of one, or an array in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from slicfast.data.decoding.ffmpeg import DEFAULT_FPS, Decoded, decode
from slicfast.data.decoding.pictures import FrameScaler, Resampled, scaled_size
from slicfast.data.stores.format import Uint8Array
from slicfast.errors import ConfigError, DataError


@dataclass(frozen=True)
class ClipPlan:
    """Which clips are taken of a video, and how they are cut.

    Attributes:
        clip_length, clip_stride: frames.
        resize: rows and columns before the centre crop.
        crop_size: pixels of the square.
        short_side: pictures are first scaled down to it, as a clip store's are.
        fps: None: every picture of the file.
        num_clips: of a video, evenly spaced; of a window at most, side by side.
        window_s, hop_s: length and distance of sliding windows in seconds; None: the video is one row.
        max_clips: of one piece.
    """

    clip_length: int
    clip_stride: int
    resize: tuple[int, int]
    crop_size: int
    short_side: int = 128
    fps: float | None = None
    num_clips: int = 10
    window_s: float | None = None
    hop_s: float | None = None
    max_clips: int = 32

    @property
    def clip_span(self) -> int:
        return (self.clip_length - 1) * self.clip_stride + 1


@dataclass
class VideoFacts:
    """What was learned by reading a video: its rows' seconds, pictures, pictures a second, damage."""

    num_frames: int = 0
    fps: float = DEFAULT_FPS
    duration_s: float = 0.0
    row_start_s: list[float] = field(default_factory=list)
    row_end_s: list[float] = field(default_factory=list)
    damage: str = ""


class Source(Protocol):
    """Frames that can be gone through more than once, scaled only where they are wanted."""

    fps: float

    def frames(self) -> Generator[tuple[Any, int, float]]:
        """(frame, how often it is shown, seconds) in order."""

    def picture(self, frame: Any) -> Uint8Array:
        """(H, W, 3) uint8 RGB at the store's size."""

    def finish(self, facts: VideoFacts) -> None:
        """Complete `facts`. Raises DataError where there was no picture."""


class FileSource:
    """A file that FFmpeg reads, or a segment of it."""

    def __init__(
        self,
        path: Path,
        plan: ClipPlan,
        start_s: float | None = None,
        end_s: float | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self._asked, self._beat = path, plan.fps, beat
        self._start_s, self._end_s = start_s, end_s
        self._scaler = FrameScaler(plan.short_side, "rgb24")
        self.fps = plan.fps or DEFAULT_FPS

    def frames(self) -> Generator[tuple[Any, int, float]]:
        self._state = Decoded()
        shown = 0
        with closing(decode(self._path, self._state, self._start_s, self._end_s, self._beat)) as frames:
            clocked = Resampled(frames, self._state, self._asked)
            for frame, repeats in clocked:
                if not shown and self._asked is None and self._state.rate:
                    self.fps = self._state.rate
                now = shown / self._asked if self._asked is not None else clocked.now
                shown += repeats
                yield frame, repeats, (self._start_s or 0.0) + now
            if shown:
                self.fps = clocked.fps

    def picture(self, frame: Any) -> Uint8Array:
        return self._scaler.picture(frame)

    def finish(self, facts: VideoFacts) -> None:
        if not facts.num_frames:
            where = "" if self._start_s is None else f" from {self._start_s:g} s on"
            raise DataError(
                f"no picture could be decoded{where} ({self._state.damage() or 'the file holds none'})"
            )
        facts.damage = self._state.damage()


class ArraySource:
    """Pictures in memory, (F, H, W, 3) uint8 RGB. Raises DataError for anything else."""

    def __init__(self, pictures: Any, plan: ClipPlan, fps: float = DEFAULT_FPS) -> None:
        array = np.asarray(pictures)
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or not array.size:
            raise DataError(
                f"expected pictures (F, H, W, 3) uint8 RGB; got {array.shape} {array.dtype};"
                " normalised clips go through slicfast.load_model"
            )
        if plan.fps is not None:
            raise ConfigError("an array of pictures has no times: leave out fps, or give the file")
        self._array, self.fps = array, fps
        self._size = scaled_size(array.shape[2], array.shape[1], plan.short_side)

    def frames(self) -> Generator[tuple[Any, int, float]]:
        for number, picture in enumerate(self._array):
            yield picture, 1, number / self.fps

    def picture(self, frame: Any) -> Uint8Array:
        import cv2

        if self._size == frame.shape[1::-1]:
            return np.asarray(frame)
        return np.asarray(cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA))

    def finish(self, facts: VideoFacts) -> None:
        """Nothing can have gone wrong."""
