"""The figures of `slicfast bench cluster`: each operation timed, by every backend and by other libraries.

Legend: N rows, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from slicfast.bench.ceilings import Ceilings
from slicfast.bench.cluster_peers import Peer
from slicfast.bench.harness import Measurement, measure_in_turn
from slicfast.clustering import cluster
from slicfast.clustering.backends import rows_class
from slicfast.clustering.kmeans import kmeans
from slicfast.clustering.neighbors import best_match

Run = Callable[[], Any]


class Figures:
    """What was measured so far, under `figures`, and what all of it is measured with."""

    def __init__(
        self,
        device: torch.device,
        num_threads: int,
        num_runs: int,
        ceilings: Ceilings,
        peers: Sequence[Peer],
    ) -> None:
        self.figures: list[dict[str, Any]] = []
        self._device, self._num_threads, self._num_runs = device, num_threads, num_runs
        self._ceilings, self._peers = ceilings, peers

    def finch(self, bank_ND: Tensor, backend: str) -> None:
        def run() -> Any:
            return cluster(bank_ND, backend=backend)

        if cost := self._timed("FINCH, all levels", backend, bank_ND, {"": run}):
            levels = [int(level.max()) + 1 for level in run().partitions]
            self._add("FINCH, all levels", backend, bank_ND, cost[""], num_clusters=levels[0], levels=levels)

    def first_neighbors(self, unit_ND: Tensor, backends: Sequence[str]) -> None:
        def search(backend: str) -> Run:
            return lambda: rows_class(backend, unit_ND.device)(unit_ND).first_neighbors()

        what, (num_rows, dims) = "exact first neighbours", unit_ND.shape
        runs = {backend: search(backend) for backend in backends}
        runs |= {peer.name: peer.neighbors(unit_ND) for peer in self._peers if peer.neighbors is not None}
        for by, run in runs.items():
            if cost := self._timed(what, by, unit_ND, {"": run}):
                rate = self._rate(self._spent_ms(cost[""]), 2 * num_rows**2 * dims, unit_ND.nbytes)
                self._add(what, by, unit_ND, cost[""], **rate)

    def whole_kmeans(
        self,
        bank_ND: Tensor,
        truth_N: Tensor,
        method: str,
        backend: str,
        num_clusters: int,
        num_iterations: int,
    ) -> None:
        """k-means++ and iterations, with what they are worth."""

        def run() -> Any:
            options: dict[str, Any] = {"num_clusters": num_clusters, "num_iterations": num_iterations}
            return cluster(bank_ND, method, backend=backend, **options)

        if cost := self._timed(method, backend, bank_ND, {"": run}):
            found = run()
            more = {"inertia": found.inertia, "nmi": _nmi(truth_N, found.labels)}
            self._add(method, backend, bank_ND, cost[""], num_clusters=num_clusters, **more)

    def whole_scikit_learn(
        self, unit_ND: Tensor, truth_N: Tensor, num_clusters: int, num_iterations: int
    ) -> None:
        """Its k-means++ and iterations."""
        from sklearn.cluster import KMeans

        model = KMeans(num_clusters, n_init=1, max_iter=num_iterations, tol=0, random_state=0)
        rows_ND = unit_ND.numpy()
        if cost := self._timed("kmeans", "scikit-learn", unit_ND, {"": lambda: model.fit(rows_ND)}):
            more = {"inertia": float(model.inertia_), "nmi": _nmi(truth_N, model.labels_)}
            self._add("kmeans", "scikit-learn", unit_ND, cost[""], num_clusters=num_clusters, **more)

    def iterations(
        self, unit_ND: Tensor, start_KD: Tensor, spherical: bool, num_iterations: int, backends: Sequence[str]
    ) -> None:
        """Iterations from the same start: what all of them cost beyond one."""

        def ours(backend: str) -> Callable[[int], Run]:
            options: dict[str, Any] = {"init_KD": start_KD, "spherical": spherical, "backend": backend}
            return lambda num: (
                lambda: kmeans(unit_ND, len(start_KD), num_iterations=num, **options).centroids_KD
            )

        def others(peer: Peer) -> Callable[[int], Run | None]:
            assert peer.lloyd is not None
            lloyd = peer.lloyd
            return lambda num: lloyd(unit_ND, start_KD, spherical, num)

        makers: dict[str, Callable[[int], Run | None]] = {backend: ours(backend) for backend in backends}
        makers |= {peer.name: others(peer) for peer in self._peers if peer.lloyd is not None}
        what = f"{'spherical_kmeans' if spherical else 'kmeans'}, given centroids"
        (num_rows, dims), num_clusters = unit_ND.shape, len(start_KD)
        for by, make in makers.items():
            all_of_them, one = make(num_iterations), make(1)
            if all_of_them is None or one is None:
                continue
            cost = self._timed(what, by, unit_ND, {"all": all_of_them, "one": one})
            if cost is None:
                continue
            iteration_ms = (self._spent_ms(cost["all"]) - self._spent_ms(cost["one"])) / max(
                num_iterations - 1, 1
            )
            more: dict[str, Any] = {}
            if iteration_ms > 0:  # else the clock was too coarse for so little
                # Read once for the products and once for the sums.
                rate = self._rate(iteration_ms, 2 * num_rows * num_clusters * dims, 2 * unit_ND.nbytes)
                more = {"iteration_ms": iteration_ms, **rate}
            more["inertia"] = _inertia(unit_ND, torch.as_tensor(all_of_them(), device=self._device))
            self._add(what, by, unit_ND, cost["all"], num_clusters=num_clusters, **more)

    def _timed(
        self, what: str, by: str, rows_ND: Tensor, runs: Mapping[str, Run]
    ) -> dict[str, Measurement] | None:
        """None, and the reason among the figures, where another library than torch fails."""
        on_gpu = self._device.type == "cuda"
        wait = (lambda: torch.cuda.synchronize(self._device)) if on_gpu else None
        try:
            return measure_in_turn(runs, num_runs=self._num_runs, num_warmup=1, synchronize=wait)
        except Exception as error:
            if by == "torch":
                raise
            failed = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self.figures.append({**_named(what, by, rows_ND), "failed": failed})
            return None

    def _spent_ms(self, cost: Measurement) -> float:
        """Wall time on a GPU; on a CPU what a thread spent, which neighbours on the machine do not change."""
        return cost.wall_ms if self._device.type == "cuda" else cost.cpu_ms / self._num_threads

    def _rate(self, spent_ms: float, flops: int, num_bytes: int) -> dict[str, float]:
        bound_ms = max(flops / (1e9 * self._ceilings.tflops), num_bytes / (1e6 * self._ceilings.copy_gbs))
        return {"gflops": flops / (1e6 * spent_ms), "bound_ms": bound_ms, "ratio": bound_ms / spent_ms}

    def _add(self, what: str, by: str, rows_ND: Tensor, cost: Measurement, **more: Any) -> None:
        self.figures.append({**_named(what, by, rows_ND), "cost": cost.to_dict(), **more})


def _named(what: str, by: str, rows_ND: Tensor) -> dict[str, Any]:
    return {"what": what, "by": by, "num_rows": len(rows_ND), "dims": rows_ND.shape[1]}


def _nmi(truth_N: Tensor, labels_N: Any) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(truth_N, labels_N))


def _inertia(unit_ND: Tensor, centroids_KD: Tensor) -> float:
    """As k-means has it, spherical or not: the sum of squared distances to the nearest centroid."""
    score_N = best_match(unit_ND, centroids_KD, -0.5 * centroids_KD.square().sum(dim=1))[1]
    return float((unit_ND.square().sum(dim=1) - 2 * score_N).double().sum())
