"""`slicfast bench cluster`: FINCH, first neighbours and k-means by every backend, beside other libraries.

The k-means rows are planted: unit-length mixtures of as many Gaussians as clusters are asked for, so that the
agreement with the truth (NMI) says what a start and its iterations are worth. Rates stand beside what the
machine was measured to do at most. Legend: N rows, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from slicfast.bench.ceilings import measure_ceilings
from slicfast.bench.cluster_figures import Figures
from slicfast.bench.cluster_peers import installed_peers
from slicfast.bench.step import torch_threads
from slicfast.clustering.bank import exact_float32, normalize
from slicfast.device import resolve_device

COLUMNS = (
    "what", "by", "rows x dims", "clusters", "CPU s", "wall s", "ms/iteration", "GFLOP/s", "of bound",
    "inertia", "NMI",
)  # fmt: skip
# Rows for a GPU: UCF101's and Kinetics-700's, and a million for k-means.
LARGE: dict[str, Any] = {
    "finch_rows": (10_000, 650_000),
    "neighbor_rows": (50_000, 650_000),
    "kmeans_rows": 1_000_000,
}
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
    backends: Sequence[str] | None = None,
    with_peers: bool = True,
    ceiling_size: int | None = None,
) -> dict[str, Any]:
    """Time clustering on random rows; `num_threads` hold for torch and for other libraries alike.

    Args:
        kmeans_rows: planted rows for k-means and spherical k-means, `num_clusters` of both kinds.
        backends: torch, and on a GPU cupy and cuml; None: those that are installed.
        with_peers: also time what `cluster_peers` finds installed, from the same start, as many iterations,
            and on a CPU scikit-learn's KMeans with one k-means++ start.
        ceiling_size: of `measure_ceilings`.

    Returns:
        The settings, the measured `ceilings` and `figures`: what was run `by` whom, on how many rows, its
        measurement under "cost" or why it `failed`, and where they apply `iteration_ms`, `gflops` (2 N^2 D
        or 2 N K D a second), `bound_ms` (what operations and bytes take at the ceilings, the larger), `ratio`
        (bound to spent time), `num_clusters`, `nmi` and `inertia` (spherical k-means: to centroids of length
        1, so never the least). Spent is wall time on a GPU, on a CPU the CPU time a thread.

    Raises:
        MachineError: a GPU is asked for and there is none.
    """
    target = resolve_device(device)
    on_gpu = target.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    from threadpoolctl import threadpool_limits

    if backends is None:
        backends = ["torch", *(name for name in ("cupy", "cuml") if on_gpu and find_spec(name) is not None)]
    searching = [backend for backend in backends if backend != "cuml"]
    peers = installed_peers(target) if with_peers else []
    with torch_threads(num_threads), threadpool_limits(num_threads), exact_float32(target):
        # Searches multiply in half precision on a GPU, in single precision on a CPU.
        precision = "fp16" if on_gpu else "fp32"
        ceilings = measure_ceilings(target, precision, size=ceiling_size, num_threads=num_threads)
        figures = Figures(target, num_threads, num_runs, ceilings, peers)
        for num_rows in finch_rows:
            bank_ND = torch.randn(num_rows, dims, generator=generator).to(target)
            for backend in searching:
                figures.finch(bank_ND, backend)
        for num_rows in neighbor_rows:
            unit_ND = normalize(torch.randn(num_rows, dims, generator=generator)).to(target)
            figures.first_neighbors(unit_ND, searching)
        unit_ND, truth_N = _planted(kmeans_rows, num_clusters, dims, generator)
        bank_ND = unit_ND.to(target)
        for method in ("kmeans", "spherical_kmeans"):
            for backend in backends if method == "kmeans" else searching:
                figures.whole_kmeans(bank_ND, truth_N, method, backend, num_clusters, num_iterations)
        if with_peers and not on_gpu:
            figures.whole_scikit_learn(unit_ND, truth_N, num_clusters, num_iterations)
        start_KD = bank_ND[torch.randperm(kmeans_rows, generator=generator)[:num_clusters].to(target)]
        for spherical in (False, True):
            figures.iterations(bank_ND, start_KD, spherical, num_iterations, searching)
    return {
        "device": str(target),
        "num_threads": num_threads,
        "num_iterations": num_iterations,
        "ceilings": ceilings.to_dict(),
        "figures": figures.figures,
    }


def _planted(
    num_rows: int, num_clusters: int, dims: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(N, D) unit rows on the CPU and the (N,) clusters they were drawn from."""
    truth_N = torch.randint(num_clusters, (num_rows,), generator=generator)
    centres_KD = torch.randn(num_clusters, dims, generator=generator)
    rows_ND = centres_KD[truth_N] + _NOISE * torch.randn(num_rows, dims, generator=generator)
    return normalize(rows_ND), truth_N


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A result's rows under `COLUMNS`."""
    return [_row(figure) for figure in result["figures"]]


def _row(figure: dict[str, Any]) -> tuple[str, ...]:
    def shown(key: str, form: str) -> str:
        return format(figure[key], form) if figure.get(key) is not None else "-"

    cost = figure.get("cost")
    return (
        figure["what"],
        figure.get("by", "-"),
        f"{figure['num_rows']} x {figure['dims']}",
        shown("num_clusters", "d"),
        figure["failed"] if cost is None else f"{cost['cpu_ms'] / 1e3:.2f}",
        "-" if cost is None else f"{cost['wall_ms'] / 1e3:.2f}",
        shown("iteration_ms", ".3g"),
        shown("gflops", ".0f"),
        shown("ratio", ".0%"),
        shown("inertia", ".0f"),
        shown("nmi", ".4f"),
    )
