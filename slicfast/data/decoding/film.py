"""Clips of original films to pictures in memory, by FFmpeg (PyAV) on the processor, a thread a clip."""

from __future__ import annotations

import contextlib
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.decoding.jpeg import DecodeError
from slicfast.data.decoding.pictures import FrameScaler
from slicfast.data.stores.parts import FILM_TICK_MS, FilmCut


class FilmDecoder:
    """Cuts of films in, clips of their pixels out, at the size that a clip store has; as JpegDecoder.

    Args:
        num_threads: clips decoded side by side.
    """

    def __init__(self, *, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, "slicfast-film")
        self._under_way: deque[list[Future[npt.NDArray[np.uint8]]]] = deque()

    def feed(self, cuts: Sequence[FilmCut]) -> None:
        """Start on a batch of N cuts."""
        self._under_way.append([self._pool.submit(decode_film, cut) for cut in cuts])

    def take(self) -> list[npt.NDArray[np.uint8]]:
        """The next batch, waiting for it: N clips, (T, H, W, 3) RGB. Raises DecodeError where it is lost."""
        clips, failure = [], None
        for future in self._under_way.popleft():
            try:
                clips.append(future.result())
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        return clips

    def wait(self) -> None:
        """The same for who wants to know only whether it can be decoded."""
        self.take()


def decode_film(cut: FilmCut) -> npt.NDArray[np.uint8]:
    """(T, H, W, 3) uint8 RGB of one cut, scaled and turned upright as `prepare` does.

    Raises DecodeError where a picture of it is missing, damaged or of another size.
    """
    import av

    wanted = set(cut.frames.tolist())
    pictures: dict[int, npt.NDArray[np.uint8]] = {}
    scaler = FrameScaler(cut.short_side, "rgb24")
    try:
        for number, frame in _numbered(cut):
            if number in wanted:
                if frame.is_corrupt:
                    raise DecodeError("a picture of it is damaged")
                pictures[number] = scaler.picture(frame)
                if len(pictures) == len(wanted):
                    break
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise DecodeError(f"FFmpeg cannot decode it: {error}") from None
    if len(pictures) < len(wanted):
        raise DecodeError(f"{len(pictures)} of {len(wanted)} pictures came out of it")
    if (scaler.width, scaler.height) != cut.stored:
        raise DecodeError(
            f"its pictures are {scaler.width} x {scaler.height}, not {cut.stored[0]} x {cut.stored[1]}"
        )
    return np.stack([pictures[number] for number in cut.frames.tolist()])


def _numbered(cut: FilmCut) -> Iterator[tuple[int, Any]]:
    """Frames of a cut with their numbers; of a whole film as `prepare` counts them, past bad packets."""
    import av

    count = 0
    with av.open(io.BytesIO(cut.data.tobytes()), "r", metadata_errors="ignore") as container:
        attached = av.stream.Disposition.attached_pic
        stream = next(found for found in container.streams.video if not found.disposition & attached)
        stream.thread_count = 1
        if cut.first_ms >= 0:
            for frame in container.decode(stream):
                yield round((1000.0 * frame.time - cut.first_ms) / FILM_TICK_MS), frame
            return
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError, EOFError):
                for frame in packet.decode():
                    yield count, frame
                    count += 1
