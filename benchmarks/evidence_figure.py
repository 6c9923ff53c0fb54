"""The evidence's figure, drawn from its JSON: clusters over training, and R@1 of every condition.

python -m benchmarks.evidence_figure benchmarks/results/cpu-2core-2026-11-25-evidence.json [FILE.png]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Few enough to be told apart; the table has all.
CURVES_OF = {
    "instance": "#7f7f7f",
    "temporal": "#bcbd22",
    "motion": "#1f77b4",
    "finch_start": "#ff7f0e",
    "finch": "#d62728",
    "kmeans": "#9467bd",
    "true_classes": "#2ca02c",
}
CURVES = {
    "pair_purity": "pair purity",
    "purity_across": "of pairs from two scenes",
    "ami": "AMI",
}
POOLED, PROJECTION = "#1f77b4", "#ff7f0e"
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 7, "columnspacing": 1.2, "handlelength": 1.5}
STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "evidence"}


def save_figure(results: dict[str, Any], path: Path) -> None:
    """Write an SVG, PNG or PDF by the path's extension; an SVG of the same results is the same bytes."""
    with rc_context(STYLE):
        figure = _draw(results["regimes"])
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=120)


def _draw(regimes: dict[str, Any]) -> Figure:
    heights = [max(2.6, 0.24 * len(regime["conditions"]) + 1.2) for regime in regimes.values()]
    figure = Figure(figsize=(15, sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(regimes),
        len(CURVES) + 1,
        width_ratios=(1, 1, 1, 1.6),
        height_ratios=heights,
        squeeze=False,
    )
    for row, regime in zip(axes, regimes.values(), strict=True):
        for axis, (key, name) in zip(row, CURVES.items(), strict=False):
            _curves(axis, regime, key)
            axis.set(title=name, xlabel="share of training", xlim=(0, 1))
        row[0].set_ylabel(fill(regime["title"], 32))
        _recalls(row[-1], regime)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=7, **LEGEND)
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside lower center", ncols=5, **LEGEND)
    return figure


def _curves(axis: Any, regime: dict[str, Any], key: str) -> None:
    for name, colour in CURVES_OF.items():
        if name not in regime["conditions"]:
            continue
        condition = regime["conditions"][name]
        points = [
            (at, mean, deviation)
            for at, mean, deviation in zip(
                condition["curve"]["share_of_steps"], *condition["curve"][key].values(), strict=True
            )
            if mean is not None
        ]
        at, mean, deviation = (np.array(part) for part in zip(*points, strict=True))
        axis.plot(at, mean, color=colour, label=condition["title"], linewidth=1.3, marker=".", markersize=4)
        axis.fill_between(at, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))


def _recalls(axis: Any, regime: dict[str, Any]) -> None:
    conditions = list(regime["conditions"].values())
    place = np.arange(len(conditions))[::-1]
    for key, colour, shift in (("pooled", POOLED, 0.15), ("projection", PROJECTION, -0.15)):
        found = [condition[f"test_{key}"] for condition in conditions]
        axis.errorbar(
            [figure["mean"] for figure in found],
            place + shift,
            xerr=[figure["deviation"] for figure in found],
            fmt="o",
            color=colour,
            markersize=4,
            elinewidth=1,
            label=key,
        )
    lines = {"differences": ":", "pixels": "--", "untrained_pooled": "-."}
    names = {"differences": "frame differences", "pixels": "average pixels", "untrained_pooled": "untrained"}
    for name, style in lines.items():
        axis.axvline(
            regime["baselines"][name]["mean"],
            color="#555555",
            linestyle=style,
            linewidth=0.9,
            label=names[name],
        )
    axis.set_yticks(place, [condition["title"] for condition in conditions])
    axis.set(title="R@1", xlim=(0, None))
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def main() -> None:
    source = Path(sys.argv[1])
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".svg")
    save_figure(json.loads(source.read_text(encoding="utf-8"))["results"], target)


if __name__ == "__main__":
    main()
