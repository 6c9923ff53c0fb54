"""What figures were computed on: processor, cores, GPU, versions, commit, time; written beside them."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from slicfast import __version__
from slicfast.device import num_cores

LIBRARIES = ("torch", "timm", "numpy", "scikit-learn", "nvidia-dali-cuda120", "nvidia-dali-cuda130")


def machine() -> dict[str, Any]:
    """What a figure was measured on: processor, cores, GPU, versions, commit, time."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": num_cores(),
        "load": round(os.getloadavg()[0], 1),  # processes that wanted a core, over the last minute
        "gpu": _gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "slicfast": __version__,
        "commit": _commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _commit() -> str | None:
    """The commit of the checkout this runs from, marked where files of it were changed; None outside one."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
