"""Signals answered between two steps: SIGTERM and SIGINT stop a run cleanly, SIGUSR1 saves and goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Signals:
    """What has been asked for since the last look."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop is not None:  # asked twice: now, without saving
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.stop = signal.Signals(number)

    def on_save(self, number: int, frame: FrameType | None) -> None:
        self.save = True

    def take_save(self) -> bool:
        asked, self.save = self.save, False
        return asked


@contextmanager
def watch_signals() -> Iterator[Signals]:
    """Handlers installed for the time of a run; outside the main thread Python allows none."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    handlers = {
        signal.SIGTERM: signals.on_stop,
        signal.SIGINT: signals.on_stop,
        signal.SIGUSR1: signals.on_save,
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
