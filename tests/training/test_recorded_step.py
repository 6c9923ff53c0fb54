"""Training with a recorded step is the same training; the recorder here is a tape, a CUDA graph on a GPU."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch
from tape import NoSynchronisation, Tape

from slicfast.config import AugmentConfig
from slicfast.data.augment import draw
from slicfast.data.photometric import Photometric
from slicfast.device import resolve_device
from slicfast.distributed import Ranks
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.errors import MachineError
from slicfast.records import RunFolder, read_metrics
from slicfast.training import step as step_module
from slicfast.training.ahead import BatchStream
from slicfast.training.loop import epoch_steps, train
from slicfast.training.meter import Meter
from slicfast.training.session import open_session

SCHEDULE = ("optim.schedule=cosine", "optim.clip_grad_norm=0.5", "train.epochs=4")

# What is remembered from step to step lies in buffers too, and so do the labels of the last clustering.
ALL_TERMS = (
    *(f"loss.{name}_weight=0.5" for name in ("memory_triplet", "nce", "moco", "uber_nce", "intra_negative")),
    *("loss.relative_speed_weight=1", "loss.nce_num_negatives=6", "loss.queue_size=5", "optim.lr=0.01"),
)


def losses(run):
    return [entry["loss"] for entry in read_metrics(run / "metrics.jsonl") if entry["kind"] == "train"]


def rates(run):
    return [entry["lr"] for entry in read_metrics(run / "metrics.jsonl") if entry["kind"] == "train"]


def last(run):
    return load_checkpoint(run / "checkpoints" / "last.pt")


@pytest.fixture
def tapes(monkeypatch):
    """Recorders for the CPU in the place of CUDA graphs; those that were made."""
    made = []

    def maker(device, num_ranks):
        return lambda generators: made.append(Tape()) or made[-1]

    monkeypatch.setattr(step_module, "recorder_maker", maker)
    return made


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("train.accumulation_steps=2", "cluster.bank=running"),
        ("optim.name=adamw", "optim.lr=0.001"),
        ("optim.name=lamb", "optim.lr=0.001"),
        ("loss.negatives=noise_contrastive", "optim.fused=false"),
        ALL_TERMS,
    ],
    ids=["sgd", "parts", "adamw", "lamb", "unfused", "all terms"],
)
def test_a_recorded_step_trains_the_same_run(tiny_config, tmp_path, tapes, options):
    for value in ("true", "false"):
        train(tiny_config(f"train.cuda_graph={value}", *SCHEDULE, *options), tmp_path / value)
    num_recorded = 1 if {"optim.name=lamb", "optim.fused=false"} & set(options) else 2
    assert len(tapes) == num_recorded
    assert all(tape.num_replays > 3 for tape in tapes)
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-4)
    assert rates(tmp_path / "true") == pytest.approx(rates(tmp_path / "false"))
    assert len(set(losses(tmp_path / "true"))) > 6
    for name, tensor in last(tmp_path / "false").model.items():
        torch.testing.assert_close(last(tmp_path / "true").model[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_recorded_run_goes_on_exactly(tiny_config, tmp_path, tapes):
    config = tiny_config("train.cuda_graph=true", *SCHEDULE)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(config, whole)
    train(config, halved, max_steps=5)
    train(config, halved, resume="auto")
    assert losses(whole) == losses(halved)
    assert len(tapes) == 6
    for name, tensor in last(whole).model.items():
        assert torch.equal(tensor, last(halved).model[name])


def test_fp16_records_all_but_the_optimizer(tiny_config, tmp_path, tapes):
    """Whether a step is skipped is decided on the host."""
    for value in ("true", "false"):
        config = tiny_config(f"train.cuda_graph={value}", "train.precision=fp16", *SCHEDULE)
        train(config, tmp_path / value)
    assert len(tapes) == 1
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-2)
    assert last(tmp_path / "true").scaler["scale"] == last(tmp_path / "false").scaler["scale"]


def test_cudnn_tries_its_algorithms_only_where_it_is_asked_to(tiny_config, tmp_path):
    before = torch.backends.cudnn.benchmark
    try:
        for value in (True, False):
            config = tiny_config(f"train.cudnn_benchmark={value}", "cluster.method=none")
            open_session(config, RunFolder(tmp_path), Ranks(), torch.device("cpu"), None)
            assert torch.backends.cudnn.benchmark is value
    finally:
        torch.backends.cudnn.benchmark = before


def test_without_a_gpu_a_recorded_step_is_refused_and_nothing_is_written(tiny_config, tmp_path):
    with pytest.raises(MachineError, match=r"set train\.cuda_graph=false"):
        train(tiny_config("train.cuda_graph=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("loss.negatives=noise_contrastive",),
        ("ema.decay=0.9", "ema.use_warmup=true"),
        ("cluster.bank=running", "model.stem=space_to_depth"),
        (*ALL_TERMS, "loss.negatives=all_semi_hard", "loss.nce_form=logistic"),
    ],
)
def test_no_operator_of_a_step_makes_the_host_wait(tiny_config, tmp_path, options):
    config = tiny_config(*SCHEDULE, *options, "train.nan_check_interval=1000", "train.precision=bf16")
    session = open_session(config, RunFolder(tmp_path), Ranks(), torch.device("cpu"), None)
    with closing(BatchStream(session)) as stream:
        steps = epoch_steps(session, Meter(session), stream)
        with NoSynchronisation() as watching:
            for _ in steps:
                pass
    assert watching.num_operators > 100


def test_no_operator_of_colour_and_blur_makes_the_host_wait():
    """Which is what a GPU's step does with its clips first."""
    rng = np.random.default_rng()
    params = draw(
        rng.integers(2**63, size=24, dtype=np.uint64), 40, 32, AugmentConfig(), rng.random(24) < 0.3
    )
    assert params.blur.any() and (params.order >= 0).any()
    colour = Photometric(mean=(0.5,) * 3, std=(0.2,) * 3, augment=AugmentConfig(), device=torch.device("cpu"))
    with NoSynchronisation() as watching:
        colour(torch.randint(256, (24, 4, 16, 16, 3), dtype=torch.uint8), params)
    assert watching.num_operators > 20


def test_what_makes_the_host_wait_is_noticed():
    values, mask = torch.randn(4), torch.tensor([True, False, True, True])
    for run in (values.sum().item, values.nonzero, lambda: values[mask], lambda: bool(values.any())):
        with pytest.raises(AssertionError, match="makes the host wait"), NoSynchronisation():
            run()


CUDA = ("train.device=cuda", "motion.prob=0.5", "cluster.method=none", *SCHEDULE)
ENDLESS = (*CUDA, "train.epochs=2000", "train.batch_size=2", "train.nan_check_interval=1000000")


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_cuda_graph_trains_the_same_run(tiny_config, tmp_path, deterministic, precision):
    for value in ("true", "false"):
        config = tiny_config(f"train.cuda_graph={value}", *CUDA, f"train.precision={precision}")
        train(config, tmp_path / value)
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=2e-2)


@pytest.mark.needs_cuda
def test_a_run_in_a_cuda_graph_goes_on_exactly(tiny_config, tmp_path, deterministic):
    config = tiny_config("train.cuda_graph=true", *CUDA)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(config, whole)
    train(config, halved, max_steps=5)
    train(config, halved, resume="auto")
    assert losses(whole) == losses(halved)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("graph", ["false", "true"])
def test_ten_steps_on_a_gpu_without_synchronisation(tiny_config, tmp_path, graph):
    config = tiny_config(
        *CUDA,
        "ema.decay=0.9",
        "train.nan_check_interval=1000",
        f"train.cuda_graph={graph}",
        "train.epochs=40",
        "train.batch_size=2",
    )
    device = resolve_device("cuda")
    session = open_session(config, RunFolder(tmp_path), Ranks(), device, None)
    with closing(BatchStream(session)) as stream:
        steps = _steps(session, stream)
        for _ in range(5):  # what is set up once may wait, a capture does
            next(steps)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(10):
                next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _steps(session, stream):
    meter = Meter(session)
    while True:
        yield from epoch_steps(session, meter, stream)
        session.state.epoch, session.state.step = session.state.epoch + 1, 0


@pytest.mark.needs_cuda
@pytest.mark.parametrize("graph", ["false", "true"])
def test_memory_on_a_gpu_does_not_grow_over_two_thousand_steps(tiny_config, tmp_path, graph):
    config = tiny_config(*ENDLESS, f"train.cuda_graph={graph}", "train.precision=bf16")
    session = open_session(config, RunFolder(tmp_path), Ranks(), resolve_device("cuda"), None)
    sizes = []
    with closing(BatchStream(session)) as stream:
        steps = _steps(session, stream)
        for _ in range(4):
            for _ in range(500):
                next(steps)
            torch.cuda.synchronize()
            sizes.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert max(allocated for allocated, _ in sizes[1:]) <= sizes[0][0] + 2**20
    assert sizes[-1][1] <= sizes[0][1] + 2**25
