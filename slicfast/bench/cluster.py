"""`slicfast bench cluster`: FINCH, exact first neighbours, and the k-means family beside scikit-learn's.

The k-means rows are planted: unit-length mixtures of as many Gaussians as clusters are asked for, so that the
agreement with the truth (NMI) says what a start and its iterations are worth. Legend: N rows, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from slicfast.bench.harness import Measurement, measure
from slicfast.bench.step import torch_threads
from slicfast.clustering import Clustering, cluster
from slicfast.clustering.bank import exact_float32, normalize
from slicfast.clustering.neighbors import first_neighbors
from slicfast.device import resolve_device

COLUMNS = ("what", "rows x dims", "clusters", "CPU s", "wall s", "GFLOP/s", "inertia", "NMI")
_NOISE = 0.9  # std of a planted cluster in each dimension; its centre's components have std 1


def bench_cluster(
    *,
    device: str = "cpu",
    num_threads: int = 1,
    num_runs: int = 3,
    finch_rows: Sequence[int] = (10_000,),
    neighbor_rows: Sequence[int] = (10_000, 50_000),
    kmeans_rows: int = 9_537,
    num_clusters: int = 1_000,
    num_iterations: int = 20,
    dims: int = 128,
    with_peers: bool = True,
) -> dict[str, Any]:
    """Time clustering on random rows; `num_threads` hold for torch and for scikit-learn alike.

    Args:
        kmeans_rows: planted rows for k-means and spherical k-means, `num_clusters` of both kinds.
        with_peers: also time scikit-learn's KMeans, one k-means++ start, as many iterations.

    Returns:
        The settings and `figures`, a list of what was run, on how many rows, its measurement under "cost",
        and where they apply `gflops` (2 N^2 D a second: of CPU time on a CPU, of wall time on a GPU),
        `num_clusters`, `nmi` and `inertia` (spherical k-means: to centroids of length 1, so never the least).

    Raises:
        MachineError: a GPU is asked for and there is none.
    """
    target = resolve_device(device)
    generator = torch.Generator().manual_seed(0)

    def timed(run: Callable[[], object]) -> Measurement:
        synchronize = (lambda: torch.cuda.synchronize(target)) if target.type == "cuda" else None
        return measure(run, num_runs=num_runs, num_warmup=1, synchronize=synchronize)

    figures: list[dict[str, Any]] = []
    with torch_threads(num_threads), exact_float32(target):
        for num_rows in finch_rows:
            bank_ND = torch.randn(num_rows, dims, generator=generator).to(target)
            cost = timed(lambda bank_ND=bank_ND: cluster(bank_ND))  # type: ignore[misc]
            sizes = [int(partition.max()) + 1 for partition in cluster(bank_ND).partitions]
            figures.append(_figure("FINCH, all levels", bank_ND, cost, num_clusters=sizes[0], levels=sizes))
        for num_rows in neighbor_rows:
            unit_ND = normalize(torch.randn(num_rows, dims, generator=generator)).to(target)
            cost = timed(lambda unit_ND=unit_ND: first_neighbors(unit_ND))  # type: ignore[misc]
            spent_ms = cost.cpu_ms if target.type == "cpu" else cost.wall_ms
            gflops = 2 * num_rows**2 * dims / (1e6 * spent_ms)
            figures.append(_figure("exact first neighbours", unit_ND, cost, gflops=gflops))
        planted = _planted(kmeans_rows, num_clusters, dims, generator)
        figures += _bench_kmeans(
            *planted,
            device=target,
            num_clusters=num_clusters,
            num_iterations=num_iterations,
            timed=timed,
        )
        if with_peers:
            figures.append(
                _bench_scikit_learn(
                    *planted,
                    num_threads=num_threads,
                    num_clusters=num_clusters,
                    num_iterations=num_iterations,
                    timed=timed,
                )
            )
    return {
        "device": str(target),
        "num_threads": num_threads,
        "num_iterations": num_iterations,
        "figures": figures,
    }


def _bench_kmeans(
    unit_ND: Tensor,
    truth_N: Tensor,
    *,
    device: torch.device,
    num_clusters: int,
    num_iterations: int,
    timed: Callable[[Callable[[], object]], Measurement],
) -> list[dict[str, Any]]:
    from sklearn.metrics import normalized_mutual_info_score

    bank_ND, figures = unit_ND.to(device), []
    for method in ("kmeans", "spherical_kmeans"):

        def run(method: str = method) -> Clustering:
            return cluster(bank_ND, method, num_clusters=num_clusters, num_iterations=num_iterations)

        cost, found = timed(run), run()
        nmi = float(normalized_mutual_info_score(truth_N, found.labels))
        figures.append(
            _figure(method, bank_ND, cost, num_clusters=num_clusters, inertia=found.inertia, nmi=nmi)
        )
    return figures


def _bench_scikit_learn(
    unit_ND: Tensor,
    truth_N: Tensor,
    *,
    num_threads: int,
    num_clusters: int,
    num_iterations: int,
    timed: Callable[[Callable[[], object]], Measurement],
) -> dict[str, Any]:
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score
    from threadpoolctl import threadpool_limits

    peer = KMeans(num_clusters, n_init=1, max_iter=num_iterations, tol=0, random_state=0)
    rows_ND = unit_ND.numpy()
    with threadpool_limits(num_threads):
        cost = timed(lambda: peer.fit(rows_ND))
    nmi = float(normalized_mutual_info_score(truth_N, peer.labels_))
    inertia = float(peer.inertia_)
    return _figure("scikit-learn KMeans", unit_ND, cost, num_clusters=num_clusters, inertia=inertia, nmi=nmi)


def _planted(
    num_rows: int, num_clusters: int, dims: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(N, D) unit rows on the CPU and the (N,) clusters they were drawn from."""
    truth_N = torch.randint(num_clusters, (num_rows,), generator=generator)
    centres_KD = torch.randn(num_clusters, dims, generator=generator)
    rows_ND = centres_KD[truth_N] + _NOISE * torch.randn(num_rows, dims, generator=generator)
    return normalize(rows_ND), truth_N


def _figure(what: str, rows_ND: Tensor, cost: Measurement, **more: Any) -> dict[str, Any]:
    return {"what": what, "num_rows": len(rows_ND), "dims": rows_ND.shape[1], "cost": cost.to_dict(), **more}


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A result's rows under `COLUMNS`."""

    def shown(figure: dict[str, Any], key: str, form: str) -> str:
        return format(figure[key], form) if key in figure else "-"

    return [
        (
            figure["what"],
            f"{figure['num_rows']} x {figure['dims']}",
            shown(figure, "num_clusters", "d"),
            f"{figure['cost']['cpu_ms'] / 1e3:.2f}",
            f"{figure['cost']['wall_ms'] / 1e3:.2f}",
            shown(figure, "gflops", ".0f"),
            shown(figure, "inertia", ".0f"),
            shown(figure, "nmi", ".4f"),
        )
        for figure in result["figures"]
    ]
