"""Batches whose clips are stored in different ways, each clip decoded by what reads it, on the processor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.decoding.film import FilmDecoder
from slicfast.data.decoding.jpeg import DecodeError, DecodeProbe, JpegDecoder
from slicfast.data.decoding.vp9 import Vp9Decoder
from slicfast.data.stores.parts import Cut, FilmCut, FlowPictures, Held, Stored
from slicfast.device import require_dali

Clip = Sequence[npt.NDArray[np.uint8]]


class Kind(Enum):
    """How a clip is stored."""

    JPEG = "jpeg"
    CUT = "cut"
    FILM = "film"
    HELD = "held"
    FLOW = "flow"  # to be computed, which a GPU does


@dataclass
class Part:
    """The clips of one kind: which of the batch they are, and what is stored of them (T JPEGs a clip)."""

    rows: list[int] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)


def by_kind(stored: Sequence[Stored], clip_length: int) -> dict[Kind, Part]:
    """A batch sorted; clips keep their order within a part."""
    parts: dict[Kind, Part] = {}
    row = num_jpegs = 0
    for item in stored:
        kind = kind_of(item)
        part = parts.setdefault(kind, Part())
        part.items.append(item)
        if kind is Kind.JPEG:
            num_jpegs += 1
            if num_jpegs % clip_length != 1 and clip_length > 1:
                continue
        part.rows.append(row)
        row += 1
    return parts


def num_clips(parts: dict[Kind, Part]) -> int:
    """Of all parts."""
    return sum(len(part.rows) for part in parts.values())


def kind_of(item: Stored) -> Kind:
    """How what is stored of a clip, or of one of its pictures, is stored."""
    if isinstance(item, np.ndarray):
        return Kind.JPEG
    if isinstance(item, FilmCut):
        return Kind.FILM
    if isinstance(item, FlowPictures):
        return Kind.FLOW
    return Kind.CUT if isinstance(item, Cut) else Kind.HELD


class HeldDecoder:
    """The pictures of clips that are in memory already; as JpegDecoder."""

    def __init__(self) -> None:
        self._under_way: deque[Sequence[Held]] = deque()

    def feed(self, clips: Sequence[Held]) -> None:
        self._under_way.append(clips)

    def take(self) -> list[npt.NDArray[np.uint8]]:
        return [_pictures(clip) for clip in self._under_way.popleft()]


def _pictures(clip: Held) -> npt.NDArray[np.uint8]:
    """(T, H, W, 3); a view where the pictures follow one another."""
    first, num = int(clip.index_T[0]), len(clip.index_T)
    pictures: npt.NDArray[np.uint8] = clip.pictures_FHWC.numpy()
    if (np.diff(clip.index_T) == 1).all():
        return pictures[first : first + num]
    return pictures[clip.index_T]


class MixedDecoder:
    """A decoder for each kind of clip that occurs, made when it first does; as JpegDecoder.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(self, *, clip_length: int, num_threads: int, max_clips: int) -> None:
        require_dali()
        self._clip_length = clip_length
        self._make: dict[Kind, Callable[[], Any]] = {
            Kind.JPEG: lambda: JpegDecoder(
                clip_length=clip_length, num_threads=num_threads, max_clips=max_clips
            ),
            Kind.CUT: lambda: Vp9Decoder(num_threads=num_threads, max_clips=max_clips),
            Kind.FILM: lambda: FilmDecoder(num_threads=num_threads),
            Kind.HELD: HeldDecoder,
        }
        self._decoders: dict[Kind, Any] = {}
        self._under_way: deque[dict[Kind, Part]] = deque()

    def feed(self, stored: Sequence[Stored]) -> None:
        """Start on a batch of N clips. Their bytes may change afterwards."""
        parts = by_kind(stored, self._clip_length)
        for kind, part in parts.items():
            if kind not in self._decoders:
                self._decoders[kind] = self._make[kind]()
            self._decoders[kind].feed(part.items)
        self._under_way.append(parts)

    def take(self) -> list[Clip]:
        """The next batch, waiting for it: N clips of T pictures. Raises DecodeError: the batch is lost."""
        parts = self._under_way.popleft()
        clips: list[Clip] = [()] * num_clips(parts)
        failure: DecodeError | None = None
        for kind, part in parts.items():
            try:  # all must be emptied, or the next batch would be this one's
                for row, clip in zip(part.rows, self._decoders[kind].take(), strict=True):
                    clips[row] = clip
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        return clips


class MixedProbe:
    """Finds the clips that fail a batch, by decoding each of them alone; as DecodeProbe."""

    def __init__(self, device: torch.device, *, clip_length: int, num_threads: int) -> None:
        self._device, self._clip_length, self._num_threads = device, clip_length, num_threads
        self._jpeg = DecodeProbe(device, clip_length=clip_length, num_threads=num_threads)
        self._flow_jpeg = DecodeProbe(device, clip_length=2 * clip_length, num_threads=num_threads)
        self._others: dict[Kind, Any] = {}

    def undecodable(self, stored: Sequence[Stored]) -> list[int]:
        """Which clips of a batch cannot be decoded."""
        failed: list[int] = []
        for kind, part in by_kind(stored, self._clip_length).items():
            if kind is Kind.JPEG:
                failed += [part.rows[n] for n in self._jpeg.undecodable(part.items)]
            elif kind is Kind.FLOW:
                failed += [row for row, clip in zip(part.rows, part.items, strict=True) if self._is_bad(clip)]
            elif kind is not Kind.HELD:
                failed += self._alone(kind, part)
        return sorted(failed)

    def _is_bad(self, clip: FlowPictures) -> bool:
        kind = kind_of(clip.stored[0])
        if kind is Kind.JPEG:
            return bool(self._flow_jpeg.undecodable(clip.stored))  # type: ignore[arg-type]
        return kind is not Kind.HELD and bool(self._alone(kind, Part([0], list(clip.stored))))

    def _alone(self, kind: Kind, part: Part) -> list[int]:
        if kind not in self._others:
            on_cpu = self._device.type == "cpu"
            self._others[kind] = (
                FilmDecoder(num_threads=1)
                if kind is Kind.FILM and on_cpu
                else Vp9Decoder(num_threads=self._num_threads, max_clips=1, device=self._device)
            )
        decoder, failed = self._others[kind], []
        for row, cut in zip(part.rows, part.items, strict=True):
            decoder.feed([cut])
            try:
                decoder.wait()
            except DecodeError:
                failed.append(row)
        return failed
