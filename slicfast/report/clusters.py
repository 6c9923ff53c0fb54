"""What the last round of clustering found: how large its clusters are, and which are worth a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slicfast.assignment import Assignment

NUM_SHOWN = 6  # clusters a group
NUM_MEMBERS = 12  # videos of a shown cluster
MIN_SIZE = 3  # of a cluster that may be called pure or mixed


@dataclass(frozen=True)
class Cluster:
    """One cluster; ``classes`` counts its videos by class, most frequent first (empty without labels)."""

    label: int
    members: tuple[str, ...]
    classes: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def purity(self) -> float | None:
        """Share of the most frequent class among the videos whose class is known."""
        known = sum(count for _, count in self.classes)
        return self.classes[0][1] / known if known else None

    def shown(self) -> tuple[str, ...]:
        """Members to show, evenly taken."""
        places = np.linspace(0, self.size - 1, min(self.size, NUM_MEMBERS)).round().astype(int)
        return tuple(self.members[place] for place in places)


@dataclass(frozen=True)
class Clusters:
    """All clusters of an assignment, largest first."""

    epoch: int
    clusters: tuple[Cluster, ...]

    @property
    def num_videos(self) -> int:
        return sum(cluster.size for cluster in self.clusters)

    def sizes(self) -> tuple[list[str], list[int]]:
        """A histogram over sizes 1, 2, 3-4, 5-8, ...: labels, and clusters of each."""
        power = [max(0, (cluster.size - 1).bit_length()) for cluster in self.clusters]
        counts = Counter(power)
        labels = []
        for exponent in range(max(power) + 1):
            low, high = 2 ** (exponent - 1) + 1 if exponent > 1 else 2**exponent, 2**exponent
            labels.append(str(high) if low >= high else f"{low}-{high}")
        return labels, [counts[exponent] for exponent in range(max(power) + 1)]

    def groups(self) -> dict[str, tuple[Cluster, ...]]:
        """Clusters to look at by why: the largest, and with labels the purest and the most mixed."""
        several = [cluster for cluster in self.clusters if cluster.size > 1]
        found = {"Largest": tuple(several[:NUM_SHOWN])}
        judged = [c for c in several if c.purity is not None and c.size >= MIN_SIZE]
        purest = sorted(judged, key=lambda c: (-(c.purity or 0), -c.size, c.label))
        mixed = sorted(judged, key=lambda c: (c.purity or 0, -c.size, c.label))
        if judged:
            found |= {"Purest": tuple(purest[:NUM_SHOWN]), "Most mixed": tuple(mixed[:NUM_SHOWN])}
        return {name: group for name, group in found.items() if group}


def describe(assignment: Assignment, class_of: Mapping[str, str | None]) -> Clusters:
    """The clusters of an assignment. ``class_of`` gives the class of a video where it is known."""
    members: dict[int, list[str]] = {}
    for video_id, label in zip(assignment.ids, assignment.labels.tolist(), strict=True):
        members.setdefault(label, []).append(video_id)
    clusters = []
    for label, ids in members.items():
        counts = Counter(name for video_id in ids if (name := class_of.get(video_id)) is not None)
        classes = tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        order = {name: place for place, (name, _) in enumerate(classes)}
        ids.sort(key=lambda video_id: (order.get(class_of.get(video_id) or "", len(order)), video_id))
        clusters.append(Cluster(label, tuple(ids), classes))
    clusters.sort(key=lambda cluster: (-cluster.size, cluster.label))
    return Clusters(assignment.epoch, tuple(clusters))
