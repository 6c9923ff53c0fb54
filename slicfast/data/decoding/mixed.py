"""Batches whose clips are stored in different ways, each clip decoded by what reads it, on the processor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.decoding.film import FilmDecoder
from slicfast.data.decoding.jpeg import DecodeError, DecodeProbe, Pictures
from slicfast.data.decoding.jpeg_clips import JpegClip, JpegProbe
from slicfast.data.decoding.vp9 import Vp9Decoder
from slicfast.data.recycling import ScratchPool
from slicfast.data.resampling import Frames
from slicfast.data.stores.parts import Cut, FilmCut, FlowPictures, Held, Stored
from slicfast.device import require_dali


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


class HeldClip:
    """The pictures of a clip that are in memory already."""

    def __init__(self, clip: Held) -> None:
        self._clip = clip

    def __len__(self) -> int:
        return len(self._clip.index_T)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """T pictures, (H, W, 3)."""
        pictures_FHWC = self._clip.pictures_FHWC.numpy()
        return (pictures_FHWC[index] for index in self._clip.index_T.tolist())


def jpegs_by_clip(jpegs: Sequence[Any], clip_length: int) -> list[Pictures]:
    """The T pictures of each clip."""
    return [jpegs[first : first + clip_length] for first in range(0, len(jpegs), clip_length)]


class MixedDecoder:
    """Clips of all kinds to pictures, in the order they were fed; any number of batches may be under way.

    JPEGs, and what is in memory already, wait for whoever wants their pictures. Films and VP9 run ahead on
    threads of their own. A batch that fails costs only itself.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(self, *, clip_length: int, num_threads: int, max_clips: int) -> None:
        require_dali()
        self._clip_length = clip_length
        self._scratch = ScratchPool()
        self._make: dict[Kind, Callable[[], Any]] = {
            Kind.CUT: lambda: Vp9Decoder(num_threads=num_threads, max_clips=max_clips),
            Kind.FILM: lambda: FilmDecoder(num_threads=num_threads),
        }
        self._decoders: dict[Kind, Any] = {}
        self._under_way: deque[dict[Kind, list[int]]] = deque()

    def feed(self, stored: Sequence[Stored]) -> dict[int, Frames]:
        """Start on a batch of N clips, whose bytes must stay until they are decoded.

        Returns:
            The rows for which there is no need to wait. Each decodes as it is iterated over, on any thread;
            that raises DecodeError, and a picture is good until the next one is asked for.
        """
        ready: dict[int, Frames] = {}
        ahead: dict[Kind, list[int]] = {}
        for kind, part in by_kind(stored, self._clip_length).items():
            if kind is Kind.JPEG:
                for row, jpegs in zip(part.rows, jpegs_by_clip(part.items, self._clip_length), strict=True):
                    ready[row] = JpegClip(jpegs, self._scratch)
            elif kind is Kind.HELD:
                ready.update(zip(part.rows, map(HeldClip, part.items), strict=True))
            else:
                if kind not in self._decoders:
                    self._decoders[kind] = self._make[kind]()
                self._decoders[kind].feed(part.items)
                ahead[kind] = part.rows
        self._under_way.append(ahead)
        return ready

    def take(self) -> dict[int, Frames]:
        """The next batch's other rows, waiting for them. Raises DecodeError: the batch is lost."""
        clips: dict[int, Frames] = {}
        failure: DecodeError | None = None
        for kind, rows in self._under_way.popleft().items():
            try:  # all must be emptied, or the next batch would be this one's
                clips.update(zip(rows, self._decoders[kind].take(), strict=True))
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        return clips


class MixedProbe:
    """Finds the clips that fail a batch, by decoding each of them alone.

    Args:
        device: where films and cuts are decoded.
        jpegs: the batches' own decoder of JPEGs: decoders differ in what they bear.
    """

    def __init__(
        self, device: torch.device, jpegs: JpegProbe | DecodeProbe, *, clip_length: int, num_threads: int
    ) -> None:
        self._device, self._clip_length, self._num_threads = device, clip_length, num_threads
        self._jpegs = jpegs
        self._flow_jpegs = DecodeProbe(device, clip_length=2 * clip_length, num_threads=num_threads)
        self._others: dict[Kind, Any] = {}

    def undecodable(self, stored: Sequence[Stored]) -> list[int]:
        """Which clips of a batch cannot be decoded."""
        failed: list[int] = []
        for kind, part in by_kind(stored, self._clip_length).items():
            if kind is Kind.JPEG:
                clips = jpegs_by_clip(part.items, self._clip_length)
                failed += [part.rows[n] for n in self._jpegs.undecodable(clips)]
            elif kind is Kind.FLOW:
                failed += [row for row, clip in zip(part.rows, part.items, strict=True) if self._is_bad(clip)]
            elif kind is not Kind.HELD:
                failed += self._alone(kind, part)
        return sorted(failed)

    def _is_bad(self, clip: FlowPictures) -> bool:
        kind = kind_of(clip.stored[0])
        if kind is Kind.JPEG:
            return bool(self._flow_jpegs.undecodable([clip.stored]))  # type: ignore[list-item]
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
