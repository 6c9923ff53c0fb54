"""An evaluation as tables that fit 80 columns."""

from __future__ import annotations

from typing import Any

from slicfast.cli.output import say, table

PROTOCOLS = {"iic": "IIC's protocol", "coclr": "CoCLR's protocol"}
METHODS = {
    "coclr": "linear probe",
    "ridge": "ridge",
    "logistic": "logistic",
}


def print_subject(document: dict[str, Any]) -> None:
    """What is evaluated on what, above the tables."""
    checkpoint = document["checkpoint"]
    averaged = ", averaged weights" if checkpoint.get("weights") == "averaged" else ""
    say(f"{checkpoint['file']}, epoch {checkpoint['epoch']}{averaged}, on {document['store']}:")
    say(
        f"{document['num_query']} videos of {document['query']} look among {document['num_gallery']} of"
        f" {document['gallery']}; {len(document['classes'])} classes"
    )


def print_retrieval(document: dict[str, Any]) -> None:
    """A table a protocol."""
    for protocol, rows in document["retrieval"].items():
        ks = list(rows["chance"]["recall"])
        columns = ("find their class, %", f"R@{ks[0]}", "95 %", *(f"R@{k}" for k in ks[1:]))
        cells = [
            (
                document["row_names"][name],
                percent(row["recall"][ks[0]]),
                interval(row["recall"][ks[0]]),
                *(percent(row["recall"][k]) for k in ks[1:]),
            )
            for name, row in rows.items()
        ]
        table(f"retrieval, {PROTOCOLS[protocol]}", columns, cells)


def print_linear(document: dict[str, Any]) -> None:
    """Every classifier on every kind of features."""
    cells = []
    for method, name in METHODS.items():
        for kind, row in document["linear"].get(method, {}).items():
            label = f"{name}: {document['row_names'][kind]}"
            cells.append((label, percent(row["top1"]), interval(row["top1"]), percent(row["top5"])))
    chance = document["linear"]["chance"]
    cells.append(("chance", percent(chance["top1"]), "", percent(chance["top5"])))
    table("linear classifiers, %", ("", "top-1", "95 %", "top-5"), cells)


def print_knn(document: dict[str, Any]) -> None:
    """Mean and deviation over draws."""
    rows = document["knn"]
    shots = list(next(iter(rows.values())))
    columns = ("labelled, each class", *shots)
    cells = [
        (document["row_names"][kind], *(_mean_and_deviation(row[number]) for number in shots))
        for kind, row in rows.items()
    ]
    table("k-NN with so many labelled videos a class, top-1, %", columns, cells)


def print_finetuning(document: dict[str, Any]) -> None:
    """Top-1 and top-5 beside chance."""
    found = document["finetune"]
    cells = [
        (name, percent(row["top1"]), interval(row["top1"]), percent(row["top5"]))
        for name, row in ((f"fine-tuned, {found['epochs']} epochs", found), ("chance", found["chance"]))
    ]
    table("ten crops of every window, %", ("", "top-1", "95 %", "top-5"), cells)


def print_summary(document: dict[str, Any]) -> None:
    """One table of everything: a row a protocol, a column a kind of features."""
    cells = []
    for protocol, rows in document["retrieval"].items():
        name = "IIC" if protocol == "iic" else "CoCLR"
        figures = {kind: row["recall"]["1"] for kind, row in rows.items()}
        cells.append(_summary_row(f"{name} R@1", figures, "pooled"))
        cells.append(_summary_row(f"{name} R@1, proj.", figures, "projection"))
    chance = {"chance": document["linear"]["chance"]["top1"]}
    for method, name in METHODS.items():
        figures = {kind: row["top1"] for kind, row in document["linear"].get(method, {}).items()}
        if figures:
            cells.append(_summary_row(name, figures | chance, "pooled"))
    for number in next(iter(document["knn"].values())):
        means = {kind: {"value": row[number]["mean"]} for kind, row in document["knn"].items()}
        name = "k-NN, all" if number == "all" else f"k-NN, {number} a class"
        cells.append(_summary_row(name, means | chance, "pooled"))
    if "finetune" in document:
        figures = {"trained_pooled": document["finetune"]["top1"]}
        cells.append(_summary_row("fine-tuned", figures | chance, "pooled"))
    columns = ("top-1, %", "trained", "95 %", "not", "pixels", "diff.", "chance")
    table("pooled features but for proj.; not: not trained; diff.: frame differences", columns, cells)


def print_per_class(document: dict[str, Any]) -> None:
    """A row a class: how many videos, and the share of them that the trained encoder gets right."""
    found: dict[str, list[float | None]] = {}
    for protocol, rows in document.get("retrieval", {}).items():
        found["IIC" if protocol == "iic" else "CoCLR"] = rows["trained_pooled"]["per_class"]
    for method, name in METHODS.items():
        if method in document.get("linear", {}):
            found[name.split()[-1]] = document["linear"][method]["trained_pooled"]["per_class"]
    if "finetune" in document:
        found["tuned"] = document["finetune"]["per_class"]
    support = document["videos_per_class"]["query"]
    cells = [
        (name, str(support[place]), *(_share(shares[place]) for shares in found.values()))
        for place, name in enumerate(document["classes"])
    ]
    table("trained, pooled features: R@1 and top-1 by class, %", ("class", "videos", *found), cells)


def percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:.1f}"


def interval(figure: dict[str, float]) -> str:
    if "low" not in figure or figure["low"] == figure["high"] == figure["value"]:
        return ""
    return f"{100 * figure['low']:.1f}-{100 * figure['high']:.1f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _mean_and_deviation(draws: dict[str, Any]) -> str:
    spread = f"±{100 * draws['deviation']:.1f}" if len(draws["values"]) > 1 else ""
    return f"{100 * draws['mean']:.1f}{spread}"


def _summary_row(name: str, figures: dict[str, dict[str, float]], features: str) -> tuple[str, ...]:
    trained = figures.get(f"trained_{features}")
    kinds = (f"untrained_{features}", "pixels", "differences", "chance")
    return (
        name,
        percent(trained) if trained else "",
        interval(trained) if trained else "",
        *(percent(figures[kind]) if kind in figures else "" for kind in kinds),
    )
