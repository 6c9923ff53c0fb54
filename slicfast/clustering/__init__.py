"""Clustering of embeddings into pseudo-labels (floor 2); torch is imported when `cluster` is called."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from slicfast.config import MAX_DISTANCE, MIN_SAMPLES
from slicfast.errors import ConfigError, one_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from slicfast.clustering.bank import SupportsDLPack

__all__ = ["METHODS", "Clustering", "cluster"]

MEANS = ("kmeans", "spherical_kmeans")
METHODS = ("finch", *MEANS, "agglomerative", "dbscan", "optics")


@dataclass(frozen=True)
class Clustering:
    """Labels of N rows.

    Attributes:
        labels: (N,) int64 from 0, every number used.
        partitions: (N,) int64 labels a level, the finest first; only FINCH has several.
        centroids_KD: float32 on the bank's device; of the k-means family, None for others.
        num_refilled: how often an empty cluster was given a row, over all iterations.
        inertia: sum of squared Euclidean distances of the unit rows to their centroids; None as above.
        backend: what computed it: torch, cupy, cuml or scikit-learn.
        positives: (N,) int64 labels of the finer clusters that `positive_partition` asked for, else None.
        num_noise: rows that dbscan or optics left without a cluster; each has a label of its own.
    """

    labels: npt.NDArray[np.int64]
    partitions: list[npt.NDArray[np.int64]] = field(default_factory=list)
    centroids_KD: Tensor | None = None
    num_refilled: int = 0
    inertia: float | None = None
    backend: str = "torch"
    num_noise: int = 0
    positives: npt.NDArray[np.int64] | None = None


def cluster(
    bank_ND: Tensor | npt.NDArray[Any] | SupportsDLPack,
    method: str = "finch",
    *,
    num_clusters: int | None = None,
    partition: int = 0,
    positive_partition: int | None = None,
    mutual: bool = False,
    num_iterations: int = 20,
    num_starts: int = 1,
    init_KD: Tensor | npt.NDArray[Any] | None = None,
    balanced: bool = False,
    seed: int = 0,
    max_distance: float | None = None,
    min_samples: int | None = None,
    backend: str = "auto",
) -> Clustering:
    """Cluster the rows of a feature bank by direction: every row is L2-normalised first.

    Args:
        bank_ND: one row a video, any floating type, on any device; the work is done there in float32. A
            tensor, a NumPy array, or what exports DLPack, such as a CuPy array, which is not copied.
        method: finch (no parameters), kmeans (Euclidean), spherical_kmeans (cosine), agglomerative (average
            linkage of cosine distances), dbscan, optics (both by cosine distance).
        num_clusters: the k-means family needs it; FINCH then merges until so many are left, whatever
            `partition` says; at most N. The others find their own number.
        partition: FINCH level that becomes `labels`, 0 the finest; past the coarsest, the coarsest.
        positive_partition: FINCH level that, within the clusters, becomes `positives`; FINCH then runs beside
            the other methods.
        mutual: FINCH: link only rows that are each other's first neighbours.
        num_iterations: most Lloyd iterations of a start.
        num_starts: k-means++ starts, the one with the least inertia is kept.
        init_KD: starting centroids in place of k-means++; then there is one start.
        balanced: k-means family: clusters of the same size, up to one row.
        seed: decides the k-means++ starts; the same on every device.
        max_distance: agglomerative, dbscan, optics: the cosine distance at which clusters end; None: the
            method's own.
        min_samples: dbscan, optics: rows within `max_distance`, itself among them, that make a row a core;
            None: the method's own.
        backend: torch, cupy (its own kernels, on a GPU), cuml (method kmeans, on a GPU), or auto: the fastest
            that was measured.

    Raises:
        ConfigError: unknown method or backend; num_clusters missing, of a method that finds its own, or above
            N; init_KD of another shape; a backend that does not compute the method.
        RunError: rows that are not finite (the encoder diverged) or all zero (it collapsed).
        MachineError: cupy or cuml without a GPU, or not installed; agglomerative, dbscan or optics with more
            pairs of rows than fit into memory.
    """
    if method not in METHODS:
        raise ConfigError(one_of("clustering method", method, METHODS))
    from slicfast.clustering.backends import resolve_backend
    from slicfast.clustering.bank import as_bank, exact_float32, normalize

    if balanced and (method not in MEANS or backend == "cuml"):
        what = f"{method} by cuml" if method in MEANS else method
        raise ConfigError(f"{what} has no balanced form; take kmeans or spherical_kmeans, backend auto")
    rows_ND = as_bank(bank_ND)
    backend = "torch" if balanced and backend == "auto" else backend  # whatever is fastest without
    backend = resolve_backend(backend, method, rows_ND.device)
    with exact_float32(rows_ND.device):
        unit_ND = normalize(rows_ND)
        if method == "finch":
            found = _finch(unit_ND, partition, num_clusters, backend, mutual)
        elif method in MAX_DISTANCE:
            found = _by_distance(unit_ND, method, num_clusters, max_distance, min_samples)
        else:
            found = _by_means(
                unit_ND,
                method,
                num_clusters,
                num_iterations=num_iterations,
                num_starts=num_starts,
                init_KD=init_KD,
                balanced=balanced,
                seed=seed,
                backend=backend,
            )
        if positive_partition is None:
            return found
        if method != "finch":
            auto = resolve_backend("auto", "finch", unit_ND.device)
            levels = _finch(unit_ND, 0, None, auto, mutual).partitions
        else:
            levels = found.partitions
    from slicfast.clustering.matching import intersection

    finer = levels[min(positive_partition, len(levels) - 1)]
    return replace(found, positives=intersection(finer, found.labels))


def _finch(
    unit_ND: Tensor, partition: int, num_clusters: int | None, backend: str, mutual: bool
) -> Clustering:
    from slicfast.clustering.backends import rows_class
    from slicfast.clustering.finch import finch

    hold = rows_class(backend, unit_ND.device)
    levels = finch(unit_ND, hold, mutual=mutual)
    labels_N = levels[min(partition, len(levels) - 1)]
    if num_clusters is not None:
        from slicfast.clustering.merging import required_partition

        labels_N = required_partition(unit_ND, levels, num_clusters, hold)
    partitions = [level_N.cpu().numpy() for level_N in levels]
    return Clustering(labels_N.cpu().numpy(), partitions, backend=backend)


def _by_distance(
    unit_ND: Tensor,
    method: str,
    num_clusters: int | None,
    max_distance: float | None,
    min_samples: int | None,
) -> Clustering:
    from slicfast.clustering import scikit

    if num_clusters is not None:
        raise ConfigError(f"{method} finds its own number of clusters; leave num_clusters out")
    limit = MAX_DISTANCE[method] if max_distance is None else max_distance
    if method == "agglomerative":
        labels_N = scikit.agglomerative(unit_ND, limit)
    else:
        least = MIN_SAMPLES[method] if min_samples is None else min_samples
        labels_N = getattr(scikit, method)(unit_ND, limit, least)
    whole_N = scikit.own_clusters(labels_N)
    num_noise = int((labels_N < 0).sum())
    return Clustering(whole_N, [whole_N], backend="scikit-learn", num_noise=num_noise)


def _by_means(unit_ND: Tensor, method: str, num_clusters: int | None, **options: Any) -> Clustering:
    from slicfast.clustering.kmeans import kmeans

    if num_clusters is None:
        raise ConfigError(f"{method} needs num_clusters")
    found = kmeans(unit_ND, num_clusters, spherical=method == "spherical_kmeans", **options)
    labels = found.labels_N.cpu().numpy()
    return Clustering(
        labels,
        [labels],
        found.centroids_KD,
        found.num_refilled,
        found.inertia,
        backend=options["backend"],
    )
