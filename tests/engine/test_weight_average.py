"""The averaged weights beside a plain float64 loop, and whoever reads a checkpoint gets them."""

from __future__ import annotations

import copy

import pytest
import torch
from small_network import SMALL_NETWORK

from slicfast.config import Config
from slicfast.distributed import Ranks
from slicfast.engine.checkpoint import (
    Checkpoint,
    encoder_of,
    load_checkpoint,
    load_model,
    new_encoder,
    save_checkpoint,
)
from slicfast.engine.encoder import build_encoder
from slicfast.engine.video_embedding import Encoder
from slicfast.engine.weight_average import WeightAverage
from slicfast.errors import ConfigError
from slicfast.evaluation.subject import open_subject
from slicfast.export.convert import convert
from slicfast.records import RunFolder
from slicfast.report.view import load_encoder, open_run
from slicfast.training.finetune import finetuning_config, open_finetuning


def decays(options, num_steps):
    """Of steps 1, 2, ...: as timm's documentation has it, in plain numbers."""
    known = {"min_decay": 0.0, "update_after_step": 0, "warmup_gamma": 1.0, "warmup_power": 2 / 3, **options}
    for step in range(1, num_steps + 1):
        since = step - known["update_after_step"] - 1
        if since <= 0:
            yield 0.0
        elif known.get("use_warmup"):
            grown = 1 - (1 + since / known["warmup_gamma"]) ** -known["warmup_power"]
            yield max(min(grown, known["decay"]), known["min_decay"])
        else:
            yield known["decay"]


def averaged(states, options, buffers=()):
    """The average over state dicts in float64; ``buffers`` and counts are copied."""
    average = {}
    for state, decay in zip(states, decays(options, len(states)), strict=True):
        for name, tensor in state.items():
            if name not in average or name in buffers or not tensor.is_floating_point():
                average[name] = tensor.double()
            else:
                average[name] = decay * average[name] + (1 - decay) * tensor.double()
    return average


def draw_anew(encoder):
    """Other weights and statistics, as training would leave them."""
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else tensor + 1)


@pytest.mark.parametrize(
    "options",
    [
        {"decay": 0.9},
        {"decay": 0.9, "update_after_step": 3},
        {"decay": 0.7, "use_warmup": True},
        {"decay": 0.99, "use_warmup": True, "min_decay": 0.5, "warmup_gamma": 4.0, "warmup_power": 0.75},
        {"decay": 0.9, "exclude_buffers": True},
        {"decay": 0.0},
    ],
    ids=str,
)
def test_the_average_is_that_of_a_plain_float64_loop(options):
    config = Config.load(None, [*SMALL_NETWORK, *(f"ema.{key}={value}" for key, value in options.items())])
    encoder = build_encoder(config.model).to(memory_format=torch.channels_last_3d)
    average = WeightAverage(encoder, config.ema)
    states = []
    for step in range(1, 8):
        draw_anew(encoder)
        states.append(copy.deepcopy(encoder.state_dict()))
        average.update(encoder, step)
    buffers = {name for name, _ in encoder.named_buffers()} if options.get("exclude_buffers") else ()
    expected = averaged(states, options, buffers)
    found = average.encoder.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5, msg=name)
    assert not any(p.requires_grad for p in average.encoder.parameters()) and not average.encoder.training
    assert encoder.training and all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ema.decay=1", "ema.decay"),
        ("ema.decay=-0.1", "ema.decay"),
        ("ema.use_warmup=true", "use_warmup does nothing while decay is null; set ema.decay"),
        ("ema.decy=0.9", "ema.decay"),
        ("ema={decay: 0.9, min_decay: 0.95}", "min_decay 0.95 is above decay 0.9"),
        ("ema={decay: 0.9, warmup_gamma: 0}", "ema.warmup_gamma"),
        ("train.ema_decay=0.9", "train.ema_decay"),
    ],
)
def test_what_cannot_be_meant_is_one_line(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(None, [override])
    assert "\n" not in str(caught.value)


@pytest.fixture
def averaging_run(tmp_path, tiny_store):
    """A run's folder whose last checkpoint holds weights and their average, both drawn anew."""
    config = Config.load(None, [*SMALL_NETWORK, "ema.decay=0.9", f"data.store={tiny_store.path}"])
    weights, average = (build_encoder(config.model) for _ in range(2))
    for encoder in (weights, average):
        draw_anew(encoder)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(config.to_yaml())
    saved = Checkpoint(config.to_dict(), weights.state_dict(), ema=average.state_dict())
    save_checkpoint(run / "checkpoints" / "last.pt", saved)
    return run, weights.state_dict(), average.state_dict()


def assert_same(state, expected):
    assert all(torch.equal(state[name].cpu(), tensor) for name, tensor in expected.items())


def test_everyone_who_reads_a_checkpoint_gets_the_averaged_weights(averaging_run, tmp_path):
    run, raw, average = averaging_run
    assert not any(torch.equal(raw[name], average[name]) for name in raw if "weight" in name)
    subject = open_subject(run, overrides={"probe": {"batch_size": 4}})
    start = Config.load(None, [*SMALL_NETWORK, f"train.init_from={run / 'checkpoints' / 'last.pt'}"])
    for encoder in (
        load_model(run),
        Encoder.from_checkpoint(run, "cpu").network,
        subject.encoder(),
        load_encoder(open_run(run))[0],
        new_encoder(start),
    ):
        assert_same(encoder.state_dict(), average)
    config = finetuning_config(subject)
    assert config.ema.decay is None
    cpu, folder = torch.device("cpu"), RunFolder(tmp_path / "tuned")
    tuned = open_finetuning(subject, config, folder, Ranks(), cpu, None)
    backbone = {name: tensor for name, tensor in average.items() if name.startswith("backbone.")}
    assert_same(tuned.encoder.state_dict(), backbone)
    assert tuned.average is None


def test_the_weights_of_the_last_step_are_to_be_had_too(averaging_run, tmp_path):
    run, raw, average = averaging_run
    assert_same(load_model(run, use_ema=False).state_dict(), raw)
    assert_same(Encoder.from_checkpoint(run, "cpu", use_ema=False).network.state_dict(), raw)
    for use_ema, expected in ((True, average), (False, raw)):
        convert(run, tmp_path / "one.pt", use_ema=use_ema)
        assert_same(load_model(tmp_path / "one.pt").state_dict(), expected)


def test_checkpoints_from_before_there_were_averages_are_read(averaging_run, tmp_path):
    run, raw, _ = averaging_run
    values = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    del values["ema"], values["config"]["ema"], values["config"]["cluster"]["use_ema"]
    torch.save(values, tmp_path / "old.pt")
    old = load_checkpoint(tmp_path / "old.pt")
    assert old.ema == {}
    assert_same(encoder_of(old, tmp_path).state_dict(), raw)
