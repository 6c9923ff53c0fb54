"""Progress of long work on standard error: a bar on a terminal, now and then a plain line elsewhere.

Nothing at all is shown of work that ends within two seconds, nor by any process of a torchrun but the first.
No thread is started (work that forks stays safe), so what is shown changes when `update` is called. Bars may
be nested; on a terminal they then stand below one another.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

SHOW_AFTER_S = 2.0
DRAW_EVERY_S = 0.1  # on a terminal
LINE_EVERY_S = 10.0  # elsewhere
RATE_WINDOW_S = 30.0  # the rate is that of this last stretch of time


def track(
    description: str, total: int | None = None, *, unit: str = "steps", done: int = 0, enabled: bool = True
) -> Progress:
    """A bar for `total` units of work (None: not known), `done` of which were done before.

    Use it as a context manager: ``with track("Preparing", total=n, unit="videos") as bar: ...``.
    """
    quiet = not enabled or os.environ.get("RANK", "0") != "0"
    return Progress(description, total, unit=unit, done=done, quiet=quiet)


class Progress:
    """One piece of work under way; made by `track`."""

    def __init__(
        self, description: str, total: int | None, *, unit: str, done: int = 0, quiet: bool = False
    ) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = done
        self.message = ""
        self._quiet = quiet
        self._first_done = done
        self._started = self._drawn = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._started, done)])
        self._shown = False
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        self._started = self._drawn = time.monotonic()
        self._samples = deque([(self._started, self.done)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._shown:
            return
        if self._task is not None:
            _screen.remove(self._task, self._status(finished=kind is None))
            self._task = None
        elif kind is None:
            _write_line(f"{self.description}: {self._status(finished=True)}")

    def update(self, done: int, message: str | None = None) -> None:
        """Say that `done` units in all are done, and perhaps how it goes (a loss, a name)."""
        self.done = done
        if message is not None:
            self.message = message
        now = time.monotonic()
        if not self._quiet and now - self._drawn >= self._interval():
            self._draw(now)

    def advance(self, units: int = 1, message: str | None = None) -> None:
        """The same, by what was added."""
        self.update(self.done + units, message)

    def report(self, done: int, total: int, message: str | None = None) -> None:
        """The same as a plain callback of (done, total), for work that counts by itself."""
        self.total = total
        self.update(done, message)

    def log(self, line: str) -> None:
        """Write a line that stays, above the bar."""
        if not self._quiet:
            _write_line(line)

    def _interval(self) -> float:
        if not self._shown:
            return SHOW_AFTER_S
        return LINE_EVERY_S if self._task is None else DRAW_EVERY_S

    def _draw(self, now: float) -> None:
        self._drawn = now
        self._samples.append((now, self.done))
        while len(self._samples) > 2 and now - self._samples[1][0] > RATE_WINDOW_S:
            self._samples.popleft()
        if not self._shown and _is_terminal():
            self._task = _screen.add(self.description, self.total)
        self._shown = True
        if self._task is not None:
            _screen.draw(self._task, self.done, self.total, self._status())
        else:
            _write_line(f"{self.description}: {self._status()}")

    def _status(self, *, finished: bool = False) -> str:
        """Counts, rate, time (left, or taken in all once finished) and the message, as one line."""
        of_total = f" of {self.total:,}" if self.total is not None else ""
        parts = [f"{self.done:,}{of_total} {self.unit}"]
        elapsed = time.monotonic() - self._started
        if finished:
            rate = (self.done - self._first_done) / max(elapsed, 1e-9)
        else:
            (first_time, first_done), (last_time, last_done) = self._samples[0], self._samples[-1]
            rate = (last_done - first_done) / max(last_time - first_time, 1e-9)
        if rate > 0:
            parts.append(format_rate(rate, self.unit))
        if finished:
            parts.append(f"in {format_duration(elapsed)}")
        elif rate > 0 and self.total is not None:
            parts.append(f"{format_duration(max(0, self.total - self.done) / rate)} left")
        if self.message:
            parts.append(self.message)
        return ", ".join(parts)


def format_rate(rate: float, unit: str) -> str:
    """`12.3 videos/s`, or a minute's worth where that is easier to read."""
    return f"{rate:,.3g} {unit}/s" if rate >= 1 else f"{rate * 60:.3g} {unit}/min"


def format_duration(seconds: float) -> str:
    """`45 s`, `3:05 min`, `2:03:04 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest_s:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest_s:02} h"


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")


def _write_line(line: str) -> None:
    # Looked up at each call: while a bar is live, Rich puts a proxy here that writes above it.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class _Screen:
    """The live display that all bars of this process share."""

    def __init__(self) -> None:
        self._live: RichProgress | None = None
        self._open: set[TaskID] = set()

    def add(self, description: str, total: int | None) -> TaskID:
        if self._live is None:
            self._live = _new_display()
            self._live.start()
        task = self._live.add_task(description, total=total, status="")
        self._open.add(task)
        return task

    def draw(self, task: TaskID, done: int, total: int | None, status: str) -> None:
        assert self._live is not None
        self._live.update(task, completed=done, total=total, status=status, refresh=True)

    def remove(self, task: TaskID, status: str) -> None:
        """Leave the bar as it stands; the last one to go ends the display."""
        assert self._live is not None
        self._live.update(task, status=status)
        self._open.discard(task)
        if self._open:
            self._live.remove_task(task)  # an inner one: its outer bar stays the last line
        else:
            self._live.stop()
            self._live = None


_screen = _Screen()


def _new_display() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn(
            "{task.fields[status]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
        ),
        console=Console(stderr=True),
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),  # a pipe's output is not the bar's
    )
