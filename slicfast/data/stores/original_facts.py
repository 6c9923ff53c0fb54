"""What is in a video file, for readers that decode it where Python is not: on a GPU, from bytes in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicfast.data.decoding.ffmpeg import open_video, quiet_ffmpeg
from slicfast.data.stores.original import OriginalFacts
from slicfast.errors import DataError

HIDDEN_PACKETS = ("vp8",)  # codecs with packets that show no picture


def original_facts(path: Path, beat: Callable[[], None] = lambda: None) -> OriginalFacts:
    """Facts of a file's first video stream; packets are read, decoded only where they bear no sound times.

    Args:
        beat: called for each packet, to show that the work goes on.

    Raises DataError where FFmpeg cannot read it or finds no picture.
    """
    with quiet_ffmpeg():
        with open_video(path) as (container, stream):
            name, codec = container.format.name, stream.codec.canonical_name
            width, height = stream.codec_context.width, stream.codec_context.height
            rate, time_base = stream.average_rate or stream.guessed_rate or 0, stream.time_base
            times = _packet_times(container, stream, beat)
        if times is None or codec in HIDDEN_PACKETS:
            with open_video(path) as (container, stream):
                times = _frame_times(container, stream, beat)
    if not times:
        raise DataError("no picture found in it")
    shown = sorted(times)
    return OriginalFacts(
        name,
        codec,
        width,
        height,
        len(shown),
        tuple(number for number, (_, is_key) in enumerate(shown) if is_key),
        (getattr(rate, "numerator", 0), getattr(rate, "denominator", 1)),
        (time_base.numerator, time_base.denominator),
    )


def _packet_times(container: Any, stream: Any, beat: Callable[[], None]) -> list[tuple[int, bool]] | None:
    """(time, whether it is a key frame) of each picture shown; None where a time is absent or jumps back."""
    import av

    times, latest = [], None
    try:
        for packet in container.demux(stream):
            beat()
            if not packet.size or packet.is_discard:  # the last one is empty; edit lists hide some
                continue
            backwards = latest is not None and packet.dts is not None and packet.dts < latest
            if packet.pts is None or backwards:
                return None
            latest = packet.dts
            times.append((packet.pts, bool(packet.is_keyframe)))
    except (av.FFmpegError, OSError):
        pass  # up to where it can be read
    return times


def _frame_times(container: Any, stream: Any, beat: Callable[[], None]) -> list[tuple[int, bool]]:
    """The same by decoding: files such as AVI with B-frames give their packets no times of presentation."""
    import av

    times: list[tuple[int, bool]] = []
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError, OSError):
            return times
        beat()
        try:
            frames = packet.decode()
        except (av.FFmpegError, EOFError):
            continue
        times += [(len(times) + n, bool(frame.key_frame)) for n, frame in enumerate(frames)]
