"""What a run logs of its steps: losses, rates, the share of time spent waiting for data, memory."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

import torch

from slicfast.data.loader import ClipBatch
from slicfast.distributed import sum_over_ranks
from slicfast.training.session import Session


class Meter:
    """Adds up on the device and synchronises only when asked for a summary."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._since_check: torch.Tensor | None = None
        self._sums: dict[str, torch.Tensor] = {}
        self._num = self._clips = self._replaced = 0
        self._started = time.perf_counter()
        self._waited = 0.0

    def start(self) -> None:
        """Begin timing anew: after clustering, validation or a checkpoint's epoch."""
        self._started = time.perf_counter()
        self._waited = self._session.loader.wait_seconds
        self._clips = 0

    def add(self, logged: dict[str, torch.Tensor], batch: ClipBatch) -> None:
        for name, value in logged.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        loss = logged["loss"]
        self._since_check = loss if self._since_check is None else self._since_check + loss
        self._num += 1
        self._clips += len(batch.requests)
        self._replaced += batch.num_replaced

    def is_finite(self) -> bool:
        """Whether all losses since the last look are. sync."""
        total, self._since_check = self._since_check, None
        return total is None or bool(torch.isfinite(total).item())

    def summary(self) -> dict[str, Any]:
        """Means over steps and ranks since the last summary; all ranks call it. sync: every log_interval."""
        session = self._session
        values: dict[str, Any] = {
            "epoch": session.state.epoch,
            **self._means(),
        }
        memory = memory_bytes(session.device)
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        values |= {
            "lr": float(session.optimizer.param_groups[0]["lr"]),
            "clips_per_second": round(self._clips * session.ranks.size / elapsed, 2),
            "wait_share": round((session.loader.wait_seconds - self._waited) / elapsed, 4),
            "num_replaced": self._replaced,
            "memory_mb": round(memory / 2**20, 1),
            # Linux counts what is resident in batches, its peak by another clock: never below what is in use.
            "peak_memory_mb": round(max(memory, peak_memory_bytes(session.device)) / 2**20, 1),
        }
        self._sums, self._num = {}, 0
        self.start()
        return values

    def _means(self) -> dict[str, float]:
        names = sorted(self._sums)
        sums = sum_over_ranks(torch.stack([self._sums[name].float() for name in names]))
        return dict(zip(names, (sums / (self._num * self._session.ranks.size)).tolist(), strict=True))


def memory_bytes(device: torch.device) -> int:
    """Memory in use: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def peak_memory_bytes(device: torch.device) -> int:
    """The most of it that this process ever had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
