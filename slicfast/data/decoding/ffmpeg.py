"""The pictures of a video as FFmpeg presents them, with their times, and what was wrong with the file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicfast.errors import DataError

if TYPE_CHECKING:
    import av
    import av.container

SEEKABLE = ("mov", "matroska", "avi")  # seeking is exact there; elsewhere segments are reached by decoding
SEEK_MARGIN_S = 2.0  # seek this much early: pictures right behind a key frame may lean on earlier ones
MAX_GAP_S = 60.0  # a longer step between two pictures is a jump of the clock, not a pause
MAX_LOG_LINES = 50
DEFAULT_FPS = 25.0


@dataclass
class Clock:
    """Presentation times made to run forward: jumps and missing times become one ordinary step.

    Attributes:
        step: seconds from one picture to the next where the file does not say.
        now: seconds from the first picture to the latest.
    """

    step: float
    now: float = -1.0
    _previous: float | None = None

    def tick(self, time: float | None) -> float:
        """Take the next picture's time in the file (seconds) and return its time in the video."""
        if self.now < 0:
            self.now = 0.0
        else:
            gap = time - self._previous if time is not None and self._previous is not None else self.step
            self.now += gap if 0 < gap <= MAX_GAP_S else self.step
        self._previous = time if time is not None else (self._previous or 0.0) + self.step
        return self.now


@dataclass
class Decoded:
    """A video being read.

    Attributes:
        rate: pictures a second that the header tells, None where it does not.
        codec: the decoder's name.
        num_frames: pictures presented so far.
        num_corrupt: pictures FFmpeg marked as damaged.
        last_time: seconds, of the latest picture, even one outside the segment.
        errors: what went wrong, in order, as far as kept.
    """

    rate: float | None = None
    codec: str = ""
    num_frames: int = 0
    num_packets: int = 0
    num_expected: int = 0
    num_corrupt: int = 0
    num_undecodable: int = 0
    last_time: float = 0.0
    errors: list[str] = field(default_factory=list)

    def damage(self) -> str:
        """One line about the damage; empty where there was none."""
        parts = []
        if self.num_corrupt:
            parts.append(f"{self.num_corrupt} of {self.num_frames} pictures damaged")
        if self.num_undecodable:
            what = "packet" if self.num_undecodable == 1 else "packets"
            parts.append(f"{self.num_undecodable} {what} that could not be decoded")
        first = next((error for error in self.errors if error), "")
        if first:
            parts.append(first)
        return "; ".join(parts)


def one_line(text: str) -> str:
    """Printable text without line breaks."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, Any]]:
    """The file and its first video stream, cover pictures apart; the decoder uses one thread.

    Raises DataError with the reason where FFmpeg cannot read it or there is no video.
    """
    # An absolute path: FFmpeg would take what stands before a colon for a protocol.
    with open_url(str(path.absolute())) as opened:
        yield opened


@contextmanager
def open_url(url: str) -> Iterator[tuple[av.container.InputContainer, Any]]:
    """The same of whatever FFmpeg's protocols name."""
    import av

    try:
        container = av.open(url, metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"FFmpeg cannot read it: {_explain(error)}") from None
    with container:
        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            raise DataError(f"no video stream (found {', '.join(kinds) or 'nothing'})")
        if streams[0].codec_context is None:
            raise DataError("no decoder in this FFmpeg for its video stream")
        streams[0].thread_count = 1
        yield container, streams[0]


@contextmanager
def quiet_ffmpeg() -> Iterator[list[tuple[int, str, str]]]:
    """Collect FFmpeg's error lines, (level, part, message), instead of letting them reach the terminal."""
    import av.logging

    level, repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # else a line is held back and turns up with the next video
    try:
        with av.logging.Capture(local=True) as lines:
            yield lines
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(repeated)


def decode(
    path: Path,
    state: Decoded,
    start_s: float | None = None,
    end_s: float | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Generator[tuple[Any, float | None]]:
    """Yield (frame, seconds since the file's start or None) for each picture presented, in order.

    Edit lists are honoured by FFmpeg: what they hide never comes out. Damaged stretches are passed over.

    Args:
        state: filled in while reading.
        start_s, end_s: only pictures with start_s <= time < end_s.
        beat: called for each packet, to show that the work goes on.

    Raises:
        DataError: the file cannot be opened or has no video.
    """
    seek = start_s is not None and start_s > 2 * SEEK_MARGIN_S and _can_seek(path, start_s)
    with quiet_ffmpeg() as lines, open_video(path) as (container, stream):
        state.codec = stream.codec_context.name
        rate = stream.average_rate or stream.guessed_rate
        state.rate = float(rate) if rate else None
        state.num_expected = _num_expected(container, stream)
        origin_s = _origin_s(container)
        if seek and start_s is not None:
            _seek(container, origin_s + start_s)
        for packet in _packets(container, stream, state):
            beat()
            state.num_packets += bool(packet.size)
            for frame in _frames(packet, state):
                time = None if frame.pts is None else float(frame.pts * frame.time_base) - origin_s
                state.last_time = time if time is not None else state.last_time
                if start_s is not None and (time is None or time < start_s):
                    lines.clear()  # damage before the segment is none of its business
                    continue
                if end_s is not None and time is not None and time >= end_s:
                    return
                state.num_frames += 1
                state.num_corrupt += frame.is_corrupt
                yield frame, time
            _keep(lines, state)
        if start_s is None and state.num_packets < 0.98 * state.num_expected - 2:
            state.errors.insert(0, f"ends after {state.num_packets} of {state.num_expected} pictures")


def _packets(container: Any, stream: Any, state: Decoded) -> Iterator[Any]:
    """Packets up to the end of the file, or up to where it cannot be read on."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:
            state.errors.append(f"cannot be read to its end: {_explain(error)}")
            return
        if packet.size or packet.dts is None:  # Theora's empty packets repeat a picture; the last one flushes
            yield packet


def _frames(packet: Any, state: Decoded) -> list[Any]:
    import av

    try:
        return list(packet.decode())
    except EOFError:
        return []
    except av.FFmpegError:  # its message stands in the log lines
        state.num_undecodable += 1
        return []


def _keep(lines: list[tuple[int, str, str]], state: Decoded) -> None:
    for _, part, message in lines[: MAX_LOG_LINES - len(state.errors)]:
        state.errors.append(one_line(f"{part}: {message}"))
    lines.clear()


def _num_expected(container: Any, stream: Any) -> int:
    """Packets that a whole file would have, 0 where the header does not tell."""
    if "mov" in container.format.name:
        return len(stream.index_entries)  # the header's count includes what an edit list hides
    return int(stream.frames)


def _origin_s(container: Any) -> float:
    """Where the file's own clock starts: segments are told from there, as players show it."""
    return (container.start_time or 0) / 1e6


def _seek(container: Any, time_s: float) -> None:
    container.seek(round((time_s - SEEK_MARGIN_S) * 1e6))


def _can_seek(path: Path, start_s: float) -> bool:
    """Whether seeking lands before `start_s`; where it does not, the file is decoded from its start."""
    import av

    with quiet_ffmpeg(), open_video(path) as (container, stream):
        if not any(name in container.format.name for name in SEEKABLE):
            return False
        try:
            origin_s = _origin_s(container)
            _seek(container, origin_s + start_s)
            first = next(frame for frame in container.decode(stream) if frame.pts is not None)
            return bool(float(first.pts * first.time_base) - origin_s <= start_s)
        except (av.FFmpegError, OSError, StopIteration):
            return False


def _explain(error: Exception) -> str:
    """FFmpeg's message with the line it logged about it."""
    log = getattr(error, "log", None)
    text = getattr(error, "strerror", None) or str(error)
    return one_line(f"{text} ({one_line(log[2])})" if log else text)
