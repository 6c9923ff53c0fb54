"""What a run writes: its folder, config.yaml, metrics.jsonl, assignments, a log; whole files or none.

run/config.yaml  metrics.jsonl  train.log  checkpoints/{last,best,epoch-0010}.pt
run/assignments/epoch-0005.tsv  requests-last.npz (only after a run that diverged)
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from slicfast.assignment import Assignment
from slicfast.errors import MachineError

logger = logging.getLogger("slicfast")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, then fsync and rename: whole or not at all.

    Raises MachineError where there is no space left or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise machine_error(error, path) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise machine_error(error, path) from error
    except RuntimeError as error:  # what torch.save makes of a failed write
        if not isinstance(error.__context__, OSError):
            raise
        raise machine_error(error.__context__, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda stream: stream.write(text.encode()))


def machine_error(error: OSError, path: Path) -> MachineError:
    """One line for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MachineError(f"no space left to write {path}; free some space and run the same command again")
    return MachineError(f"cannot write {path}: {error.strerror or error}; choose a folder you may write to")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolder:
    """The files of one run. Only rank 0 writes them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "train.log"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.best = self.checkpoints / "best.pt"
        self.requests = self.path / "requests-last.npz"

    def checkpoint_of_epoch(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch-{epoch:04d}.pt"

    def create(self, config_yaml: str) -> None:
        """Make the folder and save the resolved configuration."""
        write_text(self.config, config_yaml)

    def write_assignment(self, assignment: Assignment) -> None:
        """One line a video: id, tab, cluster label."""
        lines = (
            f"{video_id}\t{label}\n"
            for video_id, label in zip(assignment.ids, assignment.labels.tolist(), strict=True)
        )
        write_text(self.path / "assignments" / f"epoch-{assignment.epoch:04d}.tsv", "".join(lines))

    @contextmanager
    def logging_to_file(self, enabled: bool = True) -> Iterator[None]:
        """Everything slicfast logs, also in the run's log, with the time."""
        if not enabled:
            yield
            return
        handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        previous = logger.level
        logger.addHandler(handler)
        logger.setLevel(min(previous, logging.INFO) if previous else logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(previous)
            handler.close()


class MetricsWriter:
    """Appends one JSON object a line, each with its kind, global step and time.

    Args:
        path: metrics.jsonl.
        keep_bytes: what follows is cut off first, since a resumed run writes it again; None keeps nothing.
    """

    def __init__(self, path: Path, keep_bytes: int | None = None) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("ab")
            self._stream.truncate(min(keep_bytes or 0, self._stream.tell()))
        except OSError as error:
            raise machine_error(error, path) from error

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return os.fstat(self._stream.fileno()).st_size

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        entry = {"kind": kind, "step": step, "time": round(time.time(), 3), **_finite(values)}
        try:
            self._stream.write((json.dumps(entry) + "\n").encode())
            self._stream.flush()
        except OSError as error:
            raise machine_error(error, self._path) from error

    def close(self) -> None:
        self._stream.close()


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics.jsonl; a last line cut by a kill is passed over."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries
