"""Checkpoints: read only what slicfast wrote, say what does not fit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from slicfast.assignment import Assignment
from slicfast.config import Config, ModelConfig
from slicfast.engine.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_model,
    load_weights,
    save_checkpoint,
)
from slicfast.engine.encoder import build_encoder
from slicfast.errors import ConfigError, DataError, RunError

SMALL = ModelConfig(name="slic_r3d_10", width=0.125, projection_hidden=8, projection_dim=4)


def checkpoint_of(model=SMALL):
    config = Config(model=model)
    return Checkpoint(
        config=config.to_dict(),
        model=build_encoder(model).state_dict(),
        epoch=3,
        assignment=Assignment(("a", "b"), np.array([1, 0]), epoch=2),
        centroids_KD=torch.randn(2, 4),
        video_ids=("a", "b"),
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = checkpoint_of()
    save_checkpoint(tmp_path / "c.pt", saved)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.config == saved.config and loaded.epoch == 3 and loaded.video_ids == ("a", "b")
    assert loaded.assignment.ids == ("a", "b") and loaded.assignment.labels.tolist() == [1, 0]
    assert all(torch.equal(loaded.model[name], tensor) for name, tensor in saved.model.items())


def test_foreign_and_damaged_files_are_one_line(tmp_path):
    path = tmp_path / "c.pt"
    with pytest.raises(DataError, match="no checkpoint at"):
        load_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(DataError, match="is not a slicfast checkpoint"):
        load_checkpoint(path)
    for nonsense, said in ((b"", "it is empty"), (b"\x80 nonsense", "torch.save did not write it")):
        path.write_bytes(nonsense)
        with pytest.raises(DataError, match=f"not a readable checkpoint: .*{said}"):
            load_checkpoint(path)
    path.write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(DataError, match=r"torch\.save did not write it$"):
        load_checkpoint(path)
    save_checkpoint(path, checkpoint_of())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"not a readable checkpoint: it is damaged or cut off$"):
        load_checkpoint(path)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_no_code_in_a_checkpoint_is_executed(tmp_path, capsys):
    path = tmp_path / "c.pt"
    torch.save({"format": "slicfast-checkpoint", "evil": Evil()}, path)
    with pytest.raises(DataError):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError):
        load_checkpoint(path)
    assert "executed" not in capsys.readouterr().out


def test_another_version_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("slicfast.engine.checkpoint.VERSION", 99)
    save_checkpoint(tmp_path / "c.pt", checkpoint_of())
    monkeypatch.undo()
    with pytest.raises(DataError, match="format version 99, this slicfast reads 1"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (SMALL.model_copy(update={"width": 0.25}), "conv1.weight"),
        (SMALL.model_copy(update={"name": "slic_r3d_18"}), "layer1.1"),
        (SMALL.model_copy(update={"projection_dim": 8}), "projection"),
    ],
)
def test_a_checkpoint_of_another_model_names_the_tensor(other, named):
    with pytest.raises(RunError, match=f"checkpoint of another model.*{named}"):
        load_weights(build_encoder(SMALL), checkpoint_of(other).model, "c.pt")


def test_load_model_gives_the_trained_network(tmp_path):
    saved = checkpoint_of()
    save_checkpoint(tmp_path / "checkpoints" / "last.pt", saved)
    encoder = load_model(tmp_path)
    assert not encoder.training
    reference = build_encoder(SMALL).eval()
    reference.load_state_dict(saved.model)
    clips = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(encoder(clips), reference(clips))
    assert torch.equal(encoder.forward_features(clips), reference.forward_both(clips).pooled)
    with pytest.raises(DataError, match="no run or checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no checkpoint"):
        find_checkpoint(tmp_path / "checkpoints")


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'slic_r3d_18'"):
        build_encoder(ModelConfig(name="slic_r3d18"))
