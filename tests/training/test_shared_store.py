"""A store that several runs use at once, or that nobody may write."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_data import smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import StoreSettings, prepare
from slicfast.data.store import ClipStore
from slicfast.records import read_metrics

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def losses(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    return [e["loss"] for e in read_metrics(path) if e["kind"] == "train"] if path.exists() else []


def start(config: Path, run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "slicfast", "train", str(config), "--run", str(run)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=pipe, text=True)


def test_two_trainings_go_on_while_prepare_adds_to_their_store(tiny_store, tiny_config, tmp_path):
    store = Path(shutil.copytree(tiny_store.path, tmp_path / "store"))
    config = tiny_config(f"data.store={store}", "train.epochs=100000", "cluster.interval=4")
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    runs = [tmp_path / "one", tmp_path / "two"]
    processes = [start(tmp_path / "c.yaml", run) for run in runs]

    def wait_for(*num_steps: int) -> None:
        until = time.monotonic() + 120
        while any(len(losses(run)) < number for run, number in zip(runs, num_steps, strict=True)):
            for process in processes:
                assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.1)

    try:
        wait_for(5, 5)
        index = ClipStore(store)._index
        video_THWC = smooth_video(np.random.default_rng(0), 30, 40, 32)
        write_video(tmp_path / "videos/left/another.avi", video_THWC)
        report = prepare(read_catalog(tmp_path / "videos"), store, StoreSettings(short_side=32), workers=1)
        assert report.num_kept == 1 and len(report.not_in_catalog) == 12
        assert not index.exists() and len(ClipStore(store)) == 13
        wait_for(*(len(losses(run)) + 15 for run in runs))  # past another clustering
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=60)[1] for process in processes]
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode in (0, 143) and "Traceback" not in error, error
        assert "damaged" not in error
    one, two = (losses(run) for run in runs)
    num_common = min(len(one), len(two))
    assert one[:num_common] == two[:num_common]  # neither saw anything of the new index


def can_mount() -> bool:
    script = "mount --bind /tmp /mnt && mount -o remount,ro,bind /mnt"
    tried = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(shutil.which("unshare") is None or not can_mount(), reason="may not mount")
def test_training_and_evaluation_need_no_right_to_write_the_store(tiny_store, tiny_config, tmp_path):
    mount, run = tmp_path / "mount", tmp_path / "run"
    mount.mkdir()
    (tmp_path / "config.yaml").write_text(tiny_config(f"data.store={mount}").to_yaml())
    commands = (
        "import sys; from slicfast.cli import run\n"
        f"train = run(['train', '{tmp_path}/config.yaml', '--run', '{run}'])\n"
        f"sys.exit(train or run(['eval', 'retrieval', '{run}', '--query', 'test', '--gallery', 'train']))\n"
    )
    script = (
        f"set -e; mount --bind {tiny_store.path} {mount}; mount -o remount,ro,bind {mount}\n"
        f"if touch {mount}/x 2>/dev/null; then exit 9; fi\n"
        f'exec {sys.executable} -c "{commands}"\n'
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(losses(run)) == 4 and "R@1" in done.stdout
