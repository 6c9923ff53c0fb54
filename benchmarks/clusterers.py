"""What each clusterer costs in time and memory as the videos grow, and what NMI says of unrelated clusters.

python -m benchmarks.clusterers [benchmarks/results/<machine>-<date>-clusterers.json]

Every figure comes from a process of its own on one thread, so that its peak of memory is the method's. Rows
are planted: groups of five around random directions, as videos of one scene are.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.bench.harness import write_result

SIZES = (5_000, 10_000, 20_000)
DIMS, GROUP, NOISE = 128, 5, 0.35
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "finch": ("finch", {}),
    "finch, a tenth as many clusters as videos": ("finch", {"num_clusters": 0.1}),
    "kmeans of 1000": ("kmeans", {"num_clusters": 1000}),
    "kmeans of 1000, balanced": ("kmeans", {"num_clusters": 1000, "balanced": True}),
    "agglomerative": ("agglomerative", {}),
    "dbscan": ("dbscan", {}),
    "optics": ("optics", {}),
}
CLUSTERS = (100, 1000, 2500)
VIDEOS = 9_537  # of UCF101's first training split


def main() -> None:
    results: dict[str, Any] = {"dims": DIMS, "costs": [], "matching": [], "unrelated": []}
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as alone:
        for name in METHODS:
            for num_rows in SIZES:
                cost = alone.submit(cost_of, name, num_rows).result()
                results["costs"].append({"what": name, "num_rows": num_rows, **cost})
                print(results["costs"][-1], flush=True)
    for num_rows, num_clusters in ((VIDEOS, 2_500), (240_000, 60_000)):
        results["matching"].append(cost_of_matching(num_rows, num_clusters))
    results["unrelated"] = [agreement_by_chance(num_clusters) for num_clusters in CLUSTERS]
    print(results["matching"], results["unrelated"])
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "clusterers", results)


def planted(num_rows: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((num_rows // GROUP, DIMS))
    rows = directions[rng.integers(0, len(directions), num_rows)]
    return (rows + NOISE * rng.standard_normal(rows.shape)).astype(np.float32)


def cost_of(name: str, num_rows: int) -> dict[str, Any]:
    """CPU seconds, and MB above what the process held when its libraries were in and warm."""
    import torch

    from slicfast.clustering import cluster

    torch.set_num_threads(1)
    method, options = METHODS[name]
    if isinstance(options.get("num_clusters"), float):
        options = {**options, "num_clusters": int(options["num_clusters"] * num_rows)}
    rows_ND = planted(num_rows)
    small = {"num_clusters": 20} if "num_clusters" in options else {}
    cluster(rows_ND[:200], method, **{**options, **small})
    held_kb, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = cluster(rows_ND, method, **options)
    seconds = time.process_time() - started
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held_kb) / 1024
    return {"cpu_s": seconds, "added_mb": grown_mb, "num_clusters": int(found.labels.max()) + 1}


def cost_of_matching(num_rows: int, num_clusters: int) -> dict[str, Any]:
    """Labels of a round in which a third of the videos moved, matched with those of the round before."""
    from slicfast.clustering.matching import keep_labels

    rng = np.random.default_rng(0)
    old_N = rng.integers(0, num_clusters, num_rows)
    new_N = np.where(rng.random(num_rows) < 1 / 3, rng.integers(0, num_clusters, num_rows), old_N)
    started = time.process_time()
    keep_labels(rng.permutation(num_clusters)[new_N], old_N, num_clusters)
    return {"num_rows": num_rows, "num_clusters": num_clusters, "cpu_s": time.process_time() - started}


def agreement_by_chance(num_clusters: int) -> dict[str, Any]:
    """Of two assignments that have nothing to do with each other."""
    from slicfast.clustering.quality import churn, mutual_information

    one_N, other_N = np.random.default_rng(0).integers(0, num_clusters, (2, VIDEOS))
    return {
        "num_rows": VIDEOS,
        "num_clusters": num_clusters,
        "nmi": mutual_information(one_N, other_N),
        "churn": churn(one_N, other_N),
    }


def cost_rows(results: dict[str, Any]) -> list[list[str]]:
    """A line a method: CPU seconds and MB for each number of videos."""
    lines = []
    for name in dict.fromkeys(cost["what"] for cost in results["costs"]):
        costs = [cost for cost in results["costs"] if cost["what"] == name]
        lines.append([name, *(f"{cost['cpu_s']:.2f} s, {cost['added_mb']:.0f} MB" for cost in costs)])
    return lines


def chance_rows(results: dict[str, Any]) -> list[list[str]]:
    return [
        [str(each["num_clusters"]), f"{each['nmi']:.2f}", f"{1 - each['nmi']:.2f}", f"{each['churn']:.2f}"]
        for each in results["unrelated"]
    ]


if __name__ == "__main__":
    main()
