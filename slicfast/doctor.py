"""`slicfast doctor`: what this machine has, whether it works, and the command that mends what does not.

Nothing is taken at its word: a clip is decoded, a convolution computed and compared, a package imported.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Literal

from slicfast import doctor_decoders
from slicfast.checks import Check, first_line, version_of
from slicfast.device import (
    cap_onednn,
    cpu_flags,
    dali_install_line,
    ensure_torchvision_imports,
    free_memory_bytes,
    native_bf16,
    num_cores,
    rapids_install_line,
    require_dali,
)
from slicfast.errors import SlicfastError
from slicfast.probes import decoding_error, worst_bf16_error

GIB = 2**30
MIN_MEMORY_GIB = 4.0  # for a training run beside an operating system
MIN_DISK_GIB = 5.0
NEEDED_DECODERS = ("h264", "mpeg4", "mjpeg")  # Kinetics; UCF101 and HMDB51; cameras
OTHER_DECODERS = ("hevc", "vp8", "vp9", "av1")
PACKAGES = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn"}  # module -> what brings it
DALI_BUILDS = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
MAX_BF16_ERROR = 0.01  # beyond that rounding, in standard deviations; the wrong convolutions are far worse


def diagnose(folder: Path | None = None) -> list[Check]:
    """Look at everything; takes some seconds, writes nothing, and never raises.

    Args:
        folder: whose disk to look at; None: the current one.
    """
    checks: dict[str, Callable[[], Check]] = {
        "Python": check_python,
        "cores": check_cores,
        "memory": check_memory,
        "disk": lambda: check_disk(folder or Path.cwd()),
        "GPU": check_gpu,
        "torch": check_torch,
        "bf16": check_bf16,
        "timm": check_timm,
        "DALI": check_dali,
        "GPU packages": doctor_decoders.check_conflicts,
        "decoding": check_decoding,
        "NVDEC": doctor_decoders.check_nvdec,
        "optical flow": doctor_decoders.check_optical_flow,
        "PyAV": check_pyav,
        "OpenCV": lambda: check_import("OpenCV", "cv2"),
        "scikit-learn": lambda: check_import("scikit-learn", "sklearn"),
        "CuPy": lambda: check_rapids("CuPy", "cupy"),
        "cuML": lambda: check_rapids("cuML", "cuml"),
    }
    return [_guarded(name, check) for name, check in checks.items()]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check that breaks has found a fault as well."""
    try:
        return check()
    except SlicfastError as error:
        found, _, advice = str(error).partition("; ")
        return Check(name, "fail", found, advice)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        return Check(name, "fail", f"{module} is not installed", f"pip install {_requirement(module)}")
    except Exception as error:  # whatever a broken library throws is what there is to be said
        return Check(name, "fail", f"{type(error).__name__}: {first_line(error)}", "make install")


def check_python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def check_cores() -> Check:
    usable, present = num_cores(), os.cpu_count() or 1
    of_all = "" if usable == present else f" of {present}"
    vector = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in cpu_flags()]
    return Check("cores", "ok", f"{usable}{of_all} usable{', ' if vector else ''}{', '.join(vector)}")


def check_memory() -> Check:
    available = free_memory_bytes() / GIB
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    found = f"{available:.1f} of {total:.1f} GiB available"
    if available < MIN_MEMORY_GIB:
        return Check(
            "memory", "warn", found, "close other programs, or lower train.batch_size and data.prefetch"
        )
    return Check("memory", "ok", found)


def check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free in {folder}"
    if free < MIN_DISK_GIB:
        return Check("disk", "warn", found, "'slicfast prepare --dry-run' says how much a clip store takes")
    return Check("disk", "ok", found)


def driver_gpus() -> tuple[list[str], str]:
    """The GPUs that the NVIDIA driver lists, and its CUDA version ('' where there is no driver)."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        header = subprocess.run(query[:1], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return [], ""
    match = re.search(r"CUDA[A-Za-z ]*Version:\s*([\d.]+)", header)
    return [line.strip() for line in listed.splitlines() if line.strip()], match[1] if match else ""


def check_gpu() -> Check:
    gpus, cuda = driver_gpus()
    if not gpus:
        return Check("GPU", "ok", "none: everything runs on the processor")
    return Check("GPU", "ok", f"{'; '.join(gpus)}; driver for CUDA {cuda or 'unknown'}")


def check_torch() -> Check:
    import torch

    found = (
        f"{torch.__version__}, {'no CUDA' if torch.version.cuda is None else f'CUDA {torch.version.cuda}'}"
    )
    gpus, cuda = driver_gpus()
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(idx) for idx in range(torch.cuda.device_count())}
        return Check(
            "torch", "ok", f"{found}, sees {torch.cuda.device_count()} GPU(s): {', '.join(sorted(names))}"
        )
    if gpus:
        stack = "cuda13" if cuda.partition(".")[0] not in ("", "11", "12") else "cuda12"
        return Check("torch", "fail", f"{found}, does not see the GPU", f"make install STACK={stack}")
    return Check("torch", "ok", found)


def check_bf16() -> Check:
    """bf16 against fp32 on the recipe's convolutions: some releases of cuDNN compute wrong ones."""
    import torch

    cap_onednn()  # as training does; oneDNN looks once
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not native_bf16(device):
        return Check("bf16", "ok", f"not native on this {device.type}: train.precision=auto computes in fp32")
    clips, size = (32, 128) if device.type == "cuda" else (1, 32)
    stem = worst_bf16_error(device, (clips, 3, 16, size, size), 64, 7)
    block = worst_bf16_error(device, (clips, 64, 16, size // 2, size // 2), 64, 3)
    found = f"native; at most {max(stem, block):.2%} beyond rounding from fp32 on the recipe's convolutions"
    if max(stem, block) <= MAX_BF16_ERROR:
        return Check("bf16", "ok", found)
    major = (torch.version.cuda or "").partition(".")[0]
    mend = f"pip install --upgrade nvidia-cudnn-cu{major}" if major else "make install"
    return Check("bf16", "fail", found, f"{mend}; until then train with --set train.precision=fp32")


def check_timm() -> Check:
    ensure_torchvision_imports()
    timm = importlib.import_module("timm")
    return Check("timm", "ok", f"{timm.__version__}, torchvision {metadata.version('torchvision')}")


def check_dali() -> Check:
    builds = [build for build in DALI_BUILDS if version_of(build)]
    wanted = dali_install_line()
    if len(builds) > 1:
        return Check(
            "DALI",
            "fail",
            f"both builds are installed ({' and '.join(builds)}), and they overwrite each other's files",
            f"pip uninstall -y {' '.join(builds)} && {wanted}",
        )
    require_dali()
    dali = importlib.import_module("nvidia.dali")
    found = f"{dali.__version__} ({', '.join(builds) or 'of unknown build'})"
    if builds and builds[0] not in wanted:
        return Check(
            "DALI",
            "warn",
            f"{found} is for another CUDA than torch",
            f"pip uninstall -y {builds[0]} && {wanted}",
        )
    return Check("DALI", "ok", found)


def check_decoding() -> Check:
    """16 JPEG pictures through DALI, compared with OpenCV's decoding of the same bytes; by nvJPEG too."""
    import torch

    require_dali()
    devices = ["cpu", "mixed"] if torch.cuda.is_available() else ["cpu"]
    errors = [decoding_error(device) for device in devices]
    ways = " and ".join({"cpu": "the processor", "mixed": "nvJPEG"}[device] for device in devices)
    found = f"16 JPEG pictures through DALI on {ways}, {max(errors):.2f} of 255 off on average"
    if max(errors) > 3.0:
        return Check(
            "decoding", "fail", found, f"pip uninstall -y {' '.join(DALI_BUILDS)} && {dali_install_line()}"
        )
    return Check("decoding", "ok", found)


def check_pyav() -> Check:
    import av

    found = f"{av.__version__}, FFmpeg's libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    missing = [name for name in (*NEEDED_DECODERS, *OTHER_DECODERS) if name not in av.codecs_available]
    if not missing:
        return Check("PyAV", "ok", f"{found}, decodes {', '.join((*NEEDED_DECODERS, *OTHER_DECODERS))}")
    status: Literal["warn", "fail"] = "fail" if set(missing) & set(NEEDED_DECODERS) else "warn"
    return Check(
        "PyAV",
        status,
        f"{found}, cannot decode {', '.join(missing)}",
        f"pip install --force-reinstall {_requirement('av')}",
    )


def check_import(name: str, module: str) -> Check:
    """Whether a library loads."""
    try:
        return Check(name, "ok", str(importlib.import_module(module).__version__))
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # there, and broken
        return Check(name, "fail", first_line(error), f"pip install --force-reinstall {_requirement(module)}")


def check_rapids(name: str, module: str) -> Check:
    """Optional, and only of use on a GPU."""
    import torch

    if not torch.cuda.is_available():
        return Check(name, "ok", "not needed without a GPU")
    try:
        return Check(name, "ok", str(importlib.import_module(module).__version__))
    except ImportError as error:
        return Check(
            name,
            "warn",
            f"{first_line(error)}; optional: torch clusters without it",
            rapids_install_line(module),
        )


def _requirement(module: str) -> str:
    """The requirement that slicfast itself states for a module's package, quoted for a shell."""
    package = PACKAGES.get(module, module)
    try:
        stated = metadata.requires("slicfast") or []
    except metadata.PackageNotFoundError:
        stated = []
    for requirement in stated:
        if re.match(rf"{re.escape(package)}(?![\w-])", requirement, re.IGNORECASE):
            return f"'{requirement.partition(';')[0].strip()}'"
    return package
