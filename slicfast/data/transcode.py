"""One video file into stored pictures: scaled, turned upright, resampled when asked, encoded."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from slicfast.data.decode import DEFAULT_FPS, Clock, Decoded, decode
from slicfast.data.encoding import make_encoder
from slicfast.data.store_format import StoreSettings, Uint8Array
from slicfast.errors import DataError

MAX_BYTES = (1 << 32) - 1  # the store's limit for one video
TIME_SLACK_S = 1e-3  # many containers round times to milliseconds


class OutputError(Exception):
    """The pictures could not be written; the video is not at fault."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Pictures:
    """What came out of a video.

    Attributes:
        fps: pictures a second, as asked or as measured from the presentation times.
        width, height: stored pixels.
        source_width, source_height: pixels of the first picture as displayed.
        sizes, crcs: bytes and CRC-32 of each picture as stored; see VideoRecord.
        damage: what was wrong with the file all the same; empty when sound.
    """

    fps: float = DEFAULT_FPS
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    sizes: list[int] = field(default_factory=list)
    crcs: list[int] = field(default_factory=list)
    damage: str = ""


def transcode(
    path: Path,
    out: IO[bytes],
    settings: StoreSettings,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    max_pictures: int | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Pictures:
    """Write a video's pictures to `out`, which must be able to seek, in the codec of the settings.

    Every picture that FFmpeg presents is kept with settings.fps None; else picture k is the latest one
    presented by second k / fps. Later pictures of another size are scaled to the first one's.

    Args:
        start_s, end_s: a segment, in seconds as players show them.
        max_pictures: stop once there are so many.
        beat: called often, to show that the work goes on.

    Raises:
        DataError: nothing can be had from this file; the message is the reason.
        OutputError: `out` cannot be written.
    """
    pictures, state = Pictures(), Decoded()
    scaler, encoder = _Scaler(settings), make_encoder(settings)
    first, num_bytes = b"", 0
    with closing(decode(path, state, start_s, end_s, beat)) as frames:
        clocked = _Resampled(frames, state, settings.fps)
        for frame, repeats in clocked:
            picture_HWC = scaler.scale(frame)
            for _ in range(repeats):
                data = encoder.encode(picture_HWC)
                first = first or data
                num_bytes += len(data)
                if num_bytes > MAX_BYTES:
                    raise DataError("more than 4 GiB once stored; list it as several segments")
                _write(out, data)
                pictures.sizes.append(len(data))
                pictures.crcs.append(zlib.crc32(data))
            if max_pictures is not None and len(pictures.sizes) >= max_pictures:
                break
    if not pictures.sizes:
        raise DataError(_why_nothing(state, start_s, end_s))
    pictures.fps = clocked.fps
    if head := encoder.head(clocked.fps):
        out.seek(0)
        _write(out, head)
        pictures.crcs[0] = zlib.crc32(first[len(head) :], zlib.crc32(head))
    pictures.width, pictures.height = scaler.width, scaler.height
    pictures.source_width, pictures.source_height = scaler.source_width, scaler.source_height
    pictures.damage = state.damage()
    return pictures


def _write(out: IO[bytes], data: bytes) -> None:
    try:
        out.write(data)
    except OSError as error:
        raise OutputError(error) from None


def _why_nothing(state: Decoded, start_s: float | None, end_s: float | None) -> str:
    damage = state.damage()
    if (start_s is not None or end_s is not None) and not damage:
        end = "its end" if end_s is None else f"{end_s:g} s"
        return f"no picture between {start_s or 0:g} s and {end}: the video ends at {state.last_time:.2f} s"
    return f"no picture could be decoded ({damage or 'the file holds none'})"


class _Resampled:
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
    def fps(self) -> float:
        """Asked for, or measured; the header's where the two agree, as that is the exact number."""
        if self._asked is not None:
            return self._asked
        told = self._state.rate
        if self._num_in < 2 or self._clock.now <= 0:
            return told or DEFAULT_FPS
        measured = (self._num_in - 1) / self._clock.now
        return told if told is not None and abs(measured / told - 1) < 0.02 else measured


class _Scaler:
    """Frames upright, at the size that the first one decides."""

    def __init__(self, settings: StoreSettings) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._settings = settings
        self._reformatter = VideoReformatter()
        self._flags = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        self.width = self.height = 0  # stored, upright
        self.source_width = self.source_height = 0  # of the first frame, upright

    def scale(self, frame: Any) -> Uint8Array:
        """(height, width, 3) BGR."""
        turn = _Turn.of(frame)
        if not self.width:
            self._choose_size(frame, turn)
        width, height = (self.height, self.width) if turn.transpose else (self.width, self.height)
        return turn.apply(self._resize(frame, width, height))

    def _choose_size(self, frame: Any, turn: _Turn) -> None:
        width, height = (frame.height, frame.width) if turn.transpose else (frame.width, frame.height)
        scale = min(1.0, self._settings.short_side / min(width, height))  # never enlarged
        self.width, self.height = max(1, round(width * scale)), max(1, round(height * scale))
        self.source_width, self.source_height = width, height

    def _resize(self, frame: Any, width: int, height: int) -> Uint8Array:
        """(height, width, 3) BGR, every stored pixel the average of those it covers."""
        import cv2

        if frame.interlaced_frame:  # swscale would scale the two fields apart and keep the comb
            whole_HWC = self._reformatter.reformat(frame, format="bgr24", threads=1).to_ndarray()
            return np.asarray(cv2.resize(whole_HWC, (width, height), interpolation=cv2.INTER_AREA))
        small = self._reformatter.reformat(
            frame, width, height, "bgr24", interpolation=self._flags, threads=1
        )
        return np.asarray(small.to_ndarray())


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
