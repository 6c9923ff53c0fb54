"""Checkpoints of others compute here what they compute there; what is none of them is one line."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import plain_resnet3d as plain
import pytest
import torch
from torchvision.models import resnet18, video

import slicfast
from slicfast.config import ModelConfig
from slicfast.engine.checkpoint import load_any, load_checkpoint, load_model, start_from
from slicfast.engine.encoder import build_encoder
from slicfast.engine.foreign import read_foreign
from slicfast.errors import ConfigError, DataError, RunError
from slicfast.models.resnet3d import DEPTHS


def authors(depth: int = 10, **options) -> plain.State:
    return plain.random_state(DEPTHS[depth], projection=(16, 8), **options)


def hara(depth: int = 10, **options) -> plain.State:
    return plain.random_state(DEPTHS[depth], **{"num_classes": 5, **options})


def saved(path: Path, state: plain.State, prefix: str = "", **facts) -> Path:
    """As training scripts save, with what they know beside it."""
    named = OrderedDict((f"{prefix}{name}", tensor) for name, tensor in state.items())
    torch.save({**facts, "state_dict": named}, path)
    return path


def clips() -> torch.Tensor:
    return torch.randn(2, 3, 8, 48, 48)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("depth", [10, 18])
def test_the_authors_network_computes_the_same(tmp_path, prefix, depth):
    state = authors(depth)
    facts = {"epoch": 599, "best_prec1": np.float64(71.6)}
    path = saved(tmp_path / "x.pth.tar", state, prefix, **facts)
    encoder = slicfast.Encoder.from_checkpoint(path, device="cpu")
    x = clips()
    with torch.no_grad():
        assert_same(encoder.network(x), plain.projected(state, x))
        assert_same(encoder.network.forward_features(x), plain.pooled(state, x, max_pool=False))
    model = encoder.config.model
    assert (model.name, model.width) == (f"slic_r3d_{depth}", 0.125)
    assert (model.projection_hidden, model.projection_dim, model.max_pool) == (16, 8, False)
    assert load_checkpoint(path).epoch == 599 and load_checkpoint(path).best == 71.6


@pytest.mark.parametrize(("depth", "bottleneck"), [(18, False), (50, True)])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_haras_networks_compute_the_same(tmp_path, depth, bottleneck, prefix):
    state = hara(depth, bottleneck=bottleneck)
    path = saved(
        tmp_path / "r3d.pth", state, prefix, epoch=200, arch=f"resnet-{depth}", optimizer={"lr": 0.1}
    )
    x = clips()
    with torch.no_grad():
        found = load_model(path).forward_features(x)
        assert_same(found, plain.pooled(state, x, max_pool=True))
        classifier = load_any(path).classifier
        assert_same(torch.nn.functional.linear(found, **classifier), plain.logits(state, x))
    encoder = slicfast.Encoder.from_checkpoint(path, device="cpu")
    assert encoder.config.data.crop_size == 112 and encoder.config.data.mean == (0.4345, 0.4051, 0.3775)
    with pytest.raises(ConfigError, match="has no projection; use its pooled features"):
        encoder.network(x)


def test_videos_are_embedded_by_a_foreign_file(tmp_path):
    path = saved(tmp_path / "x.pth.tar", authors())
    pictures = np.random.default_rng().integers(0, 255, (20, 40, 56, 3), dtype=np.uint8)
    encoder = slicfast.Encoder.from_checkpoint(path, device="cpu")
    assert encoder.embed([pictures], "projection", num_clips=1).shape == (1, 8)


@pytest.mark.parametrize(
    ("name", "ours", "section"),
    [
        ("r3d_18", "slic_r3d_18", {"conv1_temporal_size": 3}),
        ("r2plus1d_18", "slic_r2plus1d_18", {}),
        ("s3d", "slic_s3d", {}),
    ],
)
def test_torchvisions_files_are_recognised(name, ours, section):
    """That the tensors under these names compute the same is a test of the backbones."""
    with torch.device("meta"):
        theirs = getattr(video, name)()
        found = read_foreign(theirs.state_dict(), Path("x.pth"))
        network = build_encoder(ModelConfig(name=ours, **section))
    assert found.kind == "torchvision" and found.classifier["weight"].shape[0] == 400
    wanted = {k: v.shape for k, v in network.state_dict().items() if k.startswith("backbone.")}
    assert {k: v.shape for k, v in found.model.items()} == wanted
    assert found.config["data"]["mean"] == [0.43216, 0.394666, 0.37645]


def test_files_of_old_torch_without_counters_are_read(tmp_path):
    state = {name: tensor for name, tensor in authors().items() if "num_batches" not in name}
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    x = clips()
    with torch.no_grad():
        assert_same(load_model(path)(x), plain.projected(state, x))


def without(state: plain.State, name: str) -> plain.State:
    assert name in state
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            without(authors(), "layer3.0.bn1.weight"),
            "has no 'layer3.0.bn1.weight'; it may be cut off",
        ),
        (without(authors(), "fc2.weight"), "SLIC checkpoint without 'fc2.weight'"),
        (without(authors(), "bn_proj.running_var"), "has no 'bn_proj.running_var'"),
        (without(authors(), "layer2.0.downsample.0.weight"), r"no parameters \(type A\)"),
        ({**hara(), "extra": torch.zeros(2)}, "also has 'extra', which slic_r3d_10 does not"),
        (
            {**hara(), "layer1.0.conv2.weight": torch.zeros(8, 1, 3, 3, 3)},
            r"'layer1.0.conv2.weight' is \(8, 1, 3, 3, 3\) where this kind of network has \(8, 8, 3, 3, 3\)",
        ),
        (plain.random_state((1, 2, 1, 1)), "1, 2, 1, 1 blocks in its stages, which no published depth has"),
        (resnet18().state_dict(), "a first kernel of 64 x 3 x 7 x 7; expected channels x 3 x frames x 7 x 7"),
        (
            {"encoder.weight": torch.zeros(2)},
            "of no network that slicfast knows.*first tensors are encoder.weight",
        ),
        ({}, "expected tensors by name, alone or as 'state_dict'"),
    ],
)
def test_what_is_none_of_them_is_one_line(tmp_path, state, message):
    path = saved(tmp_path / "x.pth", state)
    with pytest.raises(DataError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_files_that_hold_objects_are_refused_and_nothing_of_them_runs(tmp_path):
    path = saved(tmp_path / "x.pth", authors(), args=argparse.Namespace(lr=0.1))
    with pytest.raises(DataError, match=r"holds a Python object \(argparse.Namespace\); only tensors"):
        load_checkpoint(path)
    torch.save(build_encoder(ModelConfig(name="slic_r3d_10", width=0.125)), path)  # a whole network
    with pytest.raises(DataError, match=r"holds a Python object \(slicfast.engine.encoder.VideoEncoder\)"):
        load_checkpoint(path)


def test_a_file_that_is_cut_off_is_one_line(tmp_path):
    path = saved(tmp_path / "x.pth", authors())
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="is not a readable checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_training_starts_from_a_foreign_backbone_with_a_new_projection(tmp_path):
    state = hara()
    path = saved(tmp_path / "r3d.pth", state)
    model = ModelConfig(name="slic_r3d_10", width=0.125, max_pool=True, projection_hidden=8, projection_dim=4)
    encoder = build_encoder(model)
    new = encoder.projection.fc1.weight.clone()
    start_from(encoder, model, path)
    assert torch.equal(encoder.backbone.conv1.weight, state["conv1.weight"])
    assert torch.equal(encoder.projection.fc1.weight, new)
    unlike = model.model_copy(update={"max_pool": False})
    with pytest.raises(RunError, match=r"model\.max_pool=true, this one has false: the same weights"):
        start_from(build_encoder(unlike), unlike, path)
    wider = model.model_copy(update={"width": 0.25})
    with pytest.raises(RunError, match=r"checkpoint of another model: 'backbone\.conv1\.weight'"):
        start_from(build_encoder(wider), wider, path)


def test_training_starts_from_the_authors_projection_too(tmp_path):
    state = authors()
    path = saved(tmp_path / "x.pth.tar", state)
    model = ModelConfig(name="slic_r3d_10", width=0.125, projection_hidden=16, projection_dim=8)
    encoder = build_encoder(model)
    start_from(encoder, model, path)
    assert torch.equal(encoder.projection.fc2.weight, state["fc2.weight"])
