"""How large each backbone is and what a clip costs in it, counted on shapes: nothing is computed or timed.

python -m benchmarks.backbones benchmarks/results/cpu-2core-2026-11-25-backbones.json     (about 20 s)

Operations are those of one forward pass, two for each multiplication with its addition; published counts of
"FLOPs" often have one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slicfast.bench.ceilings import count_flops
from slicfast.bench.harness import write_result
from slicfast.models import backbone_names, create_backbone
from slicfast.models.registry import INFLATED

COLUMNS = ("model.name", "M parameters", "features", "GFLOPs a clip")
CLIP = (3, 16, 112, 112)  # channels, frames, rows, columns
# Image networks that stand for all others of timm's.
INFLATED_EXAMPLES = tuple(
    f"{INFLATED}{name}" for name in ("resnet18", "resnet50", "efficientnet_b0", "convnext_tiny")
)


def names() -> list[str]:
    """All of the registry, and examples of what can be inflated."""
    return [name for name in backbone_names() if name != "slic_inflated"] + list(INFLATED_EXAMPLES)


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count(name: str, **options: Any) -> dict[str, Any]:
    """Size and cost of a backbone without a classifier."""
    with torch.device("meta"):
        network = create_backbone(name, **options).eval()
        clip = torch.zeros(1, *CLIP)
    return {
        "name": name,
        "parameters": num_parameters(network),
        "features": network.num_features,
        "flops": count_flops(lambda: network(clip)),
    }


def table_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The results as rows under COLUMNS."""
    return [
        (
            f"`{row['name']}`",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['features']}",
            f"{row['flops'] / 1e9:.1f}",
        )
        for row in results["backbones"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    results = {"clip": CLIP, "backbones": [count(name) for name in names()]}
    write_result(options.output, "backbones", results)
    for row in (COLUMNS, *table_rows(results)):
        print("   ".join(row))


if __name__ == "__main__":
    main()
