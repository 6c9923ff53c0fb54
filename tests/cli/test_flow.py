"""The way of a newcomer through the commands, on videos that are made on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slicfast.config import Config
from slicfast.data.store import ClipStore

SYNTH = (
    "--actions",
    "walk,wave",
    "--train-groups",
    1,
    "--val-groups",
    1,
    "--test-groups",
    1,
    "--num-frames",
    20,
    "--min-videos",
    2,
    "--max-videos",
    4,
    "--figure-size",
    "0.6,0.7",
    "--camera",
    0.2,
)
SMALL = (
    "data.clip_length=4",
    "data.crop_size=16",
    "data.num_threads=1",
    "model.name=slic_r3d_10",
    "model.width=0.125",
    "model.projection_hidden=16",
    "model.projection_dim=8",
    "eval.num_clips=2",
    "train.epochs=2",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.device=cpu",
)


def test_from_nothing_to_a_table(tmp_path: Path, slicfast: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = slicfast("synth", "videos", *SYNTH, "--workers", 1)
    assert made.code == 0, made.err
    num_videos = len(list(Path("videos").rglob("*.mp4")))
    assert "written now" in made.out
    assert "all there already" in slicfast("synth", "videos", *SYNTH).out

    looked_at = slicfast("prepare", "videos", "store", "--dry-run")
    assert looked_at.code == 0, looked_at.err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in looked_at.out.splitlines()]
    assert ["videos", f"{num_videos}"] in rows
    assert {"hours", "bytes"} <= {row[0] for row in rows if row}
    assert not Path("store").exists()

    first = slicfast("prepare", "videos", "store", "--limit", 3, "--workers", 1, "--short-side", 48)
    assert "store holds 3 videos; made now: 3" in first.out, first.err
    second = slicfast("prepare", "videos", "store", "--workers", 1, "--short-side", 48)
    assert f"made now: {num_videos - 3}" in second.out, second.err
    assert "nothing was left to do" in slicfast("prepare", "videos", "store", "--short-side", 48).out
    assert ClipStore("store").splits == ("test", "train", "val")

    Path("small.yaml").write_text(Config.load(None, [*SMALL, "data.store=store"]).to_yaml())
    tried = slicfast("train", "small.yaml", "--dry-run")
    assert (tried.code, Path("runs").exists()) == (0, False), tried.err
    trained = slicfast("train", "small.yaml", "--set", "train.epochs=1")
    assert trained.code == 0, trained.err
    assert "next: slicfast eval retrieval runs/small" in trained.out
    assert Config.load("runs/small/config.yaml").train.epochs == 1

    again = slicfast("train", "small.yaml")
    assert (again.code, "--resume auto" in again.error_line) == (1, True)
    assert slicfast("train", "small.yaml", "--resume", "auto").code == 0  # one epoch more

    found = slicfast("eval", "retrieval", "runs/small", "--output", "table.json")
    assert found.code == 0, found.err
    for row in ("trained, pooled", "untrained, projection", "frame differences", "chance"):
        assert found.out.count(row) == 2 * (1 + (row == "trained, pooled"))  # by two protocols
    assert "R@1 " in found.out
    assert set(json.loads(Path("table.json").read_text())["table"]["chance"]) == {"1", "5", "10", "20", "50"}
    fewer = slicfast(
        "eval", "retrieval", "runs/small", "--set", "eval.num_clips=1", "--query", "val", "--iic-only"
    )
    assert fewer.code == 0, fewer.err
    assert "CoCLR" not in fewer.out
    assert "of val look among" in fewer.out


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "slicfast", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def wait_for(path: Path, process: subprocess.Popen[str], content: str = "") -> None:
    deadline = time.monotonic() + 120
    while not (path.exists() and content in path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_saves_a_run_and_says_how_to_go_on(tmp_path: Path, tiny_store: ClipStore) -> None:
    values = [*SMALL, f"data.store={tiny_store.path}", "train.epochs=100000", "train.log_interval=1"]
    (tmp_path / "long.yaml").write_text(Config.load(None, values).to_yaml())
    process = start("train", "long.yaml", cwd=tmp_path)
    wait_for(tmp_path / "runs/long/metrics.jsonl", process, '"kind": "train"')
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "stopped by SIGINT" in out
    assert "go on with: slicfast train long.yaml --run runs/long --resume auto" in out
    assert "Traceback" not in err
    assert (tmp_path / "runs/long/checkpoints/last.pt").exists()


def test_two_ranks_print_one_result(tmp_path: Path, tiny_store: ClipStore) -> None:
    values = [*SMALL, f"data.store={tiny_store.path}", "train.epochs=1", "cluster.method=none"]
    (tmp_path / "two.yaml").write_text(Config.load(None, values).to_yaml())
    command = "-m torch.distributed.run --standalone --nproc-per-node=2 -m slicfast train two.yaml"
    finished = subprocess.run(
        [sys.executable, *command.split()],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("steps done") == 1
    assert finished.stderr.count("with 2 rank(s)") == 1
