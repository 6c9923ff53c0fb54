"""One video file into stored pictures: scaled, turned upright, resampled when asked, encoded."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from slicfast.data.decoding.ffmpeg import DEFAULT_FPS, Decoded, decode, open_video, quiet_ffmpeg
from slicfast.data.decoding.pictures import FrameScaler, Resampled
from slicfast.data.flow import CONTENT, FlowEncoder
from slicfast.data.preparing.encoding import make_encoder
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.original_facts import original_facts
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
    presented by second k / fps. Later pictures of another size are scaled to the first one's. Where flow is
    asked for (settings.content), n pictures give n - 1 fields, made from pictures not yet compressed.

    Args:
        start_s, end_s: a segment, in seconds as players show them.
        max_pictures: stop once there are so many.
        beat: called often, to show that the work goes on.

    Raises:
        DataError: nothing can be had from this file; the message is the reason.
        OutputError: `out` cannot be written.
    """
    if settings.codec == "files":
        return _scanned(path, out, settings, start_s is not None, beat)
    pictures, state = Pictures(), Decoded()
    scaler = FrameScaler(settings.short_side, "bgr24")
    encoder = FlowEncoder(settings) if settings.content in CONTENT.values() else make_encoder(settings)
    first, num_bytes = b"", 0
    with closing(decode(path, state, start_s, end_s, beat)) as frames:
        clocked = Resampled(frames, state, settings.fps)
        for frame, repeats in clocked:
            picture_HWC = scaler.picture(frame)
            for _ in range(repeats):
                data = encoder.encode(picture_HWC)
                if not data:  # flow begins with the second picture
                    continue
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
        if state.num_frames:
            raise DataError("a single picture has no flow")
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


def _scanned(
    path: Path, out: IO[bytes], settings: StoreSettings, is_segment: bool, beat: Callable[[], None]
) -> Pictures:
    """Of a file that stays where it is: a line with its path, then a byte a picture, 1 for a key frame."""
    if is_segment:
        raise DataError("a segment of a file cannot be scanned; prepare it with another codec")
    facts = original_facts(path, beat)
    state, scaler = Decoded(), FrameScaler(settings.short_side, "bgr24")
    with closing(decode(path, state, beat=beat)) as frames:
        for frame, _ in frames:
            scaler.picture(frame)
            break
    if not scaler.width:
        raise DataError(_why_nothing(state, None, None))
    keys = set(facts.key_frames)
    flags = [bytes([number in keys]) for number in range(facts.num_frames)]
    root = Path(settings.root or "/")
    place = path.absolute()
    place = place.relative_to(root) if place.is_relative_to(root) else place
    flags[0] = os.fsencode(place) + b"\n" + flags[0]
    _write(out, b"".join(flags))
    return Pictures(
        facts.rate[0] / facts.rate[1] if facts.rate[0] else DEFAULT_FPS,
        scaler.width,
        scaler.height,
        scaler.source_width,
        scaler.source_height,
        [len(flag) for flag in flags],
        [zlib.crc32(flag) for flag in flags],
    )


def video_length(
    path: Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    beat: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Seconds and pictures of a video, or of a segment of it, from its header. Raises DataError.

    Where the header does not tell, its packets are counted; nothing is decoded.
    """
    with quiet_ffmpeg(), open_video(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
        if stream.duration:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / 1e6
        else:
            num_packets = 0
            for packet in container.demux(stream):
                num_packets += bool(packet.size)
                beat()
            seconds = num_packets / rate
        num_pictures = stream.frames or seconds * rate
    first_s, last_s = start_s or 0.0, seconds if end_s is None else min(seconds, end_s)
    share = max(0.0, last_s - first_s) / seconds if seconds else 1.0
    return seconds * share, num_pictures * share


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
