"""Curves where people look, beside metrics.jsonl: TensorBoard and Weights & Biases, neither ever required.

What is logged passes through a queue to a thread of its own, so that a slow disk or network holds up no step.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from slicfast.config import Config, LoggingConfig
from slicfast.errors import MachineError
from slicfast.records import RunFolder, read_metrics, write_text

logger = logging.getLogger("slicfast")

MAX_END_S = 60.0  # how long the end of a run waits for what is still under way


class Tracker(Protocol):
    """A place that shows curves."""

    name: str

    def write(self, kind: str, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def require_trackers(config: LoggingConfig) -> None:
    """Raise MachineError, with the line that installs it, for a library that is asked for and missing."""
    for asked, name in ((config.tensorboard, "tensorboard"), (config.wandb_project is not None, "wandb")):
        if not asked:
            continue
        key = "logging.tensorboard" if name == "tensorboard" else "logging.wandb_project"
        try:
            import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
        except ImportError:
            raise MachineError(
                f"{key} needs {name}; run pip install 'slicfast[{name}]', or leave the key out"
            ) from None


class TensorBoard:
    """Event files in the run folder's tensorboard/.

    A resumed run hides what an earlier one logged beyond the checkpoint: from ``first_step`` on.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=first_step or None)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(f"{kind}/{key}", value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; its id stays in the run folder, so that a resumed run goes on with it.

    A step that is there already is not logged again: a resumed run repeats it with the same values.
    """

    name = "Weights & Biases"

    def __init__(self, run: RunFolder, config: Config) -> None:
        wandb: Any = import_module("wandb")
        file = run.path / "wandb-id"
        known = file.read_text(encoding="utf-8").strip() if file.exists() else secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=config.logging.wandb_project,
                name=config.logging.wandb_name or run.path.name,
                dir=str(run.path),
                id=known,
                resume="allow",
                config=config.to_dict(),
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            first_line = str(error).partition("\n")[0]
            raise MachineError(
                f"Weights & Biases cannot start ({first_line}); set WANDB_MODE=offline, or leave"
                " logging.wandb_project out"
            ) from None
        write_text(file, known + "\n")

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        if step >= self._run.step:
            self._run.log({f"{kind}/{key}": value for key, value in values.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


def open_trackers(config: Config, run: RunFolder, first_step: int) -> TrackerThread | None:
    """What the configuration asks for; None: nothing.

    Args:
        first_step: steps taken before.
    """
    openers: list[Callable[[], Tracker]] = []
    if config.logging.tensorboard:
        openers.append(lambda: TensorBoard(run.path / "tensorboard", first_step))
    if config.logging.wandb_project is not None:
        openers.append(lambda: Wandb(run, config))
    if not openers:
        return None
    return TrackerThread([opener() for opener in openers])


class TrackerThread:
    """Hands what is logged to the trackers, in order. One that fails is given up with a warning."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers
        self._queue: queue.SimpleQueue[tuple[str, int, dict[str, float]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="slicfast-trackers", daemon=True)
        self._thread.start()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Take the numbers among the values; returns at once."""
        numbers = {
            key: float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and key not in ("step", "time", "epoch")
        }
        self._queue.put((kind, step, numbers))

    def replay(self, metrics: Path, step: int) -> None:
        """Write again what metrics.jsonl, cut to the checkpoint, has of its step: that was hidden too."""
        if not step:
            return
        for entry in read_metrics(metrics):
            if entry["step"] == step:
                self.write(entry["kind"], step, entry)

    def close(self) -> None:
        """Wait, not for ever, until everything is written."""
        self._queue.put(None)
        self._thread.join(MAX_END_S)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            for tracker in list(self._trackers):
                self._try(tracker, lambda tracker=tracker, entry=entry: tracker.write(*entry))  # type: ignore[misc]
        for tracker in list(self._trackers):
            self._try(tracker, tracker.close)

    def _try(self, tracker: Tracker, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever happens there, the training goes on
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.warning("%s is given up (%s); metrics.jsonl goes on", tracker.name, reason)
            self._trackers.remove(tracker)
