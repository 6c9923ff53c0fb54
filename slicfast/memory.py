"""How much memory is free for this process, on the processor's side and on a GPU."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def free_host_bytes(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: the machine's, or its container's where that is less.

    Of several processes of one torchrun on this machine each is told its share.
    """
    free = _machine_bytes(proc)
    granted = _cgroup_bytes(cgroup)
    if granted is not None:
        free = min(free, granted)
    return free // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_device_bytes(device: torch.device) -> int:
    """The same of a GPU, which processes do not share; of the processor's memory for a CPU."""
    import torch

    if device.type != "cuda":
        return free_host_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return free


def _machine_bytes(proc: Path) -> int:
    with contextlib.suppress(OSError):
        match = re.search(r"MemAvailable:\s+(\d+) kB", proc.read_text(encoding="ascii", errors="replace"))
        if match:
            return int(match[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_bytes(root: Path) -> int | None:
    """What the control group (version 2) still grants, caches of files counted as free; None: no limit."""
    with contextlib.suppress(OSError, ValueError):
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((root / "memory.current").read_text())
        match = re.search(r"^inactive_file (\d+)$", (root / "memory.stat").read_text(), re.MULTILINE)
        return max(0, int(limit) - used + (int(match[1]) if match else 0))
    return None
