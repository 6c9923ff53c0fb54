"""Training with an average of the weights: what is averaged, who sees it, and that runs go on exactly."""

from __future__ import annotations

import copy
from contextlib import closing

import pytest
import torch
from tape import Tape

from slicfast.distributed import Ranks
from slicfast.engine.checkpoint import load_checkpoint, load_model
from slicfast.engine.embedding import encoder_extractor
from slicfast.errors import RunError
from slicfast.records import RunFolder, read_metrics
from slicfast.training import rounds, validation
from slicfast.training import step as step_module
from slicfast.training.ahead import BatchStream
from slicfast.training.loop import epoch_steps, train
from slicfast.training.meter import Meter
from slicfast.training.rounds import recluster
from slicfast.training.session import open_session
from slicfast.training.validation import validate

EMA = ("ema.decay=0.8", "ema.use_warmup=true")


def open_here(config, folder, device="cpu"):
    return open_session(config, RunFolder(folder), Ranks(), torch.device(device), None)


def average_and_loop(session, num_steps):
    """The session's average after so many steps, and what a float64 loop over its weights makes of it."""
    expected = None
    with closing(BatchStream(session)) as stream:
        steps = epoch_steps(session, Meter(session), stream)
        for step in range(1, num_steps + 1):
            if next(steps, "end") == "end":
                session.state.epoch, session.state.step = session.state.epoch + 1, 0
                steps = epoch_steps(session, Meter(session), stream)
                next(steps)
            weights = {k: v.detach().double().cpu() for k, v in session.encoder.named_parameters()}
            decay = 0.0 if step == 1 else min(1 - step ** (-2 / 3), 0.8)
            if expected is None:
                expected = weights
            expected = {k: decay * expected[k] + (1 - decay) * v for k, v in weights.items()}
    found = {k: v.detach().double().cpu() for k, v in session.average.encoder.named_parameters()}
    return found, expected


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("options", [(), ("train.accumulation_steps=2",), ("train.cuda_graph=true",)])
def test_weights_are_averaged_once_an_optimizer_step(tiny_config, tmp_path, monkeypatch, options):
    monkeypatch.setattr(step_module, "recorder_maker", lambda device, num_ranks: lambda generators: Tape())
    session = open_here(tiny_config(*EMA, *options, "train.epochs=9"), tmp_path)
    found, expected = average_and_loop(session, 8)
    assert_close(found, expected)
    raw = dict(session.encoder.named_parameters())
    assert all(not torch.equal(found[k].float(), raw[k].detach()) for k in found if k.endswith("weight"))


def test_training_itself_does_not_notice_the_average(tiny_config, tmp_path):
    options = ("cluster.use_ema=false", "eval.query_split=test", "eval.interval=1")
    train(tiny_config(*options), tmp_path / "without")
    train(tiny_config(*options, *EMA), tmp_path / "with")
    without, average = (
        load_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("without", "with")
    )
    assert without.ema == {} and average.ema.keys() == average.model.keys()
    assert all(torch.equal(average.model[name], tensor) for name, tensor in without.model.items())


@pytest.mark.parametrize("options", [(), ("cluster.bank=running",)])
def test_a_resumed_run_equals_an_unbroken_one_in_its_average_too(tiny_config, tmp_path, options):
    config = tiny_config(*EMA, *options, "train.epochs=3", "eval.query_split=test", "eval.interval=1")
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(config, whole)
    train(config, halved, max_steps=4)
    train(config, halved, resume="auto")
    for name in ("last.pt", "best.pt"):
        one, two = (load_checkpoint(run / "checkpoints" / name) for run in (whole, halved))
        assert one.global_step == two.global_step
        for key in ("model", "ema"):
            state = getattr(one, key)
            assert len(state) > 20
            assert all(torch.equal(getattr(two, key)[k], tensor) for k, tensor in state.items())
    kinds = [
        [{k: v for k, v in e.items() if k.endswith("_r1")} for e in read_metrics(run / "metrics.jsonl")]
        for run in (whole, halved)
    ]
    assert kinds[0] == kinds[1]
    loaded = load_model(whole).state_dict()
    assert all(
        torch.equal(loaded[k], tensor)
        for k, tensor in load_checkpoint(whole / "checkpoints/best.pt").ema.items()
    )


def test_another_average_is_another_run(tiny_config, tmp_path):
    train(tiny_config("train.epochs=1"), tmp_path / "run")
    with pytest.raises(RunError, match=r"another configuration: ema\.decay \(None -> 0\.8\)"):
        train(tiny_config("ema.decay=0.8"), tmp_path / "run", resume="auto")


@pytest.mark.parametrize(
    ("options", "clustered"),
    [((), "average"), (("cluster.use_ema=false",), "weights"), (("cluster.bank=running",), "weights")],
)
def test_validation_and_clustering_look_at_the_average(
    tiny_config, tmp_path, monkeypatch, options, clustered
):
    session = open_here(tiny_config(*EMA, *options, "eval.query_split=test"), tmp_path)
    (tmp_path / "assignments").mkdir()
    seen = []

    def extractor(encoder, device, autocast):
        seen.append(encoder)
        return encoder_extractor(encoder, device, autocast)

    for module in (validation, rounds):
        monkeypatch.setattr(module, "encoder_extractor", extractor)
    validate(session)
    recluster(session, 0)
    expected = session.average.encoder if clustered == "average" else session.encoder
    assert seen[0] is session.average.encoder and seen[1] is expected
    assert session.encoder.training and not session.average.encoder.training


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.needs_cuda)])
def test_a_step_that_loss_scaling_skips_leaves_the_average_alone(tiny_config, tmp_path, device):
    config = tiny_config(*EMA, "train.precision=fp16", f"train.device={device}")
    session = open_here(config, tmp_path, device)
    session.scaler.load_state_dict({**session.scaler.state_dict(), "scale": 2.0**120})
    before = copy.deepcopy(session.average.state())
    with closing(BatchStream(session)) as stream:
        steps = epoch_steps(session, Meter(session), stream)
        next(steps)
        assert session.scaler.get_scale() < 2.0**120
        assert all(torch.equal(session.average.state()[k], tensor) for k, tensor in before.items())
        session.scaler.load_state_dict({**session.scaler.state_dict(), "scale": 1.0})
        next(steps)
    assert not torch.equal(session.average.state()["projection.fc2.weight"], before["projection.fc2.weight"])


@pytest.mark.needs_cuda
@pytest.mark.parametrize("graph", ["false", "true"])
def test_weights_are_averaged_on_a_gpu(tiny_config, tmp_path, graph):
    options = ("train.device=cuda", "cluster.method=none", "train.epochs=9", f"train.cuda_graph={graph}")
    assert_close(*average_and_loop(open_here(tiny_config(*EMA, *options), tmp_path, "cuda"), 8))
