"""The errors of colour that are published: exact mode's bound, and fast mode told apart from it."""

import json

import pytest

from benchmarks.colour import COLUMNS, MODES, measure, table_rows

pytest.importorskip("nvidia.dali")


def test_exact_colour_is_near_torchvision_and_fast_colour_is_not():
    results = measure(16)
    assert json.loads(json.dumps(results)) == results
    exact, fast = (results["modes"][mode] for mode in MODES)
    assert exact["mean"] <= exact["worst_clip_in_100"] <= 2.0
    assert fast["mean"] > 2 * exact["mean"]
    assert {len(row) for row in table_rows(results)} == {len(COLUMNS)}
