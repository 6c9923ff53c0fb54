"""`slicfast convert`: what goes there comes back bit for bit, and others' programs load what is written."""

from __future__ import annotations

from pathlib import Path

import plain_resnet3d as plain
import pytest
import torch
from small_network import write_checkpoint
from torchvision.models import video

from slicfast.cli import run
from slicfast.engine.checkpoint import load_checkpoint, load_model
from slicfast.models.resnet3d import DEPTHS


def call(*arguments: object) -> int:
    return run(["convert", *(str(argument) for argument in arguments)])


def assert_same_tensors(found: plain.State, expected: plain.State) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_authors_file_comes_back_as_it_was(tmp_path, capsys):
    state = plain.random_state(DEPTHS[18], projection=(16, 8))
    given = {"epoch": 40, "state_dict": state, "best_prec1": 12.5}
    torch.save(given, tmp_path / "slic.pth.tar")
    assert call(tmp_path / "slic.pth.tar", tmp_path / "ours.pt") == 0
    assert "slic_r3d_18, 0.53 M parameters, from a slic checkpoint" in " ".join(
        capsys.readouterr().out.split()
    )
    assert call(tmp_path / "ours.pt", tmp_path / "back.pth.tar", "--to", "slic", "--prefix", "module.") == 0
    back = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert (back["epoch"], back["best_prec1"]) == (40, 12.5)
    assert_same_tensors({k.removeprefix("module."): v for k, v in back["state_dict"].items()}, state)
    assert all(name.startswith("module.") for name in back["state_dict"])


def test_haras_file_comes_back_with_its_classifier(tmp_path):
    state = plain.random_state(DEPTHS[50], bottleneck=True, num_classes=5)
    torch.save({"epoch": 200, "arch": "resnet-50", "state_dict": state}, tmp_path / "r3d50.pth")
    assert call(tmp_path / "r3d50.pth", tmp_path / "back.pth", "--to", "3d-resnets") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert (back["epoch"], back["arch"]) == (200, "resnet-50")
    assert_same_tensors(back["state_dict"], state)


def test_what_a_file_does_not_say_can_be_said(tmp_path):
    state = plain.random_state(DEPTHS[10], num_classes=5)
    torch.save(state, tmp_path / "r3d10.pth")
    assert call(tmp_path / "r3d10.pth", tmp_path / "ours.pt", "--set", "model.max_pool=false") == 0
    x = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        found = load_model(tmp_path / "ours.pt").forward_features(x)
    torch.testing.assert_close(found, plain.pooled(state, x, max_pool=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("to", ["slic", "3d-resnets"])
def test_a_network_trained_here_goes_there_and_back_with_its_configuration(tmp_path, capsys, to):
    path = write_checkpoint(tmp_path / "run.pt")
    assert call(path, tmp_path / "there.pth", "--to", to) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert ("reads it with --no_max_pool --resnet_widen_factor 0.125" in told) == (to == "3d-resnets")
    assert ("its projection is left out" in told) == (to == "3d-resnets")
    assert call(tmp_path / "there.pth", tmp_path / "back.pt") == 0
    before, after = load_checkpoint(path), load_checkpoint(tmp_path / "back.pt")
    assert after.config == before.config
    kept = {k: v for k, v in before.model.items() if to == "slic" or k.startswith("backbone.")}
    assert_same_tensors(after.model, kept)
    # And by the definition alone, without the configuration that goes along.
    state = torch.load(tmp_path / "there.pth", weights_only=True)["state_dict"]
    x = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        expected = plain.pooled(state, x, max_pool=False)
        torch.testing.assert_close(load_model(path).forward_features(x), expected, rtol=1e-4, atol=1e-5)


def test_torchvision_loads_what_is_written_for_it(tmp_path):
    theirs = video.s3d(num_classes=4)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "s3d.pth")
    assert call(tmp_path / "s3d.pth", tmp_path / "back.pth", "--to", "torchvision") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert_same_tensors(back, theirs.state_dict())
    video.s3d(num_classes=4).load_state_dict(back)


def test_a_fine_tuned_classifier_goes_along(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "run.pt")
    saved = torch.load(path, weights_only=True)
    saved["model"] = {k: v for k, v in saved["model"].items() if k.startswith("backbone.")}
    head = {"weight": torch.randn(3, 64), "bias": torch.randn(3)}
    saved["model"] |= {f"projection.linear.{name}": tensor for name, tensor in head.items()}
    torch.save(saved, path)
    assert call(path, tmp_path / "there.pth", "--to", "3d-resnets") == 0
    state = torch.load(tmp_path / "there.pth", weights_only=True)["state_dict"]
    assert torch.equal(state["fc.weight"], head["weight"]) and torch.equal(state["fc.bias"], head["bias"])
    capsys.readouterr()
    assert call(path, tmp_path / "ours.pt") == 0
    assert "its classifier of 3 classes is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "arguments", "message"),
    [
        ((), ["--to", "torchvision"], "torchvision has no slic_r3d_10; of ours it has slic_r3d_18"),
        (["model.name=slic_r3d_18"], ["--to", "torchvision"], "has model.width=1.0; this network has 0.125"),
        (["model.max_pool=true"], ["--to", "slic"], "has model.max_pool=false; this network has true"),
        (["model.projection_norm=true"], ["--to", "slic"], "a projection without a BatchNorm behind it"),
        (["model.name=slic_s3d"], ["--to", "slic"], "holds a 3-D ResNet such as slic_r3d_18; got slic_s3d"),
        (["model.name=slic_r3d_18_se"], ["--to", "3d-resnets"], "holds a 3-D ResNet"),
        ((), ["--prefix", "module."], "--prefix is for slic and 3d-resnets files"),
        ((), ["--set", "model.width=0.25"], "checkpoint of another model"),
        ((), ["--set", "model.widht=0.25"], "width"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_nothing_is_written(
    tmp_path, capsys, overrides, arguments, message
):
    path = write_checkpoint(tmp_path / "run.pt", *overrides)
    assert call(path, tmp_path / "out.pth", *arguments) in (1, 2)
    error = capsys.readouterr().err
    assert message in " ".join(error.split()) and "Traceback" not in error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.pt"]


def test_a_checkpoint_is_not_written_over_itself(tmp_path, capsys):
    path = write_checkpoint(tmp_path / "run.pt")
    before = path.read_bytes()
    assert call(path, path) == 2
    assert "is what is to be converted" in " ".join(capsys.readouterr().err.split())
    assert path.read_bytes() == before


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert call(Path(tmp_path / "no.pth"), tmp_path / "out.pt") == 1
    assert "no run or checkpoint at" in capsys.readouterr().err
