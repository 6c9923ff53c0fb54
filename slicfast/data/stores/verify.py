"""Every checksum of a clip store read again, in parallel, in the order in which the bytes lie."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from slicfast.data.store import ClipStore
from slicfast.data.stores.members import Checked, check_video, nested_stores
from slicfast.device import num_cores
from slicfast.errors import ConfigError

VIDEOS_A_TASK = 64
SMALL = 500  # videos; a smaller store is checked before other processes would be up

Progress = Callable[[int, int, str], None]


@dataclass
class VerifyReport:
    """What verifying came to, the stores inside the store included.

    Attributes:
        store: path of the store.
        num_videos, num_frames, num_bytes: looked at; bytes of originals count.
        seconds: it took.
        damaged: what is wrong with each damaged video.
        nested: the stores inside, such as optical flow.
    """

    store: str
    num_videos: int = 0
    num_frames: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    damaged: list[Checked] = field(default_factory=list)
    nested: list[VerifyReport] = field(default_factory=list)

    @property
    def num_damaged(self) -> int:
        """Damaged videos, those of the stores inside included."""
        return len(self.damaged) + sum(report.num_damaged for report in self.nested)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        seconds = max(self.seconds, 1e-9)
        return {
            "store": self.store,
            "num_videos": self.num_videos,
            "num_frames": self.num_frames,
            "num_bytes": self.num_bytes,
            "seconds": round(self.seconds, 3),
            "videos_per_second": round(self.num_videos / seconds, 1),
            "megabytes_per_second": round(self.num_bytes / seconds / 1e6, 1),
            "damaged": [
                {"id": video.id, "frames": video.frames, "faults": video.faults} for video in self.damaged
            ],
            "nested": [report.to_dict() for report in self.nested],
        }


def verify(path: str | Path, *, workers: int = 0, progress: Progress | None = None) -> VerifyReport:
    """Read all that a store holds and compare its checksums; opening it checks those of its index.

    Args:
        workers: processes; 0 for one a core.
        progress: called with (videos done, videos in all, name of the store).

    Raises:
        DataError: no store there, or its index is damaged.
        ConfigError: a bad `workers`.
    """
    if workers < 0:
        raise ConfigError(f"workers must be 0 (one a core) or more; got {workers}")
    path = Path(path)
    store = ClipStore(path)
    started = time.perf_counter()
    report = VerifyReport(str(path))
    order = store.stored_order().tolist()
    for checked in _check(store, order, workers or num_cores()):
        report.num_videos += 1
        report.num_frames += checked.num_frames
        report.num_bytes += checked.num_bytes
        if checked.faults:
            report.damaged.append(checked)
        if progress is not None:
            progress(report.num_videos, len(order), path.name)
    report.damaged.sort(key=lambda checked: checked.id)
    report.seconds = time.perf_counter() - started
    report.nested = [verify(inside, workers=workers, progress=progress) for inside in nested_stores(path)]
    return report


def _check(store: ClipStore, order: list[int], workers: int) -> Iterator[Checked]:
    if workers == 1 or len(order) < SMALL:
        yield from (check_video(store, video) for video in order)
        return
    tasks = [order[start : start + VIDEOS_A_TASK] for start in range(0, len(order), VIDEOS_A_TASK)]
    # spawn: a forked child of a process that holds threads (torch, DALI) may hang
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_open, initargs=(store,)
    ) as pool:
        futures = _submit(pool, tasks)
        try:
            for future in as_completed(futures):
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, tasks: list[list[int]]) -> list[Future[list[Checked]]]:
    """Start the processes deaf to Ctrl-C, which is this one's to answer."""
    if threading.current_thread() is not threading.main_thread():
        return [pool.submit(_check_some, task) for task in tasks]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return [pool.submit(_check_some, task) for task in tasks]
    finally:
        signal.signal(signal.SIGINT, before)


_opened: list[ClipStore] = []  # in a worker: the store


def _open(store: ClipStore) -> None:
    _opened[:] = [store]


def _check_some(videos: list[int]) -> list[Checked]:
    return [check_video(_opened[0], video) for video in videos]
