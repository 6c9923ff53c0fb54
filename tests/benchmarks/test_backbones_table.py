"""The table of backbones says what the registry has, and counts operations as torchvision does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.video import R2Plus1D_18_Weights, R3D_18_Weights

from benchmarks import backbones
from benchmarks.tables import newest
from slicfast.models import create_backbone


def test_the_published_table_is_that_of_the_registry():
    results = json.loads(newest("backbones").read_text())["results"]
    rows = {row["name"]: row for row in results["backbones"]}
    assert list(rows) == backbones.names()
    for name, row in rows.items():
        with torch.device("meta"):
            network = create_backbone(name)
        assert row["parameters"] == backbones.num_parameters(network), name
        assert row["features"] == network.num_features
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text()
    assert all(
        "| ".join(("", *row)).lstrip() in page.replace(" |", "|") for row in backbones.table_rows(results)
    )


@pytest.mark.parametrize(
    ("name", "options", "weights"),
    [
        ("slic_r3d_18", {"conv1_temporal_size": 3}, R3D_18_Weights.DEFAULT),
        ("slic_r2plus1d_18", {}, R2Plus1D_18_Weights.DEFAULT),
    ],
)
def test_operations_are_torchvisions_counted_twice(name, options, weights):
    """torchvision counts a multiplication with its addition once, and its classifier of 400 classes."""
    flops = backbones.count(name, **options)["flops"]
    assert flops / 2e9 + 400 * 512 / 1e9 == pytest.approx(weights.meta["_ops"], abs=5e-4)
