"""Decoded frames as pictures: on the clock asked for, turned upright, scaled to a short side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from slicfast.data.decoding.ffmpeg import DEFAULT_FPS, Clock, Decoded
from slicfast.data.stores.format import Uint8Array

TIME_SLACK_S = 1e-3  # many containers round times to milliseconds


class Resampled:
    """Pairs (frame, how often it is stored) on a regular clock; every frame once where no fps is asked."""

    def __init__(self, frames: Iterable[tuple[Any, float | None]], state: Decoded, fps: float | None) -> None:
        self._frames = frames
        self._state = state
        self._asked = fps
        self._clock = Clock(1 / DEFAULT_FPS)
        self._num_in = 0

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        held, num_out = None, 0
        for frame, time in self._frames:
            if self._num_in == 0 and self._state.rate:
                self._clock.step = 1 / self._state.rate
            now = self._clock.tick(time)
            self._num_in += 1
            if self._asked is None:
                yield frame, 1
                continue
            if held is not None:
                due = self._due(now, self._asked)
                if due > num_out:
                    yield held, due - num_out
                num_out = max(num_out, due)
            held = frame
        if held is not None and self._asked is not None:
            last = float(held.duration * held.time_base) if held.duration else self._clock.step
            due = self._due(self._clock.now + last, self._asked)
            if due > num_out or not num_out:  # something is shown even of the shortest video
                yield held, max(1, due - num_out)

    @staticmethod
    def _due(end: float, fps: float) -> int:
        """How many pictures of a regular clock lie before second `end`."""
        return math.ceil((end - TIME_SLACK_S) * fps)

    @property
    def now(self) -> float:
        """Seconds from the first picture to the latest that was read."""
        return max(0.0, self._clock.now)

    @property
    def fps(self) -> float:
        """Asked for, or measured; the header's where the two agree, as that is the exact number."""
        if self._asked is not None:
            return self._asked
        told = self._state.rate
        if self._num_in < 2 or self._clock.now <= 0:
            return told or DEFAULT_FPS
        measured = (self._num_in - 1) / self._clock.now
        return told if told is not None and abs(measured / told - 1) < 0.02 else measured


class FrameScaler:
    """Frames to pictures at the size that the first one decides; smaller videos keep theirs.

    Attributes:
        width, height: pixels of the pictures, upright; 0 before the first.
        source_width, source_height: of the first frame, upright.
    """

    def __init__(self, short_side: int, pixel_format: Literal["bgr24", "rgb24"]) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._short_side = short_side
        self._format = pixel_format
        self._reformatter = VideoReformatter()
        self._flags = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        self.width = self.height = 0
        self.source_width = self.source_height = 0

    def picture(self, frame: Any) -> Uint8Array:
        """(height, width, 3) uint8, every pixel the average of those it covers."""
        turn = _Turn.of(frame)
        if not self.width:
            self._choose_size(frame, turn)
        width, height = (self.height, self.width) if turn.transpose else (self.width, self.height)
        return turn.apply(self._scale(frame, width, height))

    def _choose_size(self, frame: Any, turn: _Turn) -> None:
        width, height = (frame.height, frame.width) if turn.transpose else (frame.width, frame.height)
        self.width, self.height = scaled_size(width, height, self._short_side)
        self.source_width, self.source_height = width, height

    def _scale(self, frame: Any, width: int, height: int) -> Uint8Array:
        import cv2

        if frame.interlaced_frame:  # swscale would scale the two fields apart and keep the comb
            whole_HWC = self._reformatter.reformat(frame, format=self._format, threads=1).to_ndarray()
            return np.asarray(cv2.resize(whole_HWC, (width, height), interpolation=cv2.INTER_AREA))
        small = self._reformatter.reformat(
            frame, width, height, self._format, interpolation=self._flags, threads=1
        )
        return np.asarray(small.to_ndarray())


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the given short side, never enlarged."""
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def display_turn(frame: Any) -> bool:
    """Whether a frame is to be shown turned or mirrored."""
    return _Turn.of(frame) != _Turn()


@dataclass(frozen=True)
class _Turn:
    """What a display matrix asks for: quarter turns and mirroring, as transpose and then flips."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: Any) -> _Turn:
        from av.sidedata.sidedata import Type

        data = frame.side_data.get(Type.DISPLAYMATRIX)
        if data is None:
            return cls()
        # Shown x = a x + c y, shown y = b x + d y; any other angle is taken to the nearest quarter turn.
        (a, b, _), (c, d, _), _ = np.frombuffer(data, dtype=np.int32).reshape(3, 3).tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, flip_x=c < 0, flip_y=b < 0)
        return cls(False, flip_x=a < 0, flip_y=d < 0)

    def apply(self, picture_HWC: Uint8Array) -> Uint8Array:
        if self.transpose:
            picture_HWC = picture_HWC.transpose(1, 0, 2)
        if self.flip_x:
            picture_HWC = picture_HWC[:, ::-1]
        if self.flip_y:
            picture_HWC = picture_HWC[::-1]
        return np.ascontiguousarray(picture_HWC)
