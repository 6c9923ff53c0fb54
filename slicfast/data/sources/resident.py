"""A data set kept in memory (`data.source=resident`): pictures decoded, or the bytes that the store holds.

What is held are the videos that training reads again and again; all others are read from the store, and so is
each video with a damaged picture, which is found there, named and replaced as without memory.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import DataConfig
from slicfast.data.sources.holding import Pictures, Source, decode_into
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import Uint8Array
from slicfast.data.stores.parts import DamagedClip, StoredPictures
from slicfast.device import free_memory_bytes
from slicfast.errors import MachineError
from slicfast.progress import track

logger = logging.getLogger("slicfast")

READ_BYTES = 64 << 20

Rows = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Plan:
    """What to hold, and where.

    Attributes:
        decoded: pictures; else the bytes that the store holds.
        halved: their chroma at half the size.
        on_device: in a GPU's memory; else in the processor's.
        num_bytes: that it takes.
    """

    decoded: bool
    on_device: bool
    num_bytes: int
    halved: bool = False

    def __str__(self) -> str:
        what = "decoded pictures" if self.decoded else "stored bytes"
        what += ", their chroma halved," if self.halved else ""
        return f"{self.num_bytes / 1e9:.3g} GB of {what} in {'GPU ' if self.on_device else ''}memory"


def plan_residents(store: ClipStore, rows: Rows, config: DataConfig, device: torch.device) -> Plan | None:
    """What `data.source` and `data.resident_as` ask for, or the quickest that there is room for.

    In this order: pictures on the GPU, the same with chroma at half the size, pictures in the processor's
    memory, stored bytes. `data.source=auto`
    leaves the last to the system, which keeps files that are read often in memory anyway; None stands for it.

    Raises:
        MachineError: `data.source=resident`, and there is no room.
    """
    share, form = config.memory_share, config.resident_as
    host = int(share * free_memory_bytes() / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's
    pictures = decoded_bytes(store, rows)
    options: list[tuple[Plan, int]] = []
    if form != "compressed" and device.type == "cuda":
        room = int(share * free_gpu_bytes(device))
        options.append((Plan(True, True, pictures), room))
        options.append((Plan(True, True, halved_bytes(store, rows), halved=True), room))
    if form != "compressed":
        options.append((Plan(True, False, pictures), host))
    if form == "compressed" or (form == "auto" and config.source == "resident"):
        options.append((Plan(False, False, stored_bytes(store, rows)), host))
    for plan, room in options:
        if plan.num_bytes <= room:
            return plan
    if config.source == "auto":
        return None
    plan, room = options[-1]
    raise MachineError(
        f"data.source=resident: {plan} are more than the {room / 1e9:.3g} GB that data.memory_share {share:g}"
        f" grants; raise it,{' set data.resident_as=compressed,' if plan.decoded else ''}"
        " or use data.source=store"
    )


def free_gpu_bytes(device: torch.device) -> int:
    """Of a GPU's memory."""
    free, _ = torch.cuda.mem_get_info(device)
    return free


def decoded_bytes(store: ClipStore, rows: Rows) -> int:
    """Of the pictures of some videos, 8-bit RGB."""
    return 3 * int((store.num_frames[rows].astype(np.int64) * store.width[rows] * store.height[rows]).sum())


def halved_bytes(store: ClipStore, rows: Rows) -> int:
    """The same with chroma at half the size."""
    height_N, width_N = store.height[rows].astype(np.int64), store.width[rows].astype(np.int64)
    chroma_N = 2 * ((height_N + 1) // 2) * ((width_N + 1) // 2)
    return int((store.num_frames[rows] * (height_N * width_N + chroma_N)).sum())


def stored_bytes(store: ClipStore, rows: Rows) -> int:
    """That the store holds of some videos; one whose index is damaged counts as nothing."""
    total = 0
    for row in rows.tolist():
        try:
            total += store.size(row)
        except DamagedClip:
            continue
    return total


class ResidentStore(ClipStore):
    """A clip store with some videos' bytes in memory; checksums are compared at each reading as ever."""

    def hold(self, rows: Rows) -> int:
        """Read some videos whole, in the order in which they lie in the shards; how many could be."""
        self._memory: Uint8Array = np.empty(stored_bytes(self, rows), dtype=np.uint8)
        wanted = np.zeros(len(self), dtype=bool)
        wanted[rows] = True
        order, place, num = self.stored_order(), 0, 0
        for video in order[wanted[order]].tolist():
            try:
                size = self.size(video)
                for start in range(0, size, READ_BYTES):
                    piece = super()._bytes(video, start, min(READ_BYTES, size - start))
                    self._memory[place + start : place + start + len(piece)] = piece
            except DamagedClip:
                continue
            self._place_N[video] = place
            place, num = place + size, num + 1
        self._memory.flags.writeable = False
        return num

    def _open(self) -> None:
        super()._open()
        self._place_N = np.full(len(self), -1, dtype=np.int64)

    def _bytes(self, video: int, start: int, size: int) -> Uint8Array:
        place = int(self._place_N[video])
        if place < 0:
            return super()._bytes(video, start, size)
        return self._memory[place + start : place + start + size]


class Residents:
    """What is held of one store, for all loaders of this process; made by `of`.

    Attributes:
        pictures: decoded; None: not in this form.
        store: with bytes in memory; None: not in this form.
    """

    _all: ClassVar[weakref.WeakKeyDictionary[ClipStore, Residents]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self.pictures: Pictures | None = None
        self.store: ResidentStore | None = None

    @classmethod
    def of(cls, store: ClipStore) -> Residents:
        """Those of a store; with the last reference to the store they are gone."""
        return cls._all.setdefault(store, cls())

    @property
    def nothing_held(self) -> bool:
        return self.pictures is None and self.store is None

    def fill(
        self, plan: Plan, store: ClipStore, rows: Rows, source: Source, device: torch.device, num_threads: int
    ) -> None:
        """Read, and decode where that is the plan; minutes for hours of film. Says what it did."""
        started = time.perf_counter()
        if plan.decoded:
            on_cpu = torch.device("cpu")
            pinned = device.type == "cuda" and not plan.on_device
            pictures = Pictures(
                store, rows, device if plan.on_device else on_cpu, pinned=pinned, halved=plan.halved
            )
            with track("Decoding into memory", len(rows), unit="videos") as bar:
                decode_into(pictures, store, rows, source, device, num_threads, bar.update)
            if device.type == "cuda":  # sync: once; they will be read on another stream
                torch.cuda.synchronize(device)
            self.pictures, num = pictures, pictures.num_videos
        else:
            held = ResidentStore(store.path)
            num = held.hold(rows)
            self.store = held
        seconds = time.perf_counter() - started
        logger.info("%s: %d of %d videos, %.0f s", plan, num, len(rows), seconds)


class HeldClips:
    """A source that takes from memory what is there, and the rest from another one."""

    takes_long = False

    def __init__(self, pictures: Pictures, base: Source) -> None:
        self._pictures, self._base = pictures, base
        self.mend = base.mend

    def stored(self, video: int, indices_T: npt.NDArray[np.int64]) -> list[StoredPictures]:
        held = self._pictures.clip(video, indices_T)
        return self._base.stored(video, indices_T) if held is None else [held]
