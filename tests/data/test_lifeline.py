"""No worker outlives its parent, whatever either is in the middle of."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from loopback import serving
from small_data import smooth_video, write_video

ROOT = Path(__file__).parents[2]
MOMENT_S = 2.0


def started(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def kill_and_wait_for(process: subprocess.Popen[bytes], workers: list[int]) -> float:
    """SIGKILL the parent; seconds until the last worker is gone too."""
    handles = [os.pidfd_open(pid) for pid in workers]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    killed = time.monotonic()
    try:
        for handle in handles:  # readable once its process has ended
            left = MOMENT_S - (time.monotonic() - killed)
            assert select.select([handle], [], [], max(left, 0.0))[0], "a worker outlives its parent"
    finally:
        for handle, pid in zip(handles, workers, strict=True):
            if not select.select([handle], [], [], 0)[0]:
                os.kill(pid, signal.SIGKILL)
            os.close(handle)
    return time.monotonic() - killed


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_workers_end_with_a_prepare_killed_in_the_middle_of_fetching(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.avi", smooth_video(np.random.default_rng(0), 8, 64, 48)).read_bytes()
    with serving() as server:
        server.files = {f"videos/{number}.avi": film for number in range(2)}
        server.pause_s = dict.fromkeys(server.files, 20.0)
        command = ("-m", "slicfast", "prepare", f"{server.url}/videos", str(tmp_path / "store"))
        process = started(*command, "--workers", "2")
        until = time.monotonic() + 60
        while len(server.bodies) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        workers = children_of(process)
        assert len(workers) == 2 and len(server.bodies) == 2
        left = sorted(path.name for path in (tmp_path / "store/tmp").glob("*.source.avi"))
        assert left == [f"worker-{process.pid}-{number}-1.source.avi" for number in (1, 2)]
        assert kill_and_wait_for(process, workers) < MOMENT_S
        server.pause_s = {}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "store/tmp").exists()


HANGS = """
import sys
from pathlib import Path
from slicfast.data.stores.format import Source, StoreSettings
from slicfast.data.preparing.workers import Task, WorkerPool

path, tmp = map(Path, sys.argv[1:])
with WorkerPool(1, tmp) as pool:
    task = Task(path.name, path, None, None, None, Source(size=1), StoreSettings())
    for _ in pool.run([task]):
        if pool._workers[0].heard:
            print("busy", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_workers_end_with_a_parent_killed_while_they_hang_in_ffmpeg(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hang.avi")  # nobody writes it: opening it never returns
    (tmp_path / "tmp").mkdir()
    process = started("-c", HANGS, str(tmp_path / "hang.avi"), str(tmp_path / "tmp"))
    assert process.stdout is not None and process.stdout.readline() == b"busy\n"
    assert kill_and_wait_for(process, children_of(process)) < MOMENT_S


def run_lifeline(code: str, descriptor: int, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, sys, time\nfrom slicfast.data.preparing import lifeline\n{code}",
            *arguments,
        ],
        pass_fds=[descriptor],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_where_the_kernel_does_not_a_thread_notices_the_closed_pipe() -> None:
    ours, theirs = socket.socketpair()
    code = (
        "lifeline._killed_by_the_kernel = lambda: False\n"
        "lifeline.end_with_parent(os.getppid(), int(sys.argv[1])); os.write(int(sys.argv[1]), b'x')\n"
        "time.sleep(60)"
    )
    process = run_lifeline(code, theirs.fileno(), str(theirs.fileno()))
    theirs.close()
    assert ours.recv(1) == b"x"
    ours.send(b"a task")  # something to read is no end
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    ours.close()
    assert process.wait(MOMENT_S) == 1


def test_a_parent_that_died_before_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        code = "lifeline.end_with_parent(os.getppid() + 1, int(sys.argv[1])); time.sleep(60)"
        assert run_lifeline(code, theirs.fileno(), str(theirs.fileno())).wait(20) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_linux_takes_the_request() -> None:
    code = (
        "from slicfast.data.preparing import lifeline; raise SystemExit(not lifeline._killed_by_the_kernel())"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=20, check=False).returncode == 0
