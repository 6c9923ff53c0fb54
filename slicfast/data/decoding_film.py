"""Clips of original films to pictures in memory, by FFmpeg (PyAV) on the processor, a thread a clip."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from slicfast.data.decoding import DecodeError
from slicfast.data.pictures import FrameScaler
from slicfast.data.store_parts import FilmCut


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
    last = max(wanted)
    try:
        with av.open(io.BytesIO(cut.data.tobytes()), "r", metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    if frame.is_corrupt:
                        raise DecodeError(f"picture {number} of the cut is damaged")
                    pictures[number] = scaler.picture(frame)
                if number >= last:
                    break
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DecodeError(f"FFmpeg cannot decode it: {error}") from None
    if len(pictures) < len(wanted):
        raise DecodeError(f"{len(pictures)} of {len(wanted)} pictures came out of it")
    if (scaler.width, scaler.height) != cut.stored:
        raise DecodeError(
            f"its pictures are {scaler.width} x {scaler.height}, not {cut.stored[0]} x {cut.stored[1]}"
        )
    return np.stack([pictures[number] for number in cut.frames.tolist()])
