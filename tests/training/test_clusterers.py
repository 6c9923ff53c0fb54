"""Clusterers in a run: every method trains, goes on exactly after a stop, and says what it found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.assignment import Assignment
from slicfast.clustering import cluster, scikit
from slicfast.config import Config
from slicfast.distributed import Ranks
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.engine.embedding import embed_videos, encoder_extractor
from slicfast.errors import ConfigError, MachineError
from slicfast.records import RunFolder, read_metrics
from slicfast.report.curves import panels
from slicfast.training.loop import train
from slicfast.training.rounds import recluster
from slicfast.training.session import open_session


def rounds(run):
    return [entry for entry in read_metrics(run / "metrics.jsonl") if entry["kind"] == "cluster"]


def last_of(run):
    return load_checkpoint(run / "checkpoints" / "last.pt")


def opened(tmp_path):
    return RunFolder(tmp_path), Ranks(), torch.device("cpu"), None


def without_times(entry):
    return {key: value for key, value in entry.items() if key != "time" and not key.endswith("_seconds")}


def train_in_one_and_in_two(make, tmp_path, *overrides):
    """The folder of a run of three epochs, after comparing it with one that stopped in the second."""
    config = make("train.epochs=3", *overrides)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config, whole)
    train(config, stopped, max_steps=3)
    train(config, stopped, resume="auto")
    one, two = last_of(whole), last_of(stopped)
    assert all(torch.equal(value, two.model[name]) for name, value in one.model.items())
    assert list(map(without_times, rounds(whole))) == list(map(without_times, rounds(stopped)))
    assert len(rounds(whole)) == 3
    return whole


@pytest.mark.parametrize("method", ["agglomerative", "dbscan", "optics"])
def test_methods_that_go_by_distance_train_and_go_on_exactly(tiny_config, tmp_path, method):
    """At a distance of 1e-5 most videos are noise: each is a cluster of its own, and the run goes on."""
    run = train_in_one_and_in_two(
        tiny_config, tmp_path, f"cluster.method={method}", "cluster.max_distance=1e-5"
    )
    last = rounds(run)[-1]
    assert last["num_clusters"] > 1
    assert ("num_noise" in last) == (method != "agglomerative")
    assert last.get("num_noise", 0) <= last["num_clusters"]
    assert last_of(run).assignment.labels.min() >= 0


def test_finch_finds_the_number_of_clusters_asked_for(tiny_config, tmp_path):
    train(tiny_config("cluster.finch_clusters=3"), tmp_path / "run")
    assert [entry["num_clusters"] for entry in rounds(tmp_path / "run")] == [3, 3]


def test_balanced_clusters_train_and_go_on_exactly(tiny_config, tmp_path):
    overrides = ["cluster.method=kmeans", "cluster.num_clusters=3", "cluster.balanced=true"]
    run = train_in_one_and_in_two(tiny_config, tmp_path, *overrides)
    assert sorted(np.bincount(last_of(run).assignment.labels)) == [2, 3, 3]
    assert all(entry["size_max"] == 3 for entry in rounds(run))


def test_too_many_videos_are_refused_before_anything_is_embedded(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(scikit, "free_memory_bytes", lambda: 100)
    with pytest.raises(MachineError, match="every pair of 8 embeddings"):
        train(tiny_config("cluster.method=agglomerative"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_keep_their_identity_from_round_to_round(tiny_config, tmp_path):
    """Churn is what the written labels say themselves, and no label is given twice."""
    run = tmp_path / "run"
    train(tiny_config("train.epochs=5", "optim.lr=0.5"), run)
    files = sorted((run / "assignments").iterdir())
    written = [dict(line.split("\t") for line in file.read_text().splitlines()) for file in files]
    assert len(written) == 5
    seen = set(written[0].values())
    for before, after, entry in zip(written[:-1], written[1:], rounds(run)[1:], strict=True):
        assert entry["churn"] == pytest.approx(np.mean([before[video] != after[video] for video in after]))
        fresh = set(after.values()) - set(before.values())
        assert not fresh & seen
        seen |= fresh
    assert last_of(run).assignment.next_label == len(seen)


def test_names_of_clusters_change_nothing_in_training(tiny_config, tmp_path, monkeypatch):
    train(tiny_config("train.epochs=3"), tmp_path / "kept")
    monkeypatch.setattr("slicfast.training.rounds.keep_labels", lambda new, old, following: (new, following))
    train(tiny_config("train.epochs=3"), tmp_path / "as_they_come")
    kept, as_they_come = last_of(tmp_path / "kept"), last_of(tmp_path / "as_they_come")
    assert all(torch.equal(value, as_they_come.model[name]) for name, value in kept.model.items())


def test_adaptive_probability_follows_the_round_before_and_goes_on_exactly(tiny_config, tmp_path):
    overrides = ["sampling.adaptive=true", "sampling.same_video_prob=0.125", "optim.lr=0.5"]
    run = train_in_one_and_in_two(tiny_config, tmp_path, *overrides)
    first, *others = rounds(run)
    assert first["same_video_prob"] == 0.125 and "nmi_previous" not in first
    for entry in others:
        assert entry["same_video_prob"] == pytest.approx(1 - entry["nmi_previous"])
    assert last_of(run).assignment.agreement == pytest.approx(others[-1]["nmi_previous"])
    shown = {series.name for panel in panels(read_metrics(run / "metrics.jsonl")) for series in panel.series}
    assert {"NMI with the round before", "positives of the same video"} <= shown


def test_the_probability_reaches_the_sampler_and_true_labels_do_not(tiny_config, tmp_path):
    config = tiny_config("sampling.adaptive=true", "sampling.same_video_prob=0.125")
    session = open_session(config, *opened(tmp_path))
    assert session.sampler.same_video_prob == 0.125
    labels = np.arange(len(session.ids), dtype=np.int64)
    session.use_assignment(Assignment(session.ids, labels, agreement=0.75))
    assert session.sampler.same_video_prob == 0.25
    session.use_assignment(Assignment(session.ids, labels))
    assert session.sampler.same_video_prob == 0.125


def test_without_adaptive_the_agreement_is_logged_and_changes_nothing(tiny_config, tmp_path):
    config = tiny_config("sampling.same_video_prob=0.125")
    session = open_session(config, *opened(tmp_path))
    labels = np.arange(len(session.ids), dtype=np.int64)
    session.use_assignment(Assignment(session.ids, labels, agreement=0.75))
    assert session.sampler.same_video_prob == 0.125


@pytest.mark.parametrize("method", ["finch", "kmeans"])
def test_positives_are_drawn_from_finer_clusters_than_negatives(tiny_config, tmp_path, method):
    chosen = {"finch": ["cluster.finch_clusters=2"], "kmeans": ["cluster.method=kmeans"]}[method]
    overrides = [*chosen, "cluster.num_clusters=2", "cluster.positive_partition=0"]
    run = train_in_one_and_in_two(tiny_config, tmp_path, *overrides, "sampling.same_video_prob=0")
    assignment, last = last_of(run).assignment, rounds(run)[-1]
    assert last["num_clusters"] == 2 <= last["positive_num_clusters"]
    assert len({*zip(assignment.positives, assignment.labels, strict=True)}) == last["positive_num_clusters"]
    assert {"positive_share_singletons"} <= last.keys()

    finer, coarser = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    session = open_session(tiny_config(*overrides, "sampling.same_video_prob=0"), *opened(tmp_path))
    session.use_assignment(Assignment(session.ids, coarser, positives=finer))
    anchors, positives = session.sampler.batch(0, 0)["video"][:8].reshape(2, 4)
    place = {row: at for at, row in enumerate(session.rows_N.tolist())}
    for anchor, positive in zip(anchors.tolist(), positives.tolist(), strict=True):
        assert anchor != positive and finer[place[anchor]] == finer[place[positive]]
    assert session.label_of_row[session.rows_N].tolist() == coarser.tolist()


def test_a_positive_level_that_is_not_finer_is_refused():
    with pytest.raises(
        ConfigError, match="positive_partition 1 must be a finer FINCH level than partition 1"
    ):
        Config.load(None, ["cluster.partition=1", "cluster.positive_partition=1"])
    Config.load(None, ["cluster.partition=1", "cluster.positive_partition=0"])


@pytest.mark.parametrize("key", ["cluster.balanced=true", "cluster.backend=cuml"])
def test_without_clusters_the_keys_of_other_methods_may_stay(key):
    """Fine-tuning goes on with a run's configuration, clusters switched off, and reads it again to resume."""
    run = Config.load(None, [key, "cluster.method=kmeans"])
    switched_off = run.cluster.model_copy(update={"method": "none"})
    config = run.model_copy(update={"cluster": switched_off})
    assert Config.from_dict(config.to_dict()) == config


def test_a_checkpoint_of_before_labels_kept_their_identity_is_read(tiny_config, tmp_path):
    run = tmp_path / "run"
    train(tiny_config("train.epochs=1"), run)
    file = run / "checkpoints" / "last.pt"
    values = torch.load(file, weights_only=True)
    for name in ("positives", "next_label", "agreement"):
        del values["assignment"][name]
    torch.save(values, file)
    found = last_of(run).assignment
    assert found.next_label == found.labels.max() + 1 and found.positives is None


@pytest.mark.parametrize("num_clips", [1, 3])
def test_the_mean_of_so_many_clips_of_a_video_is_clustered(tiny_config, tmp_path, monkeypatch, num_clips):
    config = tiny_config(f"cluster.num_clips={num_clips}")
    clustered: list[torch.Tensor] = []

    def watched(bank_ND, *args, **kwargs):
        clustered.append(bank_ND.clone())
        return cluster(bank_ND, *args, **kwargs)

    session = open_session(config, *opened(tmp_path))
    expected_ND = embed_videos(
        encoder_extractor(session.encoder.eval(), session.device, session.autocast),
        session.eval_loader,
        session.store,
        session.rows_N,
        config,
        session.device,
        num_clips=num_clips,
    )["projection"]
    monkeypatch.setattr("slicfast.training.rounds.cluster", watched)
    recluster(session, 0)
    torch.testing.assert_close(clustered[0], expected_ND)


def test_a_running_bank_has_one_clip_a_video(tiny_config):
    with pytest.raises(ConfigError, match="one clip a video, num_clips is 2; set bank=fresh"):
        tiny_config("cluster.bank=running", "cluster.num_clips=2")


def test_mutual_neighbours_make_pairs_and_the_rest_stays_alone(tiny_config, tmp_path):
    run = train_in_one_and_in_two(tiny_config, tmp_path, "cluster.mutual=true")
    assert all(entry["size_max"] <= 2 for entry in rounds(run))
    with pytest.raises(ConfigError, match="mutual is for finch; method is kmeans"):
        tiny_config("cluster.mutual=true", "cluster.method=kmeans")
