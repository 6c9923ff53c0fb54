"""The loop: what a run writes, that it stops and goes on exactly, and that it refuses what does not fit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from slicfast.config import Config
from slicfast.data.catalog import read_catalog
from slicfast.data.preparing.flow import prepare_flow
from slicfast.engine.checkpoint import load_checkpoint, load_model, save_checkpoint
from slicfast.errors import ConfigError, DataError, MachineError, RunError
from slicfast.records import read_metrics
from slicfast.training.loop import train


def weights_of(run):
    checkpoint = load_checkpoint(run / "checkpoints" / "last.pt")
    optimizer = [
        value
        for state in checkpoint.optimizer["state"].values()
        for value in state.values()
        if torch.is_tensor(value)
    ]
    return [*checkpoint.model.values(), *optimizer]


def assert_equal_runs(run, other):
    pairs = list(zip(weights_of(run), weights_of(other), strict=True))
    assert len(pairs) > 20
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def losses(run):
    return [e["loss"] for e in read_metrics(run / "metrics.jsonl") if e["kind"] == "train"]


def test_a_run_folder_holds_all_that_a_run_is(tiny_config, tmp_path):
    run = tmp_path / "run"
    config = tiny_config("eval.query_split=test", "eval.interval=1", "train.keep_every_epochs=1")
    result = train(config, run)
    assert Config.load(run / "config.yaml") == config
    kinds = [entry["kind"] for entry in read_metrics(run / "metrics.jsonl")]
    assert kinds.count("train") == result.global_step
    assert kinds.count("cluster") == kinds.count("retrieval") == 2
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"last.pt", "best.pt", "epoch-0001.pt", "epoch-0002.pt"}
    assert sorted(path.name for path in (run / "assignments").iterdir()) == [
        "epoch-0000.tsv",
        "epoch-0001.tsv",
    ]
    assert "training slic_r3d_10" in (run / "train.log").read_text()
    encoder = load_model(run)
    assert encoder(torch.zeros(2, 3, 4, 16, 16)).shape == (2, 8)


def test_the_same_configuration_gives_the_same_weights(tiny_config, tmp_path):
    train(tiny_config(), tmp_path / "one")
    train(tiny_config("data.num_threads=2"), tmp_path / "two")
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    train(tiny_config("seed=1"), tmp_path / "three")
    assert losses(tmp_path / "one") == losses(tmp_path / "two") != losses(tmp_path / "three")


@pytest.mark.parametrize("method", ["finch", "kmeans"])
def test_a_run_killed_between_checkpoints_and_resumed_equals_an_unbroken_one(tiny_config, tmp_path, method):
    """SIGKILL gives no chance to save; the optimizer and all randomness go on from the last checkpoint."""
    overrides = ["train.epochs=16", "train.checkpoint_interval=3", f"cluster.method={method}"]
    overrides += ["cluster.num_clusters=3", "cluster.interval=2", "optim.name=adamw", "optim.lr=0.001"]
    config = tiny_config(*overrides)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    train(config, unbroken)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    code = (
        "import torch; torch.set_num_threads(1); from slicfast import Config, train;"
        f"train(Config.load({str(file)!r}), {str(broken)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    last = broken / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 120
    while not last.exists() or len(losses(broken)) % 3 == 0:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    killed_at = load_checkpoint(last).global_step
    assert killed_at < load_checkpoint(unbroken / "checkpoints" / "last.pt").global_step
    train(config, broken, resume="auto")
    assert_equal_runs(unbroken, broken)
    assert losses(unbroken) == losses(broken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_goes_on_exactly(tiny_config, tmp_path, number, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(tiny_config(), whole)
    from slicfast.training.meter import Meter

    add = Meter.add

    def signal_after_the_second_step(self, logged, batch):
        add(self, logged, batch)
        if self._session.state.global_step == 1:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(Meter, "add", signal_after_the_second_step)
        result = train(tiny_config(), stopped)
    assert result.stopped_by == number and result.global_step == 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    result = train(tiny_config(), stopped, resume="auto")
    assert result.stopped_by is None
    assert_equal_runs(whole, stopped)
    whole_metrics = [(e["kind"], e["step"]) for e in read_metrics(whole / "metrics.jsonl")]
    assert whole_metrics == [(e["kind"], e["step"]) for e in read_metrics(stopped / "metrics.jsonl")]


def test_sigusr1_saves_and_goes_on(tiny_config, tmp_path, monkeypatch):
    from slicfast.training import session

    saved = []
    save = session.Session.save

    def remember(self, path):
        saved.append(self.state.global_step)
        save(self, path)
        if len(saved) == 1:
            return

    monkeypatch.setattr(session.Session, "save", remember)
    from slicfast.training.meter import Meter

    add = Meter.add

    def signal_in_the_second_step(self, logged, batch):
        add(self, logged, batch)
        if self._session.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Meter, "add", signal_in_the_second_step)
    result = train(tiny_config(), tmp_path / "run")
    assert result.stopped_by is None
    assert saved == [2, result.global_step]


def test_gradient_accumulation_gives_the_mean_gradient_of_its_parts(tiny_config, tmp_path):
    """One step in two parts equals SGD on the mean of the two parts' gradients."""
    from slicfast.data.sampling import take_part
    from slicfast.distributed import Ranks
    from slicfast.records import RunFolder
    from slicfast.training.ahead import BatchStream
    from slicfast.training.loop import _seed_negatives, epoch_steps
    from slicfast.training.meter import Meter
    from slicfast.training.session import open_session

    config = tiny_config("train.accumulation_steps=2", "cluster.method=none")
    session = open_session(config, RunFolder(tmp_path), Ranks(), torch.device("cpu"), None)
    batch = session.sampler.batch(0, 0)
    total = [torch.zeros_like(p) for p in session.encoder.parameters()]
    start = {name: tensor.clone() for name, tensor in session.encoder.state_dict().items()}
    for part in range(2):
        (clips,) = session.loader.load([take_part(batch, 3, part, 2)])
        _seed_negatives(session, 0, part)
        session.step.part(clips.clips, *session.labels_and_videos(clips.requests))
        for mean, parameter in zip(total, session.encoder.parameters(), strict=True):
            mean += parameter.grad
        session.encoder.zero_grad()
    session.encoder.load_state_dict(start)
    with closing(BatchStream(session)) as stream:
        next(epoch_steps(session, Meter(session), stream))
    for (name, parameter), gradient in zip(session.encoder.named_parameters(), total, strict=True):
        torch.testing.assert_close(parameter.detach(), start[name] - config.optim.lr * gradient)


def test_a_diverged_run_stops_and_keeps_its_last_requests(tiny_config, tmp_path):
    run = tmp_path / "run"
    config = tiny_config("optim.lr=1e30", "train.keep_requests=2", "train.epochs=9", "cluster.method=none")
    with pytest.raises(RunError, match=r"no longer finite at step \d+.*requests-last.npz"):
        train(config, run)
    with np.load(run / "requests-last.npz") as kept:
        assert len(kept.files) == 2
        assert kept["batch_000"].dtype.names[0] == "video"


def test_dry_run_takes_a_step_and_writes_nothing(tiny_config, tmp_path):
    assert train(tiny_config(), tmp_path / "run", dry_run=True).global_step == 1
    assert not (tmp_path / "run").exists()


def test_a_second_run_does_not_overwrite_the_first(tiny_config, tmp_path):
    train(tiny_config("train.epochs=1"), tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run; add --resume auto"):
        train(tiny_config(), tmp_path / "run")


def test_resuming_with_another_configuration_names_the_keys(tiny_config, tmp_path):
    train(tiny_config("train.epochs=1"), tmp_path / "run")
    with pytest.raises(RunError, match=r"loss\.margin \(0\.2 -> 0\.3\)"):
        train(tiny_config("loss.margin=0.3"), tmp_path / "run", resume="auto")


def test_more_epochs_go_on_with_a_finished_run(tiny_config, tmp_path):
    train(tiny_config("train.epochs=1"), tmp_path / "grown")
    train(tiny_config(), tmp_path / "grown", resume="auto")
    train(tiny_config(), tmp_path / "whole")
    assert_equal_runs(tmp_path / "grown", tmp_path / "whole")


def test_changed_training_videos_are_noticed(tiny_config, tmp_path):
    run = tmp_path / "run"
    train(tiny_config("train.epochs=1"), run)
    checkpoint = load_checkpoint(run / "checkpoints" / "last.pt")
    checkpoint.video_ids = (*checkpoint.video_ids[1:], "other.avi")
    save_checkpoint(run / "checkpoints" / "last.pt", checkpoint)
    with pytest.raises(RunError, match=r"training videos changed \(1 new, 1 gone"):
        train(tiny_config(), run, resume="auto")


def test_weights_of_another_checkpoint_are_the_start(tiny_config, tmp_path):
    train(tiny_config("train.epochs=1"), tmp_path / "first")
    source = tmp_path / "first" / "checkpoints" / "last.pt"
    train(tiny_config("optim.lr=1e-12", f"train.init_from={source}", "train.epochs=1"), tmp_path / "second")
    start = load_checkpoint(source).model["backbone.conv1.weight"]
    torch.testing.assert_close(
        load_checkpoint(tmp_path / "second" / "checkpoints" / "last.pt").model["backbone.conv1.weight"], start
    )
    with pytest.raises(RunError, match="checkpoint of another model"):
        train(tiny_config("model.width=0.25", f"train.init_from={source}"), tmp_path / "third")


def test_videos_too_short_are_one_line(tiny_config, tmp_path):
    with pytest.raises(DataError, match="has the 2000 frames training needs"):
        train(tiny_config("data.clip_length=1000"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batch_that_does_not_divide_is_a_config_error(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="multiple"):
        train(tiny_config("train.accumulation_steps=3"), tmp_path / "run")


def test_the_frame_difference_view_reaches_the_network(tiny_config, tmp_path):
    train(tiny_config("train.epochs=1", "motion.view=none"), tmp_path / "none")
    train(tiny_config("train.epochs=1", "motion.prob=1"), tmp_path / "difference")
    assert losses(tmp_path / "none") != losses(tmp_path / "difference")


def test_the_flow_view_reaches_the_network(tiny_config, gliding_store, tmp_path):
    where = [f"data.store={gliding_store.path}", "train.epochs=1"]
    options = {"none": ["motion.view=none"], "horizontal": [], "both": ["motion.components=both"]}
    options["faithful"] = ["flow.faithful=true"]
    for name, chosen in options.items():
        train(tiny_config(*where, "motion.view=flow", "motion.prob=1", *chosen), tmp_path / name)
    found = [losses(tmp_path / name) for name in options]
    assert all(found[i] != found[j] for i in range(4) for j in range(i))


def test_changed_flow_is_noticed(tiny_config, gliding_store, tmp_path):
    store, run = tmp_path / "store", tmp_path / "run"
    shutil.copytree(gliding_store.path, store)
    options = (f"data.store={store}", "motion.view=flow", "train.batch_size=4")
    train(tiny_config(*options, "train.epochs=1"), run)
    last = run / "checkpoints" / "last.pt"
    saved = load_checkpoint(last)
    assert saved.flow["members"] == "flow-u" and saved.flow["has_flow"].tolist() == [True] * 4
    with pytest.raises(RunError, match=r"another configuration: flow.source \(stored -> hardware\)"):
        train(tiny_config(*options, "flow.source=hardware"), run, resume="auto")
    shutil.move(store / "flow-u", tmp_path / "away")
    with pytest.raises(RunError, match=r"flow was that of flow-u and now is that of flow-uv"):
        train(tiny_config(*options), run, resume="auto")
    catalog = read_catalog(gliding_store.path.parent / "videos")
    prepare_flow(replace(catalog, videos=catalog.videos[:-1]), store, workers=1)
    with pytest.raises(RunError, match=r"\(0 training videos have it that had none, 1 have it no more\)"):
        train(tiny_config(*options), run, resume="auto")
    shutil.rmtree(store / "flow-u")
    shutil.move(tmp_path / "away", store / "flow-u")
    older = replace(saved, flow={})  # as before checkpoints told of flow
    save_checkpoint(last, older)
    train(tiny_config(*options), run, resume="auto")
    assert load_checkpoint(last).flow["has_flow"].tolist() == [True] * 4


def test_training_on_flow_that_is_not_there_is_one_line(tiny_config, tmp_path, caplog, gliding_store):
    with pytest.raises(DataError, match=r"make it with 'slicfast prepare ROOT .* --flow'"):
        train(tiny_config("motion.view=flow"), tmp_path / "run")
    with pytest.raises(MachineError, match=r"flow\.source=hardware needs an NVIDIA GPU"):
        train(tiny_config("motion.view=flow", "flow.source=hardware"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    shutil.copytree(gliding_store.path, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/flow-u")
    catalog = read_catalog(gliding_store.path.parent / "videos")
    prepare_flow(replace(catalog, videos=catalog.videos[:-1]), tmp_path / "store", workers=1)
    train(tiny_config(f"data.store={tmp_path / 'store'}", "motion.view=flow"), tmp_path / "run", dry_run=True)
    assert "1 of 4 training videos have no flow" in caplog.text
