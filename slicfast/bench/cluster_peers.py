"""Other libraries' first neighbours and k-means on the same rows, where they are installed.

Each is called as its documentation says and gets the rows where it wants them, before the clock runs. Legend:
N rows, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Any]


@dataclass(frozen=True)
class Peer:
    """A library, with what it can do of the two.

    Attributes:
        neighbors: of (N, D) unit rows: a call that finds each one's two nearest, itself among them.
        lloyd: of rows, (K, D) starting centroids, whether spherical, and iterations: a call that returns
            (K, D) centroids; None where it has no such k-means.
    """

    name: str
    neighbors: Callable[[Tensor], Run] | None = None
    lloyd: Callable[[Tensor, Tensor, bool, int], Run | None] | None = None


def installed_peers(device: torch.device) -> list[Peer]:
    """Those that compute on this device and are installed."""
    on_gpu = device.type == "cuda"
    if not on_gpu:
        known = {"sklearn": _scikit_learn, "faiss": _faiss_cpu}
    else:
        known = {"cuml": _cuml, "faiss": _faiss_gpu, "flash_kmeans": _flash_kmeans}
    return [
        make() for module, make in known.items() if find_spec(module) is not None and _fits(module, on_gpu)
    ]


def _fits(module: str, on_gpu: bool) -> bool:
    """faiss comes with and without its GPU part under one name."""
    if module != "faiss" or not on_gpu:
        return True
    import faiss

    return hasattr(faiss, "StandardGpuResources")


def _scikit_learn() -> Peer:
    from sklearn.cluster import KMeans

    def lloyd(unit_ND: Tensor, start_KD: Tensor, spherical: bool, num_iterations: int) -> Run | None:
        if spherical:
            return None
        model = KMeans(len(start_KD), init=start_KD.numpy(), n_init=1, max_iter=num_iterations, tol=0)
        return lambda: model.fit(unit_ND.numpy()).cluster_centers_

    return Peer("scikit-learn", lloyd=lloyd)


def _cuml() -> Peer:
    import cupy
    from cuml.cluster import KMeans
    from cuml.neighbors import NearestNeighbors

    def neighbors(unit_ND: Tensor) -> Run:
        rows = cupy.from_dlpack(unit_ND)
        model = NearestNeighbors(n_neighbors=2, algorithm="brute", metric="cosine", output_type="cupy")
        return lambda: model.fit(rows).kneighbors(rows)

    def lloyd(unit_ND: Tensor, start_KD: Tensor, spherical: bool, num_iterations: int) -> Run | None:
        if spherical:
            return None
        rows, start = cupy.from_dlpack(unit_ND), cupy.from_dlpack(start_KD)
        model = KMeans(
            n_clusters=len(start_KD),
            init=start,
            n_init=1,
            max_iter=num_iterations,
            tol=1e-12,
            output_type="cupy",
        )
        return lambda: model.fit(rows).cluster_centers_

    return Peer("cuml", neighbors, lloyd)


def _faiss_kmeans(unit_ND: Tensor, start_KD: Tensor, spherical: bool, num_iterations: int) -> Run:
    import faiss

    rows, start = unit_ND.cpu().numpy(), start_KD.cpu().numpy()  # it takes nothing else
    options: dict[str, Any] = {"gpu": 1} if unit_ND.is_cuda else {}  # one GPU; True would take all

    def run() -> Any:
        model = faiss.Kmeans(
            rows.shape[1],
            len(start),
            niter=num_iterations,
            spherical=spherical,
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),  # by default it would take a sample
            **options,
        )
        model.train(rows, init_centroids=start)
        return model.centroids

    return run


def _faiss_cpu() -> Peer:
    import faiss

    def neighbors(unit_ND: Tensor) -> Run:
        rows = unit_ND.numpy()
        return lambda: faiss.knn(rows, rows, 2, metric=faiss.METRIC_INNER_PRODUCT)

    return Peer("faiss", neighbors, _faiss_kmeans)


def _faiss_gpu() -> Peer:
    import faiss
    import faiss.contrib.torch_utils  # torch tensors in place of arrays

    resources = faiss.StandardGpuResources()

    def neighbors(unit_ND: Tensor) -> Run:
        return lambda: faiss.knn_gpu(
            resources,
            unit_ND,
            unit_ND,
            2,
            metric=faiss.METRIC_INNER_PRODUCT,
            device=torch.cuda.current_device(),
        )

    return Peer("faiss", neighbors, _faiss_kmeans)


def _flash_kmeans() -> Peer:
    from flash_kmeans import batch_kmeans_Cosine, batch_kmeans_Euclid

    def lloyd(unit_ND: Tensor, start_KD: Tensor, spherical: bool, num_iterations: int) -> Run | None:
        rows_1ND = unit_ND.half()[None]
        kmeans = batch_kmeans_Cosine if spherical else batch_kmeans_Euclid

        def run() -> Any:
            # It works in the memory of the centroids that it is given.
            start_1KD = start_KD.half()[None].clone()
            found = kmeans(
                rows_1ND, len(start_KD), max_iters=num_iterations, tol=-1.0, init_centroids=start_1KD
            )
            return found[1][0].float()

        return run

    return Peer("flash-kmeans", lloyd=lloyd)
