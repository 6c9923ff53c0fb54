"""Whatever goes wrong in a command ends in one line and the right exit code; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from slicfast.cli import machine
from slicfast.errors import ConfigError, DataError, MachineError, RunError


def breaking_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `slicfast version` raise."""

    def broken(name: str) -> Any:
        raise error

    monkeypatch.setattr(machine, "installed_version", broken)


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("no such key"), 2, "error: no such key"),
        (DataError("no videos"), 1, "error: no videos"),
        (MachineError("no GPU"), 1, "error: no GPU"),
        (RunError("diverged"), 1, "error: diverged"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x.tar"),
            1,
            "error: /data/x.tar: no space left on the device; free some and run the same command again",
        ),
        (OSError(errno.EROFS, "x"), 1, "error: the file system is read-only; choose another place"),
        (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            1,
            "error: the GPU's memory is full; lower train.batch_size or raise train.accumulation_steps",
        ),
        (
            ModuleNotFoundError("No module named 'av'", name="av"),
            1,
            "error: the library 'av' is not installed; run 'make install', or see 'slicfast doctor'",
        ),
        (MemoryError(), 1, "error: this machine's memory is full; lower train.batch_size or data.prefetch"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_error_is_one_line_and_its_exit_code(
    error: BaseException, code: int, line: str, slicfast: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking_with(error, monkeypatch)
    finished = slicfast("version")
    assert finished.code == code
    assert finished.error_line == f"slicfast: {line}"


@pytest.mark.parametrize(
    "error", [ValueError("odd"), OSError(errno.EBADF, "bad descriptor"), KeyError("x"), ImportError("x")]
)
def test_a_bug_keeps_its_traceback_and_asks_to_be_reported(
    error: Exception, slicfast: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking_with(error, monkeypatch)
    finished = slicfast("version")
    assert finished.code == 1
    assert finished.err.startswith("Traceback")
    assert "please report it" in finished.err.splitlines()[-1]


def test_error_of_another_rank_says_which(slicfast: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking_with(MachineError("no GPU"), monkeypatch)
    monkeypatch.setenv("RANK", "3")
    assert slicfast("version").error_line == "slicfast (rank 3): error: no GPU"


def test_a_reader_that_goes_away_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    finished = subprocess.run(
        [sys.executable, "-m", "slicfast", "version"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write_end)
    assert (finished.returncode, finished.stderr) == (1, "")


def test_ctrl_c_is_one_line() -> None:
    program = (
        "import time, slicfast.cli.machine as machine\n"
        "machine.installed_version = lambda name: (print('ready', flush=True), time.sleep(60))\n"
        "from slicfast.cli import main; import sys; sys.argv = ['slicfast', 'version']; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "slicfast: interrupted\n")
