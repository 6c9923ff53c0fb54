"""A pool of processes that transcode videos: one that crashes or hangs costs its video, not the run.

Each worker is a fresh Python that talks through a pipe, in a process group of its own so that Ctrl-C reaches
the parent alone, and ends with the parent. The parent owns the store; workers leave pictures in files that
it names.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from types import TracebackType

from slicfast.data.preparing.remote import Remote
from slicfast.data.stores.format import Source, StoreSettings, VideoRecord
from slicfast.data.stores.original import OriginalFacts
from slicfast.errors import MachineError

STALL_S = 120.0  # a worker that shows no sign of life for so long is killed
LIMIT_S = 4 * 3600.0  # and one that takes longer than this for a video; a damaged clock may make hours of it
START_S = 120.0
POLL_S = 0.2
NUM_TASKS = 500  # a worker is replaced after so many videos, or once it is as large as this between two
RESIDENT_BYTES = 512 << 20


@dataclass(frozen=True)
class Task:
    """A video to transcode; `source` is what the file was when it was looked at.

    Attributes:
        keep_original: tell what is in the file too, as it will be kept.
        only_original: nothing else is to do; the pictures are stored already.
        only_length: nothing else is asked for than how long the video is.
        max_pictures: stop after so many.
    """

    id: str
    path: Path | Remote
    label: str | None
    start_s: float | None
    end_s: float | None
    source: Source
    settings: StoreSettings
    keep_original: bool = False
    only_original: bool = False
    only_length: bool = False
    max_pictures: int | None = None


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
        length: seconds and pictures of the video as its header tells them, where that was asked for.
    """

    task: Task
    record: VideoRecord | None
    pictures: Path
    source: Source
    reason: str = ""
    write_error: int = 0
    facts: OriginalFacts | None = None
    facts_reason: str = ""
    length: tuple[float, float] | None = None


class WorkerPool:
    """Runs tasks on `num_workers` processes; use it as a context manager, which ends them all.

    Args:
        tmp: folder for the pictures in the making.
        stall_s: seconds without a packet read after which a video is given up.
        limit_s: seconds after which it is given up in any case, fetching it included.
        num_tasks: videos after which a worker makes room for a fresh one.

    Attributes:
        num_started: workers so far.
    """

    def __init__(
        self,
        num_workers: int,
        tmp: Path,
        stall_s: float = STALL_S,
        limit_s: float = LIMIT_S,
        num_tasks: int = NUM_TASKS,
    ) -> None:
        self._num_workers = num_workers
        self._tmp = tmp
        self._stall_s, self._limit_s = stall_s, limit_s
        self._num_tasks = num_tasks
        self._workers: list[_Worker] = []
        self.num_started = 0

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
                if result is None:
                    result = self._overdue(worker)
                if result is None:
                    continue
                if worker.alive and not worker.is_worn(self._num_tasks):
                    idle.append(worker)
                else:
                    worker.end()
                    self._workers.remove(worker)
                    idle.append(self._start())
                # The worker must have its next video before the caller spends time on this one.
                if (task := next(waiting, None)) is not None:
                    idle.pop().give(task)
                yield result

    def _overdue(self, worker: _Worker) -> Result | None:
        now = time.monotonic()
        if not worker.heard:  # it is still starting, which is not its video's fault
            return (
                worker.give_up(f"no worker started in {START_S:g} s")
                if now - worker.given > START_S
                else None
            )
        if now - worker.last_beat > self._stall_s:
            return worker.give_up(f"no progress for {self._stall_s:g} s while decoding it")
        if now - worker.given > self._limit_s:
            return worker.give_up(f"not done after {self._limit_s:g} s, the time limit of a video")
        return None

    def _start(self) -> _Worker:
        self.num_started += 1
        worker = _Worker(self._tmp / f"worker-{os.getpid()}-{self.num_started}")
        self._workers.append(worker)
        return worker


class _Worker:
    """The parent's end of one process."""

    def __init__(self, stem: Path) -> None:
        self._pictures = stem
        self._num_tasks = 0
        self._log = stem.with_suffix(".log")  # what C libraries write; read when the process dies
        self.heard = False
        self.task: Task | None = None
        self.alive = True
        self.given = self.last_beat = time.monotonic()
        self.pipe, theirs = Pipe()
        code = (
            f"import sys; sys.path[:] = {json.dumps([str(entry) for entry in sys.path])};"
            f"from slicfast.data.preparing.work import serve; serve({theirs.fileno()}, {os.getpid()})"
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
        self.given = self.last_beat = time.monotonic()
        with contextlib.suppress(OSError):  # a dead one is noticed when it is listened to
            self.pipe.send((task, self._target))

    def receive(self) -> Result | None:
        """The result of the task, or None for a mere sign of life. Raises MachineError (cannot start)."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            if not self.heard:
                raise MachineError(f"a worker process cannot start: {self._last_words() or code}") from None
            return self.give_up(_why_died(code, self._last_words()))
        self.last_beat = time.monotonic()
        if not self.heard:
            self.heard, self.given = True, self.last_beat
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
        for left in self._target.parent.glob(f"{self._target.stem}.*"):  # what it was fetching or making
            left.unlink(missing_ok=True)
        return Result(task, None, self._target, task.source, reason)

    def is_worn(self, num_tasks: int) -> bool:
        """Whether it has done its share, or holds on to more memory than a video takes."""
        if self._num_tasks >= num_tasks:
            return True
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE") > RESIDENT_BYTES
        return False

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
