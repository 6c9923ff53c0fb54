"""The stacks that `make install` offers: complete, with one DALI each, and clear where they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STACKS = ("cpu", "cuda12", "cuda13")


def constraints(name: str) -> dict[str, Requirement]:
    """Package -> its pin, the files named with -c included."""
    pins: dict[str, Requirement] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line.startswith("-c "):
            pins |= constraints(line.removeprefix("-c "))
        elif line and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.name.lower() not in pins, f"{requirement.name} is pinned twice"
            pins[requirement.name.lower()] = requirement
    return pins


@pytest.mark.parametrize("stack", STACKS)
def test_every_direct_dependency_is_pinned_within_what_the_project_accepts(stack: str) -> None:
    pins = constraints(f"constraints-{stack}.txt")
    extras = PROJECT["optional-dependencies"]
    for stated in map(
        Requirement, [*PROJECT["dependencies"], *extras[stack], *extras["dev"], *extras["docs"]]
    ):
        (pin,) = pins[stated.name.lower()].specifier
        assert pin.operator == "=="
        assert stated.specifier.contains(pin.version.replace("*", "0")), f"{stated} is pinned to {pin}"


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_holds_one_build_of_dali_and_one_cuda(stack: str) -> None:
    names = set(constraints(f"constraints-{stack}.txt"))
    major = {"cpu": "12", "cuda12": "12", "cuda13": "13"}[stack]
    other = "13" if major == "12" else "12"
    assert [name for name in names if name.startswith("nvidia-dali")] == [f"nvidia-dali-cuda{major}0"]
    assert not [name for name in names if f"cuda{other}" in name or f"cu{other}" in name]


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """install.sh in a copy of its own, as far as it comes without packages."""
    (folder / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/install.sh", folder / "requirements/install.sh")
    return subprocess.run(
        [folder / "requirements/install.sh"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_unknown_stack_names_the_known_ones(tmp_path: Path) -> None:
    finished = install(tmp_path, STACK="cuda11")
    assert finished.returncode == 1
    assert finished.stderr == "make: STACK must be one of auto, cpu, cuda12, cuda13; got 'cuda11'\n"


def test_no_usable_python_says_what_was_tried(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$*" in --version) echo Python 3.9.1;; *sys*) exit 1;; esac\n')
    old.chmod(0o755)
    finished = install(tmp_path, STACK="cpu", PYTHON=str(old))
    assert finished.returncode == 1
    assert "no Python 3.11 or later" in finished.stderr
    assert f"{old}: Python 3.9.1" in finished.stderr
    assert not (tmp_path / ".venv").exists()


def test_missing_venv_module_names_the_package_that_brings_it(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text(
        '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *print*) echo python3.12-venv;; *) exit 0;; esac\n'
    )
    bare.chmod(0o755)
    finished = install(tmp_path, STACK="cpu", PYTHON=str(bare))
    assert finished.returncode == 1
    assert "apt install python3.12-venv" in finished.stderr


@pytest.mark.parametrize(
    ("header", "stack"),
    [
        ("| NVIDIA-SMI 550.54   Driver Version: 550.54   CUDA Version: 12.4 |", "cuda12"),
        ("| NVIDIA-SMI 580.1    Driver Version: 580.1    CUDA Version: 13.0 |", "cuda13"),
        ("| NVIDIA-SMI 610.2   KMD Version: 610.2   CUDA UMD Version: 14.1 |", "cuda13"),
        ("| NVIDIA-SMI 470.1    Driver Version: 470.1    CUDA Version: 11.4 |", "cpu"),
        ("NVIDIA-SMI has failed", "cpu"),
    ],
)
def test_auto_follows_the_driver(header: str, stack: str, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{header}'\n")
    program.chmod(0o755)
    script = (ROOT / "requirements/install.sh").read_text()
    function = script[script.index("driver_stack()") :].partition("\n}\n")[0] + "\n}\ndriver_stack"
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", function],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert finished.stdout.strip() == stack


def test_make_alone_lists_what_it_can_do() -> None:
    finished = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=60)
    for target in ("demo", "test", "install", "lint", "clean"):
        assert f"make {target} " in finished.stdout
