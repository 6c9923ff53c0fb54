"""Fine-tuning: the training loop with labels, exact when stopped, tested on ten crops, in its own folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slicfast.data.store import ClipStore
from slicfast.data.views import in_all_crops, ten_crops, windows
from slicfast.engine.checkpoint import load_checkpoint, load_model
from slicfast.engine.embedding import evaluation_loader
from slicfast.errors import ConfigError, RunError
from slicfast.evaluation.document import read_document
from slicfast.evaluation.features import Features
from slicfast.evaluation.probe import softmax_extractor
from slicfast.evaluation.run import evaluate_all
from slicfast.evaluation.subject import open_subject
from slicfast.records import read_metrics
from slicfast.training.finetune import classifier, finetune
from slicfast.training.loop import train
from slicfast.training.meter import Meter

SHORT = {"probe": {"epochs": 3, "batch_size": 4}}


@pytest.fixture(scope="module")
def run(tiny_store: ClipStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run of one epoch; tests fine-tune it into folders of their own."""
    from slicfast.config import Config

    folder = tmp_path_factory.mktemp("pretrained") / "run"
    values = [
        f"data.store={tiny_store.path}",
        "data.clip_length=4",
        "data.crop_size=16",
        "data.num_threads=1",
        "model.name=slic_r3d_10",
        "model.width=0.125",
        "model.projection_hidden=16",
        "model.projection_dim=8",
        "eval.num_clips=2",
        "train.epochs=1",
        "train.batch_size=4",
        "train.precision=fp32",
        "train.device=cpu",
        "train.log_interval=1",
    ]
    train(Config.load(None, values), folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / "last.pt").model


def test_labels_train_all_of_the_network_from_the_pretrained_backbone(run, tmp_path):
    slow = {"probe": {**SHORT["probe"], "lr": 1e-9}}
    finetune(run, folder=tmp_path / "slow", overrides=slow)
    pretrained = load_checkpoint(run / "checkpoints" / "last.pt").model
    started = weights(tmp_path / "slow")
    torch.testing.assert_close(started["backbone.conv1.weight"], pretrained["backbone.conv1.weight"])
    assert started["projection.linear.weight"].shape == (2, 64)

    result = finetune(run, folder=tmp_path / "tuned", overrides=SHORT)
    moved = weights(tmp_path / "tuned")["backbone.conv1.weight"] - pretrained["backbone.conv1.weight"]
    assert moved.abs().max() > 1e-5
    logged = [e for e in read_metrics(tmp_path / "tuned" / "metrics.jsonl") if e["kind"] == "train"]
    assert len(logged) == 3 * 2 and {"loss", "top1"} <= set(logged[0])
    assert result.evaluation == read_document(tmp_path / "tuned" / "evaluation.json")
    assert load_checkpoint(tmp_path / "tuned" / "checkpoints" / "last.pt").optimizer["param_groups"][0][
        "lr"
    ] == pytest.approx(1e-3 * 0.1 * 0.01)  # the third of three epochs


def test_the_test_is_the_mean_softmax_over_windows_and_crops(run, tmp_path):
    result = finetune(run, folder=tmp_path / "tuned", overrides=SHORT)
    subject = open_subject(run, overrides=SHORT)
    encoder = classifier(subject)
    encoder.load_state_dict(weights(tmp_path / "tuned"))
    encoder.eval()
    loader = evaluation_loader(subject.store, subject.config, torch.device("cpu"), ten_crops)
    means = []
    for row in subject.query_rows:
        clips = in_all_crops(windows(np.array([row]), subject.store.num_frames[[row]], clip_span=4, stride=1))
        with torch.no_grad():
            batches = loader.load(clips[i : i + 1] for i in range(len(clips)))
            means.append(
                torch.stack([encoder(batch.clips).softmax(dim=1)[0] for batch in batches]).mean(dim=0)
            )
    wanted = torch.stack(means)
    scores = Features(subject).ten_crop_mean(softmax_extractor(encoder, torch.device("cpu"), None))
    torch.testing.assert_close(scores["probability"], wanted, atol=1e-6, rtol=1e-4)
    right = wanted.argmax(dim=1).numpy() == subject.query_labels
    assert result.evaluation["finetune"]["top1"]["value"] == pytest.approx(right.mean())


def test_a_stopped_fine_tuning_goes_on_exactly(run, tmp_path, monkeypatch):
    """Dropout included, which draws from torch's generator."""
    finetune(run, folder=tmp_path / "whole", overrides=SHORT)
    add = Meter.add

    def signal_after_the_third_step(self, logged, batch):
        add(self, logged, batch)
        if self._session.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Meter, "add", signal_after_the_third_step)
        stopped = finetune(run, folder=tmp_path / "stopped", overrides=SHORT)
    assert stopped.evaluation is None and stopped.stopped_by == signal.SIGINT
    torch.rand(7)
    assert finetune(run, folder=tmp_path / "stopped", overrides=SHORT).evaluation is not None
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_another_recipe_or_checkpoint_does_not_go_on_with_it(run, tmp_path):
    finetune(run, folder=tmp_path / "tuned", overrides=SHORT)
    with pytest.raises(RunError, match=r"probe\.epochs \(3 -> 4\); choose another --folder"):
        finetune(run, folder=tmp_path / "tuned", overrides={"probe": {"epochs": 4, "batch_size": 4}})
    copy = tmp_path / "copy.pt"
    copy.write_bytes((run / "checkpoints" / "last.pt").read_bytes())
    with pytest.raises(RunError, match="choose another --folder"):
        finetune(copy, folder=tmp_path / "tuned", overrides=SHORT)
    with pytest.raises(ConfigError, match=r"set probe\.batch_size to 8 or less"):
        finetune(run, folder=tmp_path / "big")
    with pytest.raises(ConfigError, match="choose another --query"):
        finetune(run, query="train", folder=tmp_path / "same", overrides=SHORT)


def test_eval_all_shows_the_fine_tuning_of_its_checkpoint_alone(run, tmp_path):
    result = finetune(run, overrides=SHORT)
    assert result.folder == run / "finetune"
    document, path = evaluate_all(run, train_probe=False)
    assert path == run / "evaluation.json"
    assert document["finetune"] == result.evaluation["finetune"] and document == json.loads(path.read_text())
    other, _ = evaluate_all(run, train_probe=False, query="test", gallery="test", output=tmp_path / "o.json")
    assert "finetune" not in other


def test_a_fine_tuned_classifier_is_not_taken_for_an_encoder(run, tmp_path):
    finetune(run, folder=tmp_path / "tuned", overrides={"probe": {"epochs": 1, "batch_size": 4}})
    with pytest.raises(RunError, match="is a fine-tuned classifier without a projection; use the run"):
        load_model(tmp_path / "tuned")


def test_two_ranks_fine_tune_and_test_together(run, tmp_path):
    command = "-m torch.distributed.run --standalone --nproc-per-node=2 -m slicfast eval finetune"
    options = [run, "--folder", tmp_path / "two", "--epochs", 1, "--set", "probe.batch_size=4"]
    finished = subprocess.run(
        [sys.executable, *command.split(), *map(str, options)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("fine-tuned, 1 epochs") == 1
    tested = read_document(tmp_path / "two" / "evaluation.json")["finetune"]
    assert 0 <= tested["top1"]["value"] <= 1 and tested["top5"]["value"] == 1
