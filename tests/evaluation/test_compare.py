"""slicfast compare: differing keys, results side by side, whatever state the runs are in."""

from __future__ import annotations

import json
import time

import pytest

from slicfast.cli.compare import report
from slicfast.config import Config
from slicfast.errors import DataError
from slicfast.evaluation.compare import as_json, compare_runs
from slicfast.records import MetricsWriter


def write_run(path, *overrides, losses=(), recalls=(), evaluation=None, age_s=0.0, epoch=None):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(Config.load(None, overrides).to_yaml())
    writer = MetricsWriter(path / "metrics.jsonl")
    for step, loss in enumerate(losses, start=1):
        speed = {"clips_per_second": 100.0 + step, "wait_share": 0.25}
        writer.write("train", 10 * step, {"epoch": step - 1, "loss": loss, **speed})
    for step, recall in enumerate(recalls, start=1):
        writer.write("retrieval", 10 * step, {"epoch": step, "pooled_r1": recall})
    writer.close()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    now = time.time() - age_s
    for place, line in enumerate(lines):
        line["time"] = now - 36.0 * (len(lines) - 1 - place)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if evaluation is not None:
        (path / "evaluation.json").write_text(evaluation)
    return path


def test_differing_keys_and_results_stand_side_by_side(tmp_path):
    first = write_run(tmp_path / "a", "optim.lr=0.05", losses=[3, 1, 2], recalls=[0.5, 0.25], age_s=9999)
    second = write_run(tmp_path / "b", "cluster.method=kmeans", losses=[4.0])
    comparison = compare_runs([first, second])
    assert comparison.config == {"optim.lr": [0.05, 0.1], "cluster.method": ["finch", "kmeans"]}
    results = comparison.runs[0].results
    assert (results["loss, last"], results["loss, best"], results["steps"]) == (2, 1, 30)
    assert (results["pooled R@1, best"], results["pooled R@1, last"]) == (0.5, 0.25)
    assert results["pooled best at epoch"] == 1
    assert (results["clips/s"], results["waiting share"]) == (102.0, 0.25)
    assert results["hours"] == pytest.approx(4 * 36 / 3600, rel=1e-3)
    assert [run.state for run in comparison.runs] == ["stopped", "running"]
    assert json.loads(as_json(comparison))["config"]["optim.lr"] == [0.05, 0.1]


def test_pauses_between_two_sittings_are_not_training(tmp_path):
    run = write_run(tmp_path / "a", losses=[3, 2, 1])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[0]["time"] -= 86400
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare_runs([run]).runs[0].results["hours"] == pytest.approx(36 / 3600, rel=1e-3)


def test_what_is_missing_or_cut_off_is_named_and_the_rest_shown(tmp_path):
    whole = write_run(tmp_path / "whole", losses=[1.0])
    fresh = write_run(tmp_path / "fresh")
    broken = write_run(tmp_path / "broken", losses=[2.0], evaluation="{")
    with (broken / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "tra')
    (broken / "config.yaml").unlink()
    comparison = compare_runs([whole, fresh, broken])
    assert [run.state for run in comparison.runs] == ["running", "not begun", "running"]
    assert comparison.runs[2].missing.keys() == {"config.yaml", "evaluation.json"}
    assert comparison.runs[2].results["loss, last"] == 2.0
    (tmp_path / "no run").mkdir()
    with pytest.raises(DataError, match="is no run folder: it has neither"):
        compare_runs([tmp_path / "no run"])
    with pytest.raises(DataError, match="no run folder at"):
        compare_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize("num_runs", [1, 2, 9, 30])
def test_any_number_of_runs_fits_80_columns(num_runs, tmp_path):
    runs = [
        write_run(tmp_path / f"run {n}", f"optim.lr={0.01 * (n + 1)}", losses=[float(n)])
        for n in range(num_runs)
    ]
    lines = list(report(compare_runs(runs), 80))
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    text = "\n".join(lines)
    assert text.count("loss, last") >= num_runs // 5
    assert ("optim.lr" in text) == (num_runs > 1)
    if num_runs == 30:
        assert "AD  " in text


def evaluation(value, num_clips):
    figure = {"value": value, "low": 0.0, "high": 1.0}
    kinds = {"trained_pooled": {"recall": {str(k): figure for k in (1, 5, 10, 20, 50)}, "per_class": []}}
    return json.dumps(
        {
            "format": "slicfast-evaluation",
            "version": 1,
            "checkpoint": {"file": "x", "epoch": 3, "global_step": 9, "model": "m"},
            "store": "s",
            "query": "test",
            "gallery": "train",
            "num_query": 5,
            "num_gallery": 7,
            "protocols": {"iic": {"num_clips": num_clips}},
            "retrieval": {"iic": kinds},
        }
    )


def test_evaluations_of_different_protocols_are_said_not_to_compare(tmp_path):
    runs = [
        write_run(tmp_path / str(clips), losses=[1.0], evaluation=evaluation(clips / 20, clips))
        for clips in (10, 5)
    ]
    comparison = compare_runs(runs)
    assert [run.results["iic pooled R@1"] for run in comparison.runs] == [0.5, 0.25]
    assert comparison.evaluated == {"protocols.iic.num_clips": [10, 5]}
    text = "\n".join(report(comparison, 80))
    assert "evaluated in different ways" in text
    assert "50.0 %" in text
    same = compare_runs([runs[0], runs[0]])
    assert not same.evaluated
    assert "the configurations do not differ" in "\n".join(report(same, 80))


def test_a_run_that_reached_its_last_epoch_is_finished(tmp_path):
    from slicfast.engine.checkpoint import Checkpoint, save_checkpoint

    run = write_run(tmp_path / "a", "train.epochs=7", losses=[1.0])
    for epoch, state in ((6, "running"), (7, "finished")):
        save_checkpoint(run / "checkpoints/last.pt", Checkpoint({}, {}, epoch=epoch))
        assert compare_runs([run]).runs[0].state == state
