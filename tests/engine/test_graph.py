"""A recorded function: static inputs, replays that follow the device's tensors, and clear refusals."""

from __future__ import annotations

import pytest
import torch
from tape import Tape

from slicfast.config import OptimConfig
from slicfast.engine.graph import NUM_REHEARSALS, CudaRecorder, Recorded, recorder_maker
from slicfast.engine.optimization import (
    build_optimizer,
    can_be_recorded,
    hold_rates_in_tensors,
    plain_state,
    set_learning_rate,
)
from slicfast.errors import ConfigError, MachineError, RunError

CPU = torch.device("cpu")


def test_a_recorded_function_gives_for_every_input_what_the_function_gives():
    tape = Tape()
    state = torch.zeros(5)

    def function(values, more):
        state.add_(values)
        return state * more.float(), values.square().sum()

    recorded, own = Recorded(function, tape, CPU), torch.zeros(5)
    for call in range(NUM_REHEARSALS + 4):
        values, more = torch.randn(5), torch.randint(9, (5,))
        product, total = recorded(values, more)
        own += values
        torch.testing.assert_close(product, own * more)
        torch.testing.assert_close(total, values.square().sum())
        assert recorded.is_recorded is (call >= NUM_REHEARSALS)
    assert tape.num_replays == 4


def test_seeding_the_generator_decides_what_a_replay_draws():
    generator = torch.Generator()
    recorded = Recorded(lambda like: torch.empty_like(like).uniform_(generator=generator), Tape(), CPU)
    for seed in (*range(NUM_REHEARSALS), 3, 4, 3):
        generator.manual_seed(seed)
        drawn = recorded(torch.empty(4)).clone()
        torch.testing.assert_close(drawn, torch.rand(4, generator=torch.Generator().manual_seed(seed)))


def test_another_shape_or_type_is_refused():
    recorded = Recorded(lambda values: values + 1, Tape(), CPU)
    recorded(torch.ones(3))
    for other in (torch.ones(1), torch.ones(3).double()):
        with pytest.raises(ValueError, match="a recorded step takes"):
            recorded(other)


def test_what_cannot_be_recorded_is_told_in_one_line():
    class Refusing(Tape):
        def record(self, run):
            raise RuntimeError("operation not permitted when stream is capturing\nmore\nlines")

    recorded = Recorded(lambda values: values + 1, Refusing(), CPU)
    for _ in range(NUM_REHEARSALS):
        recorded(torch.ones(2))
    with pytest.raises(RunError, match=r"stream is capturing\); set train\.cuda_graph=false") as caught:
        recorded(torch.ones(2))
    assert "\n" not in str(caught.value)


def test_a_cpu_and_several_ranks_are_refused():
    with pytest.raises(MachineError, match=r"needs an NVIDIA GPU.*computes on the cpu"):
        recorder_maker(CPU)
    with pytest.raises(ConfigError, match="has 2 ranks"):
        recorder_maker(torch.device("cuda"), 2)


@pytest.mark.parametrize(
    ("options", "recordable"),
    [
        ({"name": "momentum"}, True),
        ({"name": "sgd", "fused": False}, False),
        ({"name": "adamw"}, True),
        ({"name": "lamb"}, False),
    ],
)
def test_which_optimizers_read_their_rate_from_the_device(options, recordable):
    optimizer = build_optimizer(torch.nn.Linear(2, 2), OptimConfig(**options), capturable=True)
    assert can_be_recorded(optimizer) is recordable


def test_adamw_is_recorded_only_where_it_was_built_for_it():
    assert not can_be_recorded(build_optimizer(torch.nn.Linear(2, 2), OptimConfig(name="adamw")))


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_recorded_optimizer_follows_the_rate(name):
    """A rate that were a Python number would stay what it was in the recording."""
    weights = []
    rates = [0.3 / (step + 1) for step in range(NUM_REHEARSALS + 4)]
    for record in (True, False):
        parameter = torch.nn.Parameter(torch.ones(6))
        group = [{"params": [parameter], "lr_scale": 0.5}]
        optimizer = build_optimizer(group, OptimConfig(name=name, momentum=0.5), capturable=record)
        run = optimizer.step
        if record:
            hold_rates_in_tensors(optimizer, CPU)
            run = Recorded(lambda optimizer=optimizer: optimizer.step() and None, Tape(), CPU)
        parameter.grad = torch.zeros(6)
        for step, rate in enumerate(rates):
            set_learning_rate(optimizer, rate)
            parameter.grad.copy_(torch.arange(6) - step)
            run()
        weights.append(parameter.detach())
        assert plain_state(optimizer)["param_groups"][0]["lr"] == pytest.approx(rates[-1] / 2)
        assert type(plain_state(optimizer)["param_groups"][0]["lr"]) is float
    torch.testing.assert_close(*weights)


@pytest.mark.needs_cuda
def test_a_cuda_graph_does_what_the_tape_does():
    device = torch.device("cuda")
    generator = torch.Generator(device)
    state = torch.zeros(5, device=device)

    def function(values):
        state.add_(values)
        return state + torch.empty_like(values).uniform_(generator=generator)

    recorded, own = Recorded(function, CudaRecorder(device, [generator]), device), torch.zeros(5)
    for seed in range(NUM_REHEARSALS + 4):
        values = torch.randn(5)
        generator.manual_seed(seed)
        result = recorded(values.to(device))
        own += values
        drawn = torch.rand(5, device=device, generator=torch.Generator(device).manual_seed(seed))
        torch.testing.assert_close(result, own.to(device) + drawn)
