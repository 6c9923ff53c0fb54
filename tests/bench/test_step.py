"""The benchmark of a step: that it is a step of training, and what it reports."""

import json

import pytest
import torch

from slicfast.bench.step import COLUMNS, VARIANTS, bench_step, bench_triplet, make_step, table_rows
from slicfast.config import Config, LossConfig

CPU = torch.device("cpu")


def tiny(**loss) -> Config:
    return Config.from_dict(
        {
            "data": {"clip_length": 4, "crop_size": 16},
            "model": {"name": "slic_r3d_10", "width": 0.125, "projection_hidden": 32},
            "loss": loss,
            "optim": {"lr": 0.01, "clip_grad_norm": 1.0},
            "train": {"batch_size": 4, "device": "cpu", "num_torch_threads": 1},
        }
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_steps_of_every_variant_bring_the_loss_down(variant):
    step = make_step(tiny(), variant, batch_size=6, device=CPU)
    losses = [step().item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_variants_compute_the_same_loss():
    losses = [make_step(tiny(), variant, 4, CPU)().item() for variant in VARIANTS]
    assert losses == pytest.approx([losses[0]] * 4, rel=0.05)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_report_names_every_variant_and_is_plain_json():
    threads = torch.get_num_threads()
    result = bench_step(tiny(), num_runs=2)
    assert json.loads(json.dumps(result)) == result
    assert [row["variant"] for row in result["variants"]] == [variant.name for variant in VARIANTS]
    assert result["num_clips"] == 12
    for row in result["variants"]:
        assert row["cpu_ms_per_clip"] == pytest.approx(row["step"]["cpu_ms"] / 12)
        assert row["clips_per_second"] == pytest.approx(12e3 / row["step"]["wall_ms"])
    assert all(len(row) == len(COLUMNS) for row in table_rows(result))
    assert table_rows(result)[0][-1] == "1.00"
    assert torch.get_num_threads() == threads


def test_without_the_temporal_term_a_sample_has_two_clips():
    result = bench_step(tiny(temporal_weight=0), variants=VARIANTS[:1], num_samples=3, num_runs=1)
    assert result["num_clips"] == 6


def test_triplet_loss_is_measured_alone():
    measured = bench_triplet(LossConfig(), num_pairs=8)
    assert measured.num_runs == 50
    assert measured.cpu_ms > 0
