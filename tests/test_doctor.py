"""The doctor: every check runs here, and each fault comes with the command that mends it."""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from slicfast import device, doctor, probes
from slicfast.checks import Check
from slicfast.doctor import diagnose


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_this_machine_has_all_that_is_needed(checks: dict[str, Check]) -> None:
    assert [check for check in checks.values() if check.status == "fail"] == []


def test_every_check_says_what_it_found_and_every_fault_what_to_do(checks: dict[str, Check]) -> None:
    assert len(checks) == 18
    for check in checks.values():
        assert check.found
        assert "\n" not in check.found
        assert check.advice or check.status == "ok"


def test_dali_decodes_as_opencv_does() -> None:
    assert probes.decoding_error("cpu") < 1.0


def test_bf16_convolution_agrees_with_fp32_beyond_its_rounding() -> None:
    assert probes.worst_bf16_error(torch.device("cpu"), (1, 8, 4, 16, 16), 8, 3) < doctor.MAX_BF16_ERROR


@pytest.mark.needs_cuda
def test_the_gpu_decodes_and_convolves_rightly() -> None:
    assert probes.decoding_error("mixed") < 3.0
    assert doctor.check_bf16().status == "ok"


def test_wrong_bf16_convolutions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "native_bf16", lambda device: True)
    monkeypatch.setattr(doctor, "worst_bf16_error", lambda *arguments: 0.3)
    check = doctor.check_bf16()
    assert check.status == "fail"
    assert "train.precision=fp32" in check.advice


def test_bf16_is_tried_with_the_instructions_that_training_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "")  # so that it is as before in the end
    monkeypatch.delenv("DNNL_MAX_CPU_ISA")
    monkeypatch.setattr(device, "cpu_field", lambda *names: "AuthenticAMD" if names[0] == "vendor_id" else "")
    doctor.check_bf16()
    assert os.environ["DNNL_MAX_CPU_ISA"] == "AVX2"


def test_both_dali_builds_at_once_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda package: "2.4.0")
    check = doctor.check_dali()
    assert check.status == "fail"
    assert check.advice.startswith(
        "pip uninstall -y nvidia-dali-cuda120 nvidia-dali-cuda130 && pip install nvidia-dali-"
    )


def test_dali_for_another_cuda_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(doctor, "version_of", lambda package: "2.4.0" if package.endswith("120") else None)
    check = doctor.check_dali()
    assert (check.status, check.advice) == (
        "warn",
        "pip uninstall -y nvidia-dali-cuda120 && pip install nvidia-dali-cuda130==2.4.0",
    )


def test_missing_dali_fails_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    found = {check.name: check for check in diagnose()}
    assert found["DALI"].status == found["decoding"].status == "fail"
    assert found["DALI"].found == "NVIDIA DALI is not installed"
    assert "pip install nvidia-dali-" in found["DALI"].advice


def test_broken_library_is_to_be_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = importlib.import_module

    def without_cv2(name: str, package: str | None = None) -> Any:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real_import(name, package)

    monkeypatch.setattr(importlib, "import_module", without_cv2)
    check = doctor.check_import("OpenCV", "cv2")
    assert (check.status, check.found) == ("fail", "libGL.so.1: cannot open shared object file")
    assert check.advice.startswith("pip install --force-reinstall")
    assert "opencv-python-headless" in check.advice


def test_missing_library_fails_with_the_requirement_that_slicfast_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(doctor.metadata, "requires", lambda package: ["av>=14.0", "scikit-learn>=1.5"])
    check = {check.name: check for check in diagnose()}["scikit-learn"]
    assert (check.status, check.found) == ("fail", "sklearn is not installed")
    assert check.advice == "pip install 'scikit-learn>=1.5'"


def test_a_check_that_breaks_is_a_fault_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Check:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(doctor, "check_pyav", broken)
    check = {check.name: check for check in diagnose()}["PyAV"]
    assert (check.status, check.found, check.advice) == ("fail", "ZeroDivisionError: one", "make install")


def test_a_gpu_that_torch_does_not_see_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "driver_gpus", lambda: (["NVIDIA H200, 143771 MiB, 580.1"], "13.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = doctor.check_torch()
    assert (check.status, check.advice) == ("fail", "make install STACK=cuda13")
    assert doctor.check_gpu().found == "NVIDIA H200, 143771 MiB, 580.1; driver for CUDA 13.0"


def test_driver_is_asked_through_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.driver_gpus.__doc__
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in --query*) echo "NVIDIA T4, 15360 MiB, 550.54";;'
        ' *) echo "| NVIDIA-SMI 550.54    Driver Version: 550.54    CUDA Version: 12.4 |";; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor.driver_gpus() == (["NVIDIA T4, 15360 MiB, 550.54"], "12.4")
    program.write_text("#!/bin/sh\nexit 9\n")
    assert doctor.driver_gpus() == ([], "")


def test_little_memory_and_disk_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_MEMORY_GIB", 1e9)
    monkeypatch.setattr(doctor, "MIN_DISK_GIB", 1e9)
    for check in (doctor.check_memory(), doctor.check_disk(tmp_path)):
        assert check.status == "warn"
        assert check.advice


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open, opened = builtins.open, []

    def watched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and not isinstance(file, int):
            opened.append(file)
        return real_open(file, mode, *arguments, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "open", watched)
    diagnose(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert opened == []
