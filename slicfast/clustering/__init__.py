"""Clustering of embeddings into pseudo-labels (floor 2); torch is imported when `cluster` is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slicfast.errors import ConfigError, one_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from slicfast.clustering.bank import SupportsDLPack

__all__ = ["METHODS", "Clustering", "cluster"]

METHODS = ("finch", "kmeans", "spherical_kmeans")


@dataclass(frozen=True)
class Clustering:
    """Labels of N rows.

    Attributes:
        labels: (N,) int64 from 0, every number used.
        partitions: (N,) int64 labels a level, the finest first; one level for the k-means family.
        centroids_KD: float32 on the bank's device; None for FINCH.
        num_refilled: how often an empty cluster was given a row, over all iterations.
        inertia: sum of squared Euclidean distances of the unit rows to their centroids; None for FINCH.
        backend: what computed it: torch, cupy or cuml.
    """

    labels: npt.NDArray[np.int64]
    partitions: list[npt.NDArray[np.int64]] = field(default_factory=list)
    centroids_KD: Tensor | None = None
    num_refilled: int = 0
    inertia: float | None = None
    backend: str = "torch"


def cluster(
    bank_ND: Tensor | npt.NDArray[Any] | SupportsDLPack,
    method: str = "finch",
    *,
    num_clusters: int | None = None,
    partition: int = 0,
    num_iterations: int = 20,
    num_starts: int = 1,
    init_KD: Tensor | npt.NDArray[Any] | None = None,
    seed: int = 0,
    backend: str = "auto",
) -> Clustering:
    """Cluster the rows of a feature bank by direction: every row is L2-normalised first.

    Args:
        bank_ND: one row a video, any floating type, on any device; the work is done there in float32. A
            tensor, a NumPy array, or what exports DLPack, such as a CuPy array, which is not copied.
        method: finch (no parameters), kmeans (Euclidean), spherical_kmeans (cosine).
        num_clusters: k-means family only, which needs it; at most N.
        partition: FINCH level that becomes `labels`, 0 the finest; past the coarsest, the coarsest.
        num_iterations: most Lloyd iterations of a start.
        num_starts: k-means++ starts, the one with the least inertia is kept.
        init_KD: starting centroids in place of k-means++; then there is one start.
        seed: decides the k-means++ starts; the same on every device.
        backend: torch, cupy (its own kernels, on a GPU), cuml (method kmeans, on a GPU), or auto: the fastest
            that was measured.

    Raises:
        ConfigError: unknown method or backend; num_clusters missing or above N; init_KD of another shape;
            cuml with another method than kmeans.
        MachineError: cupy or cuml without a GPU, or not installed.
        RunError: rows that are not finite (the encoder diverged) or all zero (it collapsed).
    """
    if method not in METHODS:
        raise ConfigError(one_of("clustering method", method, METHODS))
    from slicfast.clustering.backends import resolve_backend, rows_class
    from slicfast.clustering.bank import as_bank, exact_float32, normalize

    rows_ND = as_bank(bank_ND)
    backend = resolve_backend(backend, method, rows_ND.device)
    with exact_float32(rows_ND.device):
        unit_ND = normalize(rows_ND)
        if method == "finch":
            from slicfast.clustering.finch import finch

            hold = rows_class(backend, unit_ND.device)
            partitions = [labels_N.cpu().numpy() for labels_N in finch(unit_ND, hold)]
            return Clustering(partitions[min(partition, len(partitions) - 1)], partitions, backend=backend)
        from slicfast.clustering.kmeans import kmeans

        if num_clusters is None:
            raise ConfigError(f"{method} needs num_clusters")
        found = kmeans(
            unit_ND,
            num_clusters,
            spherical=method == "spherical_kmeans",
            num_iterations=num_iterations,
            num_starts=num_starts,
            init_KD=init_KD,
            seed=seed,
            backend=backend,
        )
    labels = found.labels_N.cpu().numpy()
    return Clustering(
        labels, [labels], found.centroids_KD, found.num_refilled, found.inertia, backend=backend
    )
