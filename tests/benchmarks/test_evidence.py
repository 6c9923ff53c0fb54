"""The evidence at a size of seconds: whole, resumed, branched exactly, and its faults as stated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import evidence_conditions as conditions
from benchmarks.evidence import DEFAULT_CONFIG, all_tasks, read_runs, run_all
from benchmarks.evidence_conditions import BASE, CONDITIONS, NUM_LOOKS, REGIMES, Regime, configure, opener
from benchmarks.evidence_figure import save_figure
from benchmarks.evidence_runs import Task, make_data, pairs, run_task
from benchmarks.evidence_summary import COLUMNS, summarise, table_rows
from slicfast.assignment import Assignment
from slicfast.config import Config
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.records import RunFolder
from slicfast.training.loop import train

TINY = Config.load(
    DEFAULT_CONFIG,
    [
        "data.clip_length=2",
        "data.crop_size=16",
        "model.width=0.125",
        "model.conv1_temporal_stride=1",
        "model.projection_hidden=8",
        "model.projection_dim=8",
        "train.epochs=6",
        "train.batch_size=4",
        "train.precision=fp32",
        "cluster.interval=1",
        "cluster.num_clusters=2",
        "eval.num_clips=1",
    ],
)
FACTORS: dict[str, Any] = {
    "actions": ("walk", "wave"),
    "train_groups": 2,
    "val_groups": 1,
    "test_groups": 1,
    "min_videos": 2,
    "max_videos": 2,
    "width": 32,
    "height": 32,
    "num_frames": 12,
}


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Any:
    """A data set of its own, and fewer looks at every run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(conditions.DATA, "tiny", FACTORS)
        patched.setattr(conditions, "NUM_LOOKS", 2)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    names = (BASE, "motion", "temporal", "finch", "finch_shifted", "true_classes")
    regime = Regime("tiny", "tiny", "tiny", conditions=names)
    tasks = all_tasks(tmp_path_factory.mktemp("evidence"), TINY, [regime], [0])
    assert run_all(tasks, 0)
    return tasks


def by_name(tasks: list[Task]) -> dict[str, Task]:
    return {task.condition: task for task in tasks}


def test_every_condition_of_every_regime_is_a_valid_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "NUM_LOOKS", NUM_LOOKS)
    base = Config.load(DEFAULT_CONFIG)
    for regime in REGIMES.values():
        assert BASE in regime.conditions
        for name in regime.conditions:
            config = configure(base, regime, CONDITIONS[name], 0, {})
            if CONDITIONS[name].branched_from:
                assert 2 * config.cluster.start_epoch == config.train.epochs
                assert config.cluster.start_epoch % config.train.keep_every_epochs == 0


def test_all_conditions_see_as_many_clips(done: list[Task]) -> None:
    runs = read_runs(done)
    assert {run["clips_trained"] for run in runs.values()} == {6 * 2 * 4 * 2}
    assert runs["tiny", "motion", 0]["steps"] == 12
    assert runs["tiny", BASE, 0]["steps"] == 12
    assert runs["tiny", "temporal", 0]["steps"] == 8


def test_a_second_call_does_what_is_missing_and_nothing_else(done: list[Task]) -> None:
    times = {task.result: task.result.stat().st_mtime_ns for task in done}
    lost = by_name(done)["finch"]
    before = json.loads(lost.result.read_text())
    lost.result.unlink()
    for path in (*lost.folder.glob("metrics.jsonl"), *lost.folder.glob("checkpoints/*.pt")):
        path.unlink()
    assert run_all(done, 0)
    again = json.loads(lost.result.read_text())
    assert {**again, "cpu_seconds": 0} == {**before, "cpu_seconds": 0}
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path != lost.result)


def test_a_branch_is_what_an_unbroken_run_would_be(done: list[Task], tmp_path: Path) -> None:
    task = by_name(done)["finch"]
    train(task.config(), tmp_path / "unbroken", open_run=opener(CONDITIONS["finch"], task.regime))
    unbroken = load_checkpoint(RunFolder(tmp_path / "unbroken").last)
    branch = load_checkpoint(RunFolder(task.folder).last)
    assert all(torch.equal(branch.model[name], tensor) for name, tensor in unbroken.model.items())
    base = load_checkpoint(RunFolder(by_name(done)[BASE].folder).last)
    assert any(not torch.equal(base.model[name], tensor) for name, tensor in unbroken.model.items())


def test_shifted_labels_are_those_of_the_row_before(done: list[Task]) -> None:
    tasks = by_name(done)
    found: dict[str, Assignment] = {}
    for name in ("finch", "finch_shifted"):
        first = (tasks[name].folder / "assignments" / "epoch-0003.tsv").read_text()
        found[name] = load_checkpoint(RunFolder(tasks[name].folder).last).assignment  # type: ignore[assignment]
        assert first  # what the clusterer said, in both
    last = (tasks["finch_shifted"].folder / "assignments" / "epoch-0005.tsv").read_text().split("\n")[:-1]
    said = [int(line.split("\t")[1]) for line in last]
    assert found["finch_shifted"].labels.tolist() == [said[-1], *said[:-1]]
    last = (tasks["finch"].folder / "assignments" / "epoch-0005.tsv").read_text().split("\n")[:-1]
    assert found["finch"].labels.tolist() == [int(line.split("\t")[1]) for line in last]


def test_true_classes_take_the_place_of_clusters(done: list[Task]) -> None:
    run = read_runs(done)["tiny", "true_classes", 0]
    assert run["curve"][-1]["used"]["pair_purity"] == 1.0
    assert run["curve"][-1]["used"]["share_across"] > 0
    assert run["rounds"] == []


def test_scenes_are_groups_of_a_class_or_groups_of_all() -> None:
    ids = ("train/walk/walk_g01_c01.mp4", "train/walk/walk_g02_c01.mp4", "train/wave/wave_g01_c01.mp4")
    own, shared = REGIMES["ucf101"], REGIMES["adversarial"]
    assert len(set(own.scenes_of(ids).tolist())) == 3
    assert shared.scenes_of(ids).tolist() == [0, 1, 0]
    assert conditions.classes_of(ids).tolist() == [0, 0, 1]


def test_pairs_are_counted_as_a_loop_counts_them() -> None:
    rng = np.random.default_rng()
    labels_N, class_N, scene_N = rng.integers(0, 6, 30), rng.integers(0, 3, 30), rng.integers(0, 8, 30)
    found = pairs(labels_N, class_N, scene_N)
    both = [(i, j) for i in range(30) for j in range(30) if i != j and labels_N[i] == labels_N[j]]
    across = [(i, j) for i, j in both if scene_N[i] != scene_N[j]]
    assert found["pair_purity"] == pytest.approx(np.mean([class_N[i] == class_N[j] for i, j in both]))
    assert found["purity_across"] == pytest.approx(np.mean([class_N[i] == class_N[j] for i, j in across]))
    assert found["share_across"] == pytest.approx(len(across) / len(both))
    of_anchor = [[class_N[i] == class_N[j] for k, j in both if k == i] for i in range(30)]
    assert found["mate_purity"] == pytest.approx(np.mean([np.mean(own) for own in of_anchor if own]))
    assert pairs(np.arange(4), class_N[:4], scene_N[:4])["pair_purity"] is None


def test_the_summary_is_json_a_table_and_a_figure(done: list[Task], tmp_path: Path) -> None:
    runs = read_runs(done)
    second = {(regime, name, 1): run for (regime, name, _), run in runs.items()}
    for (_, name, _), run in second.items():
        if name == "finch":
            run = json.loads(json.dumps(run))
            run["test"]["trained_pooled"]["1"] += 0.1
            second["tiny", name, 1] = run
    results = summarise([done[0].regime], [0, 1], runs | second)
    results = json.loads(json.dumps(results))
    finch = results["regimes"]["tiny"]["conditions"]["finch"]
    ours, base = (runs["tiny", name, 0]["test"]["trained_pooled"]["1"] for name in ("finch", BASE))
    assert finch["gain_test_pooled"]["values"] == pytest.approx([ours - base, ours - base + 0.1])
    assert finch["gain_test_pooled"]["deviation"] == pytest.approx(0.1 / 2**0.5)
    rows = table_rows(results)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert [row[0] for row in rows][1:5] == ["untrained", "average pixels", "frame differences", "chance"]
    for name in ("a.svg", "b.svg", "c.png"):
        save_figure(results, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_stopped_run_leaves_no_result_and_goes_on(
    done: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal is a result of training that says so; here the training of one run is cut short."""
    import benchmarks.evidence_runs as runs_of

    task = replace(by_name(done)["instance"], seed=1)
    make_data(task)

    def cut(config: Config, run_dir: Path, **options: Any) -> Any:
        return replace(train(config, run_dir, max_steps=5, **options), stopped_by=2)

    with monkeypatch.context() as patched:
        patched.setattr(runs_of, "train", cut)
        assert run_task(task) is False
    assert not task.result.exists()
    assert load_checkpoint(RunFolder(task.folder).last).global_step == 5
    assert run_task(task)
    assert read_runs([task])["tiny", "instance", 1]["steps"] == 12


def test_impure_clusters_have_the_pair_purity_asked_for() -> None:
    rng = np.random.default_rng()
    class_N = rng.integers(0, 8, 4000)
    for wanted in (0.3, 0.5, 0.7, 1.0):
        labels_N = conditions.impure_clusters(class_N, wanted, int(rng.integers(1000)))
        assert np.bincount(labels_N).max() == conditions.CLUSTER_SIZE
        assert pairs(labels_N, class_N, class_N)["pair_purity"] == pytest.approx(wanted, abs=0.04)
