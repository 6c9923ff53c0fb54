"""Names for what a run spends its time on, and a window of steps that a profiler looks into.

Spans cost nothing until something listens: on a GPU they are NVTX ranges, which Nsight Systems shows; while
torch's profiler records, they are its ranges. torch is imported when something starts to listen.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slicfast.errors import ConfigError
from slicfast.records import machine_error

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("slicfast")

# In the order of a step; embed and cluster are a round of clustering.
# replay is forward, loss and backward launched together.
SPANS = ("wait", "hand-over", "forward", "loss", "backward", "replay", "optimizer", "embed", "cluster")

_silent: Callable[[str], AbstractContextManager[Any]] = nullcontext
_listener = _silent


def span(name: str) -> AbstractContextManager[Any]:
    """A named stretch of time, to be used in a `with`; one of SPANS."""
    return _listener(name)


def listen(listener: Callable[[str], AbstractContextManager[Any]] | None) -> None:
    """Who hears of spans from now on; None: nobody."""
    global _listener
    _listener = listener or _silent


def mark_ranges(device: torch.device) -> None:
    """Spans as NVTX ranges on a GPU; on a CPU nobody listens."""
    import torch

    listen(torch.cuda.nvtx.range if device.type == "cuda" else None)


@dataclass(frozen=True)
class Window:
    """Steps `first` to `last - 1` of a run, counted over the whole run from 0, and who looks into them.

    Attributes:
        trace: None calls cudaProfilerStart and -Stop, for Nsight started with
            `--capture-range=cudaProfilerApi`; a path records with torch's profiler and writes a Chrome trace
            there, compressed where it ends in `.gz`.
    """

    first: int
    last: int
    trace: Path | None = None

    @classmethod
    def parse(cls, text: str, trace: Path | None = None) -> Window:
        """From `50:60`. Raises ConfigError for anything else, and for a window without a step."""
        found = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", text)
        if found is None or int(found[1]) >= int(found[2]):
            raise ConfigError(
                f"steps to profile must look like 50:60, the first below the second; got '{text}'"
            )
        return cls(int(found[1]), int(found[2]), trace)


class Capture:
    """Opens a profiler's window over steps of a run on `device`, and closes it."""

    def __init__(self, window: Window, device: torch.device) -> None:
        self._window = window
        self._device = device
        self._profiler: Any = None
        self._state: Literal["before", "open", "over"] = "before"

    def at(self, global_step: int) -> None:
        """Tell how many steps the run has taken; to be called before each step."""
        if self._state == "before" and self._window.first <= global_step < self._window.last:
            self._open()
        elif global_step >= self._window.last:
            self.close()

    def close(self) -> None:
        """End the window, if it is open, and write the trace."""
        if self._state != "open":
            return
        self._state = "over"
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if self._profiler is None:
            torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
            return
        self._profiler.stop()
        mark_ranges(self._device)
        first, last, trace = self._window.first, self._window.last, self._window.trace
        assert trace is not None
        partial = trace.with_name(f".partial-{trace.name}")  # the ending decides whether it is compressed
        try:
            trace.parent.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(partial))
            partial.replace(trace)
        except OSError as error:
            raise machine_error(error, trace) from None
        finally:
            partial.unlink(missing_ok=True)
            self._profiler = None
        logger.info("trace of steps %d to %d written to %s", first, last - 1, trace)

    def _open(self) -> None:
        self._state = "open"
        # Kineto writes a line on standard error for each start and stop unless it is told not to.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if self._window.trace is None:
            torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()
        listen(torch.profiler.record_function)
