"""What a process of the pool does: take a video from the pipe, fetch it, transcode it, tell the outcome."""

from __future__ import annotations

import contextlib
import errno
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import Any

from slicfast.data.preparing.fetch import fetch
from slicfast.data.preparing.lifeline import end_with_parent
from slicfast.data.preparing.remote import FetchError, OutputFull
from slicfast.data.preparing.source import with_fingerprint
from slicfast.data.preparing.workers import Result, Task
from slicfast.data.stores.format import Source, VideoRecord
from slicfast.errors import SlicfastError

BEAT_S = 1.0
MEMORY_BYTES = 8 << 30  # that a worker may allocate: a header can ask for pictures of any size


class _ParentGone(Exception):
    """Nobody listens any more."""


class _Line:
    """The worker's end of the pipe; calling it tells the parent, at most once a BEAT_S, that work goes on."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last > BEAT_S:
            self._last = now
            self.send(None)

    def send(self, message: Result | None) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise _ParentGone from None

    def next_task(self) -> tuple[Task, Path]:
        try:
            task, target = self._pipe.recv()
        except (EOFError, OSError):
            raise _ParentGone from None
        return task, target


def serve(descriptor: int, parent: int) -> None:
    """A worker's life: take tasks from the pipe until it closes, or until the process `parent` is gone."""
    end_with_parent(parent, descriptor)
    import cv2

    cv2.setNumThreads(1)
    _limit_memory()
    line = _Line(Connection(descriptor))
    target: Path | None = None
    try:
        line.send(None)  # started
        while True:
            task, target = line.next_task()
            line.send(_work(task, target, line))
            target = None
    except _ParentGone:
        if target is not None:
            for left in target.parent.glob(f"{target.stem}.*"):
                left.unlink(missing_ok=True)


def _limit_memory() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > MEMORY_BYTES:  # a lower limit of the user's stays
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, hard))


@contextlib.contextmanager
def _at_hand(task: Task, target: Path, beat: _Line) -> Iterator[tuple[Task, Source]]:
    """The task with its video as a file here, and what the file is; a fetched one is removed after an error.

    Raises as `fetch`.
    """
    if isinstance(task.path, Path):
        yield task, with_fingerprint(task.path, task.source)
        return
    path = target.with_name(f"{target.stem}.source{PurePosixPath(task.path.name).suffix[:16]}")
    try:
        fetch(task.path, path, task.source.size, beat)
        source = replace(task.source, size=path.stat().st_size)
        yield replace(task, path=path), with_fingerprint(path, source)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _work(task: Task, target: Path, beat: _Line) -> Result:
    try:
        with _at_hand(task, target, beat) as (task, source):
            return _with_facts(_transcoded(task, target, source, beat), beat)
    except FetchError as error:
        # Without a source it is tried again by the next run.
        return Result(task, None, target, Source() if error.for_now else task.source, str(error))
    except OutputFull as error:
        return Result(task, None, target, task.source, "cannot be written", error.error.errno or errno.EIO)


def _transcoded(task: Task, target: Path, source: Source, beat: _Line) -> Result:
    """The result of a video that is a file here."""
    import av

    from slicfast.data.decoding.ffmpeg import one_line
    from slicfast.data.preparing.transcode import OutputError, transcode, video_length

    assert isinstance(task.path, Path)
    if task.only_original:
        return Result(task, None, target, source)
    write_error = 0
    segment: Any = {"start_s": task.start_s, "end_s": task.end_s, "beat": beat}
    try:
        if task.only_length:
            return Result(task, None, target, source, length=video_length(task.path, **segment))
        with target.open("wb") as out:
            made = transcode(task.path, out, task.settings, max_pictures=task.max_pictures, **segment)
        source = replace(source, width=made.source_width, height=made.source_height)
        record = VideoRecord(
            task.id, task.label, made.fps, made.width, made.height, made.sizes, made.crcs, source, made.damage
        )
        return Result(task, record, target, source)
    except _ParentGone:
        raise
    except SlicfastError as error:
        reason = str(error)
    except MemoryError:
        reason = "not enough memory to decode it"
    except OutputError as error:
        reason, write_error = "cannot be written", error.error.errno or errno.EIO
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(str(error))}"
        if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):  # opening or closing target
            write_error = error.errno or errno.EIO
    target.unlink(missing_ok=True)
    return Result(task, None, target, source, reason, write_error)


def _with_facts(result: Result, beat: _Line) -> Result:
    """The result with what is in the file, where it is to be kept."""
    from slicfast.data.decoding.ffmpeg import one_line
    from slicfast.data.stores.original_facts import original_facts

    assert isinstance(result.task.path, Path)
    if not result.task.keep_original:
        return result
    try:
        return replace(result, facts=original_facts(result.task.path, beat))
    except _ParentGone:
        raise
    except SlicfastError as error:
        return replace(result, facts_reason=str(error))
    except Exception as error:
        return replace(result, facts_reason=f"{type(error).__name__}: {one_line(str(error))}")
