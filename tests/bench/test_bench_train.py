"""The training benchmark runs the run's own steps, and its figures belong together."""

from __future__ import annotations

import pytest
import torch

from slicfast.bench.ceilings import count_flops, measure_ceilings
from slicfast.bench.harness import Measurement
from slicfast.bench.train import COLUMNS, bench_train, step_flops, table_rows
from slicfast.config import Config


@pytest.fixture
def config(tiny_store):
    return Config.load(
        None,
        [
            f"data.store={tiny_store.path}",
            "data.clip_length=4",
            "data.crop_size=16",
            "data.num_threads=1",
            "model.name=slic_r3d_10",
            "model.width=0.125",
            "train.batch_size=4",
            "train.epochs=2",
            "train.device=cpu",
            "train.precision=fp32",
        ],
    )


def test_real_and_repeated_clips_are_measured_in_turn(config):
    result = bench_train(config, num_blocks=2, steps_per_block=2, num_warmup=1)
    assert result["clips_per_step"] == 12  # three clips a sample
    for name in ("real", "synthetic"):
        rate, seconds = result["clips_per_second"][name], result["seconds_a_step"][name]
        assert rate == pytest.approx(12 / seconds)
        assert result["tflops"][name] == pytest.approx(rate * result["gflops_a_clip"] / 1e3)
    assert result["ratio"] > 0
    assert 0 <= result["wait_share"] <= 1
    assert len(result["memory_mb"]) == 2
    assert all(len(row) == len(COLUMNS) for row in table_rows(result))


def test_operations_are_counted_as_the_formula_has_them():
    left, right = torch.empty(5, 7, device="meta"), torch.empty(7, 11, device="meta")
    assert count_flops(lambda: left @ right) == 2 * 5 * 7 * 11


def test_the_published_network_takes_a_third_of_a_teraflop_a_clip():
    assert step_flops(Config()) == pytest.approx(325e9, rel=0.03)


def test_ceilings_are_rates_of_this_machine():
    found = measure_ceilings(torch.device("cpu"), size=128, num_runs=1)
    assert found.tflops > 0
    assert found.copy_gbs > 0
    assert found.precision == "fp32"


def test_ceilings_of_a_busy_cpu_count_the_time_that_its_threads_had(monkeypatch):
    slow = Measurement(cpu_ms=4.0, cpu_ms_quartiles=[], wall_ms=10.0, wall_ms_quartiles=[], num_runs=1)
    monkeypatch.setattr("slicfast.bench.ceilings.measure", lambda *arguments, **named: slow)
    by_wall = measure_ceilings(torch.device("cpu"), size=8)
    by_thread = measure_ceilings(torch.device("cpu"), size=8, num_threads=2)
    assert by_thread.tflops == pytest.approx(5 * by_wall.tflops)
    assert by_thread.copy_gbs == pytest.approx(5 * by_wall.copy_gbs)
