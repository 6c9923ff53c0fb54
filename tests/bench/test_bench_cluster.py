"""The clustering benchmark: what it measures and how it is shown."""

import json

import pytest

from slicfast.bench.cluster import COLUMNS, bench_cluster, table_rows


def test_every_method_is_measured_and_shown():
    result = bench_cluster(
        num_runs=1, finch_rows=(300,), neighbor_rows=(200, 500), kmeans_rows=400, num_clusters=10, dims=16
    )
    assert [(figure["what"], figure["num_rows"]) for figure in result["figures"]] == [
        ("FINCH, all levels", 300),
        ("exact first neighbours", 200),
        ("exact first neighbours", 500),
        ("kmeans", 400),
        ("spherical_kmeans", 400),
        ("scikit-learn KMeans", 400),
    ]
    assert all(figure["cost"]["cpu_ms"] > 0 for figure in result["figures"])
    ours, spherical, peer = result["figures"][-3:]
    assert min(ours["nmi"], spherical["nmi"], peer["nmi"]) > 0.8
    assert ours["inertia"] == pytest.approx(peer["inertia"], rel=0.1)
    assert spherical["inertia"] >= 0.95 * ours["inertia"]
    assert json.loads(json.dumps(result)) == result
    assert {len(row) for row in table_rows(result)} == {len(COLUMNS)}


def test_peers_can_be_left_out():
    result = bench_cluster(
        num_runs=1, finch_rows=(), neighbor_rows=(), kmeans_rows=100, num_clusters=4, dims=8, with_peers=False
    )
    assert [figure["what"] for figure in result["figures"]] == ["kmeans", "spherical_kmeans"]
