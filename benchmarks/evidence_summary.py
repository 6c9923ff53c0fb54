"""The evidence of all finished runs: mean and deviation over seeds, paired gains, curves, and a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.evidence_conditions import CONDITIONS, DATA, Regime
from slicfast.evaluation.run import ROW_NAMES

Runs = dict[tuple[str, str, int], dict[str, Any]]  # (regime, condition, seed) -> result.json

BASELINES = ("untrained_pooled", "untrained_projection", "pixels", "differences", "chance")
CURVES = ("pair_purity", "mate_purity", "share_across", "purity_across", "ami", "spread")
CURVES = (*CURVES, "num_clusters", "val_pooled_r1", "val_projection_r1")

COLUMNS = (
    "R@1, test videos among those of training",
    "pooled",
    "projection",
    "pooled, gain",
    "projection, gain",
    "over",
    "linear probe",
    "its pairs: right, of two scenes, of those right",
    "pair purity of FINCH",
    "AMI",
)


def _used(run: dict[str, Any], key: str) -> float | None:
    """Of the pairs of the labels that a run trained with at its end; None where every video was alone."""
    return run["curve"][-1].get("used", {}).get(key)


FIGURES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "test_pooled": lambda run: run["test"]["trained_pooled"]["1"],
    "test_projection": lambda run: run["test"]["trained_projection"]["1"],
    "val_pooled": lambda run: run["curve"][-1]["val_pooled_r1"],
    "val_projection": lambda run: run["curve"][-1]["val_projection_r1"],
    "linear": lambda run: run["linear"]["trained_pooled"],
    "pair_purity_begin": lambda run: run["curve"][0]["pair_purity"],
    "pair_purity_end": lambda run: run["curve"][-1]["pair_purity"],
    "ami_begin": lambda run: run["curve"][0]["ami"],
    "ami_end": lambda run: run["curve"][-1]["ami"],
    "used_right": lambda run: _used(run, "pair_purity"),
    "used_across": lambda run: _used(run, "share_across"),
    "used_right_across": lambda run: _used(run, "purity_across"),
    "cpu_minutes": lambda run: run["cpu_seconds"] / 60,
}


def summarise(regimes: Sequence[Regime], seeds: Sequence[int], runs: Runs) -> dict[str, Any]:
    """Plain values for the JSON; every run of these regimes and seeds must be there."""
    return {
        "seeds": list(seeds),
        "cpu_minutes": round(sum(run["cpu_seconds"] for run in runs.values()) / 60, 1),
        "regimes": {regime.name: _regime(regime, seeds, runs) for regime in regimes},
    }


def _regime(regime: Regime, seeds: Sequence[int], runs: Runs) -> dict[str, Any]:
    def of(condition: str) -> list[dict[str, Any]]:
        return [runs[regime.name, condition, seed] for seed in seeds]

    conditions = {}
    for name in regime.conditions:
        condition, own = CONDITIONS[name], of(name)
        found: dict[str, Any] = {
            "title": condition.title,
            "clips_trained": own[0]["clips_trained"],
            "branched_from": condition.branched_from,
            **{key: over_seeds([figure(run) for run in own]) for key, figure in FIGURES.items()},
            "curve": _curve(own),
        }
        if condition.against in regime.conditions:
            found["against"] = condition.against
            for key in ("test_pooled", "test_projection", "val_pooled", "val_projection"):
                pairs = zip(own, of(condition.against), strict=True)
                gains = [(FIGURES[key](run) or 0.0) - (FIGURES[key](other) or 0.0) for run, other in pairs]
                found[f"gain_{key}"] = over_seeds(gains)
        conditions[name] = found
    first = of(regime.conditions[0])
    return {
        "title": regime.title,
        "data": DATA[regime.data],
        "overrides": regime.overrides,
        "num_videos": {
            "train": first[0]["num_train"],
            "val": first[0]["curve"][0]["num_val"],
            "test": first[0]["num_test"],
        },
        "baselines": {name: over_seeds([run["test"][name]["1"] for run in first]) for name in BASELINES},
        "baselines_linear": {
            name: over_seeds([run["linear"][name] for run in first])
            for name in ("untrained_pooled", "pixels", "differences")
        },
        "conditions": conditions,
    }


def over_seeds(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, sample deviation and the values themselves; None where a seed has none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return {"mean": statistics.mean(known), "deviation": deviation, "values": known}


def _curve(own: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over the looks of a run: its steps as a share of all, and each figure's mean and deviation."""
    looks = list(zip(*(run["curve"] for run in own), strict=True))
    steps = [at[0]["steps"] / own[0]["steps"] for at in looks]
    figures = {key: [over_seeds([one[key] for one in at]) for at in looks] for key in CURVES}
    return {"share_of_steps": steps} | {
        key: {
            "mean": [None if at is None else at["mean"] for at in values],
            "deviation": [None if at is None else at["deviation"] for at in values],
        }
        for key, values in figures.items()
    }


def table_rows(results: dict[str, Any]) -> list[list[str]]:
    """Rows under COLUMNS: for each regime its title, the baselines and the conditions."""
    rows = []
    for regime in results["regimes"].values():
        counts = regime["num_videos"]
        title = f"**{regime['title']}** ({counts['test']} among {counts['train']})"
        rows.append([title, *[""] * (len(COLUMNS) - 1)])
        rows += _baseline_rows(regime)
        for condition in regime["conditions"].values():
            over = condition.get("against")
            rows.append(
                [
                    condition["title"],
                    _shown(condition["test_pooled"]),
                    _shown(condition["test_projection"]),
                    _shown(condition.get("gain_test_pooled"), sign=True),
                    _shown(condition.get("gain_test_projection"), sign=True),
                    regime["conditions"][over]["title"] if over else "",
                    _shown(condition["linear"]),
                    _pairs(condition),
                    *(_from_to(condition["curve"][key]["mean"]) for key in ("pair_purity", "ami")),
                ]
            )
    return rows


def _baseline_rows(regime: dict[str, Any]) -> list[list[str]]:
    found, linear = regime["baselines"], regime["baselines_linear"]

    def row(title: str, name: str, projection: str = "") -> list[str]:
        return [title, _shown(found[name]), projection, "", "", "", _shown(linear.get(name)), "", "", ""]

    return [
        row("untrained", "untrained_pooled", _shown(found["untrained_projection"])),
        *(row(ROW_NAMES[name], name) for name in ("pixels", "differences")),
        row("chance", "chance"),
    ]


def _shown(figure: dict[str, Any] | None, *, sign: bool = False) -> str:
    if figure is None:
        return ""
    mean = f"{100 * figure['mean']:+.1f}" if sign else f"{100 * figure['mean']:.1f}"
    return f"{mean} ± {100 * figure['deviation']:.1f}"


def _pairs(condition: dict[str, Any]) -> str:
    figures = [condition[f"used_{name}"] for name in ("right", "across", "right_across")]
    if not any(figures):
        return ""
    return ", ".join("-" if figure is None else f"{100 * figure['mean']:.0f}" for figure in figures)


def _from_to(curve: Sequence[float | None]) -> str:
    """At the start, or where it branched off, and at the end."""
    return " → ".join("-" if value is None else f"{100 * value:.0f}" for value in (curve[0], curve[-1]))
