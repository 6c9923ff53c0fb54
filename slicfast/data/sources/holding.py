"""Pictures of many videos decoded into memory, of a processor or a GPU: a block for each size of picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.decoding.jpeg import DecodeError, as_torch, build_pipeline, decode_pipeline, outputs
from slicfast.data.decoding.vp9 import decoded_cut, feed_cuts
from slicfast.data.sources.planes import to_planes
from slicfast.data.store import ClipStore
from slicfast.data.stores.parts import Cut, DamagedClip, Held, HeldPlanes, StoredPictures

CHUNK = 64  # pictures decoded at a time
NUM_UNDER_WAY = 3  # such chunks

Rows = npt.NDArray[np.integer]


class Source(Protocol):
    """Where stored bytes come from (`clip_sources.ClipSource`)."""

    @property
    def mend(self) -> str: ...

    def stored(self, video: int, indices_T: npt.NDArray[np.int64]) -> list[StoredPictures]: ...


class Pictures:
    """Decoded pictures of some of a store's videos.

    Args:
        store: whose rows and sizes count.
        rows: the videos for which there is to be room.
        device: where the memory is.
        pinned: memory of the processor from which a GPU copies without the host's help.
        halved: luma, and chroma at half the size, in place of RGB: half the memory, a little less exact.

    Attributes:
        num_bytes: of all blocks.
    """

    def __init__(
        self,
        store: ClipStore,
        rows: Rows,
        device: torch.device,
        *,
        pinned: bool = False,
        halved: bool = False,
    ) -> None:
        self._size_N2 = np.stack([store.height, store.width], axis=1)
        self._num_frames_N = store.num_frames
        self._first_N = np.full(len(store), -1, dtype=np.int64)
        self._blocks: dict[tuple[int, int], list[torch.Tensor]] = {}  # RGB, or luma and chroma
        self._places: dict[int, int] = {}  # of videos that are not there yet
        ends: dict[tuple[int, int], int] = {}
        for row in np.unique(rows).tolist():
            size = self._size(row)
            self._places[row] = ends.get(size, 0)
            ends[size] = ends.get(size, 0) + int(store.num_frames[row])
        for (height, width), num in ends.items():
            shapes: list[tuple[int, ...]] = [(num, height, width, 3)]
            if halved:
                shapes = [(num, height, width), (num, 2, (height + 1) // 2, (width + 1) // 2)]
            self._blocks[height, width] = [
                torch.empty(shape, dtype=torch.uint8, device=device, pin_memory=pinned) for shape in shapes
            ]

    @property
    def num_bytes(self) -> int:
        return sum(plane.nbytes for planes in self._blocks.values() for plane in planes)

    @property
    def num_videos(self) -> int:
        """Videos that are held whole."""
        return int((self._first_N >= 0).sum())

    def _size(self, row: int) -> tuple[int, int]:
        height, width = self._size_N2[row].tolist()
        return height, width

    def clip(self, video: int, indices_T: npt.NDArray[np.int64]) -> Held | HeldPlanes | None:
        """Some pictures of a video; None where it is not held."""
        first = int(self._first_N[video])
        if first < 0:
            return None
        planes = self._blocks[self._size(video)]
        if len(planes) == 1:
            return Held(planes[0], first + indices_T)
        return HeldPlanes(planes[0], planes[1], first + indices_T)

    def write(self, video: int, first: int, pictures_FHWC: torch.Tensor) -> None:
        """Put some pictures of a video in their place. Raises RuntimeError where they have another size."""
        planes = self._blocks[self._size(video)]
        made = [pictures_FHWC] if len(planes) == 1 else list(to_planes(pictures_FHWC))
        start = self._places[video] + first
        for plane, values in zip(planes, made, strict=True):
            plane[start : start + len(values)].copy_(values)

    def complete(self, video: int) -> None:
        """From now on the video is held."""
        self._first_N[video] = self._places[video]


def decode_into(
    pictures: Pictures,
    store: ClipStore,
    rows: Rows,
    source: Source,
    device: torch.device,
    num_threads: int,
    progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Decode videos, those that are sound throughout; the others are left to whoever replaces damaged clips.

    Args:
        device: that decodes; the pictures go from there to where they are held.
    """
    decoder = _Decoder(device, num_threads)
    under_way: deque[tuple[int, int, int]] = deque()  # video, first picture, and how many
    bad: set[int] = set()
    num_frames = store.num_frames

    def finish() -> None:
        video, first, num = under_way.popleft()
        try:
            pictures.write(video, first, decoder.take())
        except (DecodeError, RuntimeError):  # the latter for pictures of another size
            bad.add(video)
        if first + num == int(num_frames[video]) and video not in bad:
            pictures.complete(video)

    for done, video in enumerate(_stored_order(store, rows)):
        for first in range(0, int(num_frames[video]), CHUNK):
            indices = np.arange(first, min(first + CHUNK, int(num_frames[video])))
            if video in bad:
                break
            try:
                stored = source.stored(video, indices)
            except DamagedClip:
                bad.add(video)
                break
            decoder.feed(stored)
            under_way.append((video, first, len(indices)))
            if len(under_way) >= NUM_UNDER_WAY:
                finish()
        progress(done)
    while under_way:
        finish()


def _stored_order(store: ClipStore, rows: Rows) -> Iterator[int]:
    wanted = np.zeros(len(store), dtype=bool)
    wanted[rows] = True
    order = store.stored_order()
    yield from order[wanted[order]].tolist()


class _Decoder:
    """Pieces of one video each, decoded whole on a device, in the order they were fed."""

    def __init__(self, device: torch.device, num_threads: int) -> None:
        self._device, self._num_threads = device, num_threads
        self._pipes: dict[bool, Any] = {}
        self._fed: deque[bool] = deque()  # whether each was a cut

    def feed(self, stored: Sequence[StoredPictures]) -> None:
        """Start on a chunk: JPEGs, or one cut."""
        is_cut = isinstance(stored[0], Cut)
        if is_cut not in self._pipes:
            self._pipes[is_cut] = self._make(is_cut)
        pipe = self._pipes[is_cut]
        if is_cut:
            feed_cuts(pipe, stored)  # type: ignore[arg-type]
        else:
            pipe.feed_input("jpeg", stored)
        pipe.schedule_run()
        self._fed.append(is_cut)

    def _make(self, is_cut: bool) -> Any:
        if not is_cut:
            return decode_pipeline(self._device, self._num_threads, CHUNK)
        import nvidia.dali.fn as fn

        return build_pipeline(lambda: decoded_cut(fn, self._device), self._device, self._num_threads, 1)

    def take(self) -> torch.Tensor:
        """(F, H, W, 3) of the next. Raises DecodeError, or RuntimeError where its pictures' sizes differ."""
        is_cut = self._fed.popleft()
        (output,) = outputs(self._pipes[is_cut])
        decoded = as_torch(output)
        return decoded[0] if is_cut else decoded
