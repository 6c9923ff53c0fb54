"""The device, precision and cores that are chosen, and the libraries that are made ready."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slicfast import device
from slicfast.errors import ConfigError, MachineError

CPU = torch.device("cpu")


def test_importing_the_package_and_device_loads_no_heavy_library() -> None:
    program = (
        "import sys, slicfast, slicfast.device, slicfast.progress\n"
        "heavy = {'torch', 'numpy', 'timm', 'nvidia', 'cv2', 'av', 'rich'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert device.resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device.resolve_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asking_for_a_missing_gpu_says_what_to_do() -> None:
    with pytest.raises(MachineError, match=r"train\.device=cpu") as caught:
        device.resolve_device("cuda")
    assert "\n" not in str(caught.value)


def test_unknown_device_and_precision_name_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match=r"auto, cpu, cuda; got 'cude'; did you mean 'cuda'\?"):
        device.resolve_device("cude")
    with pytest.raises(ConfigError, match="auto, bf16, fp16, fp32"):
        device.autocast_dtype(CPU, "fp8")


@pytest.mark.parametrize(
    ("flags", "native"),
    [("avx2 amx_bf16", True), ("avx512_bf16", True), ("avx2 avx512f", False), ("", False)],
)
def test_auto_precision_follows_the_processor(
    flags: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags.split()))
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert not device.native_bf16(CPU)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA")
    assert device.native_bf16(CPU) is native
    assert device.autocast_dtype(CPU, "auto") == (torch.bfloat16 if native else None)
    assert device.autocast_dtype(CPU, "bf16") == torch.bfloat16
    assert device.autocast_dtype(CPU, "fp16") == torch.float16
    assert device.autocast_dtype(CPU, "fp32") is None


def test_cores_are_those_of_this_process() -> None:
    allowed = len(os.sched_getaffinity(0))
    assert 1 <= device.num_cores() <= allowed
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from slicfast.device import num_cores; raise SystemExit(num_cores() != 1)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_container_quota_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.cgroup_quota(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert device.cgroup_quota(tmp_path) is None
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("250000\n")
    assert device.cgroup_quota(tmp_path) == 2.5
    (tmp_path / "cpu.max").write_text("150000 100000\n")  # version 2 comes first
    assert device.cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert device.cgroup_quota(tmp_path) is None
    monkeypatch.setattr(device, "cgroup_quota", lambda: 0.5)
    assert device.num_cores() == 1


def test_a_container_limits_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.cgroup_memory(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("700\n")
    (tmp_path / "memory/memory.stat").write_text("inactive_file 5\ntotal_inactive_file 200\n")
    assert device.cgroup_memory(tmp_path) == 500
    (tmp_path / "memory.max").write_text("2000\n")  # version 2 comes first
    (tmp_path / "memory.current").write_text("2500\n")
    (tmp_path / "memory.stat").write_text("anon 9\ninactive_file 100\n")
    assert device.cgroup_memory(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert device.cgroup_memory(tmp_path) is None
    monkeypatch.setattr(device, "cgroup_memory", lambda: 17)
    assert device.free_memory_bytes() == 17
    monkeypatch.setattr(device, "cgroup_memory", lambda: None)
    assert 2**20 < device.free_memory_bytes() < 2**50


def test_timm_imports_after_torchvision_was_made_ready() -> None:
    program = (
        "from slicfast.device import ensure_torchvision_imports as ready\n"
        "ready(); ready()\n"
        "import gc; gc.collect()\n"
        "import timm, torch\n"
        "assert torch.ops.torchvision.nms.default\n"
        "assert timm.create_model('resnet10t').num_features == 512"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr


def test_missing_dali_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MachineError, match=r"^NVIDIA DALI .*'pip install nvidia-dali-cuda1[23]0==2\.4\.0'"):
        device.require_dali()


@pytest.mark.parametrize(("cuda", "build"), [(None, "cuda120"), ("12.8", "cuda120"), ("13.0", "cuda130")])
def test_dali_build_goes_with_torch(cuda: str | None, build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert device.dali_install_line() == f"pip install nvidia-dali-{build}==2.4.0"


@pytest.mark.parametrize(("vendor", "cap"), [("AuthenticAMD", "AVX2"), ("GenuineIntel", None), ("", None)])
def test_onednn_is_held_to_avx2_on_amd_alone(
    vendor: str, cap: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_field", lambda *names: vendor)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "ALL")
    device.cap_onednn()
    assert os.environ["DNNL_MAX_CPU_ISA"] == "ALL"
    monkeypatch.delenv("DNNL_MAX_CPU_ISA")
    device.resolve_device("cpu")
    assert os.environ.get("DNNL_MAX_CPU_ISA") == cap
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
