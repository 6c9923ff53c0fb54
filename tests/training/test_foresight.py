"""What could stop a run only later is said before anything of it is written; one cluster for all is told."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from slicfast.errors import ConfigError
from slicfast.training.foresight import one_cluster_warning
from slicfast.training.loop import train


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["eval.query_split=tst"], r"split must be one of .*got 'tst'"),
        (["eval.query_split=train", "eval.gallery_split=vla"], "got 'vla'"),
        (
            ["cluster.method=kmeans"],
            r"cluster\.num_clusters must be at most the \d+ training videos; got",
        ),
        (["cluster.finch_clusters=500"], r"cluster\.finch_clusters must be at most the \d+ training"),
        (["model.name=slic_s3d"], "at least 5 x 17 x 17; raise data.clip_length"),
        (["model.name=slic_slowfast_r50", "data.clip_length=6", "data.crop_size=24"], "multiple of 4 frames"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_written_of_a_run_that_could_not_end(tiny_config, tmp_path, overrides, message, dry_run):
    with pytest.raises(ConfigError, match=message):
        train(tiny_config(*overrides), tmp_path / "run", dry_run=dry_run)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_videos_are_all_in_one_cluster_says_so(tiny_config, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="slicfast")
    settings = ["cluster.method=dbscan", "cluster.max_distance=2", "train.epochs=1"]
    train(tiny_config(*settings), tmp_path / "run")
    assert (
        "videos are in one cluster, so that no clip has a negative; lower cluster.max_distance" in caplog.text
    )


def test_two_clusters_and_a_single_video_are_no_matter():
    assert one_cluster_warning(np.array([3, 3, 4]), "finch") is None
    assert one_cluster_warning(np.array([3]), "finch") is None
    assert "finer partition" in str(one_cluster_warning(np.array([3, 3]), "finch"))
