"""What this machine can do: its device, its precision, its cores, and the libraries that need a word first.

The device is chosen here, once; nothing downstream asks again. torch is imported inside the functions, so
that the command line can answer `--help` without it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from slicfast.errors import ConfigError, MachineError, one_of

if TYPE_CHECKING:
    import torch

# Processor flags, as Linux names them, of native bf16 arithmetic: AMX and AVX-512 on x86, bf16 on Arm.
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
ONEDNN_ISA = "DNNL_MAX_CPU_ISA"  # the variable by which oneDNN is told how far it may go
MIN_BF16_CAPABILITY = (8, 0)  # CUDA compute capability (Ampere)

# Kept referenced for the life of the process: torch drops the operators of a library that is collected.
_torchvision_library: torch.library.Library | None = None


def resolve_device(name: str = "auto") -> torch.device:
    """The device to compute on: `auto` takes a GPU where there is one, this process's own under torchrun.

    Raises ConfigError for an unknown name, MachineError where a GPU is asked for and there is none.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(one_of("device", name, ("auto", "cpu", "cuda")))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        cap_onednn()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MachineError(f"device 'cuda' was asked for, but {_why_no_gpu()}")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise MachineError(
            f"process {index} of this machine has no GPU of its own: torch sees {torch.cuda.device_count()};"
            " start torchrun with --nproc-per-node at most that"
        )
    return torch.device("cuda", index)


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None:
        return (
            "torch is built without CUDA; install the GPU stack with 'make install STACK=cuda13'"
            " (or cuda12), or use train.device=cpu"
        )
    return (
        "torch finds no NVIDIA GPU here; see 'nvidia-smi' and CUDA_VISIBLE_DEVICES, or use train.device=cpu"
    )


def native_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 products itself rather than emulating them more slowly than fp32."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device) >= MIN_BF16_CAPABILITY
    capped = os.environ.get(ONEDNN_ISA, "").upper() in ("SSE41", "AVX", "AVX2")
    return bool(BF16_FLAGS & cpu_flags()) and not capped


def cap_onednn() -> None:
    """Keep oneDNN to AVX2 on AMD processors, unless the environment says otherwise; before its first use.

    With torch 2.13's oneDNN the backward pass of small 3-D convolutions overwrites memory on an AMD EPYC with
    AVX-512 (`free(): invalid next size`), and bf16 gradients come out as numbers above 1e6 now and then. Held
    to AVX2 it does neither; what AVX-512 had to offer for bf16 goes with it.
    """
    if cpu_field("vendor_id") == "AuthenticAMD":
        os.environ.setdefault(ONEDNN_ISA, "AVX2")


def cpu_flags() -> frozenset[str]:
    """Feature flags of the first processor; empty where the system does not list them."""
    return frozenset(cpu_field("flags", "Features").split())


def cpu_field(*names: str) -> str:
    """What the system says of the first processor under one of these names; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """What autocast computes in on this device; None: no autocast, fp32 throughout.

    `auto` takes bf16 where it is native; `bf16` and `fp16` are taken in any case. Raises ConfigError for
    another name.
    """
    import torch

    if precision not in ("auto", "bf16", "fp16", "fp32"):
        raise ConfigError(one_of("precision", precision, ("auto", "bf16", "fp16", "fp32")))
    if precision == "fp16":
        return torch.float16
    if precision == "bf16" or (precision == "auto" and native_bf16(device)):
        return torch.bfloat16
    return None


def num_cores() -> int:
    """Cores that this process may use: its affinity, and its container's quota where that is less."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores granted by the control group (version 2, then 1); None: no limit."""
    with contextlib.suppress(OSError, ValueError):
        granted, period = (root / "cpu.max").read_text().split()
        return None if granted == "max" else float(granted) / float(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        microseconds = int((root / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu/cpu.cfs_period_us").read_text())
        return None if microseconds <= 0 else microseconds / period_us
    return None


def free_memory_bytes() -> int:
    """Memory that this process can still take; what caches would give back counts as free."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, AttributeError):
        listed = Path("/proc/meminfo").read_text(encoding="utf-8")
        free = int(re.search(r"MemAvailable:\s+(\d+) kB", listed)[1]) * 1024  # type: ignore[index]
    granted = cgroup_memory()
    return free if granted is None else min(free, granted)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the control group (version 2, then 1) leaves; None: no limit."""
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):
            granted = (root / limit).read_text().strip()
            if granted == "max":
                return None
            listed = (root / used).with_name("memory.stat").read_text()
            cached = re.search(rf"^{reclaimable} (\d+)", listed, re.MULTILINE)
            taken = int((root / used).read_text()) - (int(cached[1]) if cached else 0)
            return max(int(granted) - taken, 0)
    return None


def ensure_torchvision_imports() -> None:
    """Import torchvision, declaring the two operators it misses beside a CPU build of torch.

    Call it before `import timm`. torchvision's usual wheel brings operators linked against CUDA; with a CPU
    torch they cannot load, and its import then fails on the shapes of `nms` and `qnms`, which nothing here
    calls. Raises MachineError where torchvision is missing or belongs to another torch.
    """
    global _torchvision_library
    if "torchvision" in sys.modules:
        return
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        raise MachineError("torchvision is not installed; run 'make install'") from None
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
        _torchvision_library = _declare_operators()
        _import_torchvision_again()


def _declare_operators() -> torch.library.Library:
    import torch

    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


def _import_torchvision_again() -> None:
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    try:
        import torchvision
    except (RuntimeError, ImportError, AttributeError) as error:
        first_line = str(error).partition("\n")[0]
        raise MachineError(
            f"torchvision does not fit torch {torch.__version__} ({first_line});"
            " run 'make install' for a pair that does"
        ) from None
    assert torchvision.__version__


def require_dali() -> None:
    """Import NVIDIA DALI, or raise MachineError with the line that installs the right one of its builds."""
    try:
        import nvidia.dali  # noqa: F401
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("nvidia", "nvidia.dali"):
            raise MachineError(f"NVIDIA DALI is not installed; run '{dali_install_line()}'") from None
        first_line = str(error).partition("\n")[0]
        raise MachineError(
            f"NVIDIA DALI does not load ({first_line}); run '{dali_install_line()}' after"
            " 'pip uninstall nvidia-dali-cuda120 nvidia-dali-cuda130' (they share a folder)"
        ) from None


def dali_install_line() -> str:
    """The pip command for the DALI build that goes with this torch (the CUDA 12 one serves CPUs too)."""
    import torch

    cuda = torch.version.cuda
    build = "cuda130" if cuda is not None and int(cuda.partition(".")[0]) >= 13 else "cuda120"
    return f"pip install nvidia-dali-{build}==2.4.0"


def rapids_install_line(module: str) -> str:
    """The pip command for the build of `cupy` or `cuml` that goes with this torch."""
    import torch

    major = (torch.version.cuda or "13").partition(".")[0]
    package = {"cupy": f"cupy-cuda{major}x==14.2.0", "cuml": f"cuml-cu{major}"}[module]
    if package == "cuml-cu12":
        package += "==25.12.*"  # later ones do not fit torch 2.10
    return f"pip install '{package}'"
