"""How batches pass from the loading thread to whoever uses them, and how long those had to wait for them.

On a GPU the loading thread works on a stream of its own. The user's stream waits for a batch only when it
takes that batch, so that what is loaded ahead holds up no step, and the memory of a batch goes back only once
the user's stream is done with it. Waiting is then the time between two events on the user's stream, before
and after that; they are read when they have passed, so nothing is synchronised for it. On a CPU it is the
time that the user's thread stood still.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import torch


class HandOver(Protocol):
    """Between the loading thread, which calls `ready`, and the user's, which calls the others in their order.

    Attributes:
        stream: on which the loading thread puts a GPU's work; None on a CPU.
    """

    @property
    def stream(self) -> torch.cuda.Stream | None: ...

    @property
    def wait_seconds(self) -> float:
        """How long users waited, as far as it is known by now."""
        ...

    def ready(self) -> Any:
        """What tells that all work put on the stream so far is done."""
        ...

    def ask(self) -> Any:
        """The user begins to wait."""
        ...

    def take(self, asked: Any, ready: Any) -> None:
        """The user has a batch, and waits no longer once `ready` has passed."""
        ...

    def done(self) -> None:
        """The user has put its last work on the memory of what it took."""
        ...


def make_hand_over(device: torch.device) -> HandOver:
    """The hand-over of a device."""
    return HostHandOver() if device.type == "cpu" else StreamHandOver(torch.cuda, device)


class HostHandOver:
    """Of a CPU."""

    stream = None

    def __init__(self) -> None:
        self.wait_seconds = 0.0

    def ready(self) -> None:
        return None

    def ask(self) -> float:
        return time.perf_counter()

    def take(self, asked: float, ready: None) -> None:
        self.wait_seconds += time.perf_counter() - asked

    def done(self) -> None:
        return None


class StreamHandOver:
    """Of a GPU.

    Args:
        cuda: torch.cuda, or what behaves like it.
    """

    def __init__(self, cuda: Any, device: torch.device) -> None:
        self._cuda, self._device = cuda, device
        self.stream = cuda.Stream(device)
        self._seconds = 0.0
        self._waits: deque[tuple[Any, Any]] = deque()

    @property
    def wait_seconds(self) -> float:
        while self._waits and self._waits[0][1].query():
            began, ended = self._waits.popleft()
            self._seconds += began.elapsed_time(ended) / 1e3
        return self._seconds

    def ready(self) -> Any:
        event = self._cuda.Event()
        event.record(self.stream)
        return event

    def ask(self) -> Any:
        event = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._device))
        return event

    def take(self, asked: Any, ready: Any) -> None:
        user = self._cuda.current_stream(self._device)
        user.wait_event(ready)
        ended = self._cuda.Event(enable_timing=True)
        ended.record(user)
        self._waits.append((asked, ended))
        if len(self._waits) > 1000:  # nobody asks
            _ = self.wait_seconds

    def done(self) -> None:
        event = self._cuda.Event()
        event.record(self._cuda.current_stream(self._device))
        self.stream.wait_event(event)
