"""metrics.jsonl as curves: what belongs on one panel, over epochs, without what a resumed run wrote twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]

MAX_POINTS = 300  # a curve; more are averaged in bins of equal width


@dataclass(frozen=True)
class Series:
    """One curve: ``y`` over ``x``, with the range ``low`` to ``high`` of each point where it is a mean."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def is_averaged(self) -> bool:
        return self.low != self.y


@dataclass(frozen=True)
class Panel:
    """Curves that share axes. ``unit`` is "" or "%" (values are then shares in 0 .. 1) or a unit's name."""

    key: str
    title: str
    series: tuple[Series, ...]
    x_label: str
    unit: str = ""

    @property
    def wants_log(self) -> bool:
        """Whether a logarithmic axis says more: all values positive, over a range of more than 20."""
        values = [value for series in self.series for value in series.y]
        return self.unit != "%" and min(values) > 0 and max(values) > 20 * min(values)


# Panels: kind, key, fields with their names, title, unit. Losses, and fields not named here, find their own.
_KNOWN: tuple[tuple[str, str, dict[str, str], str, str], ...] = (
    ("retrieval", "retrieval", {}, "Retrieval during training", "%"),
    (
        "cluster",
        "agreement",
        {
            "nmi": "NMI",
            "ami": "AMI",
            "pair_purity": "pair purity",
            "positive_pair_purity": "pair purity of positives",
        },
        "Clusters against classes",
        "",
    ),
    (
        "cluster",
        "num_clusters",
        {"num_clusters": "clusters", "positive_num_clusters": "for positives", "num_noise": "noise points"},
        "Number of clusters",
        "clusters",
    ),
    (
        "cluster",
        "churn",
        {
            "churn": "churn",
            "share_singletons": "singletons",
            "positive_share_singletons": "singletons for positives",
        },
        "Videos that moved, clusters of one",
        "%",
    ),
    (
        "cluster",
        "rounds",
        {"nmi_previous": "NMI with the round before", "same_video_prob": "positives of the same video"},
        "From round to round",
        "",
    ),
    ("cluster", "spread", {"spread": "spread"}, "Spread of the embeddings", ""),
    ("train", "shares", {"share_nearest": "nearest is right", "share_violating": "violating"}, "Pairs", "%"),
    ("train", "clips_per_second", {"clips_per_second": "clips/s"}, "Clips a second", "clips/s"),
    ("train", "wait_share", {"wait_share": "waiting"}, "Time spent waiting for data", "%"),
    ("train", "memory", {"memory_mb": "in use", "peak_memory_mb": "peak"}, "Memory", "MiB"),
    ("train", "lr", {"lr": "learning rate"}, "Learning rate", ""),
)
# Numbers in metrics.jsonl that are no curve of a run's progress.
_NO_CURVE = {
    "train": {"num_replaced"},
    "cluster": {"embed_seconds", "cluster_seconds", "size_max", "size_median", "size_mean", "num_refilled"},
    "retrieval": set[str](),
}


def unbroken(entries: Iterable[Entry]) -> list[Entry]:
    """The lines of a run as if it had never stopped: what was written again after a resume replaces what was.

    A line replaces every earlier one of its kind from its step on.
    """
    kept: dict[str, list[Entry]] = {}
    for entry in entries:
        lines = kept.setdefault(str(entry.get("kind")), [])
        while lines and lines[-1]["step"] >= entry["step"]:
            lines.pop()
        lines.append(entry)
    return [entry for lines in kept.values() for entry in lines]


def panels(entries: Iterable[Entry]) -> list[Panel]:
    """Every panel that has something to show; losses first."""
    lines = unbroken(entries)
    per_epoch = steps_per_epoch(lines)
    by_kind: dict[str, list[Entry]] = {}
    for entry in lines:
        by_kind.setdefault(str(entry.get("kind")), []).append(entry)
    x_label = "step" if per_epoch is None else "epoch"

    def made(kind: str, key: str, names: dict[str, str], title: str, unit: str) -> Panel | None:
        series = [_series(by_kind.get(kind, []), field, name, per_epoch) for field, name in names.items()]
        shown = tuple(one for one in series if one is not None)
        return Panel(key, title, shown, x_label, unit) if shown else None

    train = by_kind.get("train", [])
    found = [made("train", "loss", _losses(train), "Loss", "")]
    taken = {"train": {"loss", *_terms(train)}}
    for kind, key, names, title, unit in _KNOWN:
        names = names or _recalls(by_kind.get(kind, []))
        taken.setdefault(kind, set()).update(names)
        found.append(made(kind, key, names, title, unit))
    for kind, lines in by_kind.items():
        left = _numbers(lines) - taken.get(kind, set()) - _NO_CURVE.get(kind, set())
        found += [
            made(kind, f"{kind}-{field}", {field: _spelt(field)}, f"{kind.capitalize()}: {_spelt(field)}", "")
            for field in sorted(left)
        ]
    return [panel for panel in found if panel is not None]


def steps_per_epoch(entries: Sequence[Entry]) -> float | None:
    """Steps of an epoch, as lines written between two epochs tell; None where there are none yet."""
    for entry in reversed(entries):
        if entry.get("kind") in ("cluster", "retrieval") and entry.get("epoch") and entry["step"]:
            return float(entry["step"] / entry["epoch"])
    return None


def _losses(lines: Sequence[Entry]) -> dict[str, str]:
    """The sum first, then its terms: everything that is no rate, share or setting."""
    terms = _terms(lines)
    total = {"loss": "loss"} if any("loss" in line for line in lines) else {}
    if len(terms) == 1 and total and all(line.get(terms[0]) == line.get("loss") for line in lines):
        return {"loss": f"loss ({_spelt(terms[0])})"}
    return total | {term: _spelt(term) for term in terms}


def _terms(lines: Sequence[Entry]) -> list[str]:
    known = {field for kind, _, names, _, _ in _KNOWN if kind == "train" for field in names}
    return sorted(
        field
        for field in _numbers(lines) - known - _NO_CURVE["train"] - {"loss"}
        if not field.endswith(("_share", "_seconds", "_mb", "_per_second")) and "share_" not in field
    )


def _recalls(lines: Sequence[Entry]) -> dict[str, str]:
    """``pooled_r1`` -> "R@1 pooled" and so on."""
    found = {}
    for field in sorted(_numbers(lines)):
        name, _, k = field.rpartition("_r")
        if name and k.isdigit():
            found[field] = f"R@{k} {_spelt(name)}"
    return dict(sorted(found.items(), key=lambda item: (int(item[0].rpartition("_r")[2]), item[0])))


def _numbers(lines: Sequence[Entry]) -> set[str]:
    fields = {field for line in lines for field, value in line.items() if _is_number(value)}
    return fields - {"step", "time", "epoch"}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spelt(field: str) -> str:
    return field.replace("_", " ")


def _series(lines: Sequence[Entry], field: str, name: str, per_epoch: float | None) -> Series | None:
    points = [
        (line["step"] / (per_epoch or 1.0), float(line[field]))
        for line in lines
        if _is_number(line.get(field))
    ]
    if not points:
        return None
    size = -(-len(points) // MAX_POINTS)
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    values = [[y for _, y in part] for part in bins]
    return Series(
        name,
        x=tuple(math.fsum(x for x, _ in part) / len(part) for part in bins),
        y=tuple(math.fsum(part) / len(part) for part in values),
        low=tuple(min(part) for part in values),
        high=tuple(max(part) for part in values),
    )
