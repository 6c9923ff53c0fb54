"""The suite for a GPU keeps what its stages find, passes over what is there, outlives a failing stage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import gpu_suite

SUITE = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu_suite.py"


def suite(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SUITE), str(out), "--device", "cpu", "--quick", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def test_stages_are_merged_into_one_file_and_not_run_twice(tmp_path):
    out = tmp_path / "out.json"
    out.write_text(json.dumps({"ceilings": {"result": "kept"}}))
    done = suite(out, "--stages", "ceilings,cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ceilings: there already" in done.stdout
    found = json.loads(out.read_text())
    assert found["ceilings"] == {"result": "kept"}
    assert {row["what"] for row in found["cluster"]["result"]["figures"]} >= {"kmeans", "FINCH, all levels"}
    assert found["cluster"]["machine"]["commit"] is None or found["cluster"]["machine"]["commit"]


def test_the_stages_of_the_step_run(tmp_path):
    context = gpu_suite.Context("cpu", True, tmp_path)
    run = {name: gpu_suite.STAGES[name][0] for name in ("convolutions", "step", "compiled_step")}
    assert set(run["convolutions"](context)) == {"direct", "padded", "space_to_depth"}
    assert len(run["step"](context)["variants"]) > 5
    assert len(run["compiled_step"](context)["variants"]) == 1


def test_a_stage_that_fails_leaves_its_error_and_the_others_go_on(tmp_path):
    out, folder = tmp_path / "out.json", tmp_path / "files"
    folder.mkdir()
    (folder / "store").write_text("in the way of the clip store")
    done = suite(out, "--stages", "training,ceilings", "--folder", str(folder))
    assert done.returncode == 1
    assert "1 of 2 stages failed" in done.stderr
    found = json.loads(out.read_text())
    assert "clip store" in found["training"]["failed"]["output"]
    assert len(found["ceilings"]["result"]) == 3


def test_an_unknown_stage_is_named(tmp_path):
    done = suite(tmp_path / "out.json", "--stages", "steps")
    assert done.returncode == 2
    assert "no stage steps; there are environment" in done.stderr


def test_stages_that_do_not_fit_the_budget_are_left_for_another_call(tmp_path):
    out = tmp_path / "out.json"
    done = suite(out, "--stages", "ceilings,tests", "--budget", "0")
    assert done.returncode == 0
    assert done.stdout.count("left for another call") == 2
    assert not out.exists()


def test_the_order_has_every_stage_and_none_is_longer_than_a_call():
    assert sorted(gpu_suite.ORDER) == sorted(gpu_suite.STAGES)
    assert max(limit_s for _, limit_s in gpu_suite.STAGES.values()) <= 480
