"""The clustering benchmark: what it measures and how it is shown."""

import json

import pytest

from slicfast.bench.cluster import COLUMNS, bench_cluster, table_rows
from slicfast.bench.cluster_peers import Peer


def test_every_method_is_measured_and_shown():
    result = bench_cluster(
        num_runs=1,
        finch_rows=(300,),
        neighbor_rows=(200, 500),
        kmeans_rows=400,
        num_clusters=10,
        dims=16,
        ceiling_size=128,
    )
    figures = [figure for figure in result["figures"] if figure["by"] != "faiss"]  # if it is installed
    assert [(figure["what"], figure["by"], figure["num_rows"]) for figure in figures] == [
        ("FINCH, all levels", "torch", 300),
        ("exact first neighbours", "torch", 200),
        ("exact first neighbours", "torch", 500),
        ("kmeans", "torch", 400),
        ("spherical_kmeans", "torch", 400),
        ("kmeans", "scikit-learn", 400),
        ("kmeans, given centroids", "torch", 400),
        ("kmeans, given centroids", "scikit-learn", 400),
        ("spherical_kmeans, given centroids", "torch", 400),
    ]
    assert all(figure["cost"]["cpu_ms"] > 0 for figure in figures)
    same_start = [figure["inertia"] for figure in result["figures"] if figure["what"] == figures[6]["what"]]
    assert same_start == pytest.approx([same_start[0]] * len(same_start), rel=1e-3)
    ours, spherical, peer = figures[3:6]
    assert min(ours["nmi"], spherical["nmi"], peer["nmi"]) > 0.8
    assert ours["inertia"] == pytest.approx(peer["inertia"], rel=0.1)
    assert spherical["inertia"] >= 0.95 * ours["inertia"]
    assert json.loads(json.dumps(result)) == result
    search = figures[2]
    assert search["gflops"] == pytest.approx(2 * 500**2 * 16 / 1e6 / search["cost"]["cpu_ms"])
    assert search["bound_ms"] > 0.99 * 2 * 500**2 * 16 / 1e9 / result["ceilings"]["tflops"]  # both rounded
    assert search["ratio"] == pytest.approx(search["bound_ms"] / search["cost"]["cpu_ms"])
    assert {len(row) for row in table_rows(result)} == {len(COLUMNS)}


def test_peers_can_be_left_out():
    result = bench_cluster(
        num_runs=1,
        finch_rows=(),
        neighbor_rows=(),
        kmeans_rows=100,
        num_clusters=4,
        dims=8,
        with_peers=False,
        ceiling_size=64,
    )
    assert {figure["by"] for figure in result["figures"]} == {"torch"}


def test_a_library_that_fails_is_named_and_the_others_are_measured(monkeypatch):
    def broken(unit_ND):
        def run():
            raise RuntimeError("no kernel image is available\nfor this device")

        return run

    monkeypatch.setattr("slicfast.bench.cluster.installed_peers", lambda device: [Peer("broken", broken)])
    result = bench_cluster(
        num_runs=1,
        finch_rows=(),
        neighbor_rows=(100,),
        kmeans_rows=100,
        num_clusters=4,
        dims=8,
        ceiling_size=64,
    )
    ours, theirs = result["figures"][:2]
    assert (ours["by"], ours["cost"]["num_runs"]) == ("torch", 1)
    assert theirs["failed"] == "RuntimeError: no kernel image is available"
    assert result["figures"][-1]["what"] == "spherical_kmeans, given centroids"
    assert theirs["failed"] in table_rows(result)[1]
