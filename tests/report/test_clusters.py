"""Clusters described: counted right, and chosen by what they are."""

from __future__ import annotations

from collections import Counter

import numpy as np

from slicfast.assignment import Assignment
from slicfast.report.clusters import describe


def test_sizes_purity_and_groups_agree_with_counting() -> None:
    generator = np.random.default_rng()
    labels = generator.integers(0, 40, 300)
    ids = tuple(f"v{number:03d}" for number in range(300))
    class_of = {video_id: "abc"[generator.integers(3)] for video_id in ids}
    found = describe(Assignment(ids, labels.astype(np.int64), 5), class_of)
    members = {
        label: [v for v, own in zip(ids, labels, strict=True) if own == label]
        for label in set(labels.tolist())
    }
    assert found.num_videos == 300
    assert [c.size for c in found.clusters] == sorted(map(len, members.values()), reverse=True)
    for cluster in found.clusters:
        counts = Counter(class_of[video_id] for video_id in members[cluster.label])
        assert sorted(cluster.members) == sorted(members[cluster.label])
        assert dict(cluster.classes) == counts
        assert cluster.purity == max(counts.values()) / sum(counts.values())
        assert set(cluster.shown()) <= set(cluster.members)
    names, numbers = found.sizes()
    for name, number in zip(names, numbers, strict=True):
        low, _, high = name.partition("-")
        assert number == sum(int(low) <= len(m) <= int(high or low) for m in members.values())
    assert sum(numbers) == len(members)
    groups = found.groups()
    judged = [c.purity for c in found.clusters if c.size >= 3]
    assert groups["Purest"][0].purity == max(judged)
    assert groups["Most mixed"][0].purity == min(judged)


def test_without_classes_only_size_is_told() -> None:
    found = describe(Assignment(("a", "b", "c"), np.array([0, 0, 1]), 0), {})
    assert list(found.groups()) == ["Largest"]
    assert found.clusters[0].purity is None
    assert found.sizes() == (["1", "2"], [1, 1])


def test_clusters_of_one_have_nothing_to_show() -> None:
    assert describe(Assignment.singletons(["a", "b"]), {"a": "x"}).groups() == {}
