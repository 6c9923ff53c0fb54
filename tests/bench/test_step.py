"""The benchmark of a step: that it is a step of training, and what it reports."""

import json

import pytest
import torch

from slicfast.bench.step import (
    BASELINE,
    COLUMNS,
    Variant,
    bench_step,
    bench_triplet,
    make_step,
    table_rows,
    variants_for,
)
from slicfast.config import Config, LossConfig

CPU = torch.device("cpu")
VARIANTS = variants_for(CPU)


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


@pytest.mark.parametrize("variant", [BASELINE, VARIANTS[-1]], ids=lambda variant: variant.name)
def test_steps_bring_the_loss_down(variant):
    step = make_step(tiny(), variant, batch_size=6, device=CPU)
    losses = [step().item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_variants_compute_the_same_loss():
    losses = [make_step(tiny(), variant, 4, CPU)().item() for variant in VARIANTS]
    for variant, loss in zip(VARIANTS, losses, strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-4 if variant.precision == "fp32" else 0.05)


def test_each_switch_is_measured_alone_and_all_together():
    switches = ("precision", "channels_last", "stem", "fused", "compile", "ema")
    first, *others = variants_for(CPU, compiled=True)
    assert first == BASELINE
    changed = [
        {name for name in switches if getattr(variant, name) != getattr(BASELINE, name)} for variant in others
    ]
    assert set().union(*(each for each in changed if len(each) == 1)) == set(switches)
    assert {"channels_last", "fused", "compile"} <= changed[-1]


def test_report_names_every_variant_and_is_plain_json():
    threads = torch.get_num_threads()
    result = bench_step(tiny(), num_runs=2, ceiling_size=64)
    assert json.loads(json.dumps(result)) == result
    assert [row["variant"] for row in result["variants"]] == [variant.name for variant in VARIANTS]
    assert result["num_clips"] == 12
    for row in result["variants"]:
        assert row["cpu_ms_per_clip"] == pytest.approx(row["step"]["cpu_ms"] / 12)
        assert row["clips_per_second"] == pytest.approx(12e3 / row["step"]["wall_ms"])
        ceiling = result["ceilings"][row["precision"]]
        assert row["of_ceiling"] == pytest.approx(row["tflops"] / ceiling["tflops"])
        assert row["tflops"] == pytest.approx(row["clips_per_second"] * result["gflops_a_clip"] / 1e3)
    assert all(len(row) == len(COLUMNS) for row in table_rows(result))
    assert table_rows(result)[0][3] == "1.00"
    assert torch.get_num_threads() == threads


def test_without_the_temporal_term_a_sample_has_two_clips():
    result = bench_step(
        tiny(temporal_weight=0), variants=VARIANTS[:1], num_samples=3, num_runs=1, ceiling_size=64
    )
    assert result["num_clips"] == 6


def test_what_cannot_be_computed_here_is_told_and_the_others_are_measured(monkeypatch):
    def no_compiler(model):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    variants = (BASELINE, Variant("compiled", compile=True), Variant("fused", fused=True))
    result = bench_step(tiny(), variants=variants, num_runs=1, ceiling_size=64)
    assert result["variants"][1] == {"variant": "compiled", "error": "no C++ compiler"}
    assert [row[1] == "failed" for row in table_rows(result)] == [False, True, False]
    with pytest.raises(RuntimeError, match="no C"):
        bench_step(tiny(), variants=variants[1:], num_runs=1, ceiling_size=64)


@pytest.mark.needs_cuda
def test_every_variant_is_computed_on_a_gpu():
    config = tiny()
    config = config.model_copy(update={"train": config.train.model_copy(update={"device": "cuda"})})
    result = bench_step(config, num_runs=2, ceiling_size=512)
    assert [row for row in result["variants"] if "error" in row] == []


def test_triplet_loss_is_measured_alone():
    measured = bench_triplet(LossConfig(), num_pairs=8)
    assert measured.num_runs == 50
    assert measured.cpu_ms > 0
