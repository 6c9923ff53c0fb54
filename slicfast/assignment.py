"""An assignment: which cluster each video belongs to, keyed by video id, never by position.

The published code joined labels to videos by row and trained every video with its predecessor's
cluster; joining by id makes that mistake impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Assignment:
    """Video ids with their cluster labels, from one round of clustering.

    Attributes:
        ids: N video ids, all different.
        labels: (N,) int64, one label a video, all >= 0. Over the rounds of a run a label means one cluster.
        epoch: the epoch at whose start it was made.
        positives: (N,) int64, all >= 0, of a finer partition that positives are drawn from; None: `labels`.
        next_label: above every label that this and earlier rounds gave; -1: above this one's.
        agreement: NMI of `labels` with those of the round before; None where there was none.
    """

    ids: tuple[str, ...]
    labels: Labels
    epoch: int = 0
    positives: Labels | None = None
    next_label: int = -1
    agreement: float | None = None

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("an assignment names a video twice")
        for labels in (self.labels, *(() if self.positives is None else (self.positives,))):
            if labels.shape != (len(self.ids),) or labels.dtype != np.int64:
                raise ValueError(f"{len(self.ids)} ids need int64 labels of that length; got {labels.shape}")
            if labels.size and labels.min() < 0:
                raise ValueError("labels must be >= 0; make noise points clusters of their own first")
        if self.next_label < 0:
            object.__setattr__(self, "next_label", int(self.labels.max(initial=-1)) + 1)

    @classmethod
    def singletons(cls, ids: Sequence[str], epoch: int = 0) -> Assignment:
        """Every video its own cluster: the state before the first clustering."""
        return cls(tuple(ids), np.arange(len(ids), dtype=np.int64), epoch)

    @property
    def num_clusters(self) -> int:
        return int(np.unique(self.labels).size)

    def labels_for(self, ids: Sequence[str]) -> Labels:
        """(len(ids),) int64 labels joined by id.

        An id that was not clustered gets a fresh label of its own, so it is nobody's positive.
        """
        return self._joined(self.labels, ids)

    def positives_for(self, ids: Sequence[str]) -> Labels:
        """The same of the partition that positives are drawn from."""
        return self._joined(self.labels if self.positives is None else self.positives, ids)

    def _joined(self, labels: Labels, ids: Sequence[str]) -> Labels:
        if tuple(ids) == self.ids:  # the usual case, and quick: both hold the very same strings
            return labels.copy()
        by_id = dict(zip(self.ids, labels.tolist(), strict=True))
        joined = np.array([by_id.get(video_id, -1) for video_id in ids], dtype=np.int64)
        is_new = joined < 0
        fresh = int(labels.max(initial=-1)) + 1
        joined[is_new] = fresh + np.arange(np.count_nonzero(is_new))
        return joined
