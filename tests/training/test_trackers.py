"""TensorBoard shows the curves of metrics.jsonl, also of a resumed run; nothing there stops a run."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from slicfast.errors import MachineError
from slicfast.records import RunFolder, read_metrics
from slicfast.training.loop import train
from slicfast.training.trackers import TrackerThread, open_trackers


def curves(folder):
    """name -> [(step, value), ...] as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.SCALARS: 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def wanted_curves(path):
    wanted: dict[str, list] = {}
    for entry in read_metrics(path):
        for key, value in entry.items():
            if isinstance(value, int | float) and key not in ("step", "time", "epoch"):
                wanted.setdefault(f"{entry['kind']}/{key}", []).append((entry["step"], value))
    return wanted


def assert_same_curves(run):
    found, wanted = curves(run / "tensorboard"), wanted_curves(run / "metrics.jsonl")
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6)


def test_curves_are_those_of_metrics_also_after_a_kill_and_a_resume(tiny_config, tmp_path):
    pytest.importorskip("tensorboard")
    overrides = ("logging.tensorboard=true", "train.checkpoint_interval=3", "eval.query_split=test")
    run = tmp_path / "run"
    train(tiny_config(*overrides), run, max_steps=3)
    assert_same_curves(run)
    # As if killed after it: what an unbroken run logs beyond its last checkpoint.
    stray = open_trackers(tiny_config(*overrides), RunFolder(run), 0)
    for step in (4, 5):
        stray.write("train", step, {"loss": 99.0})
    stray.close()
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"kind": "train", "step": 4, "loss": 99.0}) + "\n")
    train(tiny_config(*overrides), run, resume="auto")
    assert_same_curves(run)
    assert len(curves(run / "tensorboard")["train/loss"]) == len(
        [entry for entry in read_metrics(run / "metrics.jsonl") if entry["kind"] == "train"]
    )


def test_nothing_is_written_or_imported_unless_asked_for(tiny_config, tmp_path):
    assert open_trackers(tiny_config(), RunFolder(tmp_path), 0) is None
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_fails_is_given_up_and_the_others_go_on(caplog):
    class Failing:
        name = "Failing"

        def write(self, kind, step, values):
            raise OSError("no space left")

        def close(self):
            raise AssertionError("given up before")

    class Keeping:
        name = "Keeping"

        def __init__(self):
            self.kept = []

        def write(self, kind, step, values):
            self.kept.append((kind, step, values))

        def close(self):
            self.kept.append("closed")

    keeping = Keeping()
    thread = TrackerThread([Failing(), keeping])
    with caplog.at_level(logging.WARNING, "slicfast"):
        for step in range(3):
            thread.write("train", step, {"loss": 1, "note": "text", "nothing": None, "epoch": 2})
        thread.close()
    assert keeping.kept == [*(("train", step, {"loss": 1.0}) for step in range(3)), "closed"]
    assert caplog.text.count("Failing is given up (no space left)") == 1


@pytest.mark.parametrize(
    ("override", "library", "message"),
    [
        (
            "logging.tensorboard=true",
            "torch.utils.tensorboard",
            r"logging.tensorboard needs tensorboard; run pip install 'slicfast\[tensorboard\]', or leave",
        ),
        (
            "logging.wandb_project=x",
            "wandb",
            r"logging.wandb_project needs wandb; run pip install 'slicfast\[wandb\]', or leave",
        ),
    ],
)
def test_a_missing_library_is_said_at_the_start(
    override, library, message, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, library, None)  # what an import then finds: nothing
    with pytest.raises(MachineError, match=message):
        train(tiny_config(override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wandb_offline_keeps_one_run_over_a_resume(tiny_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    overrides = ("logging.wandb_project=tests", "train.checkpoint_interval=2")
    run = tmp_path / "run"
    train(tiny_config(*overrides), run, max_steps=2)
    first = (run / "wandb-id").read_text()
    train(tiny_config(*overrides), run, resume="auto")
    assert (run / "wandb-id").read_text() == first
    assert len(list((run / "wandb").glob(f"offline-run-*-{first.strip()}"))) >= 1
