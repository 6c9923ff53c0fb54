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
        labels: (N,) int64, one label a video, all >= 0.
        epoch: the epoch at whose start it was made.
    """

    ids: tuple[str, ...]
    labels: Labels
    epoch: int = 0

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("an assignment names a video twice")
        if self.labels.shape != (len(self.ids),) or self.labels.dtype != np.int64:
            raise ValueError(f"{len(self.ids)} ids need int64 labels of that length; got {self.labels.shape}")
        if self.labels.size and self.labels.min() < 0:
            raise ValueError("labels must be >= 0; make noise points clusters of their own first")

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
        if tuple(ids) == self.ids:  # the usual case, and quick: both hold the very same strings
            return self.labels.copy()
        by_id = dict(zip(self.ids, self.labels.tolist(), strict=True))
        joined = np.array([by_id.get(video_id, -1) for video_id in ids], dtype=np.int64)
        is_new = joined < 0
        fresh = int(self.labels.max()) + 1 if self.labels.size else 0
        joined[is_new] = fresh + np.arange(np.count_nonzero(is_new))
        return joined
