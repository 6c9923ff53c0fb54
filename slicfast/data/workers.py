"""A pool of processes that transcode videos: one that crashes or hangs costs its video, not the run.

Each worker is a fresh Python that talks through a pipe, in a process group of its own so that Ctrl-C reaches
the parent alone. The parent owns the store; workers leave pictures in files that it names.
"""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType

from slicfast.data.source import with_fingerprint
from slicfast.data.store_format import Source, StoreSettings, VideoRecord
from slicfast.data.store_original import OriginalFacts
from slicfast.errors import DataError, MachineError

STALL_S = 120.0  # a worker that shows no sign of life for so long is killed
POLL_S = 0.2
BEAT_S = 1.0


@dataclass(frozen=True)
class Task:
    """A video to transcode; `source` is what the file was when it was looked at.

    Attributes:
        keep_original: tell what is in the file too, as it will be kept.
        only_original: nothing else is to do; the pictures are stored already.
    """

    id: str
    path: Path
    label: str | None
    start_s: float | None
    end_s: float | None
    source: Source
    settings: StoreSettings
    keep_original: bool = False
    only_original: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes:
        record: of the stored video, None where it is left out.
        pictures: file with them, which the receiver removes.
        source: the file with its fingerprint.
        reason: one line, why it is left out.
        write_error: errno where the pictures could not be written, 0 otherwise.
        facts: what is in the file, where it is to be kept; None where it cannot be told.
        facts_reason: one line, why not.
    """

    task: Task
    record: VideoRecord | None
    pictures: Path
    source: Source
    reason: str = ""
    write_error: int = 0
    facts: OriginalFacts | None = None
    facts_reason: str = ""


class WorkerPool:
    """Runs tasks on `num_workers` processes; use it as a context manager, which ends them all.

    Args:
        tmp: folder for the pictures in the making.
        stall_s: seconds without a packet read after which a video is given up.
    """

    def __init__(self, num_workers: int, tmp: Path, stall_s: float = STALL_S) -> None:
        self._num_workers = num_workers
        self._tmp = tmp
        self._stall_s = stall_s
        self._workers: list[_Worker] = []
        self._num_started = 0

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()

    def run(self, tasks: Iterable[Task]) -> Iterator[Result | None]:
        """Yield a result a task as they come, and None now and then so that the caller can look around.

        Raises MachineError where workers cannot be started.
        """
        waiting = iter(tasks)
        idle = [self._start() for _ in range(self._num_workers)]
        while True:
            while idle and (task := next(waiting, None)) is not None:
                idle.pop().give(task)
            busy = [worker for worker in self._workers if worker.task is not None]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy], POLL_S)
            if not ready:
                yield None
            for worker in busy:
                result = worker.receive() if worker.pipe in ready else None
                if result is None and time.monotonic() - worker.last_beat > self._stall_s:
                    result = worker.give_up(f"no progress for {self._stall_s:g} s while decoding it")
                if result is None:
                    continue
                if worker.alive:
                    idle.append(worker)
                else:
                    worker.end()
                    self._workers.remove(worker)
                    idle.append(self._start())
                # The worker must have its next video before the caller spends time on this one.
                if (task := next(waiting, None)) is not None:
                    idle.pop().give(task)
                yield result

    def _start(self) -> _Worker:
        self._num_started += 1
        worker = _Worker(self._tmp / f"worker-{self._num_started}")
        self._workers.append(worker)
        return worker


class _Worker:
    """The parent's end of one process."""

    def __init__(self, stem: Path) -> None:
        self._pictures = stem
        self._num_tasks = 0
        self._log = stem.with_suffix(".log")  # what C libraries write; read when the process dies
        self._heard = False
        self.task: Task | None = None
        self.alive = True
        self.last_beat = time.monotonic()
        self.pipe, theirs = Pipe()
        code = (
            f"import sys; sys.path[:] = {json.dumps([str(entry) for entry in sys.path])};"
            f"from slicfast.data.workers import serve; serve({theirs.fileno()})"
        )
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
        except OSError as error:
            raise MachineError(f"cannot start a worker process: {error.strerror}") from None
        finally:
            theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        self._num_tasks += 1
        name = f"{self._pictures.name}-{self._num_tasks}.{task.settings.suffix}"
        self._target = self._pictures.with_name(name)
        self.last_beat = time.monotonic()
        with contextlib.suppress(OSError):  # a dead one is noticed when it is listened to
            self.pipe.send((task, self._target))

    def receive(self) -> Result | None:
        """The result of the task, or None for a mere sign of life. Raises MachineError (cannot start)."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            if not self._heard:
                raise MachineError(f"a worker process cannot start: {self._last_words() or code}") from None
            return self.give_up(_why_died(code, self._last_words()))
        self._heard = True
        self.last_beat = time.monotonic()
        if message is None:
            return None
        assert isinstance(message, Result)
        self.task = None
        return message

    def give_up(self, reason: str) -> Result:
        """Kill the process and leave its video out."""
        assert self.task is not None
        task, self.task = self.task, None
        self.end()
        return Result(task, None, self._target, task.source, reason)

    def end(self) -> None:
        self.alive = False
        self._process.kill()
        self._process.wait()
        self.pipe.close()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").split("\n")
            return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
        return ""


def _why_died(code: int, last_words: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        why = (
            f"decoding it ended the worker process ({name}{', out of memory?' if name == 'SIGKILL' else ''})"
        )
    else:
        why = f"decoding it ended the worker process (exit code {code})"
    return f"{why}: {last_words}" if last_words else why


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


def serve(descriptor: int) -> None:
    """A worker's life: take tasks from the pipe until it closes."""
    import cv2

    cv2.setNumThreads(1)
    line = _Line(Connection(descriptor))
    target: Path | None = None
    try:
        line.send(None)  # started
        while True:
            task, target = line.next_task()
            line.send(_with_facts(_work(task, target, line), line))
            target = None
    except _ParentGone:
        if target is not None:
            target.unlink(missing_ok=True)


def _work(task: Task, target: Path, beat: _Line) -> Result:
    import av

    from slicfast.data.decode import one_line
    from slicfast.data.transcode import OutputError, transcode

    source = with_fingerprint(task.path, task.source)
    if task.only_original:
        return Result(task, None, target, source)
    write_error = 0
    try:
        with target.open("wb") as out:
            made = transcode(task.path, out, task.settings, start_s=task.start_s, end_s=task.end_s, beat=beat)
        source = replace(source, width=made.source_width, height=made.source_height)
        record = VideoRecord(
            task.id, task.label, made.fps, made.width, made.height, made.sizes, made.crcs, source, made.damage
        )
        return Result(task, record, target, source)
    except _ParentGone:
        raise
    except DataError as error:
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
    from slicfast.data.decode import one_line
    from slicfast.data.original_facts import original_facts

    if not result.task.keep_original:
        return result
    try:
        return replace(result, facts=original_facts(result.task.path, beat))
    except _ParentGone:
        raise
    except DataError as error:
        return replace(result, facts_reason=str(error))
    except Exception as error:
        return replace(result, facts_reason=f"{type(error).__name__}: {one_line(str(error))}")
