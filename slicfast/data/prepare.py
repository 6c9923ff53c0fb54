"""Any videos into a clip store: in parallel, resumable after a kill at any moment, saying what is left out.

A second run does only what is missing. A video is done again when its file changed (another size, or another
time and other contents); one that was left out is tried again when its file changed or with `retry`. Labels
and splits always follow the catalog of the last run; stored videos that it no longer has are kept and named.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import Any

from slicfast.data.catalog import Catalog, Video
from slicfast.data.preparing.estimate import Estimate, estimate, spread
from slicfast.data.preparing.fetch import fetch
from slicfast.data.preparing.keeping import Keeper
from slicfast.data.preparing.left_out import LeftOut, append_left_out, read_left_out, write_left_out
from slicfast.data.preparing.remote import FetchError, OutputFull, Remote
from slicfast.data.preparing.source import is_unchanged, stat_sources
from slicfast.data.preparing.workers import LIMIT_S, STALL_S, Result, Task, WorkerPool
from slicfast.data.stores.format import Source, StoreSettings
from slicfast.data.stores.writer import StoreWriter
from slicfast.device import num_cores
from slicfast.errors import ConfigError, DataError

__all__ = ["Estimate", "PrepareReport", "StoreSettings", "estimate", "prepare", "spread"]

logger = logging.getLogger("slicfast")

Progress = Callable[[int, int, int, str], None]


@dataclass
class PrepareReport:
    """What a run of prepare did.

    Attributes:
        num_done: videos taken in hand by this run.
        num_kept: videos of the catalog that the store now holds.
        num_already: of these, stored by earlier runs.
        left_out: reason of each video of the catalog that the store does not hold.
        damaged: what was wrong with videos that this run stored all the same.
        changed: ids done again because their files changed.
        not_in_catalog: ids that the store holds and the catalog does not have.
        num_relabelled: stored videos whose label the catalog changed.
        seconds_of_video, num_frames, bytes: of the pictures that this run stored.
        num_originals, original_bytes: files kept by this run.
        originals_not_kept: why a file that was to be kept was not, by the id of its video.
    """

    num_done: int = 0
    num_kept: int = 0
    num_already: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    not_in_catalog: tuple[str, ...] = ()
    num_relabelled: int = 0
    seconds_of_video: float = 0.0
    num_frames: int = 0
    bytes: int = 0
    num_originals: int = 0
    original_bytes: int = 0
    originals_not_kept: dict[str, str] = field(default_factory=dict)

    @property
    def num_left_out(self) -> int:
        return len(self.left_out)


def prepare(
    catalog: Catalog,
    store_path: str | Path,
    settings: StoreSettings | None = None,
    *,
    workers: int = 0,
    limit: int | None = None,
    retry: bool = False,
    keep_original: bool = False,
    progress: Progress | None = None,
    stall_s: float = STALL_S,
    limit_s: float = LIMIT_S,
) -> PrepareReport:
    """Transcode the catalog's videos into the clip store at `store_path`, going on with one that is there.

    Args:
        workers: processes; 0 for one a core that this process may use.
        limit: take only so many videos, spread evenly over the catalog.
        retry: try those again that earlier runs left out.
        keep_original: keep the files too, also those of videos stored already; see `ClipStore.original`.
        progress: called with (videos done, videos to do, of these stored, name of the last).
        stall_s: a video that shows no progress for so long is left out.
        limit_s: so is one that takes longer than this in all.

    Ctrl-C and SIGTERM end it cleanly (KeyboardInterrupt, SystemExit): what is stored stays, the index is
    not written, and the same call goes on from there.

    Raises:
        ConfigError: a store of other settings is there; a bad `workers` or `limit`.
        DataError: the folder is no store; none of the videos can be used.
        MachineError: no space left, or workers cannot be started.
        RunError: another process is preparing into the same store.
    """
    if workers < 0:
        raise ConfigError(f"workers must be 0 (one a core) or more; got {workers}")
    if not catalog.videos:
        raise DataError(f"no videos under {catalog.root}")
    videos = spread(catalog.videos, limit)
    if settings is not None and settings.codec == "files" and any(isinstance(v.path, Remote) for v in videos):
        raise ConfigError("codec files leaves videos where they are: they must be files of this machine")
    store_path = Path(store_path)
    with StoreWriter(store_path, settings) as writer:
        run = _Run(catalog, writer, retry, keep_original)
        tasks = run.plan(videos)
        num_workers = min(workers or num_cores(), len(tasks))
        if progress is not None:
            progress(0, len(tasks), 0, "")
        with _Interrupts() as interrupts, WorkerPool(num_workers, writer.tmp, stall_s, limit_s) as pool:
            for result in pool.run(run.at_hand(tasks)):
                if interrupts.received:
                    break
                if result is not None:
                    run.take(result)
                    if progress is not None:
                        progress(run.report.num_done, len(tasks), run.num_stored, result.task.id)
            interrupts.check(
                f"{len(writer)} videos are stored in {store_path}; run the same command to go on"
            )
        return run.finish(videos)


class _Run:
    """One run's bookkeeping: what is to do, what became of it, what the catalog changed."""

    def __init__(self, catalog: Catalog, writer: StoreWriter, retry: bool, keep_original: bool) -> None:
        self._catalog = catalog
        self._writer = writer
        self._retry = retry
        self._keeper = Keeper(writer) if keep_original else None
        self._left_out: dict[str, LeftOut] = {}
        self.report = PrepareReport()
        self.num_stored = 0

    def plan(self, videos: Sequence[Video]) -> list[Task]:
        """The videos that are neither stored nor known to be unusable, as their files are now."""
        known_bad = read_left_out(self._writer.path)
        tasks: list[Task] = []
        changed = []
        for video, now in zip(videos, stat_sources(video.path for video in videos), strict=True):
            known, bad = self._writer.source(video.id), known_bad.get(video.id)
            if isinstance(now, DataError):
                if known is None:  # a stored video is kept when its file is gone
                    if bad is None or bad.reason != str(now):
                        logger.warning("left out %s: %s", video.id, now)
                    known_bad[video.id] = LeftOut(str(now))
                continue
            if bad is not None:
                if not self._retry and bad.source.size and is_unchanged(video.path, now, bad.source):
                    continue
                del known_bad[video.id]
            elif known is not None:
                if is_unchanged(video.path, now, known):
                    if self._keeper is not None and self._keeper.wants(video, now):
                        tasks.append(replace(self._task(video, now, True), only_original=True))
                    continue
                changed.append(video.id)
            keep = self._keeper is not None and self._keeper.wants(video, now)
            tasks.append(self._task(video, now, keep))
        self.report.changed = tuple(changed)
        self._left_out = known_bad
        self._save_left_out()
        return tasks

    def _save_left_out(self) -> None:
        try:
            write_left_out(self._writer.path, self._left_out)
        except OSError as error:
            raise self._writer.machine_error(error) from None

    def _task(self, video: Video, source: Source, keep_original: bool) -> Task:
        return Task(
            video.id,
            video.path,
            video.label,
            video.start_s,
            video.end_s,
            source,
            self._writer.settings,
            keep_original,
        )

    def at_hand(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks; videos that only this process can see (memory://) become files as their turn comes."""
        for number, task in enumerate(tasks):
            path = task.path
            if isinstance(path, Remote) and path.is_in_process:
                copy = self._writer.tmp / f"given-{number}{PurePosixPath(path.name).suffix[:16]}"
                try:
                    fetch(path, copy, task.source.size)
                    task = replace(task, path=copy)
                except FetchError:
                    pass  # a worker finds the same and says it
                except OutputFull as error:
                    raise self._writer.machine_error(error.error) from None
            yield task

    def take(self, result: Result) -> None:
        """Store a result, or note why there is none. Raises MachineError when nothing can be written."""
        if not result.task.only_original:
            self._take_pictures(result)
        if self._keeper is not None and result.task.keep_original:
            self._keeper.take(result)
        path = result.task.path
        if isinstance(path, Path) and path.parent == self._writer.tmp:  # it was fetched
            path.unlink(missing_ok=True)
        self.report.num_done += 1

    def _take_pictures(self, result: Result) -> None:
        task = result.task
        if result.write_error:
            raise self._writer.machine_error(OSError(result.write_error, os.strerror(result.write_error)))
        try:
            if result.record is None:
                raise DataError(result.reason)
            self._writer.add(result.record, result.pictures)
        except DataError as error:
            self._leave_out(task.id, LeftOut(str(error), result.source))
        else:
            record = result.record
            self.num_stored += 1
            self.report.num_frames += len(record.sizes)
            self.report.seconds_of_video += len(record.sizes) / record.fps
            self.report.bytes += sum(record.sizes)
            if record.damage:
                self.report.damaged[task.id] = record.damage
                logger.warning("%s is damaged, stored what could be decoded: %s", task.id, record.damage)
        result.pictures.unlink(missing_ok=True)

    def _leave_out(self, video_id: str, entry: LeftOut) -> None:
        self._left_out[video_id] = entry
        logger.warning("left out %s: %s", video_id, entry.reason)
        try:
            append_left_out(self._writer.path, video_id, entry)
        except OSError as error:
            raise self._writer.machine_error(error) from None

    def finish(self, videos: Sequence[Video]) -> PrepareReport:
        """Write the index and complete the report."""
        report, writer = self.report, self._writer
        self._save_left_out()  # sorted, now that it is complete
        labels = {video.id: video.label for video in self._catalog.videos}
        report.left_out = {
            video.id: self._left_out[video.id].reason for video in videos if video.id in self._left_out
        }
        kept = [video.id for video in videos if video.id in writer and video.id not in self._left_out]
        if not kept:
            first, reason = next(iter(report.left_out.items()))
            raise DataError(f"none of the {len(videos)} videos can be used; '{first}': {reason}")
        report.num_kept = len(kept)
        report.num_already = len(kept) - self.num_stored
        report.not_in_catalog = tuple(sorted(set(writer.ids()).difference(labels)))
        report.num_relabelled = self._num_relabelled(labels)
        if self._keeper is not None:
            report.num_originals, report.original_bytes = self._keeper.num_kept, self._keeper.bytes
            report.originals_not_kept = self._keeper.not_kept
        writer.finish(labels, self._catalog.splits, exclude=self._left_out.keys())
        self._say_changes()
        return report

    def _num_relabelled(self, labels: dict[str, str | None]) -> int:
        previous = self._writer.previous()
        if previous is None:
            return 0
        names = (*previous.label_names, None)  # label -1 is no label
        pairs = zip(previous.ids(), previous.label_ids.tolist(), strict=True)
        return sum(video_id in labels and labels[video_id] != names[label] for video_id, label in pairs)

    def _say_changes(self) -> None:
        report = self.report
        changes = []
        if report.num_relabelled:
            changes.append(f"videos with another label: {report.num_relabelled}")
        if report.not_in_catalog:
            changes.append(
                f"stored videos that the catalog no longer has, kept: {len(report.not_in_catalog)}"
                f" ('{report.not_in_catalog[0]}' for one)"
            )
        if report.changed:
            changes.append(f"files that changed and were done again: {len(report.changed)}")
        if changes:
            logger.warning("changed since the last run: %s", "; ".join(changes))


class _Interrupts(AbstractContextManager["_Interrupts"]):
    """Notes Ctrl-C and SIGTERM, so that the work stops between two videos; a second one stops it at once."""

    def __init__(self) -> None:
        self.received: int = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def check(self, message: str) -> None:
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if self.received:
            logger.warning("stopped by SIGTERM: %s", message)
            raise SystemExit(128 + self.received)
