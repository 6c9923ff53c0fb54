"""Clips straight from a video file or from an array of pictures, as a clip store would give them before JPEG.

Pictures are scaled and cropped as they come, so that memory does not grow with a video's length.
Legend: F pictures, R rows (one embedding each: a video or a window of it), C clips, T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.requests import frame_indices
from slicfast.data.sampling import evenly_spaced
from slicfast.data.sources.file_sources import ClipPlan, Source, VideoFacts
from slicfast.data.stores.format import Uint8Array
from slicfast.errors import DataError

MAX_HELD_BYTES = 128 << 20  # pictures of one video kept; a longer one is read twice instead
CHUNK = 32  # pictures cropped at a time


@dataclass(frozen=True)
class Piece:
    """Some clips of one video.

    Attributes:
        pictures: (F, crop, crop, 3) uint8 RGB.
        index_CT: which of them make each clip.
        row_C: the row of the video to which a clip belongs.
    """

    pictures: Uint8Array
    index_CT: npt.NDArray[np.int64]
    row_C: npt.NDArray[np.int64]


def read_clips(source: Source, plan: ClipPlan) -> Generator[Piece, None, VideoFacts]:
    """Yield a video's clips in pieces of at most ``plan.max_clips``; returns what was learned of it.

    Clips of a video shorter than they are repeat its last picture.

    Raises:
        DataError: the source cannot be read, or holds no picture.
    """
    facts = yield from _windows(source, plan) if plan.window_s is not None else _whole(source, plan)
    return facts


def _whole(source: Source, plan: ClipPlan) -> Generator[Piece, None, VideoFacts]:
    """One row: evenly spaced clips of all of it."""
    facts, held, most, last_s = VideoFacts(), list[Uint8Array](), 1, 0.0
    first_s = None
    for frame, repeats, now in source.frames():
        first_s = now if first_s is None else first_s
        last_s = now
        if facts.num_frames < most:
            picture = source.picture(frame)
            most = max(1, MAX_HELD_BYTES // picture.nbytes)
            held.extend([picture] * repeats)
        facts.num_frames += repeats
    _finish(source, facts, last_s - (first_s or 0.0))
    facts.row_start_s, facts.row_end_s = [first_s or 0.0], [last_s + 1 / source.fps]
    requests_C = evenly_spaced(
        np.zeros(1, dtype=np.int32),
        [facts.num_frames],
        plan.num_clips,
        clip_span=plan.clip_span,
        stride=plan.clip_stride,
    )
    index_CT = frame_indices(requests_C, plan.clip_length, np.full(len(requests_C), facts.num_frames))
    if len(held) < facts.num_frames:
        held.clear()
    pieces = [index_CT[i : i + plan.max_clips] for i in range(0, len(index_CT), plan.max_clips)]
    for part_CT in pieces:
        wanted_F, place = np.unique(part_CT, return_inverse=True)
        pictures = [held[number] for number in wanted_F] if held else _pick(source, wanted_F.tolist())
        row_C = np.zeros(len(part_CT), dtype=np.int64)
        yield Piece(_cropped(pictures, plan), place.reshape(part_CT.shape), row_C)
    return facts


def _pick(source: Source, wanted: list[int]) -> list[Uint8Array]:
    """Some pictures of a video too long to be kept, by another pass over it."""
    found: list[Uint8Array] = []
    shown = 0
    with closing(source.frames()) as frames:
        for frame, repeats, _ in frames:
            shown += repeats
            if wanted[len(found)] < shown:
                picture = source.picture(frame)
                while len(found) < len(wanted) and wanted[len(found)] < shown:
                    found.append(picture)
                if len(found) == len(wanted):
                    return found
    raise DataError("it changed while it was read")


def _windows(source: Source, plan: ClipPlan) -> Generator[Piece, None, VideoFacts]:
    """A row a window; the last one ends with the video, whatever the hop leaves over."""
    facts, ready = VideoFacts(), _Ready(source, plan)
    length = hop = start = 0
    for frame, repeats, now in source.frames():
        if not length:
            length, hop = window_frames(plan, source.fps)
        ready.add(frame, repeats, now)
        facts.num_frames += repeats
        while facts.num_frames >= start + length:
            yield from ready.take(start, length, facts)
            start += hop
            ready.drop(min(start, facts.num_frames - length))
    _finish(source, facts, ready.last_s - ready.first_s)
    covered = start - hop + length if start else 0
    if covered < facts.num_frames:  # a window that ends with the video; one shorter than that is one window
        yield from ready.take(max(0, facts.num_frames - length), length, facts)
    yield from ready.flush()
    return facts


def window_frames(plan: ClipPlan, fps: float) -> tuple[int, int]:
    """Pictures from the first to the last of a window, and from one window to the next."""
    assert plan.window_s is not None
    length = max(1, round(plan.window_s * fps))
    hop = max(1, round((plan.hop_s if plan.hop_s is not None else plan.window_s / 2) * fps))
    return length, hop


class _Ready:
    """The latest pictures of a video, cropped, and the clips gathered for the next piece."""

    def __init__(self, source: Source, plan: ClipPlan) -> None:
        self._source, self._plan = source, plan
        self._first = 0  # number of the earliest picture kept
        self._cropped: list[Uint8Array] = []
        self._raw: list[Uint8Array] = []
        self._times: list[float] = []
        self._index: list[npt.NDArray[np.int64]] = []  # of numbers of pictures, (C, T) a window
        self._rows: list[int] = []
        self._pictures: dict[int, Uint8Array] = {}  # by number, for the clips gathered
        self.first_s = self.last_s = 0.0

    def add(self, frame: Any, repeats: int, now: float) -> None:
        if not self._times and not self._first:
            self.first_s = now
        self.last_s = now
        self._raw.extend([self._source.picture(frame)] * repeats)
        self._times.extend([now] * repeats)
        if len(self._raw) >= CHUNK:
            self._crop()

    def _crop(self) -> None:
        if self._raw:
            self._cropped.extend(_cropped(self._raw, self._plan))
            self._raw.clear()

    def take(self, start: int, length: int, facts: VideoFacts) -> Iterator[Piece]:
        """The window of `length` pictures from `start`; what has gathered comes out as pieces."""
        plan = self._plan
        self._crop()
        clips = max(1, min(plan.num_clips, length // plan.clip_span))
        requests_C = evenly_spaced(
            np.zeros(1, dtype=np.int32), [length], clips, clip_span=plan.clip_span, stride=plan.clip_stride
        )
        requests_C["start"] += start
        last = np.full(clips, min(start + length, facts.num_frames))
        index_CT = frame_indices(requests_C, plan.clip_length, last)
        row = len(facts.row_start_s)
        facts.row_start_s.append(self._times[start - self._first])
        facts.row_end_s.append(self._times[int(last[0]) - 1 - self._first] + 1 / self._source.fps)
        for clip_T in index_CT:
            self._index.append(clip_T)
            self._rows.append(row)
            self._pictures |= {n: self._cropped[n - self._first] for n in clip_T.tolist()}
            if len(self._rows) == plan.max_clips:
                yield from self.flush()

    def flush(self) -> Iterator[Piece]:
        """A piece of what has gathered, if anything has."""
        if not self._rows:
            return
        numbers = sorted(self._pictures)
        pictures = np.stack([self._pictures[number] for number in numbers])
        yield Piece(pictures, np.searchsorted(numbers, np.stack(self._index)), np.array(self._rows))
        self._index.clear()
        self._rows.clear()
        self._pictures.clear()

    def drop(self, first: int) -> None:
        """Forget the pictures before number `first`."""
        surplus = first - self._first
        if surplus > 0:
            del self._cropped[:surplus], self._times[:surplus]
            self._first = first


def _finish(source: Source, facts: VideoFacts, last_s: float) -> None:
    source.finish(facts)
    facts.fps = source.fps
    facts.duration_s = last_s + 1 / source.fps


def _cropped(pictures: list[Uint8Array], plan: ClipPlan) -> Uint8Array:
    """(F, crop, crop, 3): resized as the loader's evaluation clips are, and the middle of that."""
    frames_FHWC = torch.from_numpy(np.stack(pictures))
    if frames_FHWC.shape[1:3] != plan.resize:
        frames_FHWC = torch.nn.functional.interpolate(
            frames_FHWC.permute(0, 3, 1, 2), size=plan.resize, mode="bilinear", antialias=True
        ).permute(0, 2, 3, 1)
    top, left = (round((size - plan.crop_size) / 2) for size in plan.resize)
    middle: Uint8Array = np.ascontiguousarray(
        frames_FHWC[:, top : top + plan.crop_size, left : left + plan.crop_size].numpy()
    )
    return middle
