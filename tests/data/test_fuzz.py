"""Damaged videos through the command: whatever comes of them, nothing ends the run; 1,000 in benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from slicfast.bench.mutations import MUTATIONS, mutate, write_videos
from slicfast.data.preparing.left_out import read_left_out
from slicfast.data.store import ClipStore

ROOT = Path(__file__).parents[2]
COPIES = 4  # of each codec and mutation


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_videos(tmp_path_factory.mktemp("sound"), num_frames=12, width=64, height=48)


def test_mutations_change_files_and_follow_their_seed(sound: dict[str, Path]) -> None:
    assert {"h264", "mpeg4", "vp9", "mjpeg", "hevc"} <= set(sound)
    data = sound["h264"].read_bytes()
    for kind in MUTATIONS:
        copies = [mutate(data, kind, np.random.default_rng(seed)) for seed in (1, 1, 2)]
        assert copies[0] == copies[1] != copies[2] and data not in copies


def test_damaged_videos_are_stored_or_left_out_with_a_reason(sound: dict[str, Path], tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for codec, path in sound.items():
        (videos / path.name).write_bytes(path.read_bytes())
        for kind in MUTATIONS:
            for seed in range(COPIES):
                damaged = mutate(path.read_bytes(), kind, np.random.default_rng(seed))
                (videos / f"{codec}-{kind}-{seed}{path.suffix}").write_bytes(damaged)
    num_videos = len(list(videos.iterdir()))
    assert num_videos >= 105
    command = [sys.executable, "-m", "slicfast", "prepare", str(videos), str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith("warning: left out")]) > 10
    store = ClipStore(tmp_path / "store")
    left_out = read_left_out(tmp_path / "store")
    assert len(store) + len(left_out) == num_videos and not set(store.ids()) & set(left_out)
    assert all(entry.reason and "\n" not in entry.reason for entry in left_out.values())
    assert {path.name for path in sound.values()} <= set(store.ids())
    for row in range(len(store)):
        for picture in store.frames(row, range(store.num_frames[row])):
            shape = cv2.imdecode(picture, cv2.IMREAD_COLOR).shape
            assert shape == (store.height[row], store.width[row], 3)


def test_a_worker_may_not_take_all_memory(tmp_path: Path) -> None:
    script = (
        "import sys; from slicfast.data.preparing import work\n"
        "work.MEMORY_BYTES = 1 << 30; work._limit_memory()\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 7
