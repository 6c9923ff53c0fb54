"""Labels are joined by video id; the published code joined them by row, one off."""

from __future__ import annotations

import numpy as np
import pytest

from slicfast.assignment import Assignment


def test_labels_follow_their_ids_whatever_the_order():
    rng = np.random.default_rng()
    ids = [f"v{i}" for i in range(50)]
    labels = rng.integers(0, 9, 50)
    assignment = Assignment(tuple(ids), labels)
    order = rng.permutation(50)
    assert np.array_equal(assignment.labels_for([ids[i] for i in order]), labels[order])


def test_a_video_that_was_not_clustered_is_nobodys_positive():
    joined = Assignment(("a", "b"), np.array([4, 4])).labels_for(["b", "new", "a", "newer"])
    assert joined.tolist() == [4, 5, 4, 6]


def test_before_the_first_clustering_every_video_is_alone():
    assert Assignment.singletons(["a", "b", "c"]).num_clusters == 3


def test_noise_labels_and_double_ids_are_refused():
    with pytest.raises(ValueError, match=">= 0"):
        Assignment(("a",), np.array([-1]))
    with pytest.raises(ValueError, match="twice"):
        Assignment(("a", "a"), np.array([0, 1]))
    with pytest.raises(ValueError, match="int64"):
        Assignment(("a", "b"), np.array([0]))
    with pytest.raises(ValueError, match=">= 0"):
        Assignment(("a",), np.array([0]), positives=np.array([-1]))


def test_positives_are_joined_by_id_and_are_the_clusters_where_there_is_no_finer_partition():
    ids, labels = ("a", "b", "c", "d"), np.array([3, 3, 3, 5])
    assert Assignment(ids, labels).positives_for(["d", "a"]).tolist() == [5, 3]
    finer = Assignment(ids, labels, positives=np.array([0, 1, 1, 2]))
    assert finer.positives_for(["c", "new", "a"]).tolist() == [1, 3, 0]
    assert finer.labels_for(["c", "a"]).tolist() == [3, 3]


def test_labels_to_come_count_on_from_the_largest():
    assert Assignment(("a", "b"), np.array([0, 7])).next_label == 8
    assert Assignment(("a", "b"), np.array([0, 7]), next_label=20).next_label == 20
